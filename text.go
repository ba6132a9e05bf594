package docevents

import "strings"

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

// owned returns e with copies of its short texts.
func owned(e Event) Event {
	for _, text := range []*string{&e.DocumentID, &e.UserID, (*string)(&e.Type), &e.ErrorMessage, &e.Stage} {
		if len(*text) <= maxKept {
			*text = strings.Clone(*text)
		}
	}
	return e
}
