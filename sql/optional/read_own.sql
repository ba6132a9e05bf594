-- +goose Up
-- Lets signed-in users read their own events, as a browser with supabase-js does: the rows whose
-- user_id is theirs. Safe to run again.
--
-- What it opens: every column of these rows, error_message with it, which may tell of your
-- machinery. To keep that back, grant columns instead of the table; a client then has to name
-- them, since select=* is refused:
--   REVOKE SELECT ON public.document_processing_events FROM authenticated;
--   GRANT SELECT (document_id, event_type, duration_ms, stage, created_at)
--       ON public.document_processing_events TO authenticated;
-- What it doesn't: other users' rows, SystemUser's, anything without a token, any writing.

-- For the policy, and newest first for a list. On a big table that is in use, make it beforehand
-- with CREATE INDEX CONCURRENTLY, in psql: this one makes inserts wait while it is built.
CREATE INDEX IF NOT EXISTS idx_document_processing_events_user_id
    ON public.document_processing_events (user_id, created_at DESC);

-- In (SELECT ...) the function is called once a query; without, once a row.
DROP POLICY IF EXISTS "users read their own events" ON public.document_processing_events;
CREATE POLICY "users read their own events" ON public.document_processing_events
    FOR SELECT TO authenticated
    USING (user_id = (SELECT auth.uid()));

GRANT SELECT ON public.document_processing_events TO authenticated;
