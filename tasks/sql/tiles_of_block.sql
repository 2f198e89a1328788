-- The stored tiles of a block: a walk of the primary key for each of its rows.
SELECT tiles.z, tiles.x, tiles.y, tiles.kind, tiles.blank, tiles.sha256
FROM generate_series(%(y_first)s::int, %(y_last)s::int) AS line (y)
CROSS JOIN LATERAL (
    SELECT * FROM tiles
    WHERE id BETWEEN tile_id(%(number)s, %(z)s, %(x_first)s, line.y) AND tile_id(%(number)s, %(z)s, %(x_last)s, line.y)
      AND status = 'completed'
) AS tiles
