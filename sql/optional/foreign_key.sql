-- +goose Up
-- +goose NO TRANSACTION
-- Creates a foreign key on document_id, for databases in which no event may exist without its
-- document. Replace public.documents (id) with your table. The table of 013 has no foreign key,
-- because it costs time: each insert of an event looks up the document and locks its row until the
-- commit, so that nobody deletes it. Each deletion of a document looks for its events, with the
-- index on document_id. docs/performance.md has figures.
--
-- If an event is inserted before its document is committed, PostgreSQL rejects the event (23503).
-- docevents retries it, because the document may still be committed. If it never is, docevents drops
-- the event after ten failures while other events are stored, with the reason Rejected.
--
-- With ON DELETE CASCADE, the deletion of a document also deletes its events, in the same
-- statement. If you write NO ACTION instead, a document can't be deleted until a purge has deleted
-- its events. SET NULL is impossible, because document_id is NOT NULL.
--
-- Run each of the two steps in a separate transaction, as in event_types.sql. On a partitioned
-- table, PostgreSQL before version 18 rejects NOT VALID. In that case, remove the words NOT VALID and
-- skip step 2. Both tables are then locked while PostgreSQL checks the existing rows.

-- Step 1: require a document for new rows. This locks both tables for a moment.
ALTER TABLE public.document_processing_events
    DROP CONSTRAINT IF EXISTS document_processing_events_document_id_fkey,
    ADD CONSTRAINT document_processing_events_document_id_fkey
        FOREIGN KEY (document_id) REFERENCES public.documents (id) ON DELETE CASCADE NOT VALID;

-- Step 2: check the existing rows. This reads both tables, while writes continue. If the document
-- of any event doesn't exist, this step fails. In that case, delete such events first:
--   DELETE FROM public.document_processing_events e
--   WHERE NOT EXISTS (SELECT FROM public.documents d WHERE d.id = e.document_id);
ALTER TABLE public.document_processing_events
    VALIDATE CONSTRAINT document_processing_events_document_id_fkey;
