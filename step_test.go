package docevents_test

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/google/uuid"
)

// brokenError is an error whose Error method panics.
type brokenError struct{ err error }

func (b *brokenError) Error() string { return b.err.Error() }

// allRows returns the rows of all requests.
func allRows(t *testing.T, w *wire) (rows []map[string]any) {
	t.Helper()
	for _, sent := range w.all() {
		rows = append(rows, sent.rows(t)...)
	}
	return rows
}

func TestStep(t *testing.T) {
	for name, test := range map[string]struct {
		do   func() error
		ends string // how Step ends
		want string // type and message of the second row
	}{
		"succeeds":                  {func() error { return nil }, "returns <nil> <nil>", "completed"},
		"fails":                     {func() error { return errors.New("boom") }, "returns *errors.errorString boom", "failed boom"},
		"panics":                    {func() error { panic("hunter2") }, "panics hunter2", "failed panic: hunter2"},
		"ends its goroutine":        {func() error { runtime.Goexit(); return nil }, "ends its goroutine", "failed the goroutine has ended"},
		"fails without a text":      {func() error { return errors.New("") }, "returns *errors.errorString ", "failed"},
		"fails with a broken error": {func() error { return (*brokenError)(nil) }, "returns *docevents_test.brokenError <nil>", "failed <nil>"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, o, w := newWired(t)
				ended := make(chan string, 1)
				go func() {
					how := "ends its goroutine"
					defer func() {
						if p := recover(); p != nil {
							how = fmt.Sprint("panics ", p)
						}
						ended <- how
					}()
					err := c.Step(docevents.Event{DocumentID: testDocument, UserID: docevents.SystemUser, Stage: "ocr"}, func() error {
						time.Sleep(1500 * time.Millisecond)
						return test.do()
					})
					how = fmt.Sprintf("returns %T %v", err, err)
				}()
				if got := <-ended; got != test.ends {
					t.Errorf("Step %s, want %s", got, test.ends)
				}
				if err := c.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				rows := allRows(t, w)
				if len(rows) != 2 || len(o.lost()) != 0 {
					t.Fatalf("%d rows, lost %+v", len(rows), o.lost())
				}
				first, second := rows[0], rows[1]
				if first["event_type"] != "processing_started" || first["duration_ms"] != nil || first["error_message"] != nil || first["stage"] != "ocr" {
					t.Errorf("first %v", first)
				}
				message, _ := second["error_message"].(string)
				got := strings.TrimSpace(second["event_type"].(string) + " " + message)
				if got != test.want || second["duration_ms"] != 1500.0 || second["stage"] != "ocr" {
					t.Errorf("second %v, want %s", second, test.want)
				}
				if first["id"] == second["id"] || first["created_at"] != "2000-01-01T00:00:00.000000Z" || second["created_at"] != "2000-01-01T00:00:01.500000Z" {
					t.Errorf("first %v, second %v", first, second)
				}
			})
		})
	}
}

