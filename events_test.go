package docevents_test

import (
	"log/slog"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/docevents/docevents-go"
)

const (
	maxMessage = 64 << 10
	maxStage   = 1 << 10
)

var (
	openTypes = docevents.WithEventTypes(docevents.EventTypes{Open: true})
	longText  = strings.Repeat("0123456789abcdef", 2*maxMessage/16)
)

// rowOf records e with a new client, and returns its row. The clock begins at midnight,
// 2000-01-01.
func rowOf(t *testing.T, e docevents.Event, opts ...docevents.Option) (row wireRow) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		c, o := newClient(t, s, opts...)
		c.Record(e)
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 1, Delivered: 1})
		if lines := o.logged(); len(s.rows) != 1 || len(lines) != 0 {
			t.Fatalf("%d rows, logged %v", len(s.rows), lines)
		}
		row = slices.Collect(maps.Values(s.rows))[0]
	})
	return row
}

func TestTextIsCleanedAndCut(t *testing.T) {
	for name, test := range map[string]struct{ message, stage, wantMessage, wantStage string }{
		"none":               {"", "", "NULL", "NULL"},
		"NUL bytes":          {"\x00page\x00 3\x00", "o\x00cr", "page 3", "ocr"},
		"only NUL bytes":     {"\x00\x00", "\x00", "NULL", "NULL"},
		"invalid UTF-8":      {"caf\xe9 \xed\xa0\x80", "oc\xff", "caf\uFFFD \uFFFD", "oc\uFFFD"},
		"the longest":        {longText[:maxMessage], longText[:maxStage], longText[:maxMessage], longText[:maxStage]},
		"one byte longer":    {longText[:maxMessage+1], longText[:maxStage+1], longText[:maxMessage-40] + "… [41 bytes cut]", longText[:maxStage-40] + "… [41 bytes cut]"},
		"cut before a rune":  {"a" + strings.Repeat("é", maxMessage), "", "a" + strings.Repeat("é", maxMessage/2-21) + "… [65578 bytes cut]", "NULL"},
		"long, of NUL bytes": {strings.Repeat("\x00", maxMessage) + "tail", "", "… [4 bytes cut]", "NULL"},
		"long, with U+FFFD":  {strings.Repeat("\xff.", maxMessage/2), "", strings.Repeat("\uFFFD.", (maxMessage-40)/4) + "… [65576 bytes cut]", "NULL"},
	} {
		e := event(test.stage)
		e.ErrorMessage = test.message
		row := rowOf(t, e)
		for _, text := range []struct {
			got  *string
			want string
		}{{row.ErrorMessage, test.wantMessage}, {row.Stage, test.wantStage}} {
			got := "NULL"
			if text.got != nil {
				got = *text.got
			}
			if end := func(s string) string { return s[max(0, len(s)-80):] }; got != text.want {
				t.Errorf("%s: got %d bytes that end in %q, want %d, %q", name, len(got), end(got), len(text.want), end(text.want))
			}
		}
	}
}

func TestDurationIsStoredInMilliseconds(t *testing.T) {
	const null = -1
	for duration, want := range map[time.Duration]int64{
		0:                                      null,
		math.MinInt64:                          null,
		1:                                      0,
		2*time.Millisecond - 1:                 1,
		math.MaxInt32 * time.Millisecond:       math.MaxInt32,
		(math.MaxInt32 + 1) * time.Millisecond: math.MaxInt32,
		math.MaxInt64:                          math.MaxInt32,
	} {
		e := event("")
		e.Duration = duration
		got := int64(null)
		if ms := rowOf(t, e).DurationMS; ms != nil {
			got = *ms
		}
		if got != want {
			t.Errorf("%d ns: got %d ms, want %d", duration, got, want)
		}
	}
}

func TestCreatedAtIsStoredInUTC(t *testing.T) {
	zone := func(hours int) *time.Location { return time.FixedZone("", hours*3600) }
	for name, test := range map[string]struct {
		at   time.Time
		want string
	}{
		"zero is now":                   {time.Time{}.In(zone(5)), "2000-01-01T00:00:00.000000Z"},
		"nanoseconds are cut":           {time.Date(2026, 1, 2, 3, 4, 5, 678901999, zone(-8)), "2026-01-02T11:04:05.678901Z"},
		"before 1970":                   {time.Date(1969, 12, 31, 23, 59, 59, 999999999, time.UTC), "1969-12-31T23:59:59.999999Z"},
		"the first":                     {time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC), "0001-01-01T00:00:00.000001Z"},
		"the last":                      {time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC), "9999-12-31T23:59:59.999999Z"},
		"year 10000 there, 9999 in UTC": {time.Date(10000, 1, 1, 0, 30, 0, 0, zone(1)), "9999-12-31T23:30:00.000000Z"},
	} {
		e := event("")
		e.CreatedAt = test.at
		if got := rowOf(t, e).CreatedAt; got != test.want {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
	}
}

