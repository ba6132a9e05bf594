package docevents

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/docevents/docevents-go/internal/spool"
	"github.com/google/uuid"
)

var spooledRecords = []record{
	{id: uuid.Must(uuid.NewV7()), documentID: uuid.New(), userID: uuid.New(), eventType: Completed, createdAt: 1_767_323_045_678_901},
	{id: uuid.New(), eventType: "größer", stage: "ocr", message: "boom\n\x01", duration: math.MaxInt64, createdAt: -62_135_596_800_000_000},
	{id: uuid.New(), eventType: EventType(strings.Repeat("t", maxTypeBytes)), stage: strings.Repeat("s", maxStageBytes), message: strings.Repeat("m", maxMessageBytes), createdAt: math.MaxInt64},
}

func TestSpooledRecord(t *testing.T) {
	for _, want := range spooledRecords {
		b := appendRecord([]byte("before"), &want)[len("before"):]
		got, err := readRecord(b)
		if err != nil || got != want {
			t.Errorf("got %.200v, %v, want %.200v", got, err, want)
		}
		if len(b) > spool.MaxRow {
			t.Errorf("got %d bytes, more than a row may have", len(b))
		}
		if _, err := readRecord(append(b, 0)); !errors.Is(err, errNoRecord) {
			t.Errorf("with a byte more: got %v, want %v", err, errNoRecord)
		}
	}
	if _, err := readRecord(nil); !errors.Is(err, errNoRecord) {
		t.Errorf("nothing: got %v, want %v", err, errNoRecord)
	}
}

// FuzzReadRecord: whatever the bytes, what is read is what would be written for it.
func FuzzReadRecord(f *testing.F) {
	for _, r := range spooledRecords {
		b := appendRecord(nil, &r)
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	f.Add(append(make([]byte, 64), bytes.Repeat([]byte{0xff}, 10)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		want, err := readRecord(b)
		if err != nil {
			return
		}
		written := appendRecord(nil, &want)
		if got, err := readRecord(written); err != nil || got != want || len(written) > len(b)+3 {
			t.Errorf("%q: got %v, %v, want %v", b, got, err, want)
		}
	})
}
