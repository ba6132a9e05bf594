-- +goose Up
-- Creates the table for docevents. Each row is an event in the processing of a document. Safe to
-- run again.

CREATE TABLE IF NOT EXISTS public.document_processing_events (
    id            uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    document_id   uuid        NOT NULL,
    user_id       uuid        NOT NULL,
    event_type    text        NOT NULL,
    duration_ms   integer,
    error_message text,
    stage         text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT document_processing_events_event_type_check
        CHECK (event_type IN ('upload_started', 'processing_started', 'completed', 'failed'))
);

-- Purges and summaries find rows by created_at. Timelines find rows by document_id.
CREATE INDEX IF NOT EXISTS idx_document_processing_events_created_at
    ON public.document_processing_events (created_at);
CREATE INDEX IF NOT EXISTS idx_document_processing_events_document_id
    ON public.document_processing_events (document_id);

-- Row-level security without policies hides every row, except from the table's owner, superusers
-- and roles with BYPASSRLS, such as service_role.
ALTER TABLE public.document_processing_events ENABLE ROW LEVEL SECURITY;

-- Since 2026-10-30, hosted Supabase grants its API roles no rights on new tables, so service_role
-- gets its rights here. Older projects may grant rights to the roles anon and authenticated, so
-- those rights are revoked. Without Supabase, the three roles might not exist.
-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'service_role') THEN
        GRANT SELECT, INSERT, DELETE ON public.document_processing_events TO service_role;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'anon') THEN
        REVOKE ALL ON public.document_processing_events FROM anon;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'authenticated') THEN
        REVOKE ALL ON public.document_processing_events FROM authenticated;
    END IF;
END
$$;
-- +goose StatementEnd

-- PostgREST caches the schema. Until it reloads the schema, requests for a new table fail with
-- PGRST205.
NOTIFY pgrst, 'reload schema';
