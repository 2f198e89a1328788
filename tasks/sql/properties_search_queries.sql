-- The queries of a search, itself first, each with what its parts have together.
SELECT q.filters, q.status::text, q.reason, q.error, q.total, q.found,
    (SELECT sum(part.total)::bigint FROM property_queries AS part WHERE part.parent_id = q.id) AS of_parts
FROM property_queries AS q WHERE q.search_id = %(search_id)s ORDER BY q.id
