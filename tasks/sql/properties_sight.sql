-- What pages of a query named: noted once for the query, and a row for what is not known yet. One that was found by
-- another search before belongs to this one now; rows that somebody is just working on do so the next time. Last, a
-- register of another name that has some of these ids.
WITH named AS (
    SELECT DISTINCT id FROM unnest(%(ids)s::text[]) AS hit (id)
), noted AS (
    INSERT INTO property_sightings (search_id, query_id, property_id) SELECT %(search_id)s, %(query_id)s, id FROM named
    ORDER BY id ON CONFLICT DO NOTHING RETURNING 1
), made AS (
    INSERT INTO properties (id, source, searched_municipality, searched_type)
    SELECT id, %(source)s, %(municipality)s, %(address_type)s FROM named
    ORDER BY id ON CONFLICT DO NOTHING RETURNING 1
), moved AS (
    UPDATE properties AS p SET (searched_municipality, searched_type) = ROW(%(municipality)s, %(address_type)s)
    WHERE p.id IN (
        SELECT k.id FROM named JOIN properties AS k ON k.id = named.id
        WHERE k.source = %(source)s AND (k.searched_municipality, k.searched_type) <> (%(municipality)s, %(address_type)s)
        FOR UPDATE OF k SKIP LOCKED
    )
)
SELECT (SELECT count(*) FROM noted), (SELECT count(*) FROM made),
    (SELECT min(k.source) FROM named JOIN properties AS k ON k.id = named.id WHERE k.source <> %(source)s)
