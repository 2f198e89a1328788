SELECT path, reason, error, attempts FROM site_images
WHERE run_id = %(run_id)s AND status = 'failed' ORDER BY site, folder, id LIMIT %(limit)s
