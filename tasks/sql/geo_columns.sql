-- Columns of a table, in order; a domain counts as what it is made of.
SELECT a.attname, t.typname, t.oid, CASE WHEN d.typtype = 'd' THEN d.typtypmod ELSE a.atttypmod END, a.attnotnull OR d.typnotnull,
    a.atthasdef OR a.attidentity <> '', a.attgenerated <> '' OR a.attidentity = 'a'
FROM pg_catalog.pg_attribute AS a
JOIN pg_catalog.pg_type AS d ON d.oid = a.atttypid
JOIN pg_catalog.pg_type AS t ON t.oid = CASE WHEN d.typtype = 'd' THEN d.typbasetype ELSE d.oid END
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
