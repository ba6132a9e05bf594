-- +goose Up
-- +goose NO TRANSACTION
-- Changes the event types that the table accepts. Safe to run again. List all types in step 1. In
-- the app, pass the types that aren't in 013 to docevents.WithEventTypes. For the types below, the
-- option is:
--   docevents.WithEventTypes(docevents.EventTypes{Notes: []docevents.EventType{"ocr_started"}})
--
-- To add types, run this file before you deploy the app. To remove types, deploy the app without
-- them, delete their rows, and then run this file.
--
-- Run each step in a separate transaction, as psql does. In the SQL editor, run the steps one at a
-- time. For Supabase migrations, make two files. If both steps ran in one transaction, step 2
-- would read the table under the lock of step 1, which blocks all reads and writes.

-- Step 1: for new rows, accept only the types listed here. This locks the table for a moment.
ALTER TABLE public.document_processing_events
    DROP CONSTRAINT IF EXISTS document_processing_events_event_type_check,
    ADD CONSTRAINT document_processing_events_event_type_check
        CHECK (event_type IN ('upload_started', 'processing_started', 'completed', 'failed', 'ocr_started')) NOT VALID;

-- Step 2: check the existing rows, while inserts continue. This fails if rows with other types
-- exist.
ALTER TABLE public.document_processing_events
    VALIDATE CONSTRAINT document_processing_events_event_type_check;
