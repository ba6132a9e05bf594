-- Prepares a large table for partitioned.sql, so that partitioned.sql locks the table only for a
-- moment. The table accepts events during the preparation. Run this file once, with psql, which runs
-- each statement in a separate transaction. The SQL editor would run all statements in one
-- transaction, in which CREATE INDEX CONCURRENTLY fails.
--
-- After step 2, the table rejects events dated after a bound, which is about a week ahead. So run
-- partitioned.sql on the same day: after the bound, the table would reject every new event.
--
-- To undo the preparation:
--   ALTER TABLE public.document_processing_events DROP CONSTRAINT document_processing_events_legacy_bound;
--   DROP INDEX CONCURRENTLY public.document_processing_events_legacy_pkey;

-- Step 1: create the index for the new primary key, while writes continue. This step waits for open
-- transactions and reads the table twice. If it fails, it leaves an invalid index. Then drop the
-- index and run the step again.
CREATE UNIQUE INDEX CONCURRENTLY document_processing_events_legacy_pkey
    ON public.document_processing_events (id, created_at);

-- Step 2: require that new rows are dated before the bound, which is one week after the next midnight
-- (UTC). This takes an exclusive lock for a moment.
DO $$
BEGIN
    PERFORM set_config('lock_timeout', '5s', true), set_config('timezone', 'UTC', true);
    EXECUTE format('ALTER TABLE public.document_processing_events
        ADD CONSTRAINT document_processing_events_legacy_bound CHECK (created_at < %L::timestamptz) NOT VALID',
        date_trunc('day', now()) + interval '8 days');
END
$$;

-- Step 3: check that existing rows are dated before the bound. This reads the table, while writes
-- continue. If it fails, some rows are dated later. Delete these rows or change their dates, and run
-- the step again.
ALTER TABLE public.document_processing_events VALIDATE CONSTRAINT document_processing_events_legacy_bound;
