package docevents_test

import (
	"context"
	"log/slog"
	"math"
	"reflect"
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

// Record accepts odd input that can be stored.
func TestOddInput(t *testing.T) {
	const uuid = "aabbccdd-eeff-4011-8233-445566778899"
	big := strings.Repeat("0123456789abcdef", 10<<20/16)
	some := "boom"
	null := (*string)(nil)
	ms := func(n int64) *int64 { return &n }
	plain := docevents.Event{DocumentID: uuid, UserID: docevents.SystemUser, Type: docevents.Failed, ErrorMessage: some}
	row := wireRow{
		DocumentID: uuid, UserID: docevents.SystemUser, EventType: "failed", ErrorMessage: &some,
		CreatedAt: "2000-01-01T00:00:00.000000Z", // when a synctest bubble begins
	}
	zone := func(hours int) *time.Location { return time.FixedZone("", hours*3600) }

	type change struct {
		event func(*docevents.Event)
		row   func(*wireRow)
		opts  []docevents.Option
	}
	id := func(form string) change {
		return change{event: func(e *docevents.Event) { e.DocumentID = form }}
	}
	message := func(sent string, stored *string) change {
		return change{
			event: func(e *docevents.Event) { e.ErrorMessage = sent },
			row:   func(r *wireRow) { r.ErrorMessage = stored },
		}
	}
	stage := func(sent string, stored *string) change {
		return change{
			event: func(e *docevents.Event) { e.Stage = sent },
			row:   func(r *wireRow) { r.Stage = stored },
		}
	}
	duration := func(d time.Duration, stored *int64) change {
		return change{
			event: func(e *docevents.Event) { e.Duration = d },
			row:   func(r *wireRow) { r.DurationMS = stored },
		}
	}
	at := func(t time.Time, stored string) change {
		return change{
			event: func(e *docevents.Event) { e.CreatedAt = t },
			row:   func(r *wireRow) { r.CreatedAt = stored },
		}
	}
	eventType := func(t docevents.EventType, opts ...docevents.Option) change {
		return change{
			event: func(e *docevents.Event) { e.Type = t },
			row:   func(r *wireRow) { r.EventType = string(t) },
			opts:  opts,
		}
	}
	text := func(s string) *string { return &s }

	for name, change := range map[string]change{
		"a UUID in capitals":       id(strings.ToUpper(uuid)),
		"a UUID as a URN":          id("urn:uuid:" + uuid),
		"a UUID as a URN, capital": id("URN:UUID:" + uuid),
		"a UUID in braces":         id("{" + uuid + "}"),
		"a UUID without dashes":    id(strings.ReplaceAll(uuid, "-", "")),
		"a user's UUID in braces": {
			event: func(e *docevents.Event) { e.UserID = "{" + strings.ToUpper(uuid) + "}" },
			row:   func(r *wireRow) { r.UserID = uuid },
		},

		"no text is NULL":                    {func(e *docevents.Event) { e.ErrorMessage = "" }, func(r *wireRow) { r.ErrorMessage = null }, nil},
		"NUL bytes are removed":              message("\x00page\x00 3\x00", text("page 3")),
		"only NUL bytes are NULL":            message("\x00\x00", null),
		"invalid UTF-8":                      message("caf\xe9 \xc3", text("caf\uFFFD \uFFFD")),
		"a lone surrogate":                   message("a\xed\xa0\x80b", text("a\uFFFDb")),
		"quotes, HTML and line ends":         message("<a href=\"x\">\\u0000\n\t\r&\u2028</a>", text("<a href=\"x\">\\u0000\n\t\r&\u2028</a>")),
		"beyond the basic plane":             message("📄 \U0010FFFF", text("📄 \U0010FFFF")),
		"the longest that fits":              message(big[:maxMessage], text(big[:maxMessage])),
		"one byte longer":                    message(big[:maxMessage+1], text(big[:maxMessage-40]+"… [41 bytes cut]")),
		"10 MB":                              message(big, text(big[:maxMessage-40]+"… [10420264 bytes cut]")),
		"cut on a rune boundary":             message(strings.Repeat("é", maxMessage), text(strings.Repeat("é", maxMessage/2-20)+"… [65576 bytes cut]")),
		"cut before a rune that doesn't fit": message("a"+strings.Repeat("é", maxMessage), text("a"+strings.Repeat("é", maxMessage/2-21)+"… [65578 bytes cut]")),
		"too long with NUL bytes":            message(strings.Repeat("\x00", maxMessage)+"tail", text("… [4 bytes cut]")),
		"too long after U+FFFD is added":     message(strings.Repeat("\xff.", maxMessage/2), text(strings.Repeat("\uFFFD.", (maxMessage-40)/4)+"… [65576 bytes cut]")),
		"stage: cleaned":                     stage("o\x00c\xffr", text("oc\uFFFDr")),
		"stage: the longest that fits":       stage(big[:maxStage], text(big[:maxStage])),
		"stage: 10 MB":                       stage(big, text(big[:maxStage-40]+"… [10484776 bytes cut]")),
		"stage: only a NUL":                  stage("\x00", null),
		"duration: none is NULL":             duration(0, nil),
		"duration: negative is NULL":         duration(-time.Second, nil),
		"duration: the most negative":        duration(math.MinInt64, nil),
		"duration: a nanosecond is 0":        duration(1, ms(0)),
		"duration: below 1 ms is 0":          duration(time.Millisecond-1, ms(0)),
		"duration: 1 ms":                     duration(time.Millisecond, ms(1)),
		"duration: whole milliseconds":       duration(1999999*time.Nanosecond, ms(1)),
		"duration: the largest that fit":     duration(math.MaxInt32*time.Millisecond, ms(math.MaxInt32)),
		"duration: more is capped":           duration((math.MaxInt32+1)*time.Millisecond, ms(math.MaxInt32)),
		"duration: the largest":              duration(math.MaxInt64, ms(math.MaxInt32)),

		"time: zero is now":                   at(time.Time{}, "2000-01-01T00:00:00.000000Z"),
		"time: zero in another zone":          at(time.Time{}.In(zone(5)), "2000-01-01T00:00:00.000000Z"),
		"time: in another zone":               at(time.Date(2026, 1, 2, 3, 4, 5, 678901000, zone(-8)), "2026-01-02T11:04:05.678901Z"),
		"time: nanoseconds are cut":           at(time.Date(2026, 1, 2, 3, 4, 5, 678901999, time.UTC), "2026-01-02T03:04:05.678901Z"),
		"time: before 1970":                   at(time.Date(1969, 12, 31, 23, 59, 59, 999999999, time.UTC), "1969-12-31T23:59:59.999999Z"),
		"time: the first":                     at(time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC), "0001-01-01T00:00:00.000001Z"),
		"time: the last":                      at(time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC), "9999-12-31T23:59:59.999999Z"),
		"time: year 10000 there, 9999 in UTC": at(time.Date(10000, 1, 1, 0, 30, 0, 0, zone(1)), "9999-12-31T23:30:00.000000Z"),

		"type: listed by the app":     eventType("archived", notes("archived", "restored")),
		"type: any, with Open":        eventType("anything at all", docevents.WithEventTypes(docevents.EventTypes{Open: true})),
		"type: the longest":           eventType(docevents.EventType(big[:256]), docevents.WithEventTypes(docevents.EventTypes{Open: true})),
		"type: beyond ASCII":          eventType("archivé", docevents.WithEventTypes(docevents.EventTypes{Open: true})),
		"type: a constant, with Open": eventType(docevents.UploadStarted, docevents.WithEventTypes(docevents.EventTypes{Open: true})),
		"type: processing_started":    eventType(docevents.ProcessingStarted),
		"type: upload_started":        eventType(docevents.UploadStarted),
		"type: completed":             eventType(docevents.Completed),
		"the system user":             {},
		"a text that ends in a rune":  message("a…", text("a…")),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{}
				c, o := newClient(t, s, change.opts...)
				e, want := plain, row
				if change.event != nil {
					change.event(&e)
				}
				if change.row != nil {
					change.row(&want)
				}
				c.Record(e)
				if err := c.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				checkStats(t, c, &docevents.Stats{Recorded: 1, Delivered: 1})
				if len(s.rows) != 1 {
					t.Fatalf("%d rows; lost: %+v", len(s.rows), o.lost())
				}
				for id, got := range s.rows {
					want.ID = id
					if !reflect.DeepEqual(got, want) {
						t.Errorf("stored %s\nwant %s", describe(got), describe(want))
					}
				}
				if lines := o.logged(); len(lines) != 0 {
					t.Errorf("logged %v", lines)
				}
			})
		})
	}
}

