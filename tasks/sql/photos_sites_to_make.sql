-- Sites whose products are older than what is known of their photos. The photos' own rows tell when they were read, so
-- that a run that was killed in between leaves nothing untold.
SELECT site FROM sites
WHERE host = %(host)s AND site = ANY(%(sites)s)
  AND (products_at IS NULL OR products_at < changed_at OR EXISTS (
      SELECT 1 FROM site_images AS image
      WHERE image.host = sites.host AND image.site = sites.site AND image.completed_at > sites.products_at))
ORDER BY site
