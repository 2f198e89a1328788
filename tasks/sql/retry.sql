-- The explicit way back from a final status (needs landrecords.explicit = 'on'), later steps included.
UPDATE {table} SET {reset}, not_before = NULL
WHERE id IN (
    SELECT id FROM {table}
    WHERE {status} = ANY(%(statuses)s::item_status[]) AND claimed_by IS NULL AND ({scope})
    ORDER BY {order} LIMIT %(limit)s FOR UPDATE
)
