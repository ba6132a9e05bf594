package e2e

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/docevents/docevents-go"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// FuzzRecordStored records arbitrary events. If storable returns true, the event must
// be stored with the expected values. Otherwise it must be dropped as invalid. The
// fuzzing processes share one stack, and each has its own table.
//
//	go test ./integration/e2e -run '^$' -fuzz FuzzRecordStored -fuzztime 2m -fuzzminimizetime 10x
func FuzzRecordStored(f *testing.F) {
	b := newBench(f, docevents.WithEventTypes(docevents.EventTypes{Open: true}))
	var check string
	if err := b.stack.Pool().QueryRow(f.Context(), "SELECT conname FROM pg_constraint WHERE conrelid = $1::regclass AND contype = 'c'",
		"public."+b.table).Scan(&check); err != nil {
		f.Fatal(err)
	}
	b.execute("ALTER TABLE TABLE_NAME DROP CONSTRAINT " + check) // so that the table accepts any type

	const year = 365 * 24 * 3600
	controls := "\x7f"
	for r := rune(1); r < ' '; r++ {
		controls += string(r)
	}
	for _, text := range []string{
		"", "page 3: no text", "日本語 😀 e\u0301 \u202eright to left\u202c \ufeff \u2028 \uffff \U0010ffff", "a\x00b", "\x00\x00", "a\xff\xfeb\xed\xa0\x80", "\x80\x80",
		`"quotes" 'single' \backslash \u0041 \x00 </script> & % _ ?`, "'); DROP TABLE document_processing_events; --", `{"code":"23514"}`,
		"null", " ", "\n", controls, "… [1 bytes cut]",
	} {
		f.Add(false, document, docevents.SystemUser, "completed", text, "ocr", uint16(0), int64(1_500_000_000), int64(56*year), int64(123_456_789))
		f.Add(true, "urn:uuid:"+document, "{"+document+"}", text, text, text, uint16(3), int64(-1), int64(-1900*year), int64(-1))
		f.Add(true, strings.ToUpper(document), strings.ReplaceAll(document, "-", ""), "failed", text, text, uint16(math.MaxUint16), int64(math.MaxInt64), int64(253402300799), int64(999_999_999))
	}
	for _, d := range []time.Duration{
		math.MinInt64, 1, time.Millisecond - 1, time.Millisecond, 2*time.Millisecond - 1, math.MaxInt32 * time.Millisecond, 25 * 24 * time.Hour,
	} {
		f.Add(true, document, document, "failed", "", "", uint16(0), int64(d), int64(56*year), int64(0))
	}
	f.Add(true, "", "", "", "", "", uint16(0), int64(0), int64(0), int64(0))
	f.Add(true, document[1:], document, "failed", "", "", uint16(0), int64(1), int64(math.MaxInt64), int64(math.MaxInt64))
	for _, at := range []struct{ seconds, nanoseconds int64 }{
		{-62135596800, 0},   // the zero time
		{-62135596800, 1},   // just after it
		{-62135596801, 999}, // year 0
		{253402300800, 0},   // year 10000
		{-1, 1},             // before 1970
	} {
		f.Add(true, document, document, "failed", "", "", uint16(0), int64(1), at.seconds, at.nanoseconds)
	}

	f.Fuzz(func(t *testing.T, wild bool, documentID, userID, kind, message, stage string, repeat uint16, duration, seconds, nanoseconds int64) {
		b.t = t
		if !wild { // random texts and numbers are rarely UUIDs and valid times
			documentID, userID = document, docevents.SystemUser
			seconds, nanoseconds = seconds%(11_000*year), nanoseconds%1e9
		}
		e := docevents.Event{
			DocumentID: documentID, UserID: userID, Type: docevents.EventType(kind), Duration: time.Duration(duration),
			ErrorMessage: repeatText(message, int(repeat)), Stage: stage, CreatedAt: time.Unix(seconds, nanoseconds),
		}
		before := time.Now()
		b.client.Record(e)
		b.flush()
		after := time.Now()
		rows := b.takeRows()
		drops := b.NewDrops()

		if len(rows)+len(drops) != 1 {
			t.Fatalf("%d rows and %d drops, want one row or one drop: %+v, %+v", len(rows), len(drops), rows, drops)
		}
		if !storable(&e) {
			if len(drops) != 1 || drops[0].Reason != docevents.Invalid {
				t.Fatalf("rows %+v, drops %+v, want the event dropped as invalid", rows, drops)
			}
			back := drops[0].Event
			wantText(t, "ErrorMessage", e.ErrorMessage, back.ErrorMessage, 64<<10)
			wantText(t, "Stage", e.Stage, back.Stage, 1<<10)
			return
		}
		if len(rows) != 1 {
			t.Fatalf("dropped as %s: %v", drops[0].Reason, drops[0].Err)
		}
		got := rows[0]
		if got.ID.Version() != 7 {
			t.Errorf("id %s, want a UUID v7", got.ID)
		}
		if got.DocumentID != uuid.MustParse(documentID) || got.UserID != uuid.MustParse(userID) || got.EventType != kind {
			t.Errorf("stored %s %s %q", got.DocumentID, got.UserID, got.EventType)
		}
		if got, want := show(got.DurationMS), show(milliseconds(duration)); got != want {
			t.Errorf("duration_ms %s, want %s", got, want)
		}
		wantText(t, "error_message", e.ErrorMessage, orNull(t, got.ErrorMessage), 64<<10)
		wantText(t, "stage", e.Stage, orNull(t, got.Stage), 1<<10)
		if e.CreatedAt.IsZero() {
			if got.CreatedAt.Before(before.Truncate(time.Microsecond)) || got.CreatedAt.After(after) {
				t.Errorf("created_at %s, want from %s to %s", got.CreatedAt, before, after)
			}
		} else if want := e.CreatedAt.Truncate(time.Microsecond); !got.CreatedAt.Equal(want) {
			t.Errorf("created_at %s, want %s", got.CreatedAt, want)
		}
	})
}

