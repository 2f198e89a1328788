-- Which staged line is which row of the table. Two loads at once would both find nothing: the lock queues them.
SELECT pg_advisory_xact_lock(hashtext('landrecords index_documents load'));
CREATE TEMP TABLE index_matched ON COMMIT DROP AS
SELECT s.line, d.id FROM index_staging AS s
JOIN index_documents AS d ON d.book = s.book AND d.page = s.page AND d.source = s.source
WHERE s.direct_key IS NULL
UNION ALL
SELECT s.line, d.id FROM index_staging AS s
JOIN index_documents AS d ON d.direct_key = s.direct_key AND d.source = s.source
