-- Rows that the register does not name any more. OFFSET keeps Postgres from reading the whole table in order, which
-- it would as long as it does not know how few rows a property has, and from comparing property by property.
DELETE FROM {table} AS t USING (
    SELECT kept.place FROM (
        SELECT there.* FROM staged_properties AS p
        CROSS JOIN LATERAL (SELECT k.ctid AS place, {key} FROM {table} AS k WHERE k.property_id = p.id OFFSET 0) AS there
        WHERE p.known OFFSET 0
    ) AS kept
    WHERE NOT EXISTS (SELECT FROM {staged} AS s WHERE {same})
) AS gone
WHERE t.ctid = gone.place
