SELECT c.property_id, p.address, c.kind, c.fields, c.case_id, c.old_price, c.new_price
FROM property_changes AS c JOIN properties AS p ON p.id = c.property_id
WHERE c.run_id = %(run_id)s AND c.kind = ANY(%(kinds)s) ORDER BY c.id LIMIT %(limit)s
