-- Runs that are ended in landrecords_runs and were never ended here: their processes were killed.
WITH killed AS (
    UPDATE geoetl_workflow_runs AS run
    SET status = 'failed', ended_at = now(), error = 'Its process was killed; give its id as resume_run_id to go on.'
    FROM landrecords_runs AS known
    WHERE run.status IN ('pending', 'running') AND known.run_id = run.id AND known.ended_at IS NOT NULL
    RETURNING run.id
), nodes AS (
    UPDATE geoetl_node_runs AS node SET reason = 'killed', completed_at = now(),
        status = CASE node.status WHEN 'running' THEN 'failed' ELSE 'cancelled' END::geoetl_status,
        error = CASE node.status WHEN 'running' THEN 'The run''s process was killed while it was at work.' END
    FROM killed WHERE node.run_id = killed.id AND node.status IN ('pending', 'running')
)
SELECT id FROM killed
