-- How many of the tiles of these runs there are already: a walk of the primary key for each run.
SELECT coalesce(sum(found.tiles), 0)::bigint
FROM unnest(%(z)s::int[], %(y)s::int[], %(x_first)s::int[], %(x_last)s::int[]) AS run (z, y, x_first, x_last)
CROSS JOIN LATERAL (
    SELECT count(*) AS tiles FROM tiles
    WHERE id BETWEEN tile_id(%(number)s, run.z, run.x_first, run.y) AND tile_id(%(number)s, run.z, run.x_last, run.y)
) AS found
