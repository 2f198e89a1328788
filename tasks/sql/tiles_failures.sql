SELECT layer || '/' || z || '/' || x || '/' || y, reason, error, attempts
FROM tiles
WHERE run_id = %(run_id)s AND status = 'failed'
  AND id >= tile_id(%(layer_number)s, 0, 0, 0) AND id < tile_id(%(layer_number)s + 1, 0, 0, 0)
ORDER BY id LIMIT %(limit)s
