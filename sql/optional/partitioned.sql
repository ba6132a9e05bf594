-- +goose Up
-- Partitions document_processing_events by created_at, for tables with hundreds of millions of
-- rows. You can then drop old partitions, which is faster than deleting rows. docevents works
-- with the partitioned table without a change. Safe to run again.
--
-- If the table doesn't exist yet, run this file instead of 013. If it exists, it becomes the
-- first partition. If it is large, first run partitioned_prepare.sql. sql/README.md describes the
-- locks, the effects on your app, and how to undo the change.
--
-- The primary key must contain the partition key, so it is (id, created_at). When docevents
-- retries an event, it sends the same id and created_at, so each event is stored only once.
--
-- The default partition gets the rows that no other partition covers, so no insert fails. Keep
-- the default partition almost empty: a purge deletes its rows one by one, and adding a partition
-- moves rows out of it.

-- Revokes all rights on a partition, and enables row-level security. Without this, roles could
-- read the partition directly, with pg_graphql or SQL, and bypass the policies and grants of the
-- main table.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION public.document_processing_events_protect(partition regclass)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog
AS $$
DECLARE
    role text;
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', partition);
    EXECUTE format('REVOKE ALL ON TABLE %s FROM PUBLIC', partition);
    FOR role IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
        EXECUTE format('REVOKE ALL ON TABLE %s FROM %I', partition, role);
    END LOOP;
END
$$;
-- +goose StatementEnd

