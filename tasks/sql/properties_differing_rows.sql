SELECT coalesce(kept.property_id, said.property_id),
    CASE WHEN kept.property_id IS NULL THEN {name} || ' added' WHEN said.property_id IS NULL THEN {name} || ' removed'
         ELSE {name} || '.' || field.key END
FROM (
    SELECT t.* FROM staged_properties AS p
    CROSS JOIN LATERAL (SELECT * FROM {table} AS k WHERE k.property_id = p.id OFFSET 0) AS t WHERE p.known
) AS kept
FULL JOIN (SELECT t.* FROM staged_properties AS p JOIN {staged} AS t ON t.property_id = p.id WHERE p.known) AS said
    ON {same}
LEFT JOIN LATERAL (
    SELECT a.key FROM jsonb_each(to_jsonb(kept)) AS a JOIN jsonb_each(to_jsonb(said)) AS b
        ON b.key = a.key AND b.value <> a.value
    WHERE ROW({kept}) IS DISTINCT FROM ROW({said})
) AS field ON kept.property_id IS NOT NULL AND said.property_id IS NOT NULL
WHERE kept.property_id IS NULL OR said.property_id IS NULL OR field.key IS NOT NULL
