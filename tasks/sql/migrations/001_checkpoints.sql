-- The state machine every workload uses: pending -> in_progress -> completed | failed | skipped,
-- in_progress -> pending (retry, release, lapsed lease). The way back from a final status is an explicit
-- command, which says so with SET LOCAL landrecords.explicit = 'on'. Everything else is refused here.

CREATE TYPE item_status AS ENUM ('pending', 'in_progress', 'completed', 'failed', 'skipped');

CREATE FUNCTION landrecords_guard_move() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    step_column text := TG_ARGV[0];
    old_status text := to_jsonb(OLD) ->> step_column;
    new_status text := to_jsonb(NEW) ->> step_column;
BEGIN
    IF new_status = 'pending' AND current_setting('landrecords.explicit', true) = 'on' THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'illegal move of %.% for id %: % -> %', TG_TABLE_NAME, step_column, OLD.id, old_status, new_status
        USING ERRCODE = 'check_violation', CONSTRAINT = 'landrecords_legal_move';
END $$;

-- Adds a step to a table: its columns, the partial indexes a claim walks, and the guard.
-- step '' is for workloads of a single step (plain column names).
-- claim_order: comma-separated columns; requires: what must hold before the step may be claimed ('' for nothing).
CREATE FUNCTION landrecords_add_step(target regclass, step text, claim_order text, requires text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    prefix text := CASE step WHEN '' THEN '' ELSE step || '_' END;
    done_at text := CASE WHEN step = '' THEN 'completed_at' WHEN step LIKE '%e' THEN step || 'd_at' ELSE step || 'ed_at' END;
    also text := CASE requires WHEN '' THEN '' ELSE ' AND (' || requires || ')' END;
    name text := replace(target::text, '.', '_');
BEGIN
    EXECUTE format('ALTER TABLE %s
        ADD COLUMN IF NOT EXISTS claimed_by text,
        ADD COLUMN IF NOT EXISTS lease_until timestamptz,
        ADD COLUMN IF NOT EXISTS not_before timestamptz,
        ADD COLUMN IF NOT EXISTS run_id text,
        ADD COLUMN %I item_status NOT NULL DEFAULT ''pending'',
        ADD COLUMN %I smallint NOT NULL DEFAULT 0,
        ADD COLUMN %I text,
        ADD COLUMN %I text,
        ADD COLUMN %I timestamptz',
        target, prefix || 'status', prefix || 'attempts', prefix || 'reason', prefix || 'error', done_at);
    -- A row in progress without a lease would never lapse: nobody would ever take it again.
    EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I
        CHECK (%I <> ''in_progress'' OR claimed_by IS NOT NULL AND lease_until IS NOT NULL)',
        target, prefix || 'leased', prefix || 'status');
    EXECUTE format('CREATE INDEX %I ON %s (%s) WHERE %I = ''pending''%s',
        name || '_' || prefix || 'due', target, claim_order, prefix || 'status', also);
    EXECUTE format('CREATE INDEX %I ON %s (lease_until) WHERE %I = ''in_progress''',
        name || '_' || prefix || 'leases', target, prefix || 'status');
    -- The condition stands in WHEN so that a legal move calls no function at all.
    EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OF %3$I ON %2$s FOR EACH ROW
        WHEN (OLD.%3$I <> NEW.%3$I AND OLD.%3$I <> ''in_progress''
              AND NOT (OLD.%3$I = ''pending'' AND NEW.%3$I = ''in_progress''))
        EXECUTE FUNCTION landrecords_guard_move(%4$L)',
        prefix || 'legal_move', target, prefix || 'status', prefix || 'status');
END $$;

-- The clock of a host: the next free turn, shared by every worker on every machine.
CREATE TABLE host_clocks (
    host text PRIMARY KEY,
    rate double precision CHECK (rate > 0),         -- turns per second; NULL: no limit
    next_turn timestamptz NOT NULL DEFAULT '-infinity',
    hold_until timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50);

-- Runs, so that status and reports can name them after the process is gone.
CREATE TABLE landrecords_runs (
    run_id text PRIMARY KEY,
    workload text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    parameters jsonb NOT NULL DEFAULT '{}',
    report jsonb
);
