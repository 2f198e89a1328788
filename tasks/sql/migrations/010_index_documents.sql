-- The index of recorded documents: one row per instrument, with the checkpoints of its three steps.
-- Column names are those of the title plant's index files; see tasks/index.py for how files are read.

CREATE TABLE index_documents (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,

    -- where the row comes from
    source text NOT NULL CHECK (source <> ''),      -- names the portal adapter: duprocess, historical, direct, ...
    source_file text,                               -- the file that last changed the row, and when
    import_date timestamptz NOT NULL DEFAULT now(),
    gin text,
    instrument_number text,
    book_volume text,
    book integer CHECK (book > 0),
    page integer CHECK (page > 0),

    -- what it is
    instrument_type_raw text,
    instrument_type_parsed text,                    -- the text before " -"
    document_type text,                             -- instrument_type_parsed where the file names none
    file_date date,
    num_pages integer CHECK (num_pages > 0),        -- NULL: not known

    -- parties
    party_type text,
    party_seq integer,
    searched_name text,
    cross_party_name text,
    grantor_party text,
    grantee_party text,

    -- legal description
    description text,
    location text,
    direction text,
    legals text,
    sub_div text,
    block text,
    lot text,
    sec text,
    town text,
    rng text,
    square text,
    remarks text,
    -- the sixteen quarter-quarter sections; NULL: the index does not say
    ne_of_ne boolean, nw_of_ne boolean, sw_of_ne boolean, se_of_ne boolean,
    ne_of_nw boolean, nw_of_nw boolean, sw_of_nw boolean, se_of_nw boolean,
    ne_of_sw boolean, nw_of_sw boolean, sw_of_sw boolean, se_of_sw boolean,
    ne_of_se boolean, nw_of_se boolean, sw_of_se boolean, se_of_se boolean,
    address text,
    street_name text,
    city text,
    zip text,
    parcel_num text,
    parcel_id text,
    ppin text,
    patent_num text,

    -- the title plant's own workflow
    workflow_status text,
    verified_status text,
    doc_status text,
    related_items_raw text,
    -- [{instrument_number, book, page, exists_in_db, target_id}, ...]; see tasks/related.py
    related_items jsonb CHECK (jsonb_typeof(related_items) = 'array'),

    -- queue
    download_priority smallint NOT NULL DEFAULT 3 CHECK (download_priority BETWEEN 0 AND 99),  -- lowest first
    source_url text,                                -- direct rows: the file to fetch

    -- what the download found
    actual_book integer,
    actual_page integer,
    book_page_mismatch boolean NOT NULL DEFAULT false,
    num_pages_found integer,
    content_type text,
    fetched_at timestamptz,
    source_bytes bigint,
    source_sha256 text,
    fetched_url text,                               -- where the document was found, absolute
    spool_id text,                                  -- the spool that holds the downloaded file

    -- what was stored
    optimize_method text,
    gs_version text,
    stored_bytes bigint,
    stored_sha256 text,
    stored_source_sha256 text,                      -- the source that the stored object was made from
    gcs_path text,

    -- Names a listed file that has no book and page; a hash, so that a URL of any length fits an index entry.
    -- Set once, on insert.
    direct_key text,

    UNIQUE (book, page, source),
    CONSTRAINT index_documents_book_and_page CHECK (source = 'direct' OR (book IS NOT NULL AND page IS NOT NULL)),
    CONSTRAINT index_documents_named CHECK ((direct_key IS NULL) = (book IS NOT NULL AND page IS NOT NULL))
)
-- A row is rewritten about six times (claim and settle of three steps), its neighbours at the same time. A sixth of
-- each page kept free lets those versions stay on the page, where the next visit prunes the dead ones.
-- Vacuum after 20,000 dead rows + 2 %: dead entries at the head of the *_due indexes are walked by every claim.
WITH (
    fillfactor = 85,
    autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_analyze_threshold = 5000,
    autovacuum_analyze_scale_factor = 0.02
);

