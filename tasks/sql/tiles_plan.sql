-- Rows for runs of tiles (a row of the map from x_first to x_last), made from their ends alone.
INSERT INTO tiles (id, layer, z, x, y)
SELECT tile_id(%(number)s, run.z, x, run.y), %(layer)s, run.z, x, run.y
FROM unnest(%(z)s::int[], %(y)s::int[], %(x_first)s::int[], %(x_last)s::int[]) AS run (z, y, x_first, x_last)
CROSS JOIN LATERAL generate_series(run.x_first, run.x_last) AS x
