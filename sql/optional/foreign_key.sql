-- +goose Up
-- +goose NO TRANSACTION
-- Creates a foreign key on document_id, so that no event exists without its document. Replace
-- public.documents (id) with your table. The foreign key makes inserts slower (see
-- docs/performance.md), because each insert looks up the document and locks its row until the
-- commit.
--
-- If an event is inserted before its document is committed, PostgreSQL rejects the event (23503),
-- and docevents retries it. If ten retries fail while other events are stored, docevents drops
-- the event with the reason Rejected.
--
-- With ON DELETE CASCADE, deleting a document also deletes its events. With NO ACTION, a document
-- can't be deleted until a purge has deleted its events. SET NULL is impossible, because
-- document_id is NOT NULL.
--
-- Run each step in a separate transaction, as in event_types.sql. On a partitioned table,
-- PostgreSQL before version 18 rejects NOT VALID. In that case, remove NOT VALID and skip step 2.
-- Step 1 then locks both tables while it checks the existing rows.

-- Step 1: require a document for new rows. This locks both tables for a moment.
ALTER TABLE public.document_processing_events
    DROP CONSTRAINT IF EXISTS document_processing_events_document_id_fkey,
    ADD CONSTRAINT document_processing_events_document_id_fkey
        FOREIGN KEY (document_id) REFERENCES public.documents (id) ON DELETE CASCADE NOT VALID;

-- Step 2: check the existing rows, while writes continue. If an event has no document, this step
-- fails. In that case, delete such events and run the step again:
--   DELETE FROM public.document_processing_events e
--   WHERE NOT EXISTS (SELECT FROM public.documents d WHERE d.id = e.document_id);
ALTER TABLE public.document_processing_events
    VALIDATE CONSTRAINT document_processing_events_document_id_fkey;
