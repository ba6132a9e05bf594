-- +goose Up
-- Creates a pg_cron job that runs every hour and deletes the rows older than 30 days. To change
-- the age or the schedule, edit the last block and run the file again. Without pg_cron, the file
-- creates only the procedure below, which another scheduler can call. In Supabase, pg_cron is
-- under Integrations, Cron.
--
-- The procedure deletes in batches and commits each batch, so that it locks rows only briefly.
-- COMMIT works only if CALL is sent without other statements. pg_cron and Supabase's SQL editor
-- run "SET statement_timeout = '10min'; CALL ..." as one transaction, in which COMMIT fails with
-- "invalid transaction termination".
--
-- The procedure can't raise its statement_timeout (2 min on hosted Supabase). So it stops early,
-- at the end of a batch, and the next run deletes the rest.

-- The parameters:
--   keep: the age above which rows are deleted.
--   batch: the number of rows per batch. Rows with the same created_at are always in one batch.
--   time_limit: a run stops after this time, or after half of the statement_timeout if that is
--     shorter.
--   deleted: returns the number of deleted rows, which is also written to the server's log.
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

        -- Each batch starts where the previous batch ended, to skip the index entries of deleted
        -- rows. The last batch covers all times before the cutoff, so it also deletes old
        -- rows that were inserted during the purge.
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
    -- By default, every role may call a new procedure. Revoke that right.
    REVOKE ALL ON PROCEDURE public.purge_document_processing_events(interval, integer, interval, bigint) FROM PUBLIC;
    FOR role IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
        EXECUTE format('REVOKE ALL ON PROCEDURE public.purge_document_processing_events(interval, integer, interval, bigint) FROM %I', role);
    END LOOP;

    IF to_regprocedure('cron.schedule(text, text, text)') IS NULL THEN
        RAISE NOTICE 'pg_cron is not installed: nothing is scheduled. Enable it and run this again, or schedule the CALL elsewhere.';
    ELSE
        -- This runs at 17 minutes past each hour, and replaces a job of the same name.
        PERFORM cron.schedule('purge_document_processing_events', '17 * * * *',
            $job$CALL public.purge_document_processing_events('30 days')$job$);
    END IF;
END
$$;
-- +goose StatementEnd
