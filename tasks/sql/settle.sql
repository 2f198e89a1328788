-- Write what became of a batch of claimed items, if this worker still owns them. The batch comes as JSON.
-- A retryable failure whose attempts ran out becomes failed here, where the count is.
-- Every row is found by its id: without statistics Postgres would rather read all leases (the cast keeps it from that).
SET LOCAL enable_seqscan = off;
SET LOCAL enable_bitmapscan = off;
UPDATE {table} AS item
SET {status} = CASE WHEN given._status = 'pending' AND given._cost > 0
                         AND item.{attempts} + given._cost >= %(max_attempts)s
                    THEN 'failed' ELSE given._status END,
    {attempts} = item.{attempts} + given._cost,
    {reason} = given._reason, {error} = given._error,
    {done_at} = CASE WHEN given._status <> 'pending'
                          OR given._cost > 0 AND item.{attempts} + given._cost >= %(max_attempts)s
                     THEN clock_timestamp() END,
    not_before = CASE WHEN given._status = 'pending'
                           AND (given._cost = 0 OR item.{attempts} + given._cost < %(max_attempts)s)
                      THEN clock_timestamp() + interval '1 second' * coalesce(given._retry_in_s,
                          least(%(backoff_cap_s)s, %(backoff_s)s * 2 ^ item.{attempts}) * (0.5 + random())) END,
    claimed_by = NULL, lease_until = NULL{assignments}
FROM json_to_recordset(%(outcomes)s) AS given (_id {id_type}, _status item_status, _reason text, _error text,
    _cost smallint, _retry_in_s double precision{columns})
WHERE item.id = given._id AND item.claimed_by = %(owner)s AND item.{status}::text = 'in_progress'
RETURNING item.id, item.{status}::text, extract(epoch FROM item.not_before - clock_timestamp())::double precision
