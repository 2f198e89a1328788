-- A property register: one row per property, with its checkpoint, and what the register says of it in 14 tables.
-- tasks/register_tables.py names the same columns; a test compares the two.

CREATE TABLE properties (
    id text PRIMARY KEY CHECK (id <> ''),           -- the register's own, which addresses and links carry

    -- where the row comes from
    source text NOT NULL CHECK (source <> ''),      -- the register's profile
    searched_municipality text NOT NULL DEFAULT '', -- what it was searched by, in the search's words; a claim is
    searched_type text NOT NULL DEFAULT '',         -- narrowed by it
    discovered_at timestamptz NOT NULL DEFAULT now(),
    vanished_at timestamptz,                        -- a whole search of its municipality did not find it any more

    -- what it is
    address text,
    address_type text,
    road_name text,
    house_number text,
    door text,
    floor text,
    city_name text,
    zip_code text,
    place_name text,
    latitude double precision,                      -- degrees, EPSG:4326 where coordinate_type says so
    longitude double precision,
    coordinate_type text,
    living_area double precision,                   -- m2
    weighted_area double precision,
    plot_area double precision,
    latest_valuation numeric(14, 2),
    latest_sold_area double precision,
    latest_sold_title text,
    latest_sold_body text,
    latest_sold_date timestamptz,
    property_number text,
    is_on_market boolean,
    is_public boolean,
    allow_new_valuation_info boolean,
    has_multiple_cases boolean,
    energy_label text,
    entry_address_id text,
    gstkvhx text,
    slug text,
    slug_address text,
    api_href text,
    bfe_numbers bigint[],

    -- rows of the tables that many properties refer to. No foreign keys: every transaction would lock the one row of
    -- its municipality, and wait for the others at it
    municipality_code text,
    province_code text,
    road_id text,
    city_slug text,
    place_id text,

    -- how it was fetched
    extra jsonb,                                    -- fields the profile does not know: path -> value
    content_hash text,                              -- of all the register says of it; NULL: never loaded
    etag text,
    last_modified text,
    fetched_at timestamptz,                         -- when the register last said this, changed or not
    changed_at timestamptz                          -- when it last said something new
)
-- A row is rewritten three times a fetch (claim, settle, content): a third of each page kept free lets them stay on it.
WITH (
    fillfactor = 70,
    autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_analyze_threshold = 5000,
    autovacuum_analyze_scale_factor = 0.05
);

SELECT landrecords_add_step('properties', '', 'searched_municipality, id', '');

-- --- rows of one property: they come and go with what the register says of it ---

-- No foreign keys here either: checked row by row they take as long as all the rest of a load. Rows are only written
-- by the loader, under the lock of their property's row, and deleted with the property by a trigger (below).

CREATE TABLE main_buildings (
    property_id text PRIMARY KEY,
    building_number text,
    building_name text,
    housing_area double precision,                  -- m2, like all areas
    total_area double precision,
    basement_area double precision,
    business_area double precision,
    other_area double precision,
    number_of_rooms integer,
    number_of_floors integer,
    number_of_bathrooms integer,
    number_of_kitchens integer,
    number_of_toilets integer,
    bathroom_condition text,
    kitchen_condition text,
    toilet_condition text,
    external_wall_material text,
    supplementary_external_wall_material text,
    roofing_material text,
    supplementary_roofing_material text,
    heating_installation text,
    supplementary_heating text,
    asbestos_containing_material text,
    year_built integer,
    year_renovated integer
);

-- By place in the list: registers number buildings by lot, and a property may have several lots.
CREATE TABLE additional_buildings (
    LIKE main_buildings,
    position integer NOT NULL,
    PRIMARY KEY (property_id, position)
);

-- A deed over two properties is a registration of both.
CREATE TABLE registrations (
    property_id text NOT NULL,
    registration_id text NOT NULL,                  -- a number or a UUID
    amount numeric(14, 2),
    date date,
    type text,                                      -- normal, family, auction, other
    area double precision,
    living_area double precision,
    per_area_price double precision,
    municipality_code text,
    property_number text,
    PRIMARY KEY (property_id, registration_id)
);

CREATE TABLE days_on_market (
    property_id text PRIMARY KEY,
    realtors jsonb
);

CREATE TABLE cases (
    property_id text NOT NULL,
    case_id text NOT NULL,
    provider_case_id text,
    status text,                                    -- open, sold, withdrawn
    address_type text,
    slug text,
    case_url text,
    description_title text,
    description_body text,
    energy_label text,
    current_price numeric(14, 2),
    original_price numeric(14, 2),
    monthly_expense numeric(14, 2),
    down_payment numeric(14, 2),
    gross_mortgage numeric(14, 2),
    net_mortgage numeric(14, 2),
    price_change_percentage double precision,
    per_area_price double precision,
    housing_area double precision,
    weighted_area double precision,
    lot_area double precision,
    basement_area double precision,
    created_date timestamptz,
    modified_date timestamptz,
    sold_date timestamptz,
    days_on_market_current integer,
    days_on_market_total integer,
    days_listed integer,
    number_of_rooms integer,
    number_of_floors integer,
    number_of_bathrooms integer,
    year_built integer,
    has_balcony boolean,
    has_terrace boolean,
    has_elevator boolean,
    highlighted boolean,
    distinction jsonb,
    realtor jsonb,
    realtors jsonb,
    PRIMARY KEY (property_id, case_id)
);

