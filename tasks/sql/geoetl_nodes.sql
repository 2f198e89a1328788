-- How some nodes of a run stand.
INSERT INTO geoetl_node_runs AS node
    (run_id, workflow_id, node_id, node_type, stage, status, attempts, retry_count, reason, error, restored,
     features_in, features_out, bytes_out, seconds, cpu_ms, peak_memory_mb, began_at, completed_at)
SELECT %(run_id)s, %(workflow_id)s, node_id, node_type, stage, status,
    CASE WHEN status IN ('pending', 'skipped') THEN 0 ELSE 1 + retry_count END,
    retry_count, reason, error, restored, features_in, features_out, bytes_out, seconds, cpu_ms, peak_memory_mb,
    to_timestamp(began), to_timestamp(ended)
FROM jsonb_to_recordset(%(rows)s) AS given (
    node_id text, node_type text, stage text, status geoetl_status, retry_count integer, reason text, error text,
    restored boolean, features_in bigint, features_out bigint, bytes_out bigint, seconds double precision,
    cpu_ms double precision, peak_memory_mb double precision, began double precision, ended double precision)
ON CONFLICT (run_id, node_id) DO UPDATE SET
    status = EXCLUDED.status, attempts = EXCLUDED.attempts, retry_count = EXCLUDED.retry_count,
    reason = EXCLUDED.reason, error = EXCLUDED.error, restored = EXCLUDED.restored,
    features_in = EXCLUDED.features_in, features_out = EXCLUDED.features_out, bytes_out = EXCLUDED.bytes_out,
    seconds = EXCLUDED.seconds, cpu_ms = EXCLUDED.cpu_ms, peak_memory_mb = EXCLUDED.peak_memory_mb,
    began_at = EXCLUDED.began_at, completed_at = EXCLUDED.completed_at
