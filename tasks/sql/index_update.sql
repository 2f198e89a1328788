-- Rows whose index columns differ from the file. They are locked in order of id, like every writer of several rows.
WITH changed AS MATERIALIZED (
    SELECT d.id, m.line
    FROM index_matched AS m JOIN index_staging AS s ON s.line = m.line JOIN index_documents AS d ON d.id = m.id
    WHERE ROW({current}) IS DISTINCT FROM ROW({values})
    ORDER BY d.id FOR UPDATE OF d
)
UPDATE index_documents AS d
SET ({targets}) = ROW({values}), source_file = {source_file}, import_date = now()
FROM changed JOIN index_staging AS s ON s.line = changed.line
WHERE d.id = changed.id
