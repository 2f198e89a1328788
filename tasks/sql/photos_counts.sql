-- The photos a run took, counted; `note`: what is to be said of those that were read.
WITH mine AS (
    SELECT status, reason, count(*) AS photos FROM site_images
    WHERE run_id = %(run_id)s AND host = %(host)s GROUP BY 1, 2
)
SELECT 'item', status::text, reason, photos FROM mine
UNION ALL SELECT 'status', status::text, NULL, sum(photos)::bigint FROM mine GROUP BY 2
UNION ALL SELECT 'note', 'completed', reason, sum(photos)::bigint FROM mine
    WHERE status IN ('completed', 'skipped') AND reason IS NOT NULL GROUP BY 3