-- Returns the partitions. Each contains the rows with lower_bound <= created_at < upper_bound.
-- Both bounds of the default partition are NULL, and so is the lower_bound of the partition that
-- was the table of 013.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION public.document_processing_events_partitions()
RETURNS TABLE (partition regclass, lower_bound timestamptz, upper_bound timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog SET timezone = 'UTC'
AS $$
    SELECT c.oid::regclass,
        substring(bound FROM 'FROM \(''([^'']+)''\)')::timestamptz,
        substring(bound FROM 'TO \(''([^'']+)''\)')::timestamptz
    FROM pg_inherits
    JOIN pg_class c ON c.oid = inhrelid
    CROSS JOIN LATERAL pg_get_expr(c.relpartbound, c.oid) AS bound
    WHERE inhparent = to_regclass('public.document_processing_events')
    ORDER BY 3 NULLS LAST
$$;
-- +goose StatementEnd

-- Adds a partition for the times from lower_bound to upper_bound, and moves the rows of these
-- times out of the default partition. No other partition may cover these times. Inserts wait
-- during the move, because inserts into the default partition could otherwise fail. If there are
-- no rows to move, inserts wait only milliseconds.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION public.document_processing_events_add_partition(lower_bound timestamptz, upper_bound timestamptz)
RETURNS regclass
LANGUAGE plpgsql SET search_path = pg_catalog SET timezone = 'UTC' SET lock_timeout = '5s'
AS $$
DECLARE
    name      text := 'document_processing_events_p' || to_char(lower_bound, 'YYYYMMDD');
    partition regclass;
BEGIN
    LOCK TABLE ONLY public.document_processing_events IN SHARE ROW EXCLUSIVE MODE;
    EXECUTE format('CREATE TABLE public.%I (LIKE public.document_processing_events INCLUDING ALL EXCLUDING INDEXES)', name);
    partition := format('public.%I', name)::regclass;
    PERFORM public.document_processing_events_protect(partition);
    EXECUTE format('WITH moved AS (
            DELETE FROM public.document_processing_events_default
            WHERE created_at >= %L AND created_at < %L RETURNING *
        ) INSERT INTO %s SELECT * FROM moved', lower_bound, upper_bound, partition);
    -- ATTACH also creates the main table's primary key and indexes on the partition.
    EXECUTE format('ALTER TABLE public.document_processing_events ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)',
        partition, lower_bound, upper_bound);
    RETURN partition;
END
$$;
-- +goose StatementEnd

-- Adds partitions after the newest partition, until they cover the time now() + ahead. The
-- argument "step" is the length of a partition: day, week or month, in UTC. Returns the number of
-- new partitions.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION public.document_processing_events_add_partitions(step text, ahead interval)
RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog SET timezone = 'UTC'
AS $$
DECLARE
    lower_bound timestamptz;
    upper_bound timestamptz;
    added       integer := 0;
BEGIN
    IF step IS NULL OR step NOT IN ('day', 'week', 'month') OR ahead IS NULL OR ahead < '0' THEN
        RAISE EXCEPTION 'step must be day, week or month, and ahead an interval, such as 3 months';
    END IF;
    SELECT max(p.upper_bound) INTO upper_bound FROM public.document_processing_events_partitions() p;
    upper_bound := coalesce(upper_bound, date_trunc(step, now()));
    WHILE upper_bound <= now() + ahead LOOP
        lower_bound := upper_bound;
        upper_bound := date_trunc(step, lower_bound) + ('1 ' || step)::interval;
        PERFORM public.document_processing_events_add_partition(lower_bound, upper_bound);
        added := added + 1;
    END LOOP;
    RETURN added;
END
$$;
-- +goose StatementEnd

-- Drops each partition that covers only times before now() - keep. Also deletes the rows of these
-- times from the default partition. Returns the number of deleted rows. It first counts the rows
-- of the partitions, while inserts of newer rows continue. Then it needs a lock to drop the
-- partitions. While it waits for the lock, up to 5 s, inserts wait too. If it can't get the lock,
-- it fails and changes nothing: run it again.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION public.document_processing_events_drop_partitions(keep interval)
RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog SET timezone = 'UTC' SET lock_timeout = '5s'
AS $$
DECLARE
    cutoff  timestamptz := now() - keep;
    old     regclass;
    counted regclass[] := '{}';
    n       bigint;
    deleted bigint := 0;
BEGIN
    IF keep IS NULL OR keep <= '0' THEN
        RAISE EXCEPTION 'keep must be an age, such as 30 days';
    END IF;
    LOCK TABLE ONLY public.document_processing_events IN SHARE UPDATE EXCLUSIVE MODE; -- nobody else can add or drop partitions
    FOR old IN SELECT partition FROM public.document_processing_events_partitions() WHERE upper_bound <= cutoff LOOP
        -- With this lock, no row is inserted or deleted between the count and the drop.
        EXECUTE format('LOCK TABLE %s IN SHARE MODE', old);
        EXECUTE format('SELECT count(*) FROM %s', old) INTO n;
        deleted := deleted + n;
        counted := counted || old;
    END LOOP;
    DELETE FROM public.document_processing_events_default WHERE created_at < cutoff;
    GET DIAGNOSTICS n = ROW_COUNT;
    deleted := deleted + n;
    FOREACH old IN ARRAY counted LOOP
        EXECUTE format('DROP TABLE %s', old);
    END LOOP;
    RAISE LOG 'document_processing_events_drop_partitions: % rows in % partitions', deleted, cardinality(counted);
    RETURN deleted;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
DECLARE
    kind     "char" := (SELECT relkind FROM pg_class WHERE oid = to_regclass('public.document_processing_events'));
    name     text;
    bound    timestamptz;
    prepared boolean;
BEGIN
    IF kind = 'p' THEN
        RETURN;
    ELSIF kind <> 'r' THEN
        RAISE EXCEPTION 'public.document_processing_events is not a table';
    END IF;
    PERFORM set_config('lock_timeout', '5s', true), set_config('timezone', 'UTC', true);

    -- Rename the table of 013, so that it can become the first partition. Without
    -- partitioned_prepare.sql, PostgreSQL builds an index and reads the table under the
    -- ACCESS EXCLUSIVE lock.
    IF kind = 'r' THEN
        LOCK TABLE public.document_processing_events IN ACCESS EXCLUSIVE MODE;
        ALTER TABLE public.document_processing_events RENAME TO document_processing_events_legacy;
        ALTER INDEX IF EXISTS public.idx_document_processing_events_created_at RENAME TO document_processing_events_legacy_created_at_idx;
        ALTER INDEX IF EXISTS public.idx_document_processing_events_document_id RENAME TO document_processing_events_legacy_document_id_idx;
        ALTER TABLE public.document_processing_events_legacy DROP CONSTRAINT document_processing_events_pkey;
        IF to_regclass('public.document_processing_events_legacy_pkey') IS NULL THEN
            ALTER TABLE public.document_processing_events_legacy ADD PRIMARY KEY (id, created_at);
        ELSE
            ALTER TABLE public.document_processing_events_legacy
                ADD PRIMARY KEY USING INDEX document_processing_events_legacy_pkey;
        END IF;
        SELECT substring(pg_get_constraintdef(oid) FROM '''([^'']+)''')::timestamptz INTO bound
        FROM pg_constraint
        WHERE conrelid = 'public.document_processing_events_legacy'::regclass
            AND conname = 'document_processing_events_legacy_bound' AND convalidated;
        prepared := bound IS NOT NULL;
        bound := coalesce(bound, date_trunc('day', now()) + interval '1 day');
        CREATE TABLE public.document_processing_events
            (LIKE public.document_processing_events_legacy INCLUDING ALL EXCLUDING INDEXES, PRIMARY KEY (id, created_at))
            PARTITION BY RANGE (created_at);
        ALTER TABLE public.document_processing_events DROP CONSTRAINT IF EXISTS document_processing_events_legacy_bound;
    ELSE
        CREATE TABLE public.document_processing_events (
            id            uuid        NOT NULL DEFAULT gen_random_uuid(),
            document_id   uuid        NOT NULL,
            user_id       uuid        NOT NULL,
            event_type    text        NOT NULL,
            duration_ms   integer,
            error_message text,
            stage         text,
            created_at    timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (id, created_at),
            CONSTRAINT document_processing_events_event_type_check
                CHECK (event_type IN ('upload_started', 'processing_started', 'completed', 'failed'))
        ) PARTITION BY RANGE (created_at);
    END IF;
    CREATE INDEX idx_document_processing_events_created_at ON public.document_processing_events (created_at);
    CREATE INDEX idx_document_processing_events_document_id ON public.document_processing_events (document_id);
    ALTER TABLE public.document_processing_events ENABLE ROW LEVEL SECURITY;
    CREATE TABLE public.document_processing_events_default PARTITION OF public.document_processing_events DEFAULT;
    PERFORM public.document_processing_events_protect('public.document_processing_events_default');

    IF kind = 'r' THEN
        IF NOT prepared THEN -- the default partition gets the rows dated at or after the bound
            WITH moved AS (
                DELETE FROM public.document_processing_events_legacy WHERE created_at >= bound RETURNING *
            ) INSERT INTO public.document_processing_events_default SELECT * FROM moved;
        END IF;
        EXECUTE format('ALTER TABLE public.document_processing_events
            ATTACH PARTITION public.document_processing_events_legacy FOR VALUES FROM (MINVALUE) TO (%L)', bound);
        ALTER TABLE public.document_processing_events_legacy DROP CONSTRAINT IF EXISTS document_processing_events_legacy_bound;
        PERFORM public.document_processing_events_protect('public.document_processing_events_legacy');
    END IF;

    -- Grant the same rights as 013.
    FOR name IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
        EXECUTE format('REVOKE ALL ON public.document_processing_events FROM %I', name);
    END LOOP;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'service_role') THEN
        GRANT SELECT, INSERT, DELETE ON public.document_processing_events TO service_role;
    END IF;
    -- Until PostgREST has read the new primary key, inserts fail (42P10), and docevents retries
    -- them.
    NOTIFY pgrst, 'reload schema';
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
DECLARE
    -- Creates partitions of one month each, three months ahead. For partitions of one day each,
    -- write ('day', '14 days').
    add  text := $add$SELECT public.document_processing_events_add_partitions('month', '3 months')$add$;
    fn   regprocedure;
    role text;
BEGIN
    EXECUTE add;

    -- The API roles must not call the functions through PostgREST.
    FOR fn IN SELECT oid::regprocedure FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND proname LIKE 'document\_processing\_events\_%'
            AND proname <> 'document_processing_events_summary' LOOP -- this one is from an older 014, and the API is allowed to call it
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', fn);
        FOR role IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
            EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %I', fn, role);
        END LOOP;
    END LOOP;

    IF to_regprocedure('cron.schedule(text, text, text)') IS NULL THEN
        RAISE NOTICE 'pg_cron is not installed: schedule this statement elsewhere, once a day: %', add;
    ELSE
        PERFORM cron.schedule('document_processing_events_add_partitions', '7 1 * * *', add);
    END IF;
END
$$;
-- +goose StatementEnd

-- This file doesn't drop old partitions. To drop them every night, run this line:
-- SELECT cron.schedule('document_processing_events_drop_partitions', '37 1 * * *', $$SELECT public.document_processing_events_drop_partitions('30 days')$$);
