-- New searches of these municipalities and types, but for those that are under way. Notes of those that are over, or
-- were given up, go.
UPDATE property_searches SET ended_at = now()
WHERE ended_at IS NULL AND begun_at < now() - %(resumed_within_s)s * interval '1 second' AND source = %(source)s
  AND municipality = ANY(%(municipalities)s) AND address_type = ANY(%(address_types)s);
DELETE FROM property_sightings WHERE search_id IN (
    SELECT search_id FROM property_searches WHERE ended_at IS NOT NULL AND source = %(source)s
      AND municipality = ANY(%(municipalities)s) AND address_type = ANY(%(address_types)s)
);
DELETE FROM property_searches WHERE ended_at IS NOT NULL AND source = %(source)s
  AND municipality = ANY(%(municipalities)s) AND address_type = ANY(%(address_types)s);
INSERT INTO property_searches (search_id, source, municipality, address_type)
SELECT gen_random_uuid()::text, %(source)s, town, kind
FROM unnest(%(municipalities)s) AS town CROSS JOIN unnest(%(address_types)s) AS kind
ON CONFLICT DO NOTHING;
INSERT INTO property_queries (search_id, filters)
SELECT search_id, jsonb_build_object('municipality', municipality, 'address_type', address_type)
FROM property_searches WHERE ended_at IS NULL AND source = %(source)s
  AND municipality = ANY(%(municipalities)s) AND address_type = ANY(%(address_types)s)
ON CONFLICT DO NOTHING
