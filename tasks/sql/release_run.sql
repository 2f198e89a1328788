UPDATE {table} SET {status} = 'pending', claimed_by = NULL, lease_until = NULL
WHERE {status} = 'in_progress' AND run_id = %(run_id)s
