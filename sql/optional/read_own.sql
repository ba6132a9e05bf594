-- +goose Up
-- Lets signed-in users read the rows whose user_id is their id, for example in a browser with
-- supabase-js. Safe to run again.
--
-- Users see every column of these rows. error_message may reveal internals of your system. To hide
-- it, run the file, and then grant only the columns that users need. Clients must then list the
-- columns, because select=* is rejected:
--   REVOKE SELECT ON public.document_processing_events FROM authenticated;
--   GRANT SELECT (document_id, event_type, duration_ms, stage, created_at)
--       ON public.document_processing_events TO authenticated;
-- Users can't see the rows of other users or of SystemUser, and they can't write. Requests without a
-- user's token can't read anything.

-- This index makes users' queries fast, even with ORDER BY created_at DESC. While PostgreSQL builds
-- the index, inserts wait. If the table is large, first create the index in psql with CREATE INDEX
-- CONCURRENTLY.
CREATE INDEX IF NOT EXISTS idx_document_processing_events_user_id
    ON public.document_processing_events (user_id, created_at DESC);

-- (SELECT auth.uid()) is evaluated once per query. auth.uid() without SELECT would be evaluated for
-- each row.
DROP POLICY IF EXISTS "users read their own events" ON public.document_processing_events;
CREATE POLICY "users read their own events" ON public.document_processing_events
    FOR SELECT TO authenticated
    USING (user_id = (SELECT auth.uid()));

GRANT SELECT ON public.document_processing_events TO authenticated;
