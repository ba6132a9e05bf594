-- +goose Up
-- Retention inside the database, instead of PurgeOlderThan in the app: pg_cron deletes the rows
-- older than 30 days, once an hour. Safe to run again: so the age and the hour are changed.
-- Without pg_cron (Supabase: Integrations, Cron) only the procedure is made, for any other scheduler.
--
-- It deletes in batches, and each is committed: a purge that is broken off keeps what it has done,
-- and no lock is held for longer than a batch takes. That needs a procedure, called on its own:
--   - a function can't commit, nor can a procedure with a SET clause;
--   - "SET statement_timeout = '10min'; CALL ..." is one transaction to pg_cron, and the COMMIT in
--     it fails with "invalid transaction termination". So it does in Supabase's SQL editor.
-- Nor can the procedure set its own statement_timeout: the clock of the CALL is running by then.
-- So it has a time limit instead, and stops between two batches: after a minute, or half of the
-- statement_timeout it runs under (2 min on hosted Supabase). What is left is the next run's.

-- deleted is how many rows went; it is also written to the server's log, since pg_cron keeps no
-- results. Rows that share one created_at go in one batch, however many.
-- +goose StatementBegin
CREATE OR REPLACE PROCEDURE public.purge_document_processing_events(
    keep          interval,
    batch         integer  DEFAULT 5000,
    time_limit    interval DEFAULT '1 minute',
    INOUT deleted bigint   DEFAULT 0
)
LANGUAGE plpgsql AS $$
DECLARE
    cutoff   timestamptz := now() - keep;
    stop     timestamptz := clock_timestamp()
        + least(time_limit, nullif(current_setting('statement_timeout')::interval, '0') / 2);
    after    timestamptz := '-infinity';
    boundary timestamptz;
    n        bigint;
BEGIN
    IF keep IS NULL OR keep <= '0' OR batch IS NULL OR batch < 1 THEN
        RAISE EXCEPTION 'keep must be an age, such as 30 days, and batch at least 1';
    END IF;
    deleted := 0;
    LOOP
        SELECT created_at INTO boundary
        FROM public.document_processing_events
        WHERE created_at > after AND created_at < cutoff
        ORDER BY created_at OFFSET batch - 1 LIMIT 1;

        -- A batch begins behind the last one: the dead index entries there are not walked again.
        -- The last one, less than a batch, takes what was written late with an old time, too.
        IF boundary IS NULL THEN
            DELETE FROM public.document_processing_events WHERE created_at < cutoff;
        ELSE
            DELETE FROM public.document_processing_events WHERE created_at > after AND created_at <= boundary;
        END IF;
        GET DIAGNOSTICS n = ROW_COUNT;
        deleted := deleted + n;
        COMMIT;

        EXIT WHEN boundary IS NULL;
        IF clock_timestamp() >= stop THEN
            RAISE LOG 'purge_document_processing_events: % rows deleted, more are left for the next run', deleted;
            RETURN;
        END IF;
        after := boundary;
    END LOOP;
    RAISE LOG 'purge_document_processing_events: % rows deleted', deleted;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
DECLARE
    role text;
BEGIN
    -- PostgreSQL lets everybody call what is new, and Supabase its API roles.
    REVOKE ALL ON PROCEDURE public.purge_document_processing_events(interval, integer, interval, bigint) FROM PUBLIC;
    FOR role IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
        EXECUTE format('REVOKE ALL ON PROCEDURE public.purge_document_processing_events(interval, integer, interval, bigint) FROM %I', role);
    END LOOP;

    IF to_regprocedure('cron.schedule(text, text, text)') IS NULL THEN
        RAISE NOTICE 'pg_cron is not installed: nothing is scheduled. Enable it and run this again, or schedule the CALL elsewhere.';
    ELSE
        -- At 17 minutes past each hour, UTC: hourly keeps the purges small. A job of this name is replaced.
        PERFORM cron.schedule('purge_document_processing_events', '17 * * * *',
            $job$CALL public.purge_document_processing_events('30 days')$job$);
    END IF;
END
$$;
-- +goose StatementEnd
