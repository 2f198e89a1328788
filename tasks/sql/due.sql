-- Seconds until a row of the scope may be claimed: 0 when one may now, NULL when nothing is pending.
SELECT CASE
    WHEN EXISTS (SELECT 1 FROM {table} WHERE {status} = 'pending' AND ({requires}) AND ({scope})
                 AND (not_before IS NULL OR not_before <= now())) THEN 0
    WHEN EXISTS (SELECT 1 FROM {table} WHERE {status} = 'in_progress' AND lease_until < now() AND ({scope})) THEN 0
    ELSE (SELECT extract(epoch FROM min(not_before) - now())::double precision FROM {table}
          WHERE {status} = 'pending' AND ({requires}) AND ({scope}))
END
