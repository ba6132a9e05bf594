package e2e

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/google/uuid"
)

// TestFields records an event with each kind of field value and reads it by SQL.
func TestFields(t *testing.T) {
	b := newBench(t)
	const user = "22222222-2222-4222-8222-222222222222"
	at := time.Date(2026, 2, 28, 23, 59, 59, 123456789, time.UTC)
	full := docevents.Event{
		DocumentID: document, UserID: user, Type: docevents.Failed, Duration: 1500 * time.Millisecond,
		ErrorMessage: "page 3: no text", Stage: "ocr", CreatedAt: at,
	}
	with := func(change func(*docevents.Event)) docevents.Event {
		e := full
		change(&e)
		return e
	}
	message := func(s string) docevents.Event { return with(func(e *docevents.Event) { e.ErrorMessage = s }) }
	duration := func(d time.Duration) docevents.Event { return with(func(e *docevents.Event) { e.Duration = d }) }
	created := func(at time.Time) docevents.Event { return with(func(e *docevents.Event) { e.CreatedAt = at }) }
	id := func(s string) docevents.Event { return with(func(e *docevents.Event) { e.DocumentID = s }) }

	// The fields of want default to those of the full event.
	type want struct {
		kind           docevents.EventType
		user           string
		durationMS     *int32
		message, stage *string
		at             time.Time
	}
	defaults := want{docevents.Failed, user, new(int32), &full.ErrorMessage, &full.Stage, at.Truncate(time.Microsecond)}
	*defaults.durationMS = 1500
	wants := func(change func(*want)) want {
		w := defaults
		change(&w)
		return w
	}
	stored := func(s string) want { return wants(func(w *want) { w.message = &s }) }
	ms := func(n int32) want { return wants(func(w *want) { w.durationMS = &n }) }
	noDuration := wants(func(w *want) { w.durationMS = nil })
	noMessage := wants(func(w *want) { w.message = nil })
	atTime := func(at time.Time) want { return wants(func(w *want) { w.at = at }) }

	const limit = 64 << 10
	controls := "\x7f"
	for r := rune(1); r < ' '; r++ {
		controls += string(r)
	}
	odd := []string{
		"日本語 😀 e\u0301 \u202eright to left\u202c \ufeff \u2028 \uffff \U0010ffff",
		`"quotes" 'single' \backslash \u0041 \x00 </script> & % _ ?`,
		"'); DROP TABLE document_processing_events; --",
		`{"code":"23514"}`, "null", " ", "\n", controls,
	}
	tests := map[string]struct {
		event docevents.Event
		want  want
	}{
		"full": {full, defaults},
		"optional fields are NULL": {
			docevents.Event{DocumentID: document, UserID: docevents.SystemUser, Type: docevents.UploadStarted, CreatedAt: at},
			want{docevents.UploadStarted, docevents.SystemUser, nil, nil, nil, defaults.at},
		},
		"processing started": {
			with(func(e *docevents.Event) { e.Type = docevents.ProcessingStarted }),
			wants(func(w *want) { w.kind = docevents.ProcessingStarted }),
		},
		"completed": {
			with(func(e *docevents.Event) { e.Type = docevents.Completed }),
			wants(func(w *want) { w.kind = docevents.Completed }),
		},

		"UUID in upper case":   {id(strings.ToUpper(document)), defaults},
		"UUID in braces":       {id("{" + document + "}"), defaults},
		"UUID as a URN":        {id("urn:uuid:" + document), defaults},
		"UUID without hyphens": {id(strings.ReplaceAll(document, "-", "")), defaults},

		"duration 0":              {duration(0), noDuration},
		"negative duration":       {duration(-time.Second), noDuration},
		"least duration":          {duration(math.MinInt64), noDuration},
		"duration 1 ns":           {duration(1), ms(0)},
		"duration just below 1ms": {duration(time.Millisecond - 1), ms(0)},
		"duration 1 ms":           {duration(time.Millisecond), ms(1)},
		"duration just below 2ms": {duration(2*time.Millisecond - 1), ms(1)},
		"duration of 24 days":     {duration(math.MaxInt32 * time.Millisecond), ms(math.MaxInt32)},
		"duration of 25 days":     {duration(25 * 24 * time.Hour), ms(math.MaxInt32)},
		"greatest duration":       {duration(math.MaxInt64), ms(math.MaxInt32)},

		"in another zone": {created(at.In(time.FixedZone("", 5*3600+1800))), defaults},
		"first time":      {created(time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC)), atTime(time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC))},
		"last time": {
			created(time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)),
			atTime(time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC)),
		},
		"before 1970": {created(time.Unix(-1, 1)), atTime(time.Unix(-1, 0))},

		"NUL bytes":            {message("a\x00b\x00"), stored("ab")},
		"only NUL bytes":       {message("\x00\x00"), noMessage},
		"invalid UTF-8":        {message("a\xff\xfeb\xc3"), stored("a\ufffdb\ufffd")},
		"a surrogate":          {message("a\xed\xa0\x80b"), stored("a\ufffdb")},
		"message of 64 KiB":    {message(strings.Repeat("é", limit/2)), stored(strings.Repeat("é", limit/2))},
		"message of 64 KiB +1": {message(strings.Repeat("x", limit+1)), stored(strings.Repeat("x", limit-40) + "… [41 bytes cut]")},
		"message of 10 MB": {
			message(strings.Repeat("€", 10_000_000/3)),
			stored(strings.Repeat("€", (limit-40)/3) + fmt.Sprintf("… [%d bytes cut]", 10_000_000/3*3-(limit-40)/3*3)),
		},
		"stage of 1 KiB": {
			with(func(e *docevents.Event) { e.Stage = strings.Repeat("s", 1024) }),
			wants(func(w *want) { w.stage = ptr(strings.Repeat("s", 1024)) }),
		},
		"stage of 2 KiB": {
			with(func(e *docevents.Event) { e.Stage = strings.Repeat("s", 2048) }),
			wants(func(w *want) { w.stage = ptr(strings.Repeat("s", 1024-40) + "… [1064 bytes cut]") }),
		},
	}
	for _, s := range odd {
		tests["text "+s] = struct {
			event docevents.Event
			want  want
		}{message(s), stored(s)}
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b.t = t
			b.execute("DELETE FROM TABLE_NAME")
			b.client.Record(tt.event)
			b.flush()
			rows := b.rows()
			if len(rows) != 1 {
				t.Fatalf("%d rows, want 1; dropped: %+v", len(rows), b.NewDrops())
			}
			got := rows[0]
			if got.ID.Version() != 7 {
				t.Errorf("id %s, want a UUID v7", got.ID)
			}
			if got.DocumentID.String() != document || got.UserID.String() != tt.want.user || got.EventType != string(tt.want.kind) {
				t.Errorf("stored %s %s %s", got.DocumentID, got.UserID, got.EventType)
			}
			if !equal(got.DurationMS, tt.want.durationMS) {
				t.Errorf("duration_ms %s, want %s", show(got.DurationMS), show(tt.want.durationMS))
			}
			if !equal(got.ErrorMessage, tt.want.message) {
				t.Errorf("error_message %s, want %s", show(got.ErrorMessage), show(tt.want.message))
			}
			if !equal(got.Stage, tt.want.stage) {
				t.Errorf("stage %s, want %s", show(got.Stage), show(tt.want.stage))
			}
			if !got.CreatedAt.Equal(tt.want.at) {
				t.Errorf("created_at %s, want %s", got.CreatedAt, tt.want.at)
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }

func equal[T comparable](a, b *T) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

func show[T any](v *T) string {
	if v == nil {
		return "NULL"
	}
	return fmt.Sprintf("%.100q", fmt.Sprint(*v))
}

func TestTimeOfRecord(t *testing.T) {
	b := newBench(t)
	before := time.Now().Truncate(time.Microsecond)
	b.client.Record(event("a"))
	after := time.Now()
	b.flush()
	rows := b.rows()
	if len(rows) != 1 {
		t.Fatalf("%d rows, want 1", len(rows))
	}
	if at := rows[0].CreatedAt; at.Before(before) || at.After(after) {
		t.Errorf("created_at %s, want from %s to %s", at, before, after)
	}
}

func TestInvalid(t *testing.T) {
	b := newBench(t)
	for name, change := range map[string]func(*docevents.Event){
		"no document":          func(e *docevents.Event) { e.DocumentID = "" },
		"a bad document":       func(e *docevents.Event) { e.DocumentID = document + "0" },
		"no user":              func(e *docevents.Event) { e.UserID = "" },
		"no type":              func(e *docevents.Event) { e.Type = "" },
		"an unknown type":      func(e *docevents.Event) { e.Type = "archived" },
		"a time before year 1": func(e *docevents.Event) { e.CreatedAt = time.Date(0, 12, 31, 0, 0, 0, 0, time.UTC) },
		"a time in year 10000": func(e *docevents.Event) {
			e.CreatedAt = time.Date(9999, 12, 31, 23, 0, 0, 0, time.FixedZone("", -3600))
		},
	} {
		e := event(name)
		change(&e)
		b.client.Record(e)
		b.flush()
		if drops := b.NewDrops(); len(drops) != 1 || drops[0].Reason != docevents.Invalid || drops[0].Event.Stage != name {
			t.Errorf("%s: dropped %+v, want it as invalid", name, drops)
		}
	}
	b.client.Record(event("valid"))
	b.flush()
	b.wantStages("valid")
	b.wantCounts(docevents.Stats{Recorded: 8, Delivered: 1, Dropped: docevents.Drops{Invalid: 7}})
}

// TestOpenTypes records a type that only the table's CHECK rejects.
func TestOpenTypes(t *testing.T) {
	b := newBench(t, docevents.WithEventTypes(docevents.EventTypes{Open: true}))
	archived := event("archived")
	archived.Type = "archived"
	var stages []string
	for i := range 99 {
		stages = append(stages, fmt.Sprint(i))
		b.client.Record(event(fmt.Sprint(i)))
		if i == 50 {
			b.client.Record(archived)
		}
	}
	b.flush()
	b.wantStages(stages...)
	b.wantCounts(docevents.Stats{Recorded: 100, Delivered: 99, Dropped: docevents.Drops{Rejected: 1}})
	drops := b.NewDrops()
	if len(drops) != 1 || drops[0].Event.Type != "archived" || drops[0].Reason != docevents.Rejected {
		t.Fatalf("dropped %+v, want the event whose type the table rejects", drops)
	}
	wantError(t, drops[0].Err, 400, "23514", "violates check constraint")
	if errors.Is(drops[0].Err, docevents.ErrOutcomeUnknown) {
		t.Errorf("error %v, want a known outcome", drops[0].Err)
	}

	var check string
	if err := b.stack.Pool().QueryRow(t.Context(), "SELECT conname FROM pg_constraint WHERE conrelid = $1::regclass AND contype = 'c'",
		"public."+b.table).Scan(&check); err != nil {
		t.Fatal(err)
	}
	b.execute("ALTER TABLE TABLE_NAME DROP CONSTRAINT " + check)
	b.client.Record(archived)
	b.flush()
	b.wantStages(append(stages, "archived")...)
}

// TestManyGoroutines checks that all events are stored when Flush or Close returns.
func TestManyGoroutines(t *testing.T) {
	b := newBench(t)
	const goroutines, each = 20, 250
	record := func() {
		var wg sync.WaitGroup
		for range goroutines {
			wg.Go(func() {
				for range each {
					e := event("a")
					e.DocumentID = uuid.NewString()
					b.client.Record(e)
				}
			})
		}
		wg.Wait()
	}
	wantRows := func(want int) {
		t.Helper()
		ids := map[uuid.UUID]bool{}
		for _, r := range b.rows() {
			ids[r.DocumentID] = true
		}
		if len(ids) != want || len(b.rows()) != want {
			t.Errorf("%d rows of %d events, want %d", len(b.rows()), len(ids), want)
		}
	}
	record()
	b.flush()
	wantRows(goroutines * each)
	record()
	b.close()
	wantRows(2 * goroutines * each)

	b.client.Record(event("late"))
	b.flush()
	b.close()
	wantRows(2 * goroutines * each)
	b.wantCounts(docevents.Stats{
		Recorded: 2*goroutines*each + 1, Delivered: 2 * goroutines * each, Dropped: docevents.Drops{Closed: 1},
	})
	if drops := b.NewDrops(); len(drops) != 1 || drops[0].Reason != docevents.Closed || !errors.Is(drops[0].Err, docevents.ErrClosed) {
		t.Errorf("dropped %+v, want the late event as closed", drops)
	}
}

// TestSecretKey uses a key of the new style (sb_secret_...), which is not a JWT.
func TestSecretKey(t *testing.T) {
	b := newBench(t)
	if b.stack.SecretKey == "" {
		t.Skip("SUPABASE_SECRET_KEY is not set")
	}
	secret := benchOf(t, b.stack, b.stack.SecretKey, b.table)
	if err := secret.client.Check(t.Context()); err != nil {
		t.Error(err)
	}
	old := event("old")
	old.CreatedAt = time.Now().AddDate(0, 0, -31)
	secret.client.Record(old)
	secret.client.Record(event("new"))
	secret.flush()
	if n, err := secret.client.PurgeOlderThan(t.Context(), 30); n != 1 || err != nil {
		t.Errorf("purged %d, %v, want 1", n, err)
	}
	secret.close()
	b.wantStages("new")
}
