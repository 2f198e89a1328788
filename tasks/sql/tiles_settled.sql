-- Of the tiles of these runs: how many a run would not take any more (with refresh: those that failed), how many came,
-- and their bytes.
SELECT coalesce(sum(found.settled), 0)::bigint, coalesce(sum(found.came), 0)::bigint,
    coalesce(sum(found.size_bytes), 0)::bigint
FROM unnest(%(z)s::int[], %(y)s::int[], %(x_first)s::int[], %(x_last)s::int[]) AS run (z, y, x_first, x_last)
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE status = 'failed' OR status IN ('completed', 'skipped') AND NOT %(refresh)s) AS settled,
        count(size_bytes) AS came, sum(size_bytes) AS size_bytes
    FROM tiles
    WHERE id BETWEEN tile_id(%(number)s, run.z, run.x_first, run.y) AND tile_id(%(number)s, run.z, run.x_last, run.y)
) AS found
