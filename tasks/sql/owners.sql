-- Who holds rows of this step.
SELECT DISTINCT claimed_by FROM {table} WHERE {status} = 'in_progress' AND claimed_by IS NOT NULL
