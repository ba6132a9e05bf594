-- +goose Up
-- Lets signed-in users read the rows whose user_id is their id, for example in a browser with
-- supabase-js. They can't read other rows, and can't write. Safe to run again.
--
-- Users see every column of their rows. To hide error_message, which may reveal internals of your
-- system, run this file and then the two statements below. Clients must then list the columns,
-- because select=* is rejected.
--   REVOKE SELECT ON public.document_processing_events FROM authenticated;
--   GRANT SELECT (document_id, event_type, duration_ms, stage, created_at)
--       ON public.document_processing_events TO authenticated;

-- The index makes users' queries fast, even with ORDER BY created_at DESC. Inserts wait while
-- PostgreSQL builds it. If the table is large, first create the index in psql with CREATE INDEX
-- CONCURRENTLY.
CREATE INDEX IF NOT EXISTS idx_document_processing_events_user_id
    ON public.document_processing_events (user_id, created_at DESC);

-- PostgreSQL evaluates (SELECT auth.uid()) once per query. Without SELECT, it would evaluate
-- auth.uid() for each row.
DROP POLICY IF EXISTS "users read their own events" ON public.document_processing_events;
CREATE POLICY "users read their own events" ON public.document_processing_events
    FOR SELECT TO authenticated
    USING (user_id = (SELECT auth.uid()));

GRANT SELECT ON public.document_processing_events TO authenticated;
