-- +goose Up
-- +goose NO TRANSACTION
-- A foreign key on document_id, for databases in which no event may exist without its document.
-- Replace public.documents (id) by your table. 013 has no foreign key, because of its cost:
--
-- Each insert looks up the document and locks its row against deletion until the commit. Deleting a
-- document looks for its events, by the index on document_id. sql/README.md has figures.
--
-- If an event is inserted before its document is committed, PostgreSQL rejects it (23503). docevents
-- retries such an event, because the document may still come. If it never comes, the event is
-- dropped after some retries, with reason Rejected.
--
-- ON DELETE CASCADE deletes a document's events with the document, in the same statement. With NO
-- ACTION instead, a document can't be deleted until a purge has deleted its events. SET NULL is
-- impossible, because document_id is NOT NULL.
--
-- Run each of the two steps in a separate transaction, as in event_types.sql. On a partitioned table,
-- PostgreSQL before version 18 rejects NOT VALID: leave out NOT VALID and step 2. Writes to both
-- tables then wait while PostgreSQL checks the existing rows.

-- Step 1: require a document for new rows. Blocks writes to both tables for a moment.
ALTER TABLE public.document_processing_events
    DROP CONSTRAINT IF EXISTS document_processing_events_document_id_fkey,
    ADD CONSTRAINT document_processing_events_document_id_fkey
        FOREIGN KEY (document_id) REFERENCES public.documents (id) ON DELETE CASCADE NOT VALID;

-- Step 2: check the existing rows. Reads both tables; writes go on. It fails if an event's document
-- doesn't exist. To delete such events first:
--   DELETE FROM public.document_processing_events e
--   WHERE NOT EXISTS (SELECT FROM public.documents d WHERE d.id = e.document_id);
ALTER TABLE public.document_processing_events
    VALIDATE CONSTRAINT document_processing_events_document_id_fkey;
