-- Answers that could not be loaded, with all that is needed to see why. The last one of a property is kept.
INSERT INTO property_quarantine (run_id, property_id, reason, field, error, payload, payload_bytes)
SELECT %(run_id)s, bad.* FROM unnest(%(id)s::text[], %(reason)s::text[], %(field)s::text[], %(error)s::text[],
    %(payload)s::text[], %(bytes)s::bigint[]) AS bad (id, reason, field, error, payload, payload_bytes)
ON CONFLICT (property_id) DO UPDATE SET (run_id, reason, field, error, payload, payload_bytes, quarantined_at)
    = ROW(excluded.run_id, excluded.reason, excluded.field, excluded.error, excluded.payload, excluded.payload_bytes, now())
