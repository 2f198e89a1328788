-- A line for each municipality and zip code that has homes. Sales are those of the twelve months before the last one
-- that the register knows: registers lag behind. NULL codes are one line of their own.
WITH homes AS (
    SELECT coalesce(municipality_code, '') AS municipality, coalesce(zip_code, '') AS zip, count(*) AS homes,
        count(*) FILTER (WHERE is_on_market) AS on_market, max(changed_at) AS newest_change
    FROM properties WHERE source = %(source)s AND content_hash IS NOT NULL AND vanished_at IS NULL
    GROUP BY 1, 2
), offered AS (
    SELECT coalesce(p.municipality_code, '') AS municipality, coalesce(p.zip_code, '') AS zip, count(*) AS open_cases
    FROM cases AS c JOIN properties AS p ON p.id = c.property_id
    WHERE c.status = 'open' AND p.source = %(source)s AND p.vanished_at IS NULL
    GROUP BY 1, 2
), sold AS (
    SELECT coalesce(municipality_code, '') AS municipality, coalesce(zip_code, '') AS zip,
        count(DISTINCT registration_id) AS sales,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY price_per_m2) FILTER (WHERE price_per_m2 > 0) AS median
    FROM property_sales
    WHERE source = %(source)s
      AND date > (SELECT max(date) FROM property_sales WHERE source = %(source)s) - interval '1 year'
    GROUP BY 1, 2
)
SELECT coalesce(m.name, h.municipality), h.zip, coalesce(z.name, ''), h.homes, h.on_market,
    coalesce(o.open_cases, 0), coalesce(s.sales, 0), round(s.median)::bigint, to_char(h.newest_change, 'YYYY-MM-DD')
FROM homes AS h
LEFT JOIN offered AS o USING (municipality, zip)
LEFT JOIN sold AS s USING (municipality, zip)
LEFT JOIN municipalities AS m ON m.code = h.municipality
LEFT JOIN zip_codes AS z ON z.code = h.zip
ORDER BY 1, 2
