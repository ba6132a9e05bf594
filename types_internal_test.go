package docevents

import (
	"strings"
	"testing"
)

func TestNewEventTypes(t *testing.T) {
	const migrations = "upload_started processing_started completed failed"
	const own = "queued begun resumed done merged broken cancelled progress"
	for name, test := range map[string]struct {
		types  EventTypes
		known  string // every type that Record accepts without Open
		listed string // the types that Check rehearses
	}{
		"the migration's": {EventTypes{}, migrations, migrations},
		"any":             {EventTypes{Open: true}, migrations, ""},
		"all fields listed": {
			EventTypes{
				Arrived: []EventType{"queued"}, Started: []EventType{"begun", "resumed"}, Completed: []EventType{"done", "merged"},
				Failed: []EventType{"broken"}, Skipped: []EventType{"cancelled"}, Notes: []EventType{"progress"},
			}, own, own,
		},
		"one field listed": {
			EventTypes{Completed: []EventType{"done"}},
			"upload_started processing_started done failed", "done",
		},
		"further types, with Open": {
			EventTypes{Notes: []EventType{"progress"}, Skipped: []EventType{}, Open: true},
			migrations + " progress", "progress",
		},
		"a migration's type in another field": {
			EventTypes{Started: []EventType{UploadStarted}},
			"upload_started completed failed", "upload_started",
		},
		"the same type twice": {
			EventTypes{Failed: []EventType{"broken", "broken"}},
			"upload_started processing_started completed broken broken", "broken broken",
		},
	} {
		types, err := newEventTypes(test.types)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := spaced(types.known); got != test.known {
			t.Errorf("%s: Record accepts %q, want %q", name, got, test.known)
		}
		if got := spaced(types.listed); got != test.listed {
			t.Errorf("%s: Check rehearses %q, want %q", name, got, test.listed)
		}
		for _, eventType := range append([]EventType{"anything"}, types.known...) {
			want := eventType != "anything" || types.Open
			if got, err := types.accept(eventType); (err == nil) != want || want && got != eventType {
				t.Errorf("%s, %s: got %q, %v, want accepted: %t", name, eventType, got, err, want)
			}
		}
	}
}

func spaced(types []EventType) string {
	var words []string
	for _, t := range types {
		words = append(words, string(t))
	}
	return strings.Join(words, " ")
}

func TestBadEventTypes(t *testing.T) {
	for name, test := range map[string]struct {
		types EventTypes
		want  []string
	}{
		"two meanings": {
			EventTypes{Completed: []EventType{"done"}, Skipped: []EventType{"gone", "done"}},
			[]string{`"done" is both in Completed and in Skipped`},
		},
		"no type for Step": {
			EventTypes{Notes: []EventType{ProcessingStarted, Failed}},
			[]string{`Started is empty, and its default "processing_started" is in Notes`, `Failed is empty, and its default "failed" is in Notes`},
		},
		"not text": {
			EventTypes{Arrived: []EventType{"a", ""}, Notes: []EventType{"a\x00b"}},
			[]string{"Arrived[1] must be valid text of 1 to 256 bytes", "Notes[0] must be"},
		},
	} {
		_, err := newEventTypes(test.types)
		for _, want := range test.want {
			if err == nil || !strings.Contains(err.Error(), "WithEventTypes: "+want) {
				t.Errorf("%s: got %v, want %q", name, err, want)
			}
		}
	}
}
