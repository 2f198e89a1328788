-- Listings whose asking price is another one now.
INSERT INTO property_changes (run_id, property_id, kind, case_id, old_price, new_price)
SELECT %(run_id)s, c.property_id, 'price', c.case_id, c.current_price, s.current_price
FROM staged_cases AS s JOIN cases AS c ON c.property_id = s.property_id AND c.case_id = s.case_id
WHERE c.current_price <> s.current_price
