-- Take up to %(limit)s due items: lapsed leases first, then pending ones in claim order.
-- Two partial-index walks instead of one OR, so that the cost does not grow with the finished rows.
-- The plan must not depend on statistics: before the first ANALYZE of a loaded table, Postgres takes pending rows for
-- rare, and would collect and sort all of them for every page.
SET LOCAL enable_seqscan = off;
SET LOCAL enable_bitmapscan = off;
WITH lapsed AS (
    SELECT id FROM {table}
    WHERE {status} = 'in_progress' AND lease_until < now() AND ({scope})
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), fresh AS (
    SELECT id FROM {table}
    WHERE {status} = 'pending' AND ({requires}) AND (not_before IS NULL OR not_before <= now()) AND ({scope})
    ORDER BY {order} LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), due AS (
    SELECT id FROM lapsed UNION ALL SELECT id FROM fresh LIMIT %(limit)s
), taken AS (
    UPDATE {table} AS item
    SET {status} = 'in_progress', claimed_by = %(owner)s, run_id = %(run_id)s, not_before = NULL,
        lease_until = clock_timestamp() + %(lease_s)s * interval '1 second'
    FROM due WHERE item.id = due.id
    RETURNING item.*
)
SELECT {columns} FROM taken AS item ORDER BY {order}
