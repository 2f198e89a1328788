-- Rows that are being settled at this moment need no renewal; waiting for them could end in a deadlock.
UPDATE {table} AS item SET lease_until = clock_timestamp() + %(lease_s)s * interval '1 second'
FROM (SELECT id FROM {table} WHERE id = ANY(%(ids)s) AND claimed_by = %(owner)s AND {status}::text = 'in_progress'
      FOR UPDATE SKIP LOCKED) AS held
WHERE item.id = held.id
