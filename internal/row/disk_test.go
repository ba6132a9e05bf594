package row

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/google/uuid"
)

var rows = []Row{
	{},
	{ID: uuid.Must(uuid.NewV7()), DocumentID: uuid.New(), UserID: uuid.New(), Type: "completed", CreatedAt: 1_767_323_045_678_901},
	{ID: uuid.New(), Type: "größer", Stage: "ocr", Extra: `,"tenant":7`, Message: "boom\n\x01", Duration: math.MaxInt64, CreatedAt: -62_135_596_800_000_000},
	{ID: uuid.New(), textIDs: "invoice-42\x00ann", Type: "completed"},
	{ID: uuid.New(), textIDs: "\x00ann", NoDocument: true, Type: "completed"},
	{ID: uuid.New(), DocumentID: uuid.New(), NoUser: true, Type: "completed"},
	{ID: uuid.New(), Type: strings.Repeat("t", 256), Stage: strings.Repeat("s", 1<<10), Message: strings.Repeat("m", 64<<10), CreatedAt: math.MaxInt64},
}

func TestRowOnDisk(t *testing.T) {
	for _, want := range rows {
		b := want.Append([]byte("before"))[len("before"):]
		if got := Read(b); got != want {
			t.Errorf("got %.200v, want %.200v", got, want)
		}
	}
	t.Run("costs no allocation", func(t *testing.T) {
		buf := make([]byte, 0, 1<<10)
		if got := testing.AllocsPerRun(100, func() { rows[2].Append(buf) }); got != 0 {
			t.Errorf("got %v, want 0", got)
		}
	})
}

// FuzzRead checks that Read accepts any bytes, and that Append and Read then return the
// same row.
func FuzzRead(f *testing.F) {
	for _, r := range rows {
		b := r.Append(nil)
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Add(append(make([]byte, 48), bytes.Repeat([]byte{0xff}, 20)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		want := Read(b)
		if got := Read(want.Append(nil)); got != want {
			t.Errorf("%q: got %v, want %v", b, got, want)
		}
		if text := want.Text(); text > len(b) {
			t.Errorf("got %d bytes of text of %d", text, len(b))
		}
	})
}