func TestUUIDsAreStoredInCanonicalForm(t *testing.T) {
	const id = "aabbccdd-eeff-4011-8233-445566778899"
	for _, form := range []string{strings.ToUpper(id), "urn:uuid:" + id, "{" + id + "}", strings.ReplaceAll(id, "-", "")} {
		e := event("")
		e.DocumentID, e.UserID = form, form
		if row := rowOf(t, e); row.DocumentID != id || row.UserID != id {
			t.Errorf("%s: got %s and %s, want %s", form, row.DocumentID, row.UserID, id)
		}
	}
}

func TestAcceptedTypes(t *testing.T) {
	for eventType, opts := range map[docevents.EventType][]docevents.Option{
		docevents.UploadStarted:     nil,
		docevents.ProcessingStarted: nil,
		docevents.Completed:         nil,
		docevents.Failed:            nil,
		"archived":                  {notes("archived", "restored")},
		"any, with Open":            {openTypes},
		docevents.EventType(strings.Repeat("é", 128)): {openTypes}, // the longest
	} {
		e := event("")
		e.Type = eventType
		if got := rowOf(t, e, opts...).EventType; got != string(eventType) {
			t.Errorf("got %q, want %q", got, eventType)
		}
	}
}

// An event that can't be stored is dropped. The log line and the error name the
// field and what to do, and don't contain the value. The next event is stored.
func TestInvalidEvents(t *testing.T) {
	const secret = "hunter2"
	document := func(id string) func(*docevents.Event) { return func(e *docevents.Event) { e.DocumentID = id } }
	user := func(id string) func(*docevents.Event) { return func(e *docevents.Event) { e.UserID = id } }
	eventType := func(t docevents.EventType) func(*docevents.Event) { return func(e *docevents.Event) { e.Type = t } }
	at := func(at time.Time) func(*docevents.Event) { return func(e *docevents.Event) { e.CreatedAt = at } }
	archived := docevents.WithEventTypes(docevents.EventTypes{Completed: []docevents.EventType{"archived"}})
	for name, test := range map[string]struct {
		spoil       func(*docevents.Event)
		field, want string
		opt         docevents.Option
	}{
		"no document":                    {document(""), "DocumentID", "is empty", nil},
		"a document's name":              {document(secret), "DocumentID", "is not a UUID", nil},
		"10 MB of UUID":                  {document(strings.Repeat(secret, 10<<20/7)), "DocumentID", "is not a UUID", nil},
		"a UUID of NUL bytes":            {document(strings.Repeat("\x00", 36)), "DocumentID", "is not a UUID", nil},
		"no user":                        {user(""), "UserID", "docevents.SystemUser", nil},
		"a user's name, invalid UTF-8":   {user(secret + "\xff"), "UserID", "docevents.SystemUser", nil},
		"no type":                        {eventType(""), "Type", "WithEventTypes", nil},
		"an unknown type":                {eventType(secret), "Type", "WithEventTypes", nil},
		"a type in capitals":             {eventType("COMPLETED"), "Type", "WithEventTypes", nil},
		"a constant no longer listed":    {eventType(docevents.Completed), "Type", "WithEventTypes", archived},
		"no type, with Open":             {eventType(""), "Type", "the table accepts", openTypes},
		"a type with a NUL":              {eventType(secret + "\x00"), "Type", "the table accepts", openTypes},
		"a type of invalid UTF-8":        {eventType(secret + "\xff"), "Type", "the table accepts", openTypes},
		"a type of 257 bytes":            {eventType(docevents.EventType(longText[:257])), "Type", "the table accepts", openTypes},
		"the year 0":                     {at(time.Date(0, 12, 31, 23, 59, 59, 0, time.UTC)), "CreatedAt", "leave it zero", nil},
		"the year 10000":                 {at(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)), "CreatedAt", "leave it zero", nil},
		"9999 there, year 10000 in UTC":  {at(time.Date(9999, 12, 31, 23, 30, 0, 0, time.FixedZone("", -3600))), "CreatedAt", "leave it zero", nil},
		"a time that overflows its year": {at(time.Unix(math.MaxInt64, 0)), "CreatedAt", "leave it zero", nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{}
				c, o := newClient(t, s, test.opt)
				good, bad := event("good"), event("bad")
				good.Type, bad.Type, bad.ErrorMessage = docevents.Failed, docevents.Failed, secret
				test.spoil(&bad)
				c.Record(bad)
				c.Record(good)
				if err := c.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				checkStats(t, c, &docevents.Stats{Recorded: 2, Delivered: 1, Dropped: docevents.Drops{Invalid: 1}})
				if got := s.stages(); len(got) != 1 || got["good"] != 1 {
					t.Errorf("stored %v, want the good one", got)
				}
				lost, lines := o.lost(), o.logged()
				if len(lost) != 1 || lost[0].reason != docevents.Invalid || lost[0].event.Stage != "bad" {
					t.Fatalf("lost %d: %.200v", len(lost), lost)
				}
				if len(lines) != 1 || lines[0].level != slog.LevelError {
					t.Fatalf("logged %v, want a line at Error", lines)
				}
				line, _, _ := strings.Cut(lines[0].text, " document_id=")
				line, _, _ = strings.Cut(line, " event_type=")
				for _, said := range []string{line, lost[0].err.Error()} {
					if !strings.Contains(said, test.field) || !strings.Contains(said, test.want) {
						t.Errorf("%q: want %s and %q", said, test.field, test.want)
					}
					if strings.Contains(said, secret) || strings.Contains(said, testDocument[:8]) || len(said) > 300 {
						t.Errorf("%.300q: repeats the value", said)
					}
				}
				e := lost[0].event
				for _, text := range []string{e.DocumentID, e.UserID, string(e.Type), lines[0].text} {
					if len(text) > 1024 || !utf8.ValidString(text) || strings.Contains(text, "\x00") {
						t.Errorf("the handler or the logger gets %.300q", text)
					}
				}
			})
		})
	}
}