CREATE UNIQUE INDEX index_documents_direct_key ON index_documents (source, direct_key) WHERE direct_key IS NOT NULL;

CREATE FUNCTION index_documents_name() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.direct_key := md5(coalesce(NEW.source_url, NEW.instrument_number, NEW.gin, NEW.parcel_id, NEW.parcel_num,
                                   NEW.ppin, NEW.patent_num));
    RETURN NEW;
END $$;

-- The loader names its rows itself (tasks/index_columns.py, by the same rule); this is for rows inserted by hand.
CREATE TRIGGER name BEFORE INSERT ON index_documents FOR EACH ROW
    WHEN (NEW.direct_key IS NULL AND (NEW.book IS NULL OR NEW.page IS NULL))
    EXECUTE FUNCTION index_documents_name();

SELECT landrecords_add_step('index_documents', 'download', 'download_priority, id', '');
SELECT landrecords_add_step('index_documents', 'optimize', 'download_priority, id', 'download_status = ''completed''');
-- A document that needed no optimising (or was stored as it came) has optimize_status completed or skipped.
SELECT landrecords_add_step('index_documents', 'upload', 'download_priority, id',
    'optimize_status IN (''completed'', ''skipped'')');

-- How many documents stand where, per step. One walk over the table for all three steps.
CREATE VIEW documents_progress AS
WITH together AS (
    SELECT download_status, optimize_status, upload_status, count(*) AS documents
    FROM index_documents GROUP BY 1, 2, 3
)
SELECT step, status, sum(documents)::bigint AS documents
FROM together CROSS JOIN LATERAL (VALUES
    (1, 'download', download_status), (2, 'optimize', optimize_status), (3, 'upload', upload_status)
) AS steps (number, step, status)
GROUP BY number, step, status ORDER BY number, status;

CREATE VIEW documents_by_type AS
SELECT document_type, count(*) AS documents,
    count(*) FILTER (WHERE upload_status = 'completed') AS stored,
    count(*) FILTER (WHERE download_status IN ('pending', 'in_progress')) AS to_download,
    count(*) FILTER (WHERE download_status = 'skipped') AS skipped,
    count(*) FILTER (WHERE 'failed' IN (download_status, optimize_status, upload_status)) AS failed,
    count(*) FILTER (WHERE book_page_mismatch) AS mismatched,
    coalesce(sum(source_bytes), 0)::bigint AS source_bytes,
    coalesce(sum(stored_bytes), 0)::bigint AS stored_bytes
FROM index_documents GROUP BY document_type ORDER BY documents DESC, document_type;

CREATE VIEW documents_by_book AS
SELECT source, book, count(*) AS documents, min(page) AS first_page, max(page) AS last_page,
    count(*) FILTER (WHERE upload_status = 'completed') AS stored,
    count(*) FILTER (WHERE download_status IN ('pending', 'in_progress')) AS to_download,
    count(*) FILTER (WHERE download_status = 'skipped') AS skipped,
    count(*) FILTER (WHERE 'failed' IN (download_status, optimize_status, upload_status)) AS failed,
    count(*) FILTER (WHERE book_page_mismatch) AS mismatched
FROM index_documents GROUP BY source, book ORDER BY source, book;

-- One line per failed step of a document, newest first.
CREATE VIEW documents_failed AS
SELECT id, source, book, page, instrument_number, document_type, step, reason, error, attempts, failed_at, source_url
FROM index_documents CROSS JOIN LATERAL (VALUES
    ('download', download_status, download_reason, download_error, download_attempts, downloaded_at),
    ('optimize', optimize_status, optimize_reason, optimize_error, optimize_attempts, optimized_at),
    ('upload', upload_status, upload_reason, upload_error, upload_attempts, uploaded_at)
) AS steps (step, status, reason, error, attempts, failed_at)
WHERE 'failed' IN (download_status, optimize_status, upload_status) AND status = 'failed'
ORDER BY failed_at DESC, id;
