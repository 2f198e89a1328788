-- What runs have written: a part's row is committed with its features, so it is written once however often it is tried.
CREATE TABLE IF NOT EXISTS {table} (
    run_id text NOT NULL,
    node_id text NOT NULL,
    part text NOT NULL,
    features bigint,
    size_bytes bigint,
    written_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, node_id, part)
);
DELETE FROM {table} WHERE written_at < now() - make_interval(days => {days});
