package docevents

import (
	"slices"
	"strings"
	"testing"
)

func TestMeaning(t *testing.T) {
	own := EventTypes{
		Arrived: []EventType{"queued"}, Started: []EventType{"begun", "resumed"}, Completed: []EventType{"done", "merged"},
		Failed: []EventType{"broken"}, Skipped: []EventType{"cancelled"}, Notes: []EventType{"progress"},
	}
	migrations := map[EventType]meaning{UploadStarted: meansArrived, ProcessingStarted: meansStarted, Completed: meansCompleted, Failed: meansFailed}
	for name, test := range map[string]struct {
		types  EventTypes
		want   map[EventType]meaning // every type that is accepted
		listed string                // types that Check rehearses
		open   bool
	}{
		"the migration's": {EventTypes{}, migrations, "upload_started processing_started completed failed", false},
		"any":             {EventTypes{Open: true}, migrations, "", true},
		"all fields listed": {
			own,
			map[EventType]meaning{
				"queued": meansArrived, "begun": meansStarted, "resumed": meansStarted, "done": meansCompleted, "merged": meansCompleted,
				"broken": meansFailed, "cancelled": meansSkipped, "progress": meansNote,
			},
			"queued begun resumed done merged broken cancelled progress", false,
		},
		"one field listed": {
			EventTypes{Completed: []EventType{"done"}},
			map[EventType]meaning{UploadStarted: meansArrived, ProcessingStarted: meansStarted, "done": meansCompleted, Failed: meansFailed},
			"done", false,
		},
		"further types, with Open": {
			EventTypes{Notes: []EventType{"progress"}, Skipped: []EventType{}, Open: true},
			map[EventType]meaning{UploadStarted: meansArrived, ProcessingStarted: meansStarted, Completed: meansCompleted, Failed: meansFailed, "progress": meansNote},
			"progress", true,
		},
		"a migration's type with another meaning": {
			EventTypes{Started: []EventType{UploadStarted}},
			map[EventType]meaning{UploadStarted: meansStarted, Completed: meansCompleted, Failed: meansFailed},
			"upload_started", false,
		},
		"the same type twice": {
			EventTypes{Failed: []EventType{"broken", "broken"}},
			map[EventType]meaning{UploadStarted: meansArrived, ProcessingStarted: meansStarted, Completed: meansCompleted, "broken": meansFailed},
			"broken broken", false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			types, err := newEventTypes(test.types)
			if err != nil {
				t.Fatal(err)
			}
			for _, eventType := range append([]EventType{"anything"}, types.known...) {
				want, accepted := test.want[eventType] // meansNote if it isn't listed
				if got := types.meaning(eventType); got != want {
					t.Errorf("%s: got meaning %d, want %d", eventType, got, want)
				}
				got, err := types.accept(eventType)
				if accepted = accepted || test.open; (err == nil) != accepted || accepted && got != eventType {
					t.Errorf("%s: got %q, %v, want accepted %v", eventType, got, err, accepted)
				}
			}
			for eventType := range test.want {
				if !slices.Contains(types.known, eventType) {
					t.Errorf("%s isn't accepted", eventType)
				}
			}
			var listed []string
			for _, eventType := range types.listed {
				listed = append(listed, string(eventType))
			}
			if got := strings.Join(listed, " "); got != test.listed {
				t.Errorf("Check rehearses %q, want %q", got, test.listed)
			}
		})
	}
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
