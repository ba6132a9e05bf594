-- +goose Up
-- +goose NO TRANSACTION
-- Changes the event types that the table accepts. List all types in step 1, and pass yours in the
-- app: docevents.WithEventTypes(docevents.EventTypes{Notes: []docevents.EventType{"ocr_started"}}). Safe to run again.
--
-- To add types, run this file before you deploy the app. To remove types, deploy the app, delete the
-- rows with these types, and then run this file; otherwise step 2 fails.
--
-- Run each of the two steps in a separate transaction. psql does; in the SQL editor run one after the
-- other; for Supabase migrations make two files. In a single transaction, step 2 would read the table
-- while the exclusive lock of step 1 blocks all writes.

-- Step 1: require the new list for new rows. Takes an exclusive lock for a moment and reads no rows.
ALTER TABLE public.document_processing_events
    DROP CONSTRAINT IF EXISTS document_processing_events_event_type_check,
    ADD CONSTRAINT document_processing_events_event_type_check
        CHECK (event_type IN ('upload_started', 'processing_started', 'completed', 'failed', 'ocr_started')) NOT VALID;

-- Step 2: check the existing rows. Reads the table; writes go on.
ALTER TABLE public.document_processing_events
    VALIDATE CONSTRAINT document_processing_events_event_type_check;
