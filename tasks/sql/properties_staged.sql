-- Whether this session has its staging tables, and the moment that counts as the time of the fetch.
-- The large tables are found into by index only, also while they have no statistics.
SET LOCAL enable_seqscan = off;
SELECT to_regclass('pg_temp.staged_properties') IS NOT NULL, now()
