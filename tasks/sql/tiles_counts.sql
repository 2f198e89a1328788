-- The tiles a run took, counted. `note`: remarks on those that are done (blank, unchanged) or rightly not there.
WITH mine AS (
    SELECT status, reason, count(*) AS tiles FROM tiles
    WHERE run_id = %(run_id)s AND id >= tile_id(%(layer_number)s, 0, 0, 0) AND id < tile_id(%(layer_number)s + 1, 0, 0, 0)
    GROUP BY 1, 2
)
SELECT 'item', status::text, reason, tiles FROM mine
UNION ALL SELECT 'status', status::text, NULL, sum(tiles)::bigint FROM mine GROUP BY 2
UNION ALL SELECT 'note', 'completed', reason, sum(tiles)::bigint FROM mine
    WHERE status IN ('completed', 'skipped') AND reason IS NOT NULL GROUP BY 3
