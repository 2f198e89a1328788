-- The queries of a search, itself first, each with the filters it was divided by, and what the parts have together: by
-- the filter whose parts have most.
SELECT q.id, q.filters, q.status::text, q.reason, q.error, q.total, q.found, q.seen, parts.divided_by, parts.of_parts
FROM property_queries AS q
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(by_filter.name), '{}') AS divided_by, max(by_filter.total)::bigint AS of_parts
    FROM (
        SELECT f.key AS name, sum(part.total) AS total
        FROM property_queries AS part CROSS JOIN LATERAL jsonb_each(part.filters) AS f
        WHERE part.search_id = q.search_id AND part.parent_id = q.id
          AND (q.filters -> f.key) IS DISTINCT FROM f.value
        GROUP BY f.key
    ) AS by_filter
) AS parts
WHERE q.search_id = %(search_id)s ORDER BY q.id
