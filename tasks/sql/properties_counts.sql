-- The properties a run took, counted; `note`: what is to be said of those that are done. `search`: the run's queries.
WITH mine AS (
    SELECT status, reason, count(*) AS properties FROM properties
    WHERE run_id = %(run_id)s AND source = %(source)s GROUP BY 1, 2
)
SELECT 'item', status::text, reason, properties FROM mine
UNION ALL SELECT 'status', status::text, NULL, sum(properties)::bigint FROM mine GROUP BY 2
UNION ALL SELECT 'search', status::text, NULL, count(*) FROM property_queries WHERE run_id = %(run_id)s GROUP BY 2
UNION ALL SELECT 'note', 'completed', reason, sum(properties)::bigint FROM mine
    WHERE status IN ('completed', 'skipped') AND reason IS NOT NULL GROUP BY 3
