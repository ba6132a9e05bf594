package row

import (
	"strings"
	"testing"
	"unsafe"
)

// A copy is equal to its original and doesn't share its memory. Later copies don't
// change it, and don't need an allocation each.
func TestKeeper(t *testing.T) {
	var k Keeper
	var got, want []string
	for i := range 10 * keeperBytes / MaxKept {
		for _, n := range []int{0, 1, i % (MaxKept + 1), MaxKept} {
			s := strings.Repeat(string(rune('a'+i%26)), n)
			kept := k.Keep(s)
			if n > 0 && unsafe.StringData(kept) == unsafe.StringData(s) {
				t.Fatalf("%d bytes are not copied", n)
			}
			got, want = append(got, kept), append(want, s)
		}
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("number %d is %q, want %q", i, got[i], want[i])
		}
	}
	long := strings.Repeat("x", MaxKept+1)
	if unsafe.StringData(k.Keep(long)) != unsafe.StringData(long) {
		t.Error("a long text is copied")
	}
	if allocs := testing.AllocsPerRun(10_000, func() { k.Keep("ocr") }); allocs != 0 {
		t.Errorf("%v allocations for a text", allocs)
	}
}
