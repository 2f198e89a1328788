-- Searches of these municipalities and types that nobody has ended.
SELECT search_id FROM property_searches
WHERE ended_at IS NULL AND source = %(source)s
  AND municipality = ANY(%(municipalities)s) AND address_type = ANY(%(address_types)s)
ORDER BY municipality, address_type
