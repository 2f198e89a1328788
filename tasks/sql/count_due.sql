-- How many rows of the scope this step still has to take: pending ones and lapsed leases.
SELECT count(*) FROM (
    (SELECT 1 FROM {table} WHERE {status} = 'pending' AND ({requires}) AND ({scope}) LIMIT %(at_most)s)
    UNION ALL
    (SELECT 1 FROM {table} WHERE {status} = 'in_progress' AND lease_until < now() AND ({scope}) LIMIT %(at_most)s)
    LIMIT %(at_most)s
) AS due
