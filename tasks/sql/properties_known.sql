-- How much of a search's properties is there: all, those that were loaded, those that are stale.
SELECT count(*), count(*) FILTER (WHERE status IN ('completed', 'skipped', 'failed')),
    count(*) FILTER (WHERE status = 'completed' AND fetched_at < now() - %(age)s)
FROM properties WHERE {scope}
