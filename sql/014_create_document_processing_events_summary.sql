-- +goose Up
-- What happened in a time range, as one JSON document: docevents' Summary and its page read it, and
-- whoever else wants to, as Grafana. It needs 013. Safe to run again.
--
-- The range is since <= created_at < until, and nothing outside of it is looked at. What counts:
--   A document counts once, as what its latest event says (by created_at, then id): completed,
--     failed, or under way (upload_started, processing_started). Types of your own make it seen only.
--   An event with a stage is about that step, one without is about the whole document. So the end of
--     a step doesn't complete a document whose processing_started without a stage is newer than its
--     last completed or failed without one: that one is still under way. Where an app records no
--     such start, each step's end stands for the document's until the next step begins.
--   failures: failed events, also those that a later try made good. A document's own, without a
--     stage, is left out where a step of the document failed with the same message: it is the same.
--   series: each document at the time of its latest event, so that the points add up to the totals;
--     and the failures.
--   stages: the ends of steps (completed and failed), times of those that have one; stage null is
--     the whole document.
--   errors: failures by stage and message; messages that differ in numbers and ids only are one.
--   stuck: documents under way whose first start since their last end is older than stuck_after,
--     whether they hang or begin again and again.
-- sql/optional/queries.sql asks the same, in the same words.
--
-- The answer is small whatever the table holds: at most 100 points, 20 of each list with how many
-- there are in all, 200 characters of any text.

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION public.document_processing_events_summary(
    since timestamptz, until timestamptz, stuck_after interval DEFAULT '30 minutes')
