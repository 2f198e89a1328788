SELECT id, book, page, instrument_number,
    CASE WHEN download_status = 'failed' THEN 'download' WHEN optimize_status = 'failed' THEN 'optimize' ELSE 'upload' END,
    CASE WHEN download_status = 'failed' THEN download_reason WHEN optimize_status = 'failed' THEN optimize_reason
         ELSE upload_reason END,
    CASE WHEN download_status = 'failed' THEN download_error WHEN optimize_status = 'failed' THEN optimize_error
         ELSE upload_error END,
    CASE WHEN download_status = 'failed' THEN download_attempts WHEN optimize_status = 'failed' THEN optimize_attempts
         ELSE upload_attempts END
FROM index_documents
WHERE run_id = %(run_id)s AND 'failed' IN (download_status, optimize_status, upload_status)
ORDER BY id LIMIT %(limit)s
