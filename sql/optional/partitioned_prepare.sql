-- Makes a big plain table ready for partitioned.sql, which then takes milliseconds. Events are
-- recorded all the while. Run it with psql, in which each statement is a transaction of its own:
-- in the SQL editor they would be one, and CREATE INDEX CONCURRENTLY refuses that.
--
-- From step 2 on, events dated more than a week ahead are refused. Run partitioned.sql on the same
-- day: a week later every event would be. To give up:
--   ALTER TABLE public.document_processing_events DROP CONSTRAINT document_processing_events_legacy_bound;
--   DROP INDEX CONCURRENTLY public.document_processing_events_legacy_pkey;

-- Step 1: the new primary key's index. Writes go on; it waits for the transactions that are open
-- and reads the table twice. If it fails it leaves an invalid index: drop that, and run it again.
CREATE UNIQUE INDEX CONCURRENTLY document_processing_events_legacy_pkey
    ON public.document_processing_events (id, created_at);

-- Step 2: the promise that its rows end at a midnight (UTC) a week from now. A moment's exclusive lock.
DO $$
BEGIN
    PERFORM set_config('lock_timeout', '5s', true), set_config('timezone', 'UTC', true);
    EXECUTE format('ALTER TABLE public.document_processing_events
        ADD CONSTRAINT document_processing_events_legacy_bound CHECK (created_at < %L::timestamptz) NOT VALID',
        date_trunc('day', now()) + interval '8 days');
END
$$;

-- Step 3: that it holds for the rows there are. Reads the table; writes go on. Where it fails,
-- there are rows dated further ahead: delete them, or give them another date, first.
ALTER TABLE public.document_processing_events VALIDATE CONSTRAINT document_processing_events_legacy_bound;
