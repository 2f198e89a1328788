-- The definition, where it was not run before, and the run.
WITH added AS (
    INSERT INTO geoetl_workflows
        (tenant_id, workflow_id, version, name, category, tags, definition, definition_sha256)
    VALUES (%(tenant_id)s, %(workflow_id)s, %(version)s, %(name)s, %(category)s, %(tags)s, %(definition)s, %(sha256)s)
    ON CONFLICT (tenant_id, workflow_id, version, definition_sha256) DO UPDATE SET name = EXCLUDED.name
    RETURNING id
)
INSERT INTO geoetl_workflow_runs
    (id, tenant_id, workflow, workflow_id, runner, trigger, parameters, resumed_from)
SELECT %(run_id)s, %(tenant_id)s, added.id, %(workflow_id)s, %(runner)s, %(trigger)s, %(parameters)s, %(resumed_from)s
FROM added
WHERE NOT EXISTS (SELECT FROM geoetl_workflow_runs WHERE id = %(run_id)s)
