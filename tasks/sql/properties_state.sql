-- What the loaded rows of a register add up to: another number when any of them was fetched, changed, lost or found
-- again. Then how many they are, and the database's time.
SELECT coalesce(sum(hashtextextended(concat_ws(' ', id, fetched_at, changed_at, vanished_at), 0)), 0)::text, count(*), now()
FROM properties WHERE source = %(source)s AND content_hash IS NOT NULL
