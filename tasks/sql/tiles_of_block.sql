-- The stored tiles of a block: a walk of the primary key for each of its rows. Also where a refresh failed or waits:
-- what an earlier run stored is still there.
SELECT tiles.z, tiles.x, tiles.y, tiles.kind, tiles.blank, tiles.sha256
FROM generate_series(%(y_first)s::int, %(y_last)s::int) AS line (y)
CROSS JOIN LATERAL (
    SELECT * FROM tiles
    WHERE id BETWEEN tile_id(%(number)s, %(z)s, %(x_first)s, line.y) AND tile_id(%(number)s, %(z)s, %(x_last)s, line.y)
      AND sha256 IS NOT NULL
) AS tiles
