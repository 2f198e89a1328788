-- Rows of the scope that a claim would take now, in claim order.
SELECT id FROM {table} WHERE id IN (
    SELECT id FROM {table} WHERE {status} = 'in_progress' AND lease_until < now() AND ({scope})
    UNION ALL
    SELECT id FROM {table}
    WHERE {status} = 'pending' AND ({requires}) AND (not_before IS NULL OR not_before <= now()) AND ({scope})
)
ORDER BY {order}