// A row is a stored event.
type row struct {
	ID, DocumentID, UserID uuid.UUID
	EventType              string
	DurationMS             *int32
	ErrorMessage, Stage    *string
	CreatedAt              time.Time
}

// takeRows deletes all rows by SQL and returns them.
func (b *bench) takeRows() []row {
	b.t.Helper()
	rows, _ := b.stack.Pool().Query(b.t.Context(), "DELETE FROM "+b.table+ // CollectRows returns its error
		" RETURNING id, document_id, user_id, event_type, duration_ms, error_message, stage, created_at")
	got, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (row, error) {
		var v row
		err := r.Scan((*[16]byte)(&v.ID), (*[16]byte)(&v.DocumentID), (*[16]byte)(&v.UserID), &v.EventType, &v.DurationMS, &v.ErrorMessage, &v.Stage, &v.CreatedAt)
		return v, err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return got
}

// repeatText repeats a text, up to about 200 kB.
func repeatText(s string, times int) string {
	return strings.Repeat(s, min(1+times, 1+200_000/(1+len(s))))
}

// storable reports whether the client should store e.
func storable(e *docevents.Event) bool {
	_, badDocument := uuid.Parse(e.DocumentID)
	_, badUser := uuid.Parse(e.UserID)
	kind := string(e.Type)
	year := e.CreatedAt.UTC().Year()
	return badDocument == nil && badUser == nil &&
		kind != "" && len(kind) <= 256 && utf8.ValidString(kind) && !strings.Contains(kind, "\x00") &&
		year >= 1 && year <= 9999
}

func milliseconds(nanoseconds int64) *int32 {
	if nanoseconds <= 0 {
		return nil
	}
	ms := int32(min(nanoseconds/1e6, math.MaxInt32))
	return &ms
}

func show(ms *int32) string {
	if ms == nil {
		return "NULL"
	}
	return fmt.Sprint(*ms)
}

// orNull returns a nullable column's text, or "" for NULL. The column must not
// contain an empty text.
func orNull(t *testing.T, s *string) string {
	t.Helper()
	switch {
	case s == nil:
		return ""
	case *s == "":
		t.Error("an empty text, want NULL")
	}
	return *s
}

var cutNote = regexp.MustCompile(`^(?s)(.*)… \[(\d+) bytes cut\]$`)

// wantText checks the text got that was stored or dropped, for the recorded text given.
// limit is the greatest number of bytes of a stored text.
func wantText(t *testing.T, what, given, got string, limit int) {
	t.Helper()
	clean := strings.ToValidUTF8(strings.ReplaceAll(given, "\x00", ""), "\uFFFD")
	if len(given) <= limit && len(clean) <= limit {
		if got != clean {
			t.Errorf("%s %.200q, want %.200q", what, got, clean)
		}
		return
	}
	// A text that is too long is cut, with a note of the number of bytes.
	if len(got) > limit || !utf8.ValidString(got) || strings.Contains(got, "\x00") {
		t.Errorf("%s has %d bytes, want at most %d of valid text", what, len(got), limit)
	}
	parts := cutNote.FindStringSubmatch(got)
	if parts == nil {
		t.Errorf("%s ends in %.60q, want a note of what was cut", what, got[max(0, len(got)-60):])
		return
	}
	if !strings.HasPrefix(clean, parts[1]) {
		t.Errorf("%s is not the beginning of the recorded text", what)
	}
	cut, err := strconv.Atoi(parts[2])
	if err != nil || cut <= 0 {
		t.Errorf("%s: %s bytes cut", what, parts[2])
	}
	if clean == given && (cut != len(given)-len(parts[1]) || len(parts[1]) < limit-64) {
		t.Errorf("%s: %d bytes kept and %d cut of %d", what, len(parts[1]), cut, len(given))
	}
}
