-- What is new about properties that were loaded before: which columns differ, which rows came and went.
INSERT INTO property_changes (run_id, property_id, kind, fields)
SELECT %(run_id)s, property_id, 'changed', array_agg(DISTINCT field ORDER BY field)
FROM ({differences}) AS difference (property_id, field) GROUP BY property_id