RETURNS json
LANGUAGE sql STABLE SECURITY INVOKER SET search_path = ''
AS $$
WITH step AS ( -- between two points
    SELECT make_interval(secs => coalesce(min(s), 86400 * ceil(extract(epoch FROM until - since) / 86400 / 99))) AS width
    FROM unnest(ARRAY[60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 28800, 43200, 86400]) AS s
    WHERE s * 99 >= extract(epoch FROM until - since)
), seen AS (
    SELECT document_id,
        max(created_at) AS last_at,
        (array_agg(event_type ORDER BY created_at DESC, id DESC))[1] AS last_event,
        coalesce(max(created_at) FILTER (WHERE event_type = 'processing_started' AND stage IS NULL)
            > coalesce(max(created_at) FILTER (WHERE event_type IN ('completed', 'failed') AND stage IS NULL), '-infinity'),
            false) AS whole, -- has begun and not ended
        max(created_at) FILTER (WHERE event_type IN ('completed', 'failed')) AS step_end,
        max(created_at) FILTER (WHERE event_type = 'failed' OR event_type = 'completed' AND stage IS NULL) AS whole_end,
        array_agg(created_at) FILTER (WHERE event_type IN ('upload_started', 'processing_started')) AS starts
    FROM public.document_processing_events AS event
    WHERE created_at >= since AND created_at < until
    GROUP BY document_id
), documents AS (
    SELECT document_id, last_at, state,
        CASE WHEN state = 'under way' THEN starts END AS starts, -- the others' would be kept for nothing
        coalesce(CASE WHEN whole THEN whole_end ELSE step_end END, '-infinity') AS last_end
    FROM seen CROSS JOIN LATERAL (
        SELECT CASE
            WHEN last_event = 'completed' AND NOT whole THEN 'completed'
            WHEN last_event = 'failed' THEN 'failed'
            WHEN last_event IN ('completed', 'upload_started', 'processing_started') THEN 'under way'
        END AS state
    ) AS judged
), stuck AS (
    SELECT document_id, last_at, min(start) AS started, count(*) AS starts
    FROM documents CROSS JOIN unnest(starts) AS start
    WHERE state = 'under way' AND start > last_end
    GROUP BY document_id, last_at
    HAVING min(start) < least(until, now()) - stuck_after
), failures AS (
    SELECT id, document_id, created_at, stage, error
    FROM (
        SELECT id, document_id, created_at, stage, error,
            stage IS NULL AND count(stage) OVER (PARTITION BY document_id, error) > 0 AS repeated
        FROM (
            SELECT id, document_id, created_at, stage,
                left(regexp_replace(left(error_message, 1000),
                    '[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9]+', '#', 'g'), 200) AS error
            FROM public.document_processing_events AS event
            WHERE event_type = 'failed' AND created_at >= since AND created_at < until
        ) AS failed
    ) AS marked
    WHERE NOT repeated
), errors AS (
    SELECT stage, error, count(*) AS count, count(DISTINCT document_id) AS documents,
        min(created_at) AS first_at, max(created_at) AS last_at,
        (array_agg(document_id ORDER BY created_at DESC, id DESC))[1] AS example
    FROM failures
    GROUP BY stage, error
), stages AS (
    SELECT stage COLLATE "C" AS stage, count(*) AS count, count(*) FILTER (WHERE event_type = 'failed') AS failed,
        count(duration_ms) AS measured,
        percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY duration_ms) AS p,
        max(duration_ms) AS longest
    FROM public.document_processing_events AS event
    WHERE event_type IN ('completed', 'failed') AND created_at >= since AND created_at < until
    GROUP BY stage COLLATE "C" -- which sorts fastest
), points AS (
    SELECT greatest(at, '0001-01-01Z') AS at, -- where JSON's times begin
        coalesce(completed, 0) AS completed, coalesce(failed, 0) AS failed,
        coalesce(under_way, 0) AS under_way, coalesce(failures, 0) AS failures
    FROM step
    CROSS JOIN generate_series(date_bin(width, since, '2000-01-01Z'), until - interval '1 microsecond', width) AS at
    LEFT JOIN (
        SELECT date_bin(width, last_at, '2000-01-01Z') AS at, count(*) FILTER (WHERE state = 'completed') AS completed,
            count(*) FILTER (WHERE state = 'failed') AS failed, count(*) FILTER (WHERE state = 'under way') AS under_way
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
    'since', since,
    'until', until,
    'documents', count(*),
    'completed', count(*) FILTER (WHERE state = 'completed'),
    'failed', count(*) FILTER (WHERE state = 'failed'),
    'under_way', count(*) FILTER (WHERE state = 'under way'),
    'last_completed', max(last_at) FILTER (WHERE state = 'completed'),
    'last_failure', (SELECT max(created_at) FROM failures),
    'interval_seconds', (SELECT extract(epoch FROM width)::bigint FROM step),
    'series', (SELECT coalesce(json_agg(points ORDER BY at), '[]') FROM points),
    'stages_total', (SELECT count(*) FROM stages),
    'stages', (
        SELECT coalesce(json_agg(top), '[]') FROM (
            SELECT left(stage, 200) AS stage, count, failed, measured, p[1] AS p50_ms, p[2] AS p95_ms, longest AS max_ms
            FROM stages ORDER BY p[2] DESC NULLS LAST, count DESC, stages.stage LIMIT 20
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
            SELECT oldest.document_id, started, starts, event_type AS last_event, left(stage, 200) AS last_stage, last_at
            FROM (SELECT * FROM stuck ORDER BY started, document_id LIMIT 20) AS oldest
            CROSS JOIN LATERAL (
                SELECT event_type, stage FROM public.document_processing_events AS event
                WHERE event.document_id = oldest.document_id AND event.created_at = last_at
                ORDER BY id DESC LIMIT 1
            ) AS latest
            ORDER BY started, document_id
        ) AS top))
FROM documents
$$;
-- +goose StatementEnd

-- As in 013. A function is everybody's until that is revoked.
-- +goose StatementBegin
DO $$
DECLARE
    name text;
BEGIN
    REVOKE ALL ON FUNCTION public.document_processing_events_summary FROM PUBLIC;
    FOR name IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION public.document_processing_events_summary FROM %I', name);
    END LOOP;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'service_role') THEN
        GRANT EXECUTE ON FUNCTION public.document_processing_events_summary TO service_role;
    END IF;
END
$$;
-- +goose StatementEnd

NOTIFY pgrst, 'reload schema';
