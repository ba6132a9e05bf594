-- +goose Up
-- The functions that docevents reads with: docevents_summary, which Summary and the page's overview
-- call, and docevents_documents, which lists documents by state. They serve every table of the
-- project; run this file once, unchanged. Safe to run again, also over an older version.
--
-- source says which table to read, as {"schema", "table", "columns", "events", "filters"}. Each key
-- may be left out, and so may each key of columns and events: '{}' is the table of 013.
--   columns: the table's names for id, document, user, event, duration, error, stage and created.
--     "-" says that the table has no such column.
--   events: which event types mean arrived, started, completed, failed and skipped, each a list.
--     Types in no list are notes.
--   filters: {column: value}, of any column. Only rows with these values are looked at.
--
-- The range is since <= created < until, and nothing outside of it is looked at. Definitions:
--   A document counts once, as its latest event says (by created, then id; notes are passed over):
--     completed, failed, skipped, or under way (arrived, started). With nothing but notes it is only
--     seen. Events without a document count in stages and errors alone.
--   An event with a stage is about that step, one without is about the whole document. So the end of
--     a step doesn't complete a document whose latest started without a stage is newer than its
--     latest end without one: that document is still under way. In an app that records no such
--     start, each step's end stands for the document's until the next step begins. A step that is
--     skipped counts as completed.
--   failures: failed events, also those that a later try made good. A document's own failure,
--     without a stage, is left out if a step of the document failed with the same message.
--   series: each document at the time of its latest event, so that the points add up to the totals;
--     and the failures.
--   stages: the ends of steps (completed and failed), times of those that have one; stage null is
--     the whole document.
--   errors: failures by stage and message; messages that differ only in numbers and ids are one.
--   stuck: documents under way whose first start since their latest end is older than stuck_after,
--     whether they hang or begin again and again.
-- sql/optional/queries.sql asks the same of the table of 013.
--
-- The answers are small whatever the table holds: at most 100 points, 20 of each list with how many
-- there are in all, 500 documents, 200 characters of any text but ids.

-- Functions of an older version that take other arguments would stay as overloads, and a call would
-- match both.
-- +goose StatementBegin
DO $$
DECLARE
    old regprocedure;
BEGIN
    FOR old IN SELECT oid FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace
            AND proname IN ('docevents_source', 'docevents_summary', 'docevents_documents')
            AND oid NOT IN (
                coalesce(to_regprocedure('public.docevents_source(jsonb, text)'), 0),
                coalesce(to_regprocedure('public.docevents_summary(jsonb, timestamptz, timestamptz, interval)'), 0),
                coalesce(to_regprocedure('public.docevents_documents(jsonb, timestamptz, timestamptz, text, text, text, timestamptz, text, integer, interval)'), 0))
    LOOP
        EXECUTE format('DROP FUNCTION %s', old);
    END LOOP;
END
$$;
-- +goose StatementEnd

-- docevents_source returns the WITH clause that the other two begin with: the table's rows under the
-- same names and types for every table, failures, and the documents by state. In it $1 is since, $2
-- until, $3 source and $4 stuck_after; among is a condition on document_id that limits the
-- documents. docevents_source looks up every name in the catalog: PostgreSQL takes a name that isn't
-- a column for a function, and applies it to the row. It doesn't execute what it returns. Its errors
-- are in PostgreSQL's words: docevents logs no others.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION public.docevents_source(source jsonb, among text DEFAULT 'true')
RETURNS text
LANGUAGE plpgsql STABLE SECURITY INVOKER SET search_path = ''
AS $function$
DECLARE
    schema_name text := coalesce(source ->> 'schema', 'public');
    table_name  text := coalesce(source ->> 'table', 'document_processing_events');
    columns     jsonb := '{"id": "id", "document": "document_id", "user": "user_id", "event": "event_type",
        "duration": "duration_ms", "error": "error_message", "stage": "stage", "created": "created_at"}';
    events      jsonb := '{"arrived": ["upload_started"], "started": ["processing_started"],
        "completed": ["completed"], "failed": ["failed"], "skipped": []}';
    relation    regclass;
    types       jsonb;        -- by column; a domain's is the one under it
    key         text;
    name        text;
    type        text;
    exprs       jsonb := '{}'; -- the SQL for each key of columns
    means       jsonb := '{}'; -- the condition for each key of events
    bounds      text := 'source.%1$I >= $1 AND source.%1$I < $2';
    filters     text := '';
