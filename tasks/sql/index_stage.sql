SET LOCAL work_mem = '64MB';  -- joins of a million keys stay in memory
-- The file's columns as the table types them, plus the line each row starts on.
CREATE TEMP TABLE index_staging ON COMMIT DROP AS
SELECT 0::bigint AS line, {columns} FROM index_documents WITH NO DATA
