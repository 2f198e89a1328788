-- A table of this session for the rows of a batch; empty again at the end of each transaction.
CREATE TEMP TABLE {staged} ON COMMIT DELETE ROWS AS SELECT {columns} FROM {table} WITH NO DATA
