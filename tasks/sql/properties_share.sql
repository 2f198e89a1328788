-- Rows that many properties refer to. What is the same is not even locked: other batches have it too. In order of
-- their keys, so that two batches never wait for each other.
INSERT INTO {table} AS t ({columns})
SELECT {columns} FROM {staged} AS s
WHERE NOT EXISTS (SELECT FROM {table} AS t WHERE {same} AND ROW({current}) IS NOT DISTINCT FROM ROW({given}))
ORDER BY {key}
ON CONFLICT ({key}) DO UPDATE SET ({plain}) = ROW({excluded})