// The drop handler gets an accepted event as it would have been stored.
func TestDroppedEventIsAsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: answerBad(refusal, 0)}
		c, o := newClient(t, s)
		at := time.Now()
		c.Record(docevents.Event{
			DocumentID: "{" + strings.ToUpper(testDocument) + "}", UserID: docevents.SystemUser, Type: docevents.Failed,
			Duration: -time.Second, ErrorMessage: "a\x00b\xff", Stage: "bad" + longText[:maxStage],
		})
		drain(t, c)
		lost := o.lost()
		if len(lost) != 1 {
			t.Fatalf("%d lost, want 1", len(lost))
		}
		want := docevents.Event{
			ID:         s.requests[0].rows[0].ID, // so that the app can record the event again
			DocumentID: testDocument, UserID: docevents.SystemUser, Type: docevents.Failed,
			ErrorMessage: "ab\uFFFD", Stage: "bad" + longText[:maxStage-43] + "… [43 bytes cut]", CreatedAt: at.UTC(),
		}
		if got := lost[0].event; !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// A queued or dropped event doesn't keep a large string of the caller in memory.
func TestMemoryOfLongStrings(t *testing.T) {
	const long, events = 10 << 20, 6
	large := func() docevents.Event {
		s := strings.Repeat("s", long)
		return docevents.Event{DocumentID: testDocument, UserID: testDocument, Type: docevents.Completed, Stage: s, ErrorMessage: s}
	}
	pieces := func() docevents.Event { // the ids are invalid, unless they may be texts
		s := strings.Repeat("page\n", long/5)
		return docevents.Event{DocumentID: s[:1000], UserID: s[:30], Type: docevents.EventType(s[:4]), Stage: s[:4], ErrorMessage: s[5:261]}
	}
	queued := docevents.Stats{Recorded: events, Pending: events}
	queueFull := docevents.Stats{Recorded: events, Pending: 1, Dropped: docevents.Drops{QueueFull: events - 1}}
	invalid := docevents.Stats{Recorded: events, Dropped: docevents.Drops{Invalid: events}}
	one := docevents.WithQueueLimits(1, 128<<10)
	for name, test := range map[string]struct {
		make func() docevents.Event
		want docevents.Stats
		opts []docevents.Option
	}{
		"queued":                                  {large, queued, nil},
		"queued, pieces of something long":        {pieces, queued, []docevents.Option{openTypes, textIDs}},
		"the queue is full":                       {large, queueFull, []docevents.Option{one}},
		"the queue is full, pieces of long texts": {pieces, queueFull, []docevents.Option{one, openTypes, textIDs}},
		"invalid, pieces of something long": {func() docevents.Event {
			e := pieces()
			e.ID = e.UserID
			return e
		}, invalid, nil},
		"invalid": {func() docevents.Event {
			e := large()
			e.ID, e.DocumentID, e.UserID, e.Type = e.Stage, e.Stage, e.Stage, docevents.EventType(e.Stage)
			return e
		}, invalid, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{answer: func(*request) *answer { return &answer{delay: time.Hour} }}
				c, o := newClient(t, s, test.opts...)
				before := heap()
				for range events {
					c.Record(test.make())
				}
				synctest.Wait()
				if grown := heap() - before; grown > long {
					t.Errorf("the heap grew by %d MiB", grown>>20)
				}
				checkStats(t, c, &test.want)
				if got := int64(len(o.lost())); got != test.want.Dropped.Total() {
					t.Errorf("%d handler calls", got)
				}
				closeNow(t, c)
			})
		})
	}
}
