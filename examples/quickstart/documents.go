package main

import (
	"time"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
)

// A document and what has happened to it.
type document struct {
	id     string
	name   string
	events []docevents.Event // without the ids
}

// oldEvents is how many events the old document has.
const oldEvents = 3

// newDocuments returns three documents of now, the times of whose events are
// those of Record, and one of long ago.
func newDocuments(longAgo time.Time) []document {
	ago := func(d time.Duration) time.Time { return longAgo.Add(d) }
	return []document{
		{id: uuid.NewString(), name: "invoice-2041.pdf", events: []docevents.Event{
			{Type: docevents.UploadStarted},
			{Type: docevents.ProcessingStarted, Stage: "extract"},
			{Type: docevents.Completed, Stage: "summarize", Duration: 1840 * time.Millisecond},
		}},
		{id: uuid.NewString(), name: "minutes.md", events: []docevents.Event{
			{Type: docevents.UploadStarted},
			{Type: docevents.ProcessingStarted, Stage: "extract"},
			{Type: docevents.Completed, Stage: "summarize", Duration: 95 * time.Millisecond},
		}},
		{id: uuid.NewString(), name: "scan-0007.tiff", events: []docevents.Event{
			{Type: docevents.UploadStarted},
			{Type: docevents.ProcessingStarted, Stage: "extract"},
			{
				Type: docevents.Failed, Stage: "extract", Duration: 12300 * time.Millisecond,
				ErrorMessage: "tesseract: page 3: image too small to scale (2x36)",
			},
		}},
		{id: uuid.NewString(), name: "handbook-2019.pdf", events: []docevents.Event{
			{Type: docevents.UploadStarted, CreatedAt: ago(0)},
			{Type: docevents.ProcessingStarted, Stage: "extract", CreatedAt: ago(time.Second)},
			{Type: docevents.Completed, Stage: "summarize", Duration: 4 * time.Second, CreatedAt: ago(5 * time.Second)},
		}},
	}
}
