-- What would go with a table that is dropped, or keep it from being dropped.
SELECT DISTINCT coalesce('view ' || r.ev_class::regclass::text, 'foreign key of ' || f.conrelid::regclass::text)
FROM pg_catalog.pg_depend AS d
LEFT JOIN pg_catalog.pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid AND r.ev_class <> d.refobjid
LEFT JOIN pg_catalog.pg_constraint AS f
    ON d.classid = 'pg_constraint'::regclass AND f.oid = d.objid AND f.contype = 'f' AND f.conrelid <> d.refobjid
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = %s AND (r.oid IS NOT NULL OR f.oid IS NOT NULL)
