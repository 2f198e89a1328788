-- Another answer when a row was added, changed, removed or moved: every version of a row has its place and its maker.
SELECT count(*), sum(xmin::text::bigint), sum(hashtextextended(ctid::text || xmin::text || xmax::text, 0)) FROM ONLY {table}
