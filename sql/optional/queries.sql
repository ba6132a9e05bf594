-- Six questions to the table, for Supabase's SQL editor: select one and run it. What to change
-- stands on a line of its own with a comment. Each uses the indexes that 013 makes.

-- 1. What happened to one document, step by step?
SELECT created_at, event_type, stage, duration_ms, error_message
FROM public.document_processing_events
WHERE document_id =
    '00000000-0000-0000-0000-000000000000' -- the document
ORDER BY created_at, id;

-- 2. Where do these documents stand, each by its latest event?
SELECT DISTINCT ON (document_id) document_id, event_type, stage, created_at, error_message
FROM public.document_processing_events
WHERE document_id IN (
    '00000000-0000-0000-0000-000000000000', -- the documents
    '11111111-1111-1111-1111-111111111111'
)
ORDER BY document_id, created_at DESC, id DESC;

-- 3. How many completed and how many failed, on each of the last days (UTC)?
SELECT
    (created_at AT TIME ZONE 'UTC')::date AS day,
    count(*) FILTER (WHERE event_type = 'completed') AS completed,
    count(*) FILTER (WHERE event_type = 'failed') AS failed,
    round(100.0 * count(*) FILTER (WHERE event_type = 'failed') / count(*), 1) AS failed_percent
FROM public.document_processing_events
WHERE event_type IN ('completed', 'failed')
    AND created_at >= date_trunc('day', now(), 'UTC')
    - interval '13 days' -- so many days before today
GROUP BY day
ORDER BY day DESC;

-- 4. How long do the stages take: half of them at most p50, 95 % at most p95?
SELECT
    stage,
    count(*) AS measured,
    percentile_disc(0.50) WITHIN GROUP (ORDER BY duration_ms) AS p50_ms,
    percentile_disc(0.95) WITHIN GROUP (ORDER BY duration_ms) AS p95_ms,
    max(duration_ms) AS max_ms
FROM public.document_processing_events
WHERE duration_ms IS NOT NULL
    AND created_at >= now()
    - interval '7 days' -- the time looked at
GROUP BY stage
ORDER BY p95_ms DESC;

-- 5. What fails right now, how often, and for which document, for example?
SELECT
    count(*) AS times,
    count(DISTINCT document_id) AS documents,
    max(created_at) AS last_time,
    stage,
    -- Messages that differ in numbers and ids only are one error.
    left(regexp_replace(error_message,
        '[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9]+', '#', 'g'), 200) AS error,
    (array_agg(document_id ORDER BY created_at DESC))[1] AS example_document
FROM public.document_processing_events
WHERE event_type = 'failed'
    AND created_at >= now()
    - interval '1 hour' -- the time looked at
GROUP BY stage, error
ORDER BY times DESC, last_time DESC
LIMIT 20;

-- 6. What was started over 30 minutes ago and never ended, whether it hangs or begins again and again?
SELECT
    started.document_id,
    min(started.created_at) AS started_at,
    count(*) AS starts,
    (array_agg(started.event_type ORDER BY started.created_at DESC))[1] AS last_start,
    (array_agg(started.stage ORDER BY started.created_at DESC))[1] AS last_stage
FROM public.document_processing_events AS started
WHERE started.event_type IN ('upload_started', 'processing_started')
    AND started.created_at < now()
    - interval '30 minutes' -- longer than anything takes
    AND started.created_at >= now()
    - interval '2 days' -- the time looked at
    AND NOT EXISTS (
        SELECT FROM public.document_processing_events AS ended
        WHERE ended.document_id = started.document_id
            AND ended.event_type IN ('completed', 'failed')
            AND ended.created_at >= started.created_at
    )
GROUP BY started.document_id
ORDER BY started_at;
