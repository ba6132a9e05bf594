package docevents_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/docevents/docevents-go"
)

// The ids of a step's events are the same in every version of this package and for every
// value of GODEBUG. Step also works if GODEBUG forbids SHA-1.
func TestStepIDsNeverChange(t *testing.T) {
	const again = "DOCEVENTS_TEST_FIPS"
	if os.Getenv(again) == "" {
		t.Run("GODEBUG=fips140=only", func(t *testing.T) {
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(exe, "-test.run=^TestStepIDsNeverChange$")
			cmd.Env = append(os.Environ(), again+"=1", "GODEBUG=fips140=only")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %.1000s", err, out)
			}
		})
	}
	db := &server{}
	c, _ := newClient(t, db)
	e := event("ocr")
	e.ID = "aabbccdd-eeff-5011-8233-445566778899"
	ran := false
	if err := c.Step(e, func() error { ran = true; return nil }); err != nil || !ran {
		t.Errorf("%v; the step ran: %v", err, ran)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
	for eventType, id := range map[docevents.EventType]string{
		docevents.ProcessingStarted: "0f189a75-5e2c-5112-8787-d75a73a78579",
		docevents.Completed:         "e165d733-6c10-5ca5-8f72-6a96109679b4",
	} {
		if row, stored := db.rows[id]; !stored || row.EventType != string(eventType) {
			t.Errorf("%s: not stored as %s, but %v", eventType, id, db.rows)
		}
	}
}
