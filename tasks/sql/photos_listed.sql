-- Bring a site's rows in line with what the server lists: new photos, changed ones (size or time), vanished ones, and
-- those that are there again. Unchanged ones are not touched. Only folders that could be listed are judged.
SET LOCAL landrecords.explicit = 'on';
CREATE TEMP TABLE listed ON COMMIT DROP AS
SELECT folder, path, decode(raw_path, 'hex') AS raw_path, size, to_timestamp(mtime) AS mtime
FROM json_to_recordset(%(photos)s) AS photo (folder text, path text, raw_path text, size bigint, mtime bigint);
WITH vanished AS (
    UPDATE site_images AS image SET vanished_at = now()
    WHERE host = %(host)s AND site = %(site)s AND vanished_at IS NULL
      AND folder IN (SELECT json_array_elements_text(%(folders)s))
      AND NOT EXISTS (SELECT 1 FROM listed WHERE listed.raw_path = image.raw_path)
    RETURNING 1
), back AS (
    UPDATE site_images AS image SET vanished_at = NULL
    FROM listed
    WHERE image.host = %(host)s AND image.raw_path = listed.raw_path AND image.vanished_at IS NOT NULL
      AND (image.size, image.mtime) = (listed.size, listed.mtime) AND image.status = 'completed'
    RETURNING 1
), written AS (
    INSERT INTO site_images AS image (host, site, folder, path, raw_path, size, mtime)
    SELECT %(host)s, %(site)s, folder, path, raw_path, size, mtime FROM listed
    ON CONFLICT (host, raw_path) DO UPDATE
    SET size = excluded.size, mtime = excluded.mtime, vanished_at = NULL, status = 'pending', attempts = 0,
        reason = NULL, error = NULL, completed_at = NULL, not_before = NULL, claimed_by = NULL, lease_until = NULL,
        flag = NULL, latitude = NULL, longitude = NULL, altitude_m = NULL, altitude_ref = NULL,
        relative_altitude_m = NULL, direction_deg = NULL, taken_at = NULL, clock = NULL, camera = NULL,
        bytes_read = NULL, outlier = false
    WHERE (image.size, image.mtime) IS DISTINCT FROM (excluded.size, excluded.mtime)
       OR image.vanished_at IS NOT NULL AND image.status <> 'completed'
    RETURNING image.xmax = 0 AS new -- inserted
), counts AS (
    SELECT (SELECT count(*) FROM listed) AS photos, (SELECT count(*) FROM written WHERE new) AS new,
        (SELECT count(*) FROM written WHERE NOT new) AS changed, (SELECT count(*) FROM vanished) AS vanished,
        (SELECT count(*) FROM back) AS back
), noted AS (
    UPDATE sites SET listed_at = now(),
        changed_at = CASE WHEN counts.new + counts.changed + counts.vanished + counts.back > 0 THEN now() ELSE changed_at END
    FROM counts WHERE host = %(host)s AND site = %(site)s
    RETURNING 1
)
SELECT photos, new, changed, vanished, back FROM counts, noted
