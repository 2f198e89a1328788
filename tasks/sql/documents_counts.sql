-- The rows a run took, counted: per step, per item (its state through all steps), and remarks on completed ones.
WITH mine AS (
    SELECT download_status, download_reason, optimize_status, optimize_reason, upload_status, upload_reason,
        CASE WHEN download_status = 'failed' OR upload_status = 'failed' OR optimize_status = 'failed' THEN 'failed'
             WHEN download_status = 'skipped' THEN 'skipped'
             WHEN upload_status = 'completed' THEN 'completed'
             WHEN 'in_progress' IN (download_status, optimize_status, upload_status) THEN 'in_progress'
             ELSE 'pending' END AS item_state,
        CASE WHEN download_status IN ('failed', 'skipped') THEN download_reason
             WHEN optimize_status = 'failed' THEN optimize_reason ELSE upload_reason END AS item_reason
    FROM index_documents WHERE run_id = %(run_id)s
)
SELECT 'item', item_state, item_reason, count(*) FROM mine GROUP BY 1, 2, 3
UNION ALL SELECT 'download', download_status::text, NULL, count(*) FROM mine GROUP BY 1, 2
UNION ALL SELECT 'optimize', optimize_status::text, NULL, count(*) FROM mine GROUP BY 1, 2
UNION ALL SELECT 'upload', upload_status::text, NULL, count(*) FROM mine GROUP BY 1, 2
UNION ALL SELECT 'note', 'completed', remark, count(*) FROM mine, LATERAL (
    SELECT download_reason WHERE download_status IN ('completed', 'skipped')
    UNION SELECT optimize_reason WHERE optimize_status IN ('completed', 'skipped')
) AS remarks (remark) WHERE remark IS NOT NULL GROUP BY 3
