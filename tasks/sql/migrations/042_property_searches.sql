-- Searches of a register, one for each municipality and address type. A search is divided until every query of it fits
-- what the register delivers. Queries are checkpoints like any other items; what their pages named is in
-- `property_sightings` until the search is over.

CREATE TABLE property_searches (
    search_id text PRIMARY KEY,
    source text NOT NULL,
    municipality text NOT NULL,
    address_type text NOT NULL,
    begun_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz                            -- when it was compared with what the register says it has
);
CREATE UNIQUE INDEX property_searches_open ON property_searches (source, municipality, address_type)
    WHERE ended_at IS NULL;

CREATE TABLE property_queries (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    search_id text NOT NULL REFERENCES property_searches ON DELETE CASCADE,
    parent_id bigint,                               -- the query it is a part of
    filters jsonb NOT NULL,                         -- all it is narrowed by
    total integer,                                  -- hits, as the register said last
    found integer,                                  -- different ones that it named, once it is over
    -- how far it is: of counted pages those that are done, else the cursor of the next
    pages_done integer[] NOT NULL DEFAULT '{}',
    cursor text,
    seen jsonb NOT NULL DEFAULT '{}',                -- of one over the cap: values of filters it may be divided by
    passes smallint NOT NULL DEFAULT 0,             -- times all pages were read
    barren smallint NOT NULL DEFAULT 0,             -- of those, the last ones that named nothing new
    UNIQUE (search_id, filters)
);
SELECT landrecords_add_step('property_queries', '', 'id', '');

-- Each query counts what it named itself: its own total is what it is compared with.
ALTER TABLE property_sightings ADD COLUMN query_id bigint NOT NULL DEFAULT 0;
ALTER TABLE property_sightings DROP CONSTRAINT property_sightings_pkey;
ALTER TABLE property_sightings ADD PRIMARY KEY (search_id, query_id, property_id);
