-- Prepares a large plain table for partitioned.sql, which then takes milliseconds. The table accepts
-- events during the preparation. Run this file with psql, which runs each statement in a separate
-- transaction. The SQL editor would run all of them in one, and CREATE INDEX CONCURRENTLY fails there.
--
-- After step 2 the table rejects events dated more than a week ahead. Run partitioned.sql on the
-- same day: a week later the table would reject every event. To undo the preparation:
--   ALTER TABLE public.document_processing_events DROP CONSTRAINT document_processing_events_legacy_bound;
--   DROP INDEX CONCURRENTLY public.document_processing_events_legacy_pkey;

-- Step 1: create the index of the new primary key. Writes go on. The step waits for open
-- transactions and reads the table twice. If it fails, it leaves an invalid index: drop the index
-- and run the step again.
CREATE UNIQUE INDEX CONCURRENTLY document_processing_events_legacy_pkey
    ON public.document_processing_events (id, created_at);

-- Step 2: require new rows to be dated before a midnight (UTC) a week from now. Takes an exclusive
-- lock for a moment.
DO $$
BEGIN
    PERFORM set_config('lock_timeout', '5s', true), set_config('timezone', 'UTC', true);
    EXECUTE format('ALTER TABLE public.document_processing_events
        ADD CONSTRAINT document_processing_events_legacy_bound CHECK (created_at < %L::timestamptz) NOT VALID',
        date_trunc('day', now()) + interval '8 days');
END
$$;

-- Step 3: check the same for the existing rows. Reads the table; writes go on. If this fails, some
-- rows are dated further ahead: delete them or change their date, then run the step again.
ALTER TABLE public.document_processing_events VALIDATE CONSTRAINT document_processing_events_legacy_bound;
