-- +goose Up
-- docevents reads tables with these functions. Client.Summary and the dashboard's overview call
-- docevents_summary. Client.Documents and the dashboard's lists call docevents_documents. Run
-- this file once per database, and again after each upgrade of docevents.
--
-- The argument "source" describes a table: {"schema", "table", "columns", "events", "filters"}.
-- Any key may be left out. '{}' is the table of 013.
--   columns: the names of the columns, under the keys "id", "document", "user", "event",
--     "duration", "error", "stage" and "created". "-" means that the table has no such column.
--     "document" and "created" can't be "-".
--   events: five lists of event types, under the keys "arrived", "started", "completed", "failed"
--     and "skipped". An event of any other type is a note.
--   filters: {column: value}. Only rows with these values are read. The value null matches NULL.
--
-- The arguments "since" and "until" limit the rows that are read: since <= created < until. The
-- results contain:
--   stage: the step that an event is about. An event without a stage is about the entire
--     document.
--   state: completed, failed, skipped or under way. The document's latest event (by created, then
--     id) decides. The types in "arrived" and "started" mean under way. Notes don't count: a
--     document with only notes has no state. Steps have their own rules:
--     - If a step completes, the document is completed. But after a start without a stage, the
--       document stays under way until an end without a stage, or until a step fails.
--     - A skipped step counts as a completed step.
--   documents: all documents, with or without a state. Events without a document count only in
--     failures, stages and errors.
--   failures: all failed events, including those before a successful retry. If a step and its
--     document fail with the same message, only the step's failure counts.
--   series: documents and failures over time. A document counts at the time of its latest event.
--   stages: the completed and failed events of each stage. Events without a duration don't count
--     in the percentiles of the durations.
--   errors: failures by stage and message. Messages that differ only in numbers and UUIDs count
--     as equal.
--   stuck: documents under way for longer than stuck_after, counted from the first arrival or start
--     since their latest end.
--
-- Limits: 100 points in series, 20 entries in each list (the totals count all entries), 501
-- documents per call of docevents_documents, and 200 characters of each stage and message.

-- Drop the functions of older versions. If a function's arguments have changed, CREATE OR REPLACE
-- would add a second function, and calls could be ambiguous.
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

-- docevents_source returns the WITH clause that begins the queries of docevents_summary and
-- docevents_documents. The queries use five tables of the clause: "event" (the rows, with the same
-- column names for every source), "failures", "documents" (with their states), "begun" (the
-- documents under way) and "stuck". In the clause, $1 means the argument "since", $2 means "until",
-- $3 means "source" and $4 means "stuck_after". The argument "among" is an SQL condition on
-- document_id.
--
-- docevents_source checks that every column exists. Without this check, PostgreSQL could call a
-- function: if there is no column "name", row.name means name(row). The errors use PostgreSQL's
-- wording, because docevents logs only messages that it recognizes.
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
    types       jsonb;        -- the type of each column; for a domain, its base type
    key         text;
    name        text;
    type        text;
    exprs       jsonb := '{}'; -- the SQL expression for each key of columns
    means       jsonb := '{}'; -- the SQL condition for each key of events
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
    IF octet_length(schema_name) > 63 OR octet_length(table_name) > 63 THEN -- PostgreSQL would cut the name, which may then be the name of another table
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
            -- Without a cast, PostgreSQL can use the column's index. Other types are cast to
            -- text, because some types can't be compared.
            WHEN key IN ('id', 'document') AND type IN ('uuid', 'integer', 'bigint', 'text', 'character varying') THEN 'source.%I'
            WHEN key = 'duration' AND type IN ('smallint', 'integer', 'bigint') THEN 'source.%I'
            WHEN key = 'duration' THEN -- JSON has no NaN; text that isn't a number becomes NULL
                $$CASE WHEN source.%1$I::text ~ '^-?[0-9]{1,15}([.][0-9]*)?$' THEN source.%1$I::text::numeric END$$
            ELSE 'source.%I::text'
        END, name));
    END LOOP;

    name := columns ->> 'created';
    type := types ->> name;
    IF type = 'timestamp without time zone' THEN -- The column is in UTC. Without these casts of the bounds, PostgreSQL wouldn't use the column's index under row-level security.
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
            ELSE ' AND source.%1$I = ($3 -> ''filters'' ->> %2$L)::%3$s' -- the cast is on the value, not on the column, so that PostgreSQL can use the column's index
        END, key, key, types ->> key);
    END LOOP;
    FOR key IN SELECT jsonb_object_keys(events) LOOP
        SELECT format('%s IN (%s)', exprs ->> 'event', string_agg(quote_literal(word), ', ')) INTO name -- with a single word in the list, PostgreSQL turns IN into the cheaper =
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
        END AS kind, -- the next two columns follow from kind, but are cheaper to test:
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
            false) AS whole, -- the document has a start without a stage, and after it no end without a stage
        max(created_at) FILTER (WHERE kind IN ('completed', 'failed', 'skipped')) AS step_end,
        max(created_at) FILTER (WHERE kind = 'failed' OR kind IN ('completed', 'skipped') AND own) AS whole_end,
        array_agg(created_at) FILTER (WHERE kind IN ('arrived', 'started')) AS starts
    FROM (
        SELECT document_id, id, created_at, kind, stage IS NULL AS own FROM event
        WHERE document_id IS NOT NULL AND %17$s
        OFFSET 0 -- an optimization fence: without it PostgreSQL may read the entire index on document_id
    ) AS event
    GROUP BY document_id
), documents AS (
    SELECT document_id, last_at, state,
        CASE WHEN state = 'under_way' THEN starts END AS starts, -- only documents under way need starts
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
    WHERE state = 'under_way' AND (start > last_end OR start = last_at) -- a start may have the same time as the end before it
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
LANGUAGE plpgsql STABLE SECURITY INVOKER SET search_path = '' SET timezone = 'UTC' SET jit = off -- JIT compilation takes longer than it saves
AS $function$
DECLARE
    summary json;
BEGIN
    IF NOT (isfinite(since) AND isfinite(until)) THEN
        RAISE invalid_parameter_value USING MESSAGE = 'since and until must be finite';
    END IF;
    EXECUTE public.docevents_source(source) || $sql$, step AS ( -- the time between two points
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
    GROUP BY stage COLLATE "C" -- the collation that sorts fastest
), points AS (
    SELECT greatest(at, '0001-01-01Z') AS at, -- the first time that a JSON (RFC 3339) timestamp can hold
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

-- docevents_documents returns one page of documents. The document with the latest event comes
-- first. The function's arguments:
--   state: completed, failed, under_way, skipped, stuck, or null for all documents.
--   stage: only documents whose latest event has this stage. If error is given, the failure with
--     this error must have this stage instead.
--   error: only documents with this error, in the form that docevents_summary returns.
--   before_at, before_id: last_at and document_id of the last document on the previous page.
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
    -- A query for all, failed or skipped documents reads backwards from the time "until", and
    -- stops when the page is full. A query for another state reads all rows, because the latest
    -- event alone doesn't decide whether a document is completed or under way. A query for an
    -- error also reads all rows.
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

-- Only service_role may execute the functions. By default every role may execute a new function,
-- so first revoke that right.
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
