INSERT INTO property_changes (run_id, property_id, kind)
SELECT %(run_id)s, id, 'new' FROM staged_properties WHERE NOT known
