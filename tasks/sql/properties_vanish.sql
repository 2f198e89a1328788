-- Properties that a whole search did not find are marked; those that any search found again are not any more. Rows are
-- locked in order of id, like those of every writer of several rows.
WITH scope AS (
    SELECT p.id, p.vanished_at, s.property_id IS NOT NULL AS seen
    FROM properties AS p
    LEFT JOIN (SELECT DISTINCT property_id FROM property_sightings WHERE search_id = %(search_id)s) AS s
        ON s.property_id = p.id
    WHERE p.source = %(source)s AND p.searched_municipality = %(municipality)s
      AND p.searched_type = %(address_type)s
), moved AS (
    SELECT p.id, scope.seen FROM scope JOIN properties AS p ON p.id = scope.id
    WHERE scope.seen = (scope.vanished_at IS NOT NULL) AND (scope.seen OR %(whole)s)
    ORDER BY p.id FOR UPDATE OF p
), marked AS (
    UPDATE properties AS p SET vanished_at = CASE WHEN moved.seen THEN NULL ELSE now() END
    FROM moved WHERE p.id = moved.id
    RETURNING p.id, moved.seen
), noted AS (
    INSERT INTO property_changes (run_id, property_id, kind)
    SELECT %(run_id)s, id, CASE WHEN seen THEN 'returned' ELSE 'vanished' END FROM marked
)
SELECT count(*) FILTER (WHERE NOT seen), count(*) FILTER (WHERE seen) FROM marked
