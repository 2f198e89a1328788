-- Names and kinds (b base, e enum, ...) of types.
SELECT oid, typname, typtype::text FROM pg_catalog.pg_type WHERE oid = ANY (%s)
