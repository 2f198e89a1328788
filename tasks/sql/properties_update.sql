-- What the register says of the properties themselves. Their rows are there, and claimed by this worker.
UPDATE properties AS p SET ({columns}, extra, content_hash, changed_at) = ROW({staged}, s.extra, s.content_hash, now())
FROM staged_properties AS s WHERE p.id = s.id