BEGIN
    IF jsonb_typeof(source) IS DISTINCT FROM 'object' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'source must be an object';
    END IF;
    FOREACH key IN ARRAY ARRAY['columns', 'events', 'filters'] LOOP
        IF jsonb_typeof(source -> key) <> 'object' THEN
            RAISE invalid_parameter_value USING MESSAGE = format('source: %s must be an object', key);
        END IF;
    END LOOP;
    columns := columns || coalesce(jsonb_strip_nulls(source) -> 'columns', '{}');
    events := events || coalesce(jsonb_strip_nulls(source) -> 'events', '{}');
    IF octet_length(schema_name) > 63 OR octet_length(table_name) > 63 THEN -- it would be cut, to another table's name perhaps
        RAISE undefined_table USING MESSAGE = format('relation "%s.%s" does not exist', schema_name, table_name);
    END IF;
    relation := format('%I.%I', schema_name, table_name)::regclass;
    SELECT jsonb_object_agg(a.attname, format_type(coalesce(nullif(t.typbasetype, 0), t.oid), -1)) INTO types
        FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
        WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped;

    FOR key, name IN SELECT c.key, c.value FROM jsonb_each_text(columns) AS c LOOP
        type := types ->> name;
        IF name = '-' AND key NOT IN ('document', 'created') THEN
            exprs := exprs || jsonb_build_object(key, 'NULL::text');
            CONTINUE;
        ELSIF type IS NULL THEN
            RAISE undefined_column USING MESSAGE = format('column "%s" of relation "%s.%s" does not exist', name, schema_name, table_name);
        END IF;
        exprs := exprs || jsonb_build_object(key, format(CASE
            WHEN key = 'created' THEN 'source.%I'
            -- Uncast, its index serves. What is left compares as text: as citext or json it might not compare at all.
            WHEN key IN ('id', 'document') AND type IN ('uuid', 'integer', 'bigint', 'text', 'character varying') THEN 'source.%I'
            WHEN key = 'duration' AND type IN ('smallint', 'integer', 'bigint') THEN 'source.%I'
            WHEN key = 'duration' THEN -- NaN and what isn't a number have no place in JSON
                $$CASE WHEN source.%1$I::text ~ '^-?[0-9]{1,15}([.][0-9]*)?$' THEN source.%1$I::text::numeric END$$
            ELSE 'source.%I::text'
        END, name));
    END LOOP;

    name := columns ->> 'created';
    type := types ->> name;
    IF type = 'timestamp without time zone' THEN -- in UTC. Bounds of another type don't use its index under row level security.
        bounds := 'source.%1$I >= ($1 AT TIME ZONE ''UTC'') AND source.%1$I < ($2 AT TIME ZONE ''UTC'')';
    ELSIF type NOT IN ('timestamp with time zone', 'date') THEN
        RAISE datatype_mismatch USING MESSAGE = format('column "%s" is of type %s but expression is of type timestamp with time zone', name, type);
    END IF;
    FOR key IN SELECT jsonb_object_keys(source -> 'filters') LOOP
        IF types ->> key IS NULL THEN
            RAISE undefined_column USING MESSAGE = format('column "%s" of relation "%s.%s" does not exist', key, schema_name, table_name);
        END IF;
        filters := filters || format(CASE
            WHEN source -> 'filters' ->> key IS NULL THEN ' AND source.%1$I IS NULL'
            ELSE ' AND source.%1$I = ($3 -> ''filters'' ->> %2$L)::%3$s' -- the value is cast: the column's index serves
        END, key, key, types ->> key);
    END LOOP;
    FOR key IN SELECT jsonb_object_keys(events) LOOP
        SELECT format('%s IN (%s)', exprs ->> 'event', string_agg(quote_literal(word), ', ')) INTO name -- of one word PostgreSQL makes the cheaper =
            FROM jsonb_array_elements_text(events -> key) AS word HAVING count(*) > 0;
        means := means || jsonb_build_object(key, coalesce(name, 'false'));
    END LOOP;

    RETURN format($sql$
WITH event AS NOT MATERIALIZED (
    SELECT %1$s AS id, %2$s AS document_id, %3$s AS user_id, %4$s AS event_type, %5$s AS duration_ms, %6$s AS error_message,
        %7$s AS stage, %8$s AS at, %8$s::timestamptz AS created_at,
        CASE
            WHEN %9$s THEN 'completed'
            WHEN %10$s THEN 'started'
            WHEN %11$s THEN 'arrived'
            WHEN %12$s THEN 'failed'
            WHEN %13$s THEN CASE WHEN %7$s IS NULL THEN 'skipped' ELSE 'completed' END
        END AS kind, -- the same as conditions, which cost less:
        %12$s AS failed, %9$s OR %12$s OR %13$s AND %7$s IS NOT NULL AS ended
    FROM %14$s AS source
    WHERE %15$s%16$s
), failures AS (
    SELECT id, document_id, created_at, stage, error
    FROM (
        SELECT id, document_id, created_at, stage, error,
            stage IS NULL AND document_id IS NOT NULL AND count(stage) OVER (PARTITION BY document_id, error) > 0 AS repeated
        FROM (
            SELECT id, document_id, created_at, stage,
                left(regexp_replace(left(error_message, 1000),
                    '[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9]+', '#', 'g'), 200) AS error
            FROM event
            WHERE failed
        ) AS failed
    ) AS marked
    WHERE NOT repeated
), seen AS (
    SELECT document_id,
        coalesce(max(created_at) FILTER (WHERE kind IS NOT NULL), max(created_at)) AS last_at,
        (array_agg(kind ORDER BY created_at DESC, id DESC) FILTER (WHERE kind IS NOT NULL))[1] AS last_kind,
        coalesce(max(created_at) FILTER (WHERE kind = 'started' AND own)
            > coalesce(max(created_at) FILTER (WHERE kind IN ('completed', 'failed', 'skipped') AND own), '-infinity'),
            false) AS whole, -- has begun and not ended
        max(created_at) FILTER (WHERE kind IN ('completed', 'failed', 'skipped')) AS step_end,
        max(created_at) FILTER (WHERE kind = 'failed' OR kind IN ('completed', 'skipped') AND own) AS whole_end,
        array_agg(created_at) FILTER (WHERE kind IN ('arrived', 'started')) AS starts
    FROM (
        SELECT document_id, id, created_at, kind, stage IS NULL AS own FROM event
        WHERE document_id IS NOT NULL AND %17$s
        OFFSET 0 -- a fence: without it the whole index on document_id may be walked
    ) AS event
    GROUP BY document_id
), documents AS (
    SELECT document_id, last_at, state,
        CASE WHEN state = 'under_way' THEN starts END AS starts, -- the others' would be kept for nothing
        coalesce(CASE WHEN whole THEN whole_end ELSE step_end END, '-infinity') AS last_end
    FROM seen CROSS JOIN LATERAL (
        SELECT CASE
            WHEN last_kind = 'completed' AND NOT whole THEN 'completed'
            WHEN last_kind IN ('failed', 'skipped') THEN last_kind
            WHEN last_kind IN ('completed', 'arrived', 'started') THEN 'under_way'
        END AS state
    ) AS judged
), begun AS (
    SELECT document_id, last_at, min(start) AS started, count(*) AS starts
    FROM documents CROSS JOIN unnest(starts) AS start
    WHERE state = 'under_way' AND (start > last_end OR start = last_at) -- a start may have the time of the end before it
    GROUP BY document_id, last_at
), stuck AS (
    SELECT * FROM begun WHERE started < least($2, now()) - $4
)$sql$,
        exprs ->> 'id', exprs ->> 'document', exprs ->> 'user', exprs ->> 'event', exprs ->> 'duration', exprs ->> 'error',
        exprs ->> 'stage', exprs ->> 'created', means ->> 'completed', means ->> 'started', means ->> 'arrived', means ->> 'failed',
        means ->> 'skipped', relation, format(bounds, columns ->> 'created'), filters, among);