// describe returns a short description of r, however long its texts are.
func describe(r wireRow) map[string]any {
	text := func(s *string) any {
		if s == nil {
			return nil
		}
		if len(*s) > 100 {
			return []any{len(*s), (*s)[:20], (*s)[len(*s)-80:]}
		}
		return *s
	}
	m := map[string]any{
		"id": r.ID, "document": r.DocumentID, "user": r.UserID, "type": text(&r.EventType),
		"message": text(r.ErrorMessage), "stage": text(r.Stage), "created": r.CreatedAt, "ms": nil,
	}
	if r.DurationMS != nil {
		m["ms"] = *r.DurationMS
	}
	return m
}

// An event that can't be stored is dropped. The log line and the error name the
// field and what to do, and don't contain the value. The next event is stored.
func TestInvalidEvents(t *testing.T) {
	const secret = "hunter2"
	for name, test := range map[string]struct {
		spoil       func(*docevents.Event)
		field, want string
		opts        []docevents.Option
	}{
		"no document":              {func(e *docevents.Event) { e.DocumentID = "" }, "DocumentID", "is empty", nil},
		"a document's name":        {func(e *docevents.Event) { e.DocumentID = secret }, "DocumentID", "is not a UUID", nil},
		"a UUID cut short":         {func(e *docevents.Event) { e.DocumentID = testDocument[:35] }, "DocumentID", "is not a UUID", nil},
		"a UUID with a wrong dash": {func(e *docevents.Event) { e.DocumentID = strings.ReplaceAll(testDocument, "-", "_") }, "DocumentID", "is not a UUID", nil},
		"a UUID with a wrong URN":  {func(e *docevents.Event) { e.DocumentID = "urn:xxid:" + testDocument }, "DocumentID", "is not a UUID", nil},
		"a UUID of no hex":         {func(e *docevents.Event) { e.DocumentID = strings.Repeat("g", 32) }, "DocumentID", "is not a UUID", nil},
		"10 MB of UUID":            {func(e *docevents.Event) { e.DocumentID = strings.Repeat(secret, 10<<20/7) }, "DocumentID", "is not a UUID", nil},
		"a UUID of NUL bytes":      {func(e *docevents.Event) { e.DocumentID = strings.Repeat("\x00", 36) }, "DocumentID", "is not a UUID", nil},
		"no user":                  {func(e *docevents.Event) { e.UserID = "" }, "UserID", "docevents.SystemUser", nil},
		"a user's name":            {func(e *docevents.Event) { e.UserID = secret + "\xff" }, "UserID", "docevents.SystemUser", nil},
		"no type":                  {func(e *docevents.Event) { e.Type = "" }, "Type", "WithEventTypes", nil},
		"an unknown type":          {func(e *docevents.Event) { e.Type = secret }, "Type", "WithEventTypes", nil},
		"a type in capitals":       {func(e *docevents.Event) { e.Type = "COMPLETED" }, "Type", "WithEventTypes", nil},
		"a constant no longer listed": {
			func(e *docevents.Event) { e.Type = docevents.Completed },
			"Type", "WithEventTypes",
			[]docevents.Option{docevents.WithEventTypes(docevents.EventTypes{Completed: []docevents.EventType{"archived"}})},
		},
		"no type, with Open": {
			func(e *docevents.Event) { e.Type = "" },
			"Type", "the table accepts",
			[]docevents.Option{docevents.WithEventTypes(docevents.EventTypes{Open: true})},
		},
		"a type with a NUL": {
			func(e *docevents.Event) { e.Type = secret + "\x00" },
			"Type", "the table accepts",
			[]docevents.Option{docevents.WithEventTypes(docevents.EventTypes{Open: true})},
		},
		"a type that is not valid text": {
			func(e *docevents.Event) { e.Type = secret + "\xff" },
			"Type", "the table accepts",
			[]docevents.Option{docevents.WithEventTypes(docevents.EventTypes{Open: true})},
		},
		"a type of 257 bytes": {
			func(e *docevents.Event) { e.Type = docevents.EventType(strings.Repeat("t", 257)) },
			"Type", "the table accepts",
			[]docevents.Option{docevents.WithEventTypes(docevents.EventTypes{Open: true})},
		},
		"the year 0":     {func(e *docevents.Event) { e.CreatedAt = time.Date(0, 12, 31, 23, 59, 59, 0, time.UTC) }, "CreatedAt", "leave it zero", nil},
		"the year 10000": {func(e *docevents.Event) { e.CreatedAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "CreatedAt", "leave it zero", nil},
		"the year 10000 in UTC, 9999 there": {
			func(e *docevents.Event) {
				e.CreatedAt = time.Date(9999, 12, 31, 23, 30, 0, 0, time.FixedZone("", -3600))
			},
			"CreatedAt", "leave it zero", nil,
		},
		"the end of time":       {func(e *docevents.Event) { e.CreatedAt = time.Unix(math.MaxInt64, 0) }, "CreatedAt", "leave it zero", nil},
		"the beginning of time": {func(e *docevents.Event) { e.CreatedAt = time.Unix(math.MinInt64, 0) }, "CreatedAt", "leave it zero", nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{}
				c, o := newClient(t, s, test.opts...)
				bad := event("bad")
				bad.Type, bad.ErrorMessage = docevents.Failed, secret
				if len(test.opts) > 0 {
					bad.Type = "archived"
				}
				good := bad
				good.Stage = "good"
				test.spoil(&bad)
				c.Record(bad)
				c.Record(good)
				if err := c.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				checkStats(t, c, &docevents.Stats{Recorded: 2, Delivered: 1, Dropped: docevents.Drops{Invalid: 1}})
				if got := s.stages(); len(got) != 1 || got["good"] != 1 {
					t.Errorf("stored %v, want the good one", got)
				}
				lost := o.lost()
				if len(lost) != 1 || lost[0].reason != docevents.Invalid || lost[0].event.Stage != "bad" {
					t.Fatalf("lost %d: %.200v", len(lost), lost)
				}
				lines := o.logged()
				if len(lines) != 1 || lines[0].level != slog.LevelError {
					t.Fatalf("logged %v, want a line at Error", lines)
				}
				// The line also has the document's id, if that is valid, and the type.
				line, named, _ := strings.Cut(lines[0].text, " document_id=")
				line, kind, _ := strings.Cut(line, " event_type=")
				if len(named)+len(kind) > 200 || !utf8.ValidString(named+kind) || strings.Contains(named+kind, "\x00") {
					t.Errorf("names %.300q %.300q", named, kind)
				}
				for _, said := range []string{line, lost[0].err.Error()} {
					if !strings.Contains(said, test.field) || !strings.Contains(said, test.want) {
						t.Errorf("%q: want %s and %q", said, test.field, test.want)
					}
					if strings.Contains(said, secret) || strings.Contains(said, testDocument[:8]) || len(said) > 300 {
						t.Errorf("%.300q: repeats the value", said)
					}
				}
				e := lost[0].event
				for _, text := range []string{e.DocumentID, e.UserID, string(e.Type)} {
					if len(text) > 1024 || !utf8.ValidString(text) || strings.Contains(text, "\x00") {
						t.Errorf("the handler gets %.300q", text)
					}
				}
			})
		})
	}
}

