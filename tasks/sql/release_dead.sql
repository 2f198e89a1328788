-- Give back what dead owners held. Rows that somebody is just claiming are skipped, so that two never wait for each other.
UPDATE {table} SET {status} = 'pending', claimed_by = NULL, lease_until = NULL
WHERE id IN (SELECT id FROM {table} WHERE {status} = 'in_progress' AND claimed_by = ANY(%(owners)s)
             FOR UPDATE SKIP LOCKED)
