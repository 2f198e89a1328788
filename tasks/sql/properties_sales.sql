-- Sales by year, and the day of the last one.
SELECT extract(year FROM date)::integer, count(DISTINCT registration_id), max(date)
FROM property_sales WHERE source = %(source)s GROUP BY 1 ORDER BY 1
