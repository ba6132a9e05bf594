-- +goose Up
-- Lets signed-in users read the rows whose user_id is theirs, for example in a browser with
-- supabase-js. Safe to run again.
--
-- Users see every column of these rows, including error_message, which may reveal internals of your
-- system. To hide it, grant columns instead of the table. Clients then have to list the columns,
-- because select=* is rejected:
--   REVOKE SELECT ON public.document_processing_events FROM authenticated;
--   GRANT SELECT (document_id, event_type, duration_ms, stage, created_at)
--       ON public.document_processing_events TO authenticated;
-- Users can't see other users' rows or those of SystemUser, and they can't write. Requests without a
-- token see nothing.

-- This index makes a user's queries fast, also with ORDER BY created_at DESC. Inserts wait while it is
-- built: on a large table, create it beforehand in psql with CREATE INDEX CONCURRENTLY.
CREATE INDEX IF NOT EXISTS idx_document_processing_events_user_id
    ON public.document_processing_events (user_id, created_at DESC);

-- (SELECT auth.uid()) is evaluated once per query; a plain auth.uid() would be evaluated for each row.
DROP POLICY IF EXISTS "users read their own events" ON public.document_processing_events;
CREATE POLICY "users read their own events" ON public.document_processing_events
    FOR SELECT TO authenticated
    USING (user_id = (SELECT auth.uid()));

GRANT SELECT ON public.document_processing_events TO authenticated;
