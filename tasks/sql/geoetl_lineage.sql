-- What a run read and made.
INSERT INTO geoetl_lineage (run_id, node_id, direction, place, fingerprint, sha256, features, size_bytes)
SELECT %(run_id)s, node_id, direction, place, fingerprint, sha256, features, size_bytes
FROM jsonb_to_recordset(%(rows)s) AS given (
    node_id text, direction text, place text, fingerprint text, sha256 text, features bigint, size_bytes bigint)
