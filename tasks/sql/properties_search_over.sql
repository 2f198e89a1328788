-- The search, locked, when all its queries are over and nobody has ended it.
SELECT source, municipality, address_type FROM property_searches AS s
WHERE search_id = %(search_id)s AND ended_at IS NULL
  AND NOT EXISTS (SELECT FROM property_queries AS q
                  WHERE q.search_id = s.search_id AND q.status IN ('pending', 'in_progress'))
FOR UPDATE
