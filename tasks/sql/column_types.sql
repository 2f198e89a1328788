SELECT attname::text, format_type(atttypid, atttypmod)
FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped
