package row

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// IsText reports whether PostgreSQL accepts s as text.
func IsText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// CleanText returns s in a form that PostgreSQL can store: without NULs, in valid
// UTF-8, and with at most maxBytes bytes. If CleanText cuts s, it appends a note with
// the number of bytes that it cut off.
func CleanText(s string, maxBytes int) string {
	const roomForNote = 40
	uncut := len(s)
	s = CutText(s, maxBytes) // first, because cleaning a very long s takes long
	went := uncut - len(s)
	s = strings.ReplaceAll(s, "\x00", "")
	if !utf8.ValidString(s) { // this check is ten times as fast as ToValidUTF8
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	if went == 0 && len(s) <= maxBytes {
		return s
	}
	kept := CutText(s, maxBytes-roomForNote)
	return fmt.Sprintf("%s… [%d bytes cut]", kept, went+len(s)-len(kept))
}

// CutText cuts s to at most maxBytes bytes, between two runes.
func CutText(s string, maxBytes int) string {
	if len(s) <= maxBytes {
		return s
	}
	for maxBytes > 0 && !utf8.RuneStart(s[maxBytes]) {
		maxBytes--
	}
	return s[:maxBytes]
}

const (
	// MaxKept is the length in bytes of the longest text that Keep copies.
	MaxKept = 256

	// keeperBytes is the size of a block of memory in which a Keeper stores copies. The
	// block is freed when none of its copies is used any more.
	keeperBytes = 4 << 10
)

// A Keeper copies short texts of queued events. Without the copy, a text that is a part
// of a larger string, such as a document, would keep that string in memory.
type Keeper struct{ shared strings.Builder }

// Keep returns a copy of s, or s itself if that is longer than MaxKept.
func (k *Keeper) Keep(s string) string {
	if len(s) > MaxKept {
		return s
	}
	if k.shared.Cap()-k.shared.Len() < len(s) {
		k.shared.Reset() // the copies keep the old block
		k.shared.Grow(keeperBytes)
	}
	k.shared.WriteString(s)
	return k.shared.String()[k.shared.Len()-len(s):]
}
