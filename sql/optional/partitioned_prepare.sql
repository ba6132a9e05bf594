-- Prepares a large table for partitioned.sql, so that partitioned.sql locks it only for a moment.
-- Run this file once, with psql. The SQL editor would run it in one transaction, in which CREATE
-- INDEX CONCURRENTLY fails.
--
-- Run partitioned.sql on the same day. After step 2, the table rejects events dated after a
-- bound, which is about a week ahead. After that week, it would reject every new event.
--
-- To undo the preparation:
--   ALTER TABLE public.document_processing_events DROP CONSTRAINT document_processing_events_legacy_bound;
--   DROP INDEX CONCURRENTLY public.document_processing_events_legacy_pkey;

-- Step 1: create the index for the new primary key, while writes continue. This reads the table
-- twice and waits for open transactions. If it fails, drop the invalid index that it leaves, and
-- run the step again.
CREATE UNIQUE INDEX CONCURRENTLY document_processing_events_legacy_pkey
    ON public.document_processing_events (id, created_at);

-- Step 2: require that new rows are dated before the bound, which is one week after the next
-- midnight (UTC). This locks the table for a moment.
DO $$
BEGIN
    PERFORM set_config('lock_timeout', '5s', true), set_config('timezone', 'UTC', true);
    EXECUTE format('ALTER TABLE public.document_processing_events
        ADD CONSTRAINT document_processing_events_legacy_bound CHECK (created_at < %L::timestamptz) NOT VALID',
        date_trunc('day', now()) + interval '8 days');
END
$$;

-- Step 3: check that existing rows are dated before the bound, while writes continue. If this
-- fails, delete the rows dated at or after the bound, or change their dates, and run the step again.
ALTER TABLE public.document_processing_events VALIDATE CONSTRAINT document_processing_events_legacy_bound;