END
$function$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION public.docevents_summary(
    source jsonb, since timestamptz, until timestamptz, stuck_after interval DEFAULT '30 minutes')
RETURNS json
LANGUAGE plpgsql STABLE SECURITY INVOKER SET search_path = '' SET timezone = 'UTC' SET jit = off -- compiling takes longer than it saves
AS $function$
DECLARE
    summary json;
BEGIN
    IF NOT (isfinite(since) AND isfinite(until)) THEN
        RAISE invalid_parameter_value USING MESSAGE = 'since and until must be finite';
    END IF;
    EXECUTE public.docevents_source(source) || $sql$, step AS ( -- between two points
    SELECT make_interval(secs => coalesce(min(s), 86400 * ceil(extract(epoch FROM $2 - $1) / 86400 / 99))) AS width
    FROM unnest(ARRAY[60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 28800, 43200, 86400]) AS s
    WHERE s * 99 >= extract(epoch FROM $2 - $1)
), errors AS (
    SELECT stage, error, count(*) AS count, count(DISTINCT document_id) AS documents,
        min(created_at) AS first_at, max(created_at) AS last_at,
        (array_agg(document_id ORDER BY created_at DESC, id DESC) FILTER (WHERE document_id IS NOT NULL))[1]::text AS example
    FROM failures
    GROUP BY stage, error
), stages AS (
    SELECT stage COLLATE "C" AS stage, count(*) AS count, count(*) FILTER (WHERE failed) AS failed,
        count(duration_ms) AS measured,
        percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY duration_ms) AS p,
        max(duration_ms) AS longest
    FROM event
    WHERE ended
    GROUP BY stage COLLATE "C" -- which sorts fastest
), points AS (
    SELECT greatest(at, '0001-01-01Z') AS at, -- where JSON's times begin
        coalesce(completed, 0) AS completed, coalesce(failed, 0) AS failed,
        coalesce(under_way, 0) AS under_way, coalesce(skipped, 0) AS skipped, coalesce(failures, 0) AS failures
    FROM step
    CROSS JOIN generate_series(date_bin(width, $1, '2000-01-01Z'), $2 - interval '1 microsecond', width) AS at
    LEFT JOIN (
        SELECT date_bin(width, last_at, '2000-01-01Z') AS at, count(*) FILTER (WHERE state = 'completed') AS completed,
            count(*) FILTER (WHERE state = 'failed') AS failed, count(*) FILTER (WHERE state = 'under_way') AS under_way,
            count(*) FILTER (WHERE state = 'skipped') AS skipped
        FROM documents CROSS JOIN step
        GROUP BY 1
    ) AS counted USING (at)
    LEFT JOIN (
        SELECT date_bin(width, created_at, '2000-01-01Z') AS at, count(*) AS failures
        FROM failures CROSS JOIN step
        GROUP BY 1
    ) AS failed_then USING (at)
)
SELECT json_build_object(
    'since', $1,
    'until', $2,
    'documents', count(*),
    'completed', count(*) FILTER (WHERE state = 'completed'),
    'failed', count(*) FILTER (WHERE state = 'failed'),
    'under_way', count(*) FILTER (WHERE state = 'under_way'),
    'skipped', count(*) FILTER (WHERE state = 'skipped'),
    'last_completed', max(last_at) FILTER (WHERE state = 'completed'),
    'last_failure', (SELECT max(created_at) FROM failures),
    'interval_seconds', (SELECT extract(epoch FROM width)::bigint FROM step),
    'series', (SELECT coalesce(json_agg(points ORDER BY at), '[]') FROM points),
    'stages_total', (SELECT count(*) FROM stages),
    'stages', (
        SELECT coalesce(json_agg(top), '[]') FROM (
            SELECT left(stage, 200) AS stage, count, failed, measured, p[1]::bigint AS p50_ms, p[2]::bigint AS p95_ms, longest::bigint AS max_ms
            FROM stages ORDER BY p95_ms DESC NULLS LAST, count DESC, stages.stage LIMIT 20
        ) AS top),
    'errors_total', (SELECT count(*) FROM errors),
    'errors', (
        SELECT coalesce(json_agg(top), '[]') FROM (
            SELECT left(stage, 200) AS stage, error, count, documents, first_at, last_at, example
            FROM errors ORDER BY count DESC, last_at DESC, errors.stage COLLATE "C", errors.error COLLATE "C" LIMIT 20
        ) AS top),
    'stuck_total', (SELECT count(*) FROM stuck),
    'stuck', (
        SELECT coalesce(json_agg(top), '[]') FROM (
            SELECT oldest.document_id::text, started, starts, event_type AS last_event, left(stage, 200) AS last_stage, last_at
            FROM (SELECT * FROM stuck ORDER BY started, document_id LIMIT 20) AS oldest
            JOIN (
                SELECT DISTINCT ON (event.document_id) event.document_id, event_type, stage
                FROM event JOIN (SELECT * FROM stuck ORDER BY started, document_id LIMIT 20) AS oldest USING (document_id)
                WHERE created_at = last_at AND kind IS NOT NULL
                ORDER BY event.document_id, id DESC
            ) AS latest USING (document_id)
            ORDER BY started, oldest.document_id
        ) AS top))
