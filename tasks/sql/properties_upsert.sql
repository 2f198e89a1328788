-- Rows of the batch's properties; what is the same stays untouched.
INSERT INTO {table} AS t ({columns}) SELECT {columns} FROM {staged}
ON CONFLICT ({key}) DO UPDATE SET ({plain}) = ROW({excluded}) WHERE ROW({current}) IS DISTINCT FROM ROW({excluded})
