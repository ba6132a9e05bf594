-- +goose Up
-- +goose NO TRANSACTION
-- Changes the event types that the table accepts. List all types in step 1, and pass the same types
-- to docevents.WithEventTypes in the app. Safe to run again. Step 1 lists the four default types and
-- one more. The option for these types is:
--   docevents.WithEventTypes(docevents.EventTypes{Notes: []docevents.EventType{"ocr_started"}})
--
-- To add types, run this file before you deploy the app. To remove types, first deploy the app, delete
-- the rows with these types, and then run this file. If there are still such rows, step 2 fails.
--
-- Run each of the two steps in a separate transaction. psql does that. In the SQL editor, run the steps
-- one at a time. For Supabase migrations, make two files. In a single transaction, step 2 would read
-- the table under the exclusive lock of step 1, which blocks all reads and writes.

-- Step 1: require the new types for new rows. This takes an exclusive lock for a moment and reads
-- no rows.
ALTER TABLE public.document_processing_events
    DROP CONSTRAINT IF EXISTS document_processing_events_event_type_check,
    ADD CONSTRAINT document_processing_events_event_type_check
        CHECK (event_type IN ('upload_started', 'processing_started', 'completed', 'failed', 'ocr_started')) NOT VALID;

-- Step 2: check the existing rows. This reads the table. Inserts continue.
ALTER TABLE public.document_processing_events
    VALIDATE CONSTRAINT document_processing_events_event_type_check;
