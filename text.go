package docevents

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// storable reports whether s is 1 to limit bytes of text that PostgreSQL can
// store.
func storable(s string, limit int) bool {
	return s != "" && len(s) <= limit && isText(s)
}

// cleanText makes s storable: no NUL, valid UTF-8, at most limit bytes. It
// cuts first, so that its cost is bounded, and copies only what it changes.
func cleanText(s string, limit int) string {
	const roomForNote = 40
	uncut := len(s)
	s = cutText(s, limit)
	went := uncut - len(s)
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "")
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	if went == 0 && len(s) <= limit {
		return s
	}
	kept := cutText(s, limit-roomForNote)
	return fmt.Sprintf("%s… [%d bytes cut]", kept, went+len(s)-len(kept))
}

// cutText cuts s to at most limit bytes, on a rune boundary.
func cutText(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

const (
	// maxKept is up to what length a text is copied, in bytes.
	maxKept = 256

	// keeperBytes is the memory that copies share, so that most need none of
	// their own. It lives as long as any of them: a text that waits by itself
	// holds on to no more.
	keeperBytes = 4 << 10
)

// A keeper copies short texts. A stage or a message may be a word of a document
// of megabytes, all of which would stay in memory while the word does.
type keeper struct{ shared strings.Builder }

// keep returns a copy of s, or s if it is long.
func (k *keeper) keep(s string) string {
	if len(s) > maxKept {
		return s
	}
	if k.shared.Cap()-k.shared.Len() < len(s) {
		k.shared.Reset() // leaves the memory to the copies
		k.shared.Grow(keeperBytes)
	}
	k.shared.WriteString(s)
	return k.shared.String()[k.shared.Len()-len(s):]
}

// owned returns e with copies of its ids and of its short texts.
func owned(e Event) Event {
	for i, text := range []*string{&e.ID, &e.DocumentID, &e.UserID, (*string)(&e.Type), &e.ErrorMessage, &e.Stage} {
		if isID := i < 3; isID || len(*text) <= maxKept {
			*text = strings.Clone(*text)
		}
	}
	return e
}

// isPlain says whether s stands in JSON as it is, by encoding/json's rules.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}
