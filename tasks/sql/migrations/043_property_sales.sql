-- Sales on the open market, one row for each property of a deed. Families sell to one another below the market, and
-- auctions are forced; in a register that tells no kinds apart, all count.
CREATE VIEW property_sales AS
SELECT p.source, p.municipality_code, p.zip_code, p.id AS property_id, r.registration_id, r.date, r.amount,
    coalesce(r.per_area_price, r.amount::double precision / nullif(coalesce(r.living_area, p.living_area), 0)) AS price_per_m2
FROM registrations AS r JOIN properties AS p ON p.id = r.property_id
WHERE coalesce(r.type, 'normal') = 'normal' AND r.date <= current_date;
