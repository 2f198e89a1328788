SELECT p.id, p.reason, q.field, p.error, p.attempts
FROM properties AS p LEFT JOIN property_quarantine AS q ON q.property_id = p.id
WHERE p.run_id = %(run_id)s AND p.status = 'failed' AND p.source = %(source)s
ORDER BY p.id LIMIT %(limit)s
