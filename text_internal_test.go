package docevents

import (
	"strings"
	"testing"
	"unsafe"
)

// Copies are equal, apart from what they were made of and from each other, and
// few allocations share them.
func TestKeeper(t *testing.T) {
	var k keeper
	var got, want []string
	for i := range 10 * keeperBytes / maxKept {
		for _, n := range []int{0, 1, i % (maxKept + 1), maxKept} {
			s := strings.Repeat(string(rune('a'+i%26)), n)
			kept := k.keep(s)
			if n > 0 && unsafe.StringData(kept) == unsafe.StringData(s) {
				t.Fatalf("%d bytes are not copied", n)
			}
			got, want = append(got, kept), append(want, s)
		}
	}
	for i := range want { // later copies have left them alone
		if got[i] != want[i] {
			t.Fatalf("number %d is %q, want %q", i, got[i], want[i])
		}
	}
	long := strings.Repeat("x", maxKept+1)
	if unsafe.StringData(k.keep(long)) != unsafe.StringData(long) {
		t.Error("a long text is copied")
	}
	if allocs := testing.AllocsPerRun(10_000, func() { k.keep("ocr") }); allocs != 0 {
		t.Errorf("%v allocations a text", allocs)
	}
}
