-- +goose Up
-- +goose NO TRANSACTION
-- Changes the event types that the table takes. List all of them here, yours at the end, and in the
-- app: docevents.WithEventTypes(docevents.EventTypes{Notes: []docevents.EventType{"ocr_started"}}). Safe to run again.
--
-- To add types: this first, then the app. To take some away: the app first, then this; rows of
-- such a type must be gone by then, or step 2 fails.
--
-- Two steps, each a transaction of its own: psql runs it so; in the SQL editor run one, then the
-- other; as Supabase migrations make it two files. In one transaction the lock of step 1 would be
-- held while step 2 reads the table.

-- Step 1: new rows obey the new list from here on. An exclusive lock, for a moment: it looks at no row.
ALTER TABLE public.document_processing_events
    DROP CONSTRAINT IF EXISTS document_processing_events_event_type_check,
    ADD CONSTRAINT document_processing_events_event_type_check
        CHECK (event_type IN ('upload_started', 'processing_started', 'completed', 'failed', 'ocr_started')) NOT VALID;

-- Step 2: so do the rows there are. Reads the table; events are recorded meanwhile.
ALTER TABLE public.document_processing_events
    VALIDATE CONSTRAINT document_processing_events_event_type_check;
