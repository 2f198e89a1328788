-- Provenance of every object a run stored, one JSON object a row.
SELECT jsonb_build_object(
    'id', id, 'book', book, 'page', page, 'instrument_number', instrument_number, 'document_type', document_type,
    'object', gcs_path, 'source_url', fetched_url, 'fetched_at', fetched_at, 'uploaded_at', uploaded_at,
    'source_sha256', source_sha256, 'stored_sha256', stored_sha256, 'source_bytes', source_bytes,
    'stored_bytes', stored_bytes, 'pages', num_pages_found, 'optimised_by', optimize_method, 'gs_version', gs_version,
    'actual_book', actual_book, 'actual_page', actual_page, 'book_page_mismatch', book_page_mismatch,
    'remarks', array_remove(ARRAY[download_reason, optimize_reason], NULL))
FROM index_documents WHERE run_id = %(run_id)s AND upload_status = 'completed' ORDER BY id