CREATE TABLE price_changes (
    property_id text NOT NULL,
    case_id text NOT NULL,
    change_date timestamptz NOT NULL,
    old_price numeric(14, 2),
    new_price numeric(14, 2),
    amount numeric(14, 2),
    PRIMARY KEY (property_id, case_id, change_date)
);

CREATE TABLE case_images (
    property_id text NOT NULL,
    case_id text NOT NULL,
    sort_order integer NOT NULL,                    -- the first is the one that is shown
    size_number integer NOT NULL,
    image_url text,
    width integer,
    height integer,
    alt_text text,
    PRIMARY KEY (property_id, case_id, sort_order, size_number)
);

-- --- rows that many properties refer to: what the register said last ---

CREATE TABLE municipalities (
    code text PRIMARY KEY,
    region_code text,
    name text,
    slug text,
    church_tax_percentage double precision,
    council_tax_percentage double precision,
    land_value_tax_per_mille double precision,
    number_of_schools integer,
    population integer
);

CREATE TABLE provinces (
    code text PRIMARY KEY,
    region_code text,
    name text,
    slug text
);

CREATE TABLE roads (
    id text PRIMARY KEY,
    road_code text,
    municipality_code text,
    name text,
    slug text
);

CREATE TABLE zip_codes (
    code text PRIMARY KEY,
    zip_group text,
    name text,
    slug text
);

CREATE TABLE cities (
    slug text PRIMARY KEY,
    name text
);

CREATE TABLE places (
    id text PRIMARY KEY,
    name text,
    slug text,
    coordinate_type text,
    bbox_min_longitude double precision,
    bbox_min_latitude double precision,
    bbox_max_longitude double precision,
    bbox_max_latitude double precision,
    latitude double precision,
    longitude double precision
);

-- --- what the loader notes ---

-- What was found by a search, once each: how many properties there are, and which are there no more.
CREATE TABLE property_sightings (
    search_id text NOT NULL,
    property_id text NOT NULL,
    PRIMARY KEY (search_id, property_id)
);

-- Answers that could not be loaded, one per property: its row is failed, with the same reason. Gone when one can.
CREATE TABLE property_quarantine (
    property_id text PRIMARY KEY,
    run_id text,
    reason text NOT NULL,
    field text,                                     -- where in the answer
    error text NOT NULL,
    payload text NOT NULL,                          -- the answer as it came, up to a million characters
    payload_bytes bigint NOT NULL,                  -- all of it
    quarantined_at timestamptz NOT NULL DEFAULT now()
);

-- What became of properties from fetch to fetch.
CREATE TABLE property_changes (
    id bigint GENERATED ALWAYS AS IDENTITY,
    run_id text NOT NULL,
    property_id text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('new', 'changed', 'price', 'vanished', 'returned')),
    -- changed: columns that differ, as latest_valuation, cases.current_price, registrations added, cases removed
    fields text[],
    case_id text,                                   -- price: the listing, and its asking prices
    old_price numeric(14, 2),
    new_price numeric(14, 2),
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, id)
);

CREATE FUNCTION properties_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    child text;
BEGIN
    FOREACH child IN ARRAY ARRAY['main_buildings', 'additional_buildings', 'registrations', 'days_on_market', 'cases',
                                 'price_changes', 'case_images', 'property_quarantine'] LOOP
        EXECUTE format('DELETE FROM %I WHERE property_id IN (SELECT id FROM gone)', child);
    END LOOP;
    RETURN NULL;
END $$;
CREATE TRIGGER properties_deleted AFTER DELETE ON properties REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION properties_deleted();

CREATE VIEW properties_progress AS
SELECT source, searched_municipality AS municipality, status, count(*) AS properties, max(fetched_at) AS last_fetched_at
FROM properties GROUP BY source, searched_municipality, status ORDER BY source, searched_municipality, status;

CREATE VIEW properties_failed AS
SELECT p.id, p.source, p.searched_municipality AS municipality, p.address, p.reason, p.error, p.attempts, p.completed_at AS failed_at, q.field
FROM properties AS p LEFT JOIN property_quarantine AS q ON q.property_id = p.id
WHERE p.status = 'failed' ORDER BY failed_at DESC, p.id;

-- Fields the profile does not know: what a changed API begins with.
CREATE INDEX properties_extra ON properties (source) WHERE extra IS NOT NULL;
CREATE VIEW property_unknown_fields AS
SELECT p.source, regexp_replace(field.path, '\[\d+\]', '[]', 'g') AS path, count(DISTINCT p.id) AS properties,
    min(p.id) AS example_id, min(p.changed_at) AS first_seen_at, max(p.fetched_at) AS last_seen_at
FROM properties AS p CROSS JOIN LATERAL jsonb_object_keys(p.extra) AS field (path)
WHERE p.extra IS NOT NULL
GROUP BY 1, 2 ORDER BY 1, 2;
