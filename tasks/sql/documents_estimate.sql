-- What a run of this scope would fetch: rows, requests (look-up and file; direct ones need no look-up), mean size so far.
WITH due AS (
    SELECT source FROM {table} WHERE {status} = %(wanted)s AND ({requires}) AND ({scope}) ORDER BY {order} LIMIT %(limit)s
)
SELECT count(*), coalesce(sum(CASE WHEN source = 'direct' THEN 1 ELSE 2 END), 0)::bigint,
    (SELECT avg(source_bytes)::double precision FROM
        (SELECT source_bytes FROM {table} WHERE source_bytes IS NOT NULL LIMIT 1000) AS known)
FROM due
