-- What a run found to have changed: kinds, then the columns that differ most often.
SELECT 'kind', kind, count(*) FROM property_changes WHERE run_id = %(run_id)s GROUP BY kind
UNION ALL
SELECT 'field', field, count(*) FROM property_changes CROSS JOIN unnest(fields) AS field
WHERE run_id = %(run_id)s AND kind = 'changed' GROUP BY field
