-- Photos of site folders that are no longer there. Only pilots whose folder was listed, or is gone itself, are judged.
UPDATE site_images AS image SET vanished_at = now()
FROM sites
WHERE image.host = %(host)s AND image.vanished_at IS NULL AND (sites.host, sites.site) = (image.host, image.site)
  AND sites.site <> ALL(%(found)s) AND sites.pilot <> ALL(%(refused)s)
  AND (cardinality(%(wanted)s::text[]) = 0 OR sites.site_id = ANY(%(wanted)s))
  AND substring(image.raw_path FOR length(%(below)s)) = %(below)s
