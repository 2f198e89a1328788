-- How many properties of a scope are there: all, those that are settled (loaded or failed), those that are stale.
SELECT count(*), count(*) FILTER (WHERE status IN ('completed', 'skipped', 'failed')),
    count(*) FILTER (WHERE status = 'completed' AND fetched_at < now() - %(age)s)
FROM properties WHERE {scope}
