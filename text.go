package docevents

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// storable says whether any table could store t.
func storable(t EventType) bool {
	return t != "" && len(t) <= maxTypeBytes && utf8.ValidString(string(t)) && !strings.Contains(string(t), "\x00")
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

// isPlain says whether s stands in JSON as it is, by encoding/json's rules.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}
