-- Of the tiles asked for: how many need no request any more, and the mean size of those that came.
SELECT count(*) FILTER (WHERE status IN ('completed', 'failed', 'skipped')), avg(size_bytes)::float
FROM tiles WHERE {scope}
