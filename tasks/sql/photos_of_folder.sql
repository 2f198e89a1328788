-- What is known of the photos of one folder.
SELECT status::text, flag, count(*) FROM site_images
WHERE host = %(host)s AND site = %(site)s AND folder = %(folder)s AND vanished_at IS NULL GROUP BY status, flag
