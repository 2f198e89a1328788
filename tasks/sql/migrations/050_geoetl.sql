-- Geospatial workflows: their definitions, their runs, what every node of a run did, what came in and what went out.

CREATE TYPE geoetl_status AS ENUM ('pending', 'running', 'completed', 'failed', 'cancelled', 'timeout', 'skipped');
CREATE TYPE geoetl_trigger AS ENUM ('manual', 'scheduled', 'api', 'event');

-- A row for every definition that was ever run: a changed one is another row of the same workflow_id, so a run always
-- leads to what it ran.
CREATE TABLE geoetl_workflows (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id text NOT NULL DEFAULT 'default' CHECK (tenant_id <> ''),
    workflow_id text NOT NULL,
    version text NOT NULL,
    name text NOT NULL DEFAULT '',
    category text NOT NULL DEFAULT '',
    tags text[] NOT NULL DEFAULT '{}',
    definition jsonb NOT NULL,
    definition_sha256 text NOT NULL,                -- of the definition's JSON with sorted keys, hex
    is_published boolean NOT NULL DEFAULT false,
    is_deleted boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, workflow_id, version, definition_sha256)
);
CREATE INDEX geoetl_workflows_listed ON geoetl_workflows (tenant_id, is_published, is_deleted);

CREATE TABLE geoetl_workflow_runs (
    id text NOT NULL,                               -- the flow run's
    created_at timestamptz NOT NULL DEFAULT now(),
    tenant_id text NOT NULL DEFAULT 'default',
    workflow bigint NOT NULL REFERENCES geoetl_workflows (id),
    workflow_id text NOT NULL,
    status geoetl_status NOT NULL DEFAULT 'running',
    trigger geoetl_trigger NOT NULL DEFAULT 'manual',
    runner text NOT NULL,
    parameters jsonb NOT NULL DEFAULT '{}',
    resumed_from text,                              -- the run whose stage outputs this one went on with
    ended_at timestamptz,
    features_in bigint NOT NULL DEFAULT 0,          -- read by sources
    features_out bigint NOT NULL DEFAULT 0,         -- written by sinks
    bytes_in bigint NOT NULL DEFAULT 0,
    bytes_out bigint NOT NULL DEFAULT 0,
    peak_memory_mb double precision,
    cpu_ms double precision,
    error text,
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
CREATE INDEX geoetl_workflow_runs_by_status ON geoetl_workflow_runs (status, created_at);
CREATE INDEX geoetl_workflow_runs_by_workflow ON geoetl_workflow_runs (tenant_id, workflow, created_at);

-- A run whose month nobody prepared is recorded all the same.
CREATE TABLE geoetl_workflow_runs_other PARTITION OF geoetl_workflow_runs DEFAULT;

-- Makes the partitions of this month and of those ahead; returns how many were missing. Every run calls it: two
-- look-ups where nothing is missing.
CREATE FUNCTION geoetl_prepare_months(ahead integer DEFAULT 3) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    this_month timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
    first timestamp;
    partition_name text;
    made integer := 0;
BEGIN
    FOR month IN 0 .. ahead LOOP
        first := this_month + make_interval(months => month);
        partition_name := 'geoetl_workflow_runs_' || to_char(first, 'YYYY_MM');
        CONTINUE WHEN to_regclass(partition_name) IS NOT NULL;
        PERFORM pg_advisory_xact_lock(hashtext('geoetl_prepare_months'));
        CONTINUE WHEN to_regclass(partition_name) IS NOT NULL;
        BEGIN
            EXECUTE format('CREATE TABLE %I PARTITION OF geoetl_workflow_runs FOR VALUES FROM (%L) TO (%L)',
                partition_name, first AT TIME ZONE 'UTC', (first + interval '1 month') AT TIME ZONE 'UTC');
            made := made + 1;
        EXCEPTION WHEN check_violation THEN  -- the month has begun without it: its runs are in the other partition
        END;
    END LOOP;
    RETURN made;
END $$;
SELECT geoetl_prepare_months();

-- What a node of a run did. No foreign key to the run: months of runs can be dropped at once.
CREATE TABLE geoetl_node_runs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id text NOT NULL,
    workflow_id text NOT NULL,
    node_id text NOT NULL,
    node_type text NOT NULL,
    stage text NOT NULL DEFAULT '',                 -- the nodes that ran fused with it
    status geoetl_status NOT NULL DEFAULT 'pending',
    attempts integer NOT NULL DEFAULT 0,
    retry_count integer NOT NULL DEFAULT 0,
    reason text,
    error text,
    restored boolean NOT NULL DEFAULT false,        -- done by the run that this one resumed
    features_in bigint NOT NULL DEFAULT 0,
    features_out bigint NOT NULL DEFAULT 0,
    bytes_out bigint NOT NULL DEFAULT 0,
    seconds double precision NOT NULL DEFAULT 0,    -- at work
    cpu_ms double precision NOT NULL DEFAULT 0,
    peak_memory_mb double precision,
    began_at timestamptz,
    completed_at timestamptz,
    UNIQUE (run_id, node_id)
);
CREATE INDEX geoetl_node_runs_failed ON geoetl_node_runs (status) WHERE status IN ('failed', 'timeout');

-- Lineage: what a run read and what it made, with what tells one state of it from another.
CREATE TABLE geoetl_lineage (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id text NOT NULL,
    node_id text NOT NULL,
    direction text NOT NULL CHECK (direction IN ('input', 'output')),
    place text NOT NULL,                            -- a path, a table, an object's address; without passwords
    fingerprint text,                               -- of an input, as its source says it
    sha256 text,                                    -- of a file that was made
    features bigint,
    size_bytes bigint,
    recorded_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX geoetl_lineage_by_run ON geoetl_lineage (run_id);
CREATE INDEX geoetl_lineage_by_place ON geoetl_lineage (place, recorded_at);
