-- Photos still to be read, by folder.
SELECT site, folder, count(*) FROM site_images
WHERE (status = 'pending' AND (not_before IS NULL OR not_before <= now()) OR status = 'in_progress' AND lease_until < now())
  AND {scope}
GROUP BY site, folder ORDER BY site, folder
