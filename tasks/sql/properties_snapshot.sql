-- The rows of one table that a register's loaded properties are, have or refer to, in the order of their key. COPY
-- sends them one at a time; an empty field is NULL, an empty text is "".
COPY (
    SELECT {columns} FROM {table} AS t
    WHERE {column} IN (SELECT {named_by} FROM properties AS p WHERE p.source = {source} AND p.content_hash IS NOT NULL)
    ORDER BY {key}
) TO STDOUT (FORMAT csv, ENCODING 'UTF8')
