-- +goose Up
-- Retention in the database, instead of PurgeOlderThan in the app. pg_cron deletes the rows older
-- than 30 days, every hour. To change the age or the schedule, edit the last block and run the file
-- again. Without pg_cron (Supabase: Integrations, Cron) the file creates only the procedure, for use
-- with another scheduler.
--
-- The procedure deletes in batches and commits after each batch. So an interrupted purge keeps its
-- progress, and no lock is held for longer than one batch. For COMMIT to work, the CALL must be the
-- only statement, and the procedure must have no SET clause. pg_cron and Supabase's SQL editor run
-- "SET statement_timeout = '10min'; CALL ..." as one transaction, in which COMMIT fails with "invalid
-- transaction termination".
--
-- The procedure can't raise its statement_timeout, because the timeout of the CALL is already running.
-- Therefore it stops between two batches: after time_limit, or after half of the statement_timeout
-- (2 min on hosted Supabase) if that is shorter. The next run deletes the rest.

-- deleted returns the number of deleted rows. It is also logged, because pg_cron doesn't keep
-- results. Rows with the same created_at are deleted in one batch, however many they are.
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

        -- Each batch starts where the previous batch ended, because the index still has entries for
        -- the rows that are deleted already. The last batch starts at the beginning, to delete also
        -- the rows with an old time that were inserted during the purge.
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
    -- PostgreSQL lets every role call a new procedure, and Supabase may grant that to its API roles.
    REVOKE ALL ON PROCEDURE public.purge_document_processing_events(interval, integer, interval, bigint) FROM PUBLIC;
    FOR role IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
        EXECUTE format('REVOKE ALL ON PROCEDURE public.purge_document_processing_events(interval, integer, interval, bigint) FROM %I', role);
    END LOOP;

    IF to_regprocedure('cron.schedule(text, text, text)') IS NULL THEN
        RAISE NOTICE 'pg_cron is not installed: nothing is scheduled. Enable it and run this again, or schedule the CALL elsewhere.';
    ELSE
        -- At 17 minutes past each hour. Hourly runs keep each purge small. This replaces an existing job
        -- of the same name.
        PERFORM cron.schedule('purge_document_processing_events', '17 * * * *',
            $job$CALL public.purge_document_processing_events('30 days')$job$);
    END IF;
END
$$;
-- +goose StatementEnd