// The drop handler gets an accepted event as it would have been stored.
func TestDroppedEventIsAsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(r *request) *answer {
			if r.has("fine") {
				return nil
			}
			return refused("23514", "violates check constraint")
		}}
		c, o := newClient(t, s)
		at := time.Now()
		c.Record(docevents.Event{
			DocumentID:   "{" + strings.ToUpper(testDocument) + "}",
			UserID:       docevents.SystemUser,
			Type:         docevents.Failed,
			Duration:     -time.Second,
			ErrorMessage: "a\x00b\xff",
			Stage:        strings.Repeat("s", 2000),
		})
		synctest.Wait()
		c.Record(event("fine")) // while other rows are stored, a rejected row is dropped
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		lost := o.lost()
		if len(lost) != 1 {
			t.Fatalf("%d lost, want 1", len(lost))
		}
		want := docevents.Event{
			ID:         s.requests[0].rows[0].ID, // so recording it again stores it once
			DocumentID: testDocument, UserID: docevents.SystemUser, Type: docevents.Failed, ErrorMessage: "ab\uFFFD",
			Stage: strings.Repeat("s", maxStage-40) + "… [1016 bytes cut]", CreatedAt: at.UTC(),
		}
		if got := lost[0].event; !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// A queued or dropped event doesn't keep a large string of the caller in memory.
