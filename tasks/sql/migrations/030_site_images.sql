-- Photos of sites on SFTP servers: one row per photo, with its checkpoint and what it says of itself.

CREATE TABLE sites (
    host text NOT NULL,                             -- host, or host:port
    site text NOT NULL,                             -- Pilot/Folder below the root
    pilot text NOT NULL,
    site_id text NOT NULL,                          -- 8 to 10 digits
    flown_on date,
    client text NOT NULL,
    listed_at timestamptz,
    changed_at timestamptz NOT NULL DEFAULT now(),  -- a photo came, changed, vanished or was read
    products_at timestamptz,                        -- its map and tables are as of then
    PRIMARY KEY (host, site)
);

CREATE TABLE site_images (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    host text NOT NULL,
    site text NOT NULL,
    folder text NOT NULL,                           -- below the site's; empty for the site's own
    path text NOT NULL,                             -- readable: a byte that is no UTF-8 is written \xe9
    raw_path bytea NOT NULL,                        -- as the server has it
    size bigint NOT NULL,
    mtime timestamptz NOT NULL,
    vanished_at timestamptz,                        -- no longer on the server

    -- what the photo says (tasks/exif.py); NULL: it does not
    flag text,
    latitude double precision,
    longitude double precision,
    altitude_m double precision,
    altitude_ref smallint,
    relative_altitude_m double precision,
    direction_deg double precision,
    taken_at text,                                  -- ISO 8601; without an offset where the camera's zone is not known
    clock text,                                     -- gps, offset or local
    camera text,
    bytes_read integer,
    outlier boolean NOT NULL DEFAULT false,

    UNIQUE (host, raw_path),
    FOREIGN KEY (host, site) REFERENCES sites (host, site)
) WITH (fillfactor = 80);

SELECT landrecords_add_step('site_images', '', 'site, folder, id', '');

CREATE INDEX site_images_site ON site_images (host, site, folder);

CREATE VIEW photos_by_folder AS
SELECT host, site, folder, count(*) AS photos,
    count(*) FILTER (WHERE status = 'completed') AS completed,
    count(*) FILTER (WHERE status = 'failed') AS failed,
    count(*) FILTER (WHERE flag = 'ok') AS positioned,
    count(*) FILTER (WHERE flag <> 'ok') AS flagged,
    count(*) FILTER (WHERE outlier) AS outliers
FROM site_images WHERE vanished_at IS NULL GROUP BY host, site, folder ORDER BY host, site, folder;
