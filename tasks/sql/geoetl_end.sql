-- How a run ended: what its sources read and its sinks wrote, summed over its nodes. Restored ones were of another run.
UPDATE geoetl_workflow_runs SET status = %(status)s, error = %(error)s, ended_at = now(), peak_memory_mb = %(peak)s,
    features_in = total.features_in, features_out = total.features_out,
    bytes_in = total.bytes_in, bytes_out = total.bytes_out, cpu_ms = total.cpu_ms
FROM (
    SELECT coalesce(sum(features_out) FILTER (WHERE node_type LIKE 'data_source.%%'), 0) AS features_in,
        coalesce(sum(features_out) FILTER (WHERE node_type LIKE 'data_sink.%%'), 0) AS features_out,
        coalesce(sum(bytes_out) FILTER (WHERE node_type LIKE 'data_source.%%'), 0) AS bytes_in,
        coalesce(sum(bytes_out) FILTER (WHERE node_type LIKE 'data_sink.%%'), 0) AS bytes_out,
        coalesce(sum(cpu_ms), 0) AS cpu_ms
    FROM geoetl_node_runs WHERE run_id = %(run_id)s AND NOT restored) AS total
WHERE id = %(run_id)s