FROM documents$sql$
        INTO summary USING since, until, source, stuck_after;
    RETURN summary;
END
$function$;
-- +goose StatementEnd

-- docevents_documents returns documents by state, the newest latest event first. state is null for
-- all, or completed, failed, under_way, skipped or stuck. stage is that of the latest event; with
-- error it is that of the failure: then the documents are those of the errors that the summary
-- counts. before_at and before_id are of the last document of the page before.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION public.docevents_documents(
    source jsonb, since timestamptz, until timestamptz, state text DEFAULT NULL, stage text DEFAULT NULL, error text DEFAULT NULL,
    before_at timestamptz DEFAULT NULL, before_id text DEFAULT NULL, max integer DEFAULT 50, stuck_after interval DEFAULT '30 minutes')
RETURNS json
LANGUAGE plpgsql STABLE SECURITY INVOKER SET search_path = '' SET timezone = 'UTC' SET jit = off
AS $function$
DECLARE
    among text := 'true';
    page  json;
BEGIN
    -- The documents whose latest event is of that kind are found by a walk back from until, which ends
    -- when the page is full. Whether a document is completed or under way takes more than its latest
    -- event, so these are aggregated, as in the summary.
    IF error IS NOT NULL THEN
        among := 'document_id IN (SELECT document_id FROM failures WHERE error = $7 AND ($6 IS NULL OR stage = $6))';
    ELSIF stage IS NOT NULL OR state IS NULL OR state IN ('failed', 'skipped') THEN
        among := format($sql$document_id IN (
            SELECT document_id FROM event
            WHERE document_id IS NOT NULL%s%s
                AND ($8 IS NULL OR at <= $8 AND (at < $8 OR document_id::text COLLATE "C" < $9))
                AND NOT EXISTS (
                    SELECT FROM event AS later
                    WHERE later.document_id = event.document_id
                        AND (later.kind IS NOT NULL, later.at, later.id IS NULL, later.id) > (event.kind IS NOT NULL, event.at, event.id IS NULL, event.id))%s)$sql$,
            CASE WHEN state IN ('failed', 'skipped') THEN ' AND kind = $5' END,
            CASE WHEN stage IS NOT NULL THEN ' AND stage = $6' END,
            CASE WHEN state IS NULL OR state IN ('failed', 'skipped') THEN ' ORDER BY at DESC, document_id::text COLLATE "C" DESC LIMIT $10' END);
    END IF;
    EXECUTE public.docevents_source(source, among) || $sql$, listed AS (
    SELECT document_id, document_id::text COLLATE "C" AS name, last_at, begun.started,
        CASE WHEN begun.started < least($2, now()) - $4 THEN 'stuck' ELSE state END AS state
    FROM documents LEFT JOIN begun USING (document_id, last_at)
    WHERE ($5 IS NULL OR state = $5 OR $5 = 'stuck' AND begun.started < least($2, now()) - $4)
        AND ($8 IS NULL OR last_at <= $8 AND (last_at < $8 OR document_id::text COLLATE "C" < $9))
    ORDER BY last_at DESC, document_id::text COLLATE "C" DESC
    LIMIT $10
)
SELECT coalesce(json_agg(json_build_object(
    'document_id', name, 'user_id', user_id, 'state', state, 'type', event_type, 'stage', left(stage, 200),
    'error', left(error_message, 200), 'started', coalesce(started, first_at), 'last_at', last_at) ORDER BY last_at DESC, name DESC), '[]')
FROM listed JOIN (
    SELECT DISTINCT ON (event.document_id) event.document_id, user_id, event_type, stage, error_message,
        min(created_at) OVER (PARTITION BY event.document_id) AS first_at
    FROM event JOIN listed USING (document_id)
    ORDER BY event.document_id, created_at = last_at DESC, kind IS NOT NULL DESC, id DESC
) AS latest USING (document_id)$sql$
        INTO page USING since, until, source, stuck_after, state, stage, error, before_at, before_id, least(greatest(max, 1), 501);
    RETURN page;
END
$function$;
-- +goose StatementEnd

-- As in 013. A function is everybody's until that is revoked.
-- +goose StatementBegin
DO $$
DECLARE
    function regprocedure;
    name     text;
BEGIN
    FOR function IN SELECT oid FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND proname IN ('docevents_source', 'docevents_summary', 'docevents_documents')
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', function);
        FOR name IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
            EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %I', function, name);
        END LOOP;
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'service_role') THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO service_role', function);
        END IF;
    END LOOP;
END
$$;
-- +goose StatementEnd

NOTIFY pgrst, 'reload schema';
