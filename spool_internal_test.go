package docevents

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/docevents/docevents-go/internal/spool"
	"github.com/google/uuid"
)

// WithSpoolFiles makes the spool use files. It goes after WithSpool.
func WithSpoolFiles(files spool.FS) Option { return func(c *config) { c.spoolFiles = files } }

var spooledRecords = []record{
	{},
	{id: uuid.Must(uuid.NewV7()), documentID: uuid.New(), userID: uuid.New(), eventType: Completed, createdAt: 1_767_323_045_678_901},
	{id: uuid.New(), eventType: "größer", stage: "ocr", extra: `,"tenant":7`, message: "boom\n\x01", duration: math.MaxInt64, createdAt: -62_135_596_800_000_000},
	{id: uuid.New(), ids: "invoice-42\x00ann", eventType: Completed},
	{id: uuid.New(), ids: "\x00ann", noDocument: true, eventType: Completed},
	{id: uuid.New(), documentID: uuid.New(), noUser: true, eventType: Completed},
	{id: uuid.New(), eventType: EventType(strings.Repeat("t", maxTypeBytes)), stage: strings.Repeat("s", maxStageBytes), message: strings.Repeat("m", maxMessageBytes), createdAt: math.MaxInt64},
}

func TestSpooledRecord(t *testing.T) {
	for _, want := range spooledRecords {
		b := appendRecord([]byte("before"), &want)[len("before"):]
		if got := readRecord(b); got != want {
			t.Errorf("got %.200v, want %.200v", got, want)
		}
	}
	t.Run("costs no allocation", func(t *testing.T) {
		buf := make([]byte, 0, 1<<10)
		if got := testing.AllocsPerRun(100, func() { appendRecord(buf, &spooledRecords[2]) }); got != 0 {
			t.Errorf("got %v, want 0", got)
		}
	})
	t.Run("written by a version without the last text", func(t *testing.T) {
		want := record{id: uuid.New(), eventType: Failed, stage: "ocr", createdAt: 1}
		b := appendRecord(nil, &want)
		if got := readRecord(b[:len(b)-1]); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

// FuzzReadRecord checks that any bytes are read as a record, and that the record is the
// same after it is written and read again.
func FuzzReadRecord(f *testing.F) {
	for _, r := range spooledRecords {
		b := appendRecord(nil, &r)
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Add(append(make([]byte, 48), bytes.Repeat([]byte{0xff}, 20)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		want := readRecord(b)
		if got := readRecord(appendRecord(nil, &want)); got != want {
			t.Errorf("%q: got %v, want %v", b, got, want)
		}
		if text := want.text(); text > len(b) {
			t.Errorf("got %d bytes of text of %d", text, len(b))
		}
	})
}
