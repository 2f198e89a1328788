-- Staged rows the table does not have.
INSERT INTO index_documents ({columns}, source_file)
SELECT {values}, {source_file} FROM index_staging AS s {unmatched}
