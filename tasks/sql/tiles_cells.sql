-- Tiles of a block by cell of %(side)s x %(side)s tiles and state: all that the coverage picture needs.
SELECT %(z)s, (tiles.x - %(x_first)s) / %(side)s, (tiles.y - %(y_first)s) / %(side)s,
    CASE WHEN status = 'completed' AND blank THEN 'blank' WHEN status = 'completed' THEN 'done'
         WHEN status = 'skipped' THEN 'missing' WHEN status = 'failed' THEN 'failed' ELSE 'pending' END,
    count(*)
FROM tiles
WHERE id BETWEEN tile_id(%(number)s, %(z)s, %(x_first)s, %(y_first)s) AND tile_id(%(number)s, %(z)s, %(x_last)s, %(y_last)s)
  AND x BETWEEN %(x_first)s AND %(x_last)s
GROUP BY 2, 3, 4