// Step replaces some fields of the event and keeps the other fields.
func TestStepEventFields(t *testing.T) {
	job := uuid.MustParse("aabbccdd-eeff-5011-8233-445566778899")
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, test := range map[string]struct {
		event   docevents.Event
		columns docevents.Columns
		want    [2]map[string]any // some columns of each row
		invalid string            // the beginning of the errors, if both events are dropped
	}{
		"type, duration and message are replaced": {
			event: docevents.Event{Type: "x", Duration: time.Hour, ErrorMessage: "x"},
			want: [2]map[string]any{
				{"event_type": "processing_started", "duration_ms": nil, "error_message": nil},
				{"event_type": "failed", "duration_ms": 0.0, "error_message": "boom"}, // 0 and not NULL: it took no time in the bubble, but was measured
			},
		},
		"an event with an ID": {
			event: docevents.Event{ID: "{" + strings.ToUpper(job.String()) + "}"},
			want: [2]map[string]any{
				{"id": uuid.NewSHA1(job, []byte("processing_started")).String()},
				{"id": uuid.NewSHA1(job, []byte("failed")).String()},
			},
		},
		"an event with a time": {
			event: docevents.Event{CreatedAt: at},
			want:  [2]map[string]any{{"created_at": "2026-01-02T03:04:05.000000Z"}, {"created_at": "2026-01-02T03:04:07.000000Z"}},
		},
		"columns that the table lacks": {
			event:   docevents.Event{Extra: map[string]any{"tenant_id": "x"}},
			columns: docevents.Columns{Duration: "-", ErrorMessage: "-", Extra: []string{"tenant_id"}},
			want:    [2]map[string]any{{"event_type": "processing_started", "tenant_id": "x"}, {"event_type": "failed", "tenant_id": "x"}},
		},
		"an ID that is not a UUID":      {event: docevents.Event{ID: "job-7"}, invalid: "ID is not a UUID"},
		"the zero UUID as ID":           {event: docevents.Event{ID: docevents.SystemUser}, invalid: "ID is not a UUID"},
		"a table without a type column": {columns: docevents.Columns{Type: "-"}, invalid: "Type is set"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, o, w := newWired(t, docevents.WithColumns(test.columns), docevents.WithMaxInFlight(1)) // keeps the rows in order
				e := test.event
				e.DocumentID, e.UserID = testDocument, docevents.SystemUser
				took := time.Duration(0)
				if !e.CreatedAt.IsZero() {
					took = 2 * time.Second
				}
				if err := c.Step(e, func() error { time.Sleep(took); return errors.New("boom") }); err == nil {
					t.Error("no error")
				}
				synctest.Wait() // Flush would send both rows in one request
				if test.invalid != "" {
					if lost := o.lost(); len(lost) != 2 || !strings.HasPrefix(lost[1].err.Error(), test.invalid) {
						t.Errorf("lost %+v", lost)
					}
					return
				}
				rows := allRows(t, w)
				if len(rows) != 2 {
					t.Fatalf("%d rows, lost %+v", len(rows), o.lost())
				}
				for i, want := range test.want {
					for column, value := range want {
						if got := rows[i][column]; got != value {
							t.Errorf("row %d: %s is %v, want %v", i, column, got, value)
						}
					}
				}
			})
		})
	}
}

// With WithEventTypes, Step records the first type in each list, and derives the ids of
// the events from these types.
func TestStepWithOwnTypes(t *testing.T) {
	job := uuid.MustParse("aabbccdd-eeff-5011-8233-445566778899")
	types := docevents.EventTypes{
		Started:   []docevents.EventType{"ocr_started", "started"},
		Completed: []docevents.EventType{"done", "finished"},
		Failed:    []docevents.EventType{"broken"},
		Skipped:   []docevents.EventType{"cancelled"},
	}
	for name, test := range map[string]struct {
		types docevents.EventTypes
		err   error
		want  []docevents.EventType
	}{
		"succeeds":                {types, nil, []docevents.EventType{"ocr_started", "done"}},
		"fails":                   {types, errors.New("boom"), []docevents.EventType{"ocr_started", "broken"}},
		"only one type is listed": {docevents.EventTypes{Completed: types.Completed}, nil, []docevents.EventType{docevents.ProcessingStarted, "done"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, o, w := newWired(t, docevents.WithEventTypes(test.types), docevents.WithMaxInFlight(1))
				e := event("ocr")
				e.ID = job.String()
				if err := c.Step(e, func() error { return test.err }); err != test.err {
					t.Errorf("got %v", err)
				}
				if err := c.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				var got, want []string
				for _, row := range allRows(t, w) {
					got = append(got, fmt.Sprint(row["event_type"], " ", row["id"]))
				}
				for _, word := range test.want {
					want = append(want, fmt.Sprint(word, " ", uuid.NewSHA1(job, []byte(word))))
				}
				if !slices.Equal(got, want) {
					t.Errorf("got %q, want %q; lost %+v", got, want, o.lost())
				}
			})
		})
	}
}
