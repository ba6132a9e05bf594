package main

import (
	"encoding/binary"
	"time"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
)

// eventAt returns event number i of a measurement. Each document has four events, and
// every twentieth document fails. Each measurement has a new user, so that its rows can
// be counted and deleted.
func eventAt(user uuid.UUID, i int) docevents.Event {
	e := docevents.Event{DocumentID: documentAt(user, i).String(), UserID: user.String()}
	switch i % 4 {
	case 0:
		e.Type, e.Stage = docevents.UploadStarted, "upload"
	case 1:
		e.Type, e.Stage = docevents.ProcessingStarted, "extract"
	case 2:
		e.Type, e.Stage, e.Duration = docevents.Completed, "extract", 1234*time.Millisecond
	case 3:
		e.Type, e.Stage, e.Duration = docevents.Completed, "embed", 567*time.Millisecond
		if i/4%20 == 0 {
			e.Type, e.ErrorMessage = docevents.Failed, "embed: the model answered with status 429: too many requests"
		}
	}
	return e
}

// documentAt returns the document id of event number i. Four consecutive events have
// the same document. The ids are spread like random UUIDs, for a realistic index on
// document_id.
func documentAt(user uuid.UUID, i int) uuid.UUID {
	id := user
	mixed := binary.BigEndian.Uint64(user[:8]) ^ mix(uint64(i/4)+1)
	binary.BigEndian.PutUint64(id[:8], mixed)
	id[6] = id[6]&0x0f | 0x40 // version 4
	return id
}

// mix is the finalizer of SplitMix64, https://prng.di.unimi.it/splitmix64.c.
func mix(x uint64) uint64 {
	x *= 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
