-- +goose Up
-- +goose NO TRANSACTION
-- A foreign key on document_id, for a database where an event without its document must not exist.
-- Replace public.documents (id) by your table. Think twice: it is not in 013 on purpose.
--
-- What it costs: each inserted row looks its document up and locks that row against deletion until
-- the commit (measured: see sql/README.md), and the document can't be deleted meanwhile.
-- Deleting a document looks for its events, by the index on document_id.
--
-- An event that comes before its document is committed is refused (23503). docevents keeps it and
-- sends it again: a foreign key's refusal may pass. But an event whose document never comes is
-- sent again for a while, beside the others, and then dropped (Rejected).
--
-- ON DELETE CASCADE: an event goes with its document, in the same statement. The other choice is
-- NO ACTION: a document with events can't be deleted until a purge took them. SET NULL is none:
-- document_id is NOT NULL.
--
-- Two steps, each a transaction of its own, as in event_types.sql. On a partitioned table
-- PostgreSQL refuses NOT VALID before version 18: there leave it out, and step 2 with it; writes to
-- both tables then wait while the rows are looked up.

-- Step 1: new rows need a document from here on. Locks both tables against writes, for a moment.
ALTER TABLE public.document_processing_events
    DROP CONSTRAINT IF EXISTS document_processing_events_document_id_fkey,
    ADD CONSTRAINT document_processing_events_document_id_fkey
        FOREIGN KEY (document_id) REFERENCES public.documents (id) ON DELETE CASCADE NOT VALID;

-- Step 2: so do the rows there are. Reads both tables; writes go on. It fails where an event's
-- document is gone. To delete such events first:
--   DELETE FROM public.document_processing_events e
--   WHERE NOT EXISTS (SELECT FROM public.documents d WHERE d.id = e.document_id);
ALTER TABLE public.document_processing_events
    VALIDATE CONSTRAINT document_processing_events_document_id_fkey;
