-- What homes were sold for in the twelve months before the last sale that the register knows, by zip code.
SELECT s.zip_code, max(z.name), count(DISTINCT s.registration_id),
    percentile_cont(0.5) WITHIN GROUP (ORDER BY s.price_per_m2)
FROM property_sales AS s LEFT JOIN zip_codes AS z ON z.code = s.zip_code
WHERE s.source = %(source)s AND s.price_per_m2 > 0 AND s.zip_code IS NOT NULL
  AND s.date > (SELECT max(date) FROM property_sales WHERE source = %(source)s) - interval '1 year'
GROUP BY s.zip_code
