-- Lines of the file with the key of an earlier line.
CREATE TEMP TABLE index_repeated ON COMMIT DROP AS
SELECT source, direct_key, min(line) AS first_line,
    CASE WHEN direct_key IS NULL THEN book END AS book, CASE WHEN direct_key IS NULL THEN page END AS page
FROM index_staging GROUP BY 4, 5, source, direct_key HAVING count(*) > 1;

CREATE TEMP TABLE index_duplicates ON COMMIT DROP AS
SELECT s.line, r.first_line
FROM index_repeated AS r JOIN index_staging AS s
    ON s.source = r.source AND s.book = r.book AND s.page = r.page AND s.line > r.first_line
WHERE s.direct_key IS NULL AND r.direct_key IS NULL
UNION ALL
SELECT s.line, r.first_line
FROM index_repeated AS r JOIN index_staging AS s
    ON s.source = r.source AND s.direct_key = r.direct_key AND s.line > r.first_line