func TestMemoryOfLongStrings(t *testing.T) {
	const long, events = 10 << 20, 6
	whatever := docevents.WithEventTypes(docevents.EventTypes{Open: true})
	for name, test := range map[string]struct {
		make func() docevents.Event
		want docevents.Stats
		opts []docevents.Option
	}{
		"queued": {
			func() docevents.Event {
				e := event(strings.Repeat("s", long))
				e.ErrorMessage = strings.Repeat("m", long)
				return e
			},
			docevents.Stats{Recorded: events, Pending: events},
			nil,
		},
		"queued, a part of something long": { // an id of 36 bytes and a type of 9 bytes
			func() docevents.Event {
				s := strings.Repeat(testDocument+"completed", long/45)
				return docevents.Event{DocumentID: s[:36], UserID: s[:36], Type: docevents.EventType(s[36:45])}
			},
			docevents.Stats{Recorded: events, Pending: events},
			nil,
		},
		"queued, any type": {
			func() docevents.Event {
				e := event("a")
				e.Type = docevents.EventType(strings.Repeat("archived", long/8)[:8])
				return e
			},
			docevents.Stats{Recorded: events, Pending: events},
			[]docevents.Option{whatever},
		},
		"queued, short pieces of something long": {
			func() docevents.Event {
				s := strings.Repeat("page\n", long/5)
				e := event(s[:4])
				e.ErrorMessage = s[5:261]
				return e
			},
			docevents.Stats{Recorded: events, Pending: events},
			nil,
		},
		"queued, text ids that are pieces of something long": {
			func() docevents.Event {
				s := strings.Repeat("page\n", long/5)
				e := event("")
				e.DocumentID, e.UserID = s[:1000], s[:30]
				return e
			},
			docevents.Stats{Recorded: events, Pending: events},
			[]docevents.Option{textIDs},
		},
		"dropped as too many, text ids that are pieces of something long": {
			func() docevents.Event {
				s := strings.Repeat("page\n", long/5)
				e := event("")
				e.DocumentID, e.UserID = s[:1000], s[:30]
				return e
			},
			docevents.Stats{Recorded: events, Pending: 1, Dropped: docevents.Drops{QueueFull: events - 1}},
			[]docevents.Option{textIDs, docevents.WithQueueLimits(1, 1<<20)},
		},
		"dropped, short pieces of something long": {
			func() docevents.Event {
				s := strings.Repeat("page\n", long/5)
				return docevents.Event{ID: s[:20], DocumentID: s[:20], UserID: s[:20], Type: docevents.EventType(s[:4]), Stage: s[:4], ErrorMessage: s[5:60]}
			},
			docevents.Stats{Recorded: events, Dropped: docevents.Drops{Invalid: events}},
			nil,
		},
		"dropped as invalid": {
			func() docevents.Event {
				s := strings.Repeat("s", long)
				return docevents.Event{DocumentID: s, UserID: s, Type: docevents.EventType(s), Stage: s, ErrorMessage: s}
			},
			docevents.Stats{Recorded: events, Dropped: docevents.Drops{Invalid: events}},
			[]docevents.Option{whatever},
		},
		"dropped because the queue is full": {
			func() docevents.Event {
				e := event(strings.Repeat("s", long))
				e.ErrorMessage = strings.Repeat("m", long)
				return e
			},
			docevents.Stats{Recorded: events, Pending: 1, Dropped: docevents.Drops{QueueFull: events - 1}},
			[]docevents.Option{docevents.WithQueueLimits(1, 1<<20)},
		},
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
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				_ = c.Close(ctx) // ends the requests, which would be retried forever
			})
		})
	}
}
