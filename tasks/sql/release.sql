UPDATE {table} SET {status} = 'pending', claimed_by = NULL, lease_until = NULL
WHERE id = ANY(%(ids)s) AND claimed_by = %(owner)s AND {status}::text = 'in_progress'
