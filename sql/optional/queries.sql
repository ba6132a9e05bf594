-- Six queries about the documents. Run one of them in Supabase's SQL editor. Each value that you
-- may want to change is on a separate line with a comment. The comment at the top of 014 defines
-- the words "completed", "failed" and "stuck". If your table or its columns have other names, use
-- the functions of 014 instead of queries 3 to 6.

-- 1. What happened to one document, step by step?
SELECT created_at, event_type, stage, duration_ms, error_message
FROM public.document_processing_events
WHERE document_id =
    '00000000-0000-0000-0000-000000000000' -- the document
ORDER BY created_at, id;

-- 2. What is the latest event of each document in a list of ids?
SELECT DISTINCT ON (document_id) document_id, event_type, stage, created_at, error_message
FROM public.document_processing_events
WHERE document_id IN (
    '00000000-0000-0000-0000-000000000000', -- the documents
    '11111111-1111-1111-1111-111111111111'
)
ORDER BY document_id, created_at DESC, id DESC;

-- 3. How many documents completed, and how many failed, on each of the last 14 days (UTC)?
WITH seen AS (
    SELECT document_id,
        max(created_at) AS last_at,
        (array_agg(event_type ORDER BY created_at DESC, id DESC))[1] AS last_event,
        coalesce(max(created_at) FILTER (WHERE event_type = 'processing_started' AND stage IS NULL)
            > coalesce(max(created_at) FILTER (WHERE event_type IN ('completed', 'failed') AND stage IS NULL), '-infinity'),
            false) AS whole -- the document has a start without a stage, and after it no end without a stage
    FROM public.document_processing_events
    WHERE event_type IN ('upload_started', 'processing_started', 'completed', 'failed') -- other types don't change a document's state
        AND created_at >= date_trunc('day', now(), 'UTC')
        - interval '13 days' -- how many days before today
    GROUP BY document_id
), ended AS (
    SELECT (last_at AT TIME ZONE 'UTC')::date AS day, last_event
    FROM seen
    WHERE last_event = 'failed' OR last_event = 'completed' AND NOT whole
)
SELECT day,
    count(*) FILTER (WHERE last_event = 'completed') AS completed,
    count(*) FILTER (WHERE last_event = 'failed') AS failed,
    round(100.0 * count(*) FILTER (WHERE last_event = 'failed') / count(*), 1) AS failed_percent
FROM ended
GROUP BY day
ORDER BY day DESC;

-- 4. How long does each stage take: the median (p50) and the 95th percentile (p95)?
SELECT
    stage, -- null: the whole document
    count(*) AS ended,
    count(*) FILTER (WHERE event_type = 'failed') AS failed,
    count(duration_ms) AS measured,
    percentile_disc(0.50) WITHIN GROUP (ORDER BY duration_ms) AS p50_ms,
    percentile_disc(0.95) WITHIN GROUP (ORDER BY duration_ms) AS p95_ms,
    max(duration_ms) AS max_ms
FROM public.document_processing_events
WHERE event_type IN ('completed', 'failed')
    AND created_at >= now()
    - interval '7 days' -- how far back
GROUP BY stage
ORDER BY p95_ms DESC NULLS LAST;

-- 5. Which errors happened in the last hour, how often, and in which document most recently?
WITH failed AS (
    SELECT id, document_id, created_at, stage,
        -- Messages that differ only in numbers and UUIDs are the same error.
        left(regexp_replace(left(error_message, 1000),
            '[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9]+', '#', 'g'), 200) AS error
    FROM public.document_processing_events
    WHERE event_type = 'failed'
        AND created_at >= now()
        - interval '1 hour' -- how far back
), marked AS (
    SELECT *, stage IS NULL AND count(stage) OVER (PARTITION BY document_id, error) > 0 AS repeated
    FROM failed
)
SELECT
    count(*) AS times,
    count(DISTINCT document_id) AS documents,
    min(created_at) AS first_time,
    max(created_at) AS last_time,
    stage,
    error,
    (array_agg(document_id ORDER BY created_at DESC, id DESC))[1] AS example_document
FROM marked
WHERE NOT repeated -- skip a document's failure without a stage if one of its steps failed with the same message
GROUP BY stage, error
ORDER BY times DESC, last_time DESC
LIMIT 20;

-- 6. Which documents are stuck: started more than 30 minutes ago, and not ended since then?
WITH seen AS (
    SELECT document_id,
        max(created_at) AS last_at,
        (array_agg(event_type ORDER BY created_at DESC, id DESC))[1] AS last_event,
        coalesce(max(created_at) FILTER (WHERE event_type = 'processing_started' AND stage IS NULL)
            > coalesce(max(created_at) FILTER (WHERE event_type IN ('completed', 'failed') AND stage IS NULL), '-infinity'),
            false) AS whole, -- the document has a start without a stage, and after it no end without a stage
        max(created_at) FILTER (WHERE event_type IN ('completed', 'failed')) AS step_end,
        max(created_at) FILTER (WHERE event_type = 'failed' OR event_type = 'completed' AND stage IS NULL) AS whole_end,
        array_agg(created_at) FILTER (WHERE event_type IN ('upload_started', 'processing_started')) AS starts
    FROM public.document_processing_events
    WHERE event_type IN ('upload_started', 'processing_started', 'completed', 'failed')
        AND created_at >= now()
        - interval '2 days' -- how far back
    GROUP BY document_id
)
SELECT document_id, min(start) AS started, count(*) AS starts, last_event, last_at
FROM seen CROSS JOIN unnest(starts) AS start
WHERE (last_event IN ('upload_started', 'processing_started') OR last_event = 'completed' AND whole)
    AND (start > coalesce(CASE WHEN whole THEN whole_end ELSE step_end END, '-infinity')
        OR start = last_at) -- a start may have the same time as the end before it
GROUP BY document_id, last_event, last_at
HAVING min(start) < now()
    - interval '30 minutes' -- longer than any document normally takes
ORDER BY started;
