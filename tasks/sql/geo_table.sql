-- A table, the way the search path finds it.
SELECT c.oid, n.nspname, c.relname, c.relkind::text, c.relhassubclass, pg_catalog.pg_relation_size(c.oid) / current_setting('block_size')::int
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid = pg_catalog.to_regclass(%s)
