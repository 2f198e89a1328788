-- Map tiles: one row per tile of a layer, with its checkpoint. Rows are made here, by generate_series.

-- A layer's number is part of its tiles' ids, so a layer is one range of ids: claimed, counted and drawn by it.
CREATE TABLE tile_layers (
    number smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY CHECK (number BETWEEN 1 AND 16383),
    layer text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- layer, zoom, row, column as one number: the primary key is the tile's name, and no second index need keep names
-- apart. Zoom 24 (a pixel is 9 mm) ends at 4^25 / 3 < 2^49; 14 bits are left for the layer.
CREATE FUNCTION tile_id(layer_number integer, z integer, x bigint, y bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (layer_number::bigint << 49) + ((1::bigint << (2 * z)) - 1) / 3 + (y << z) + x;

CREATE TABLE tiles (
    id bigint PRIMARY KEY,                          -- tile_id(number of the layer, z, x, y)
    layer text NOT NULL,
    z smallint NOT NULL,
    x integer NOT NULL,
    y integer NOT NULL,                             -- counted from the north (XYZ), whatever the server does

    -- what came
    kind text,                                      -- extension of the stored file: png, jpg, webp, avif, gif
    blank boolean NOT NULL DEFAULT false,           -- of one colour, or known as blank: stored once for the layer
    size_bytes integer,
    sha256 text,
    etag text,                                      -- for the next refresh
    last_modified text
)
-- A row is rewritten twice (claim, settle), its neighbours at the same time: a third of each page kept free lets both
-- versions stay on it.
WITH (
    fillfactor = 70,
    autovacuum_vacuum_threshold = 50000,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_insert_scale_factor = 1,
    autovacuum_analyze_threshold = 20000,
    autovacuum_analyze_scale_factor = 0.1
);

SELECT landrecords_add_step('tiles', '', 'id', '');

CREATE VIEW tiles_progress AS
SELECT layer, z, status, count(*) AS tiles, count(*) FILTER (WHERE blank) AS blank,
    coalesce(sum(size_bytes), 0)::bigint AS size_bytes
FROM tiles GROUP BY layer, z, status ORDER BY layer, z, status;

CREATE VIEW tiles_failed AS
SELECT layer, z, x, y, reason, error, attempts, completed_at AS failed_at
FROM tiles WHERE status = 'failed' ORDER BY completed_at DESC, id;
