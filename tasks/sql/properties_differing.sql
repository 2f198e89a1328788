SELECT p.id, said.key
FROM staged_properties AS s JOIN properties AS p ON p.id = s.id AND ROW({said}) IS DISTINCT FROM ROW({kept})
CROSS JOIN LATERAL jsonb_each(to_jsonb(s) - 'content_hash') AS said
JOIN LATERAL jsonb_each(to_jsonb(p)) AS kept ON kept.key = said.key AND kept.value <> said.value
WHERE s.known
