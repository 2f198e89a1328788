-- What the products of a site tell of its photos; those that vanished are left out.
SELECT id, site, folder, raw_path, flag, latitude, longitude, altitude_m, altitude_ref, relative_altitude_m,
    direction_deg, taken_at, camera, size, status::text
FROM site_images WHERE host = %(host)s AND site = %(site)s AND vanished_at IS NULL ORDER BY folder, path
