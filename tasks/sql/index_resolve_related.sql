-- Related items whose target the table has by now, in rows old and new. An item is the row with its book and page
-- or its instrument number; the row with both is the better one, then one of the same source.
CREATE TEMP TABLE related_open ON COMMIT DROP AS
SELECT d.id, n.number, d.source, n.item, n.item ->> 'instrument_number' AS instrument_number,
    (n.item ->> 'book')::integer AS book, (n.item ->> 'page')::integer AS page,
    (n.item ->> 'exists_in_db')::boolean AS known
FROM index_documents AS d CROSS JOIN LATERAL jsonb_array_elements(d.related_items) WITH ORDINALITY AS n (item, number)
WHERE d.related_items @> '[{"exists_in_db": false}]';

ANALYZE related_open;  -- there may be ten or a million: the joins must know

CREATE TEMP TABLE related_found ON COMMIT DROP AS
SELECT DISTINCT ON (id, number) id, number, target_id FROM (
    SELECT o.id, o.number, t.id AS target_id, t.source = o.source AS same_source,
        CASE WHEN t.instrument_number = o.instrument_number THEN 1 ELSE 2 END AS rank
    FROM related_open AS o JOIN index_documents AS t ON t.book = o.book AND t.page = o.page
    WHERE NOT o.known
    UNION ALL
    SELECT o.id, o.number, t.id, t.source = o.source, 3
    FROM related_open AS o JOIN index_documents AS t ON t.instrument_number = o.instrument_number
    WHERE NOT o.known
) AS candidates
ORDER BY id, number, rank, same_source DESC, target_id;

ANALYZE related_found;

UPDATE index_documents AS d SET related_items = resolved.items
FROM (
    SELECT o.id, jsonb_agg(
        CASE WHEN f.target_id IS NULL THEN o.item
             ELSE o.item || jsonb_build_object('exists_in_db', true, 'target_id', f.target_id) END
        ORDER BY o.number) AS items
    FROM related_open AS o LEFT JOIN related_found AS f ON f.id = o.id AND f.number = o.number
    GROUP BY o.id HAVING count(f.target_id) > 0
) AS resolved
WHERE d.id = resolved.id
