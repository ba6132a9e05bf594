package docevents

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/docevents/docevents-go/internal/rest"
)

// An error that leaves the library contains the public Error and its meaning, but
// neither the URL nor the details.
func TestExplain(t *testing.T) {
	c, err := New("http://supabase.test", "sb_secret_0123456789")
	if err != nil {
		t.Fatal(err)
	}
	for name, explain := range map[string]func(error) error{"explain": c.explain, "explainCall": c.explainCall} {
		for _, test := range []struct {
			answer rest.Error
			advice bool
		}{
			{rest.Error{Status: 503, RetryAfter: time.Second}, false},
			{rest.Error{Status: 400, Code: "P0001", Message: "m"}, false},
			{rest.Error{Status: 401, Code: "PGRST301", Message: "bad key", Hint: "h"}, true},
			{rest.Error{Status: 500, Code: "0A000"}, true},
			{rest.Error{Status: 404, Code: "PGRST202"}, true},
			{rest.Error{Status: 409, Code: "23503", Message: `violates foreign key constraint "documents"`}, true},
		} {
			answer := test.answer
			answer.Details = "the row"
			got := explain(&url.Error{Op: "Post", URL: "http://supabase.test", Err: &answer})
			e, ok := errors.AsType[*Error](fmt.Errorf("outer: %w", got))
			if want := (Error{answer.Status, answer.Code, answer.Message, answer.Hint, answer.RetryAfter}); !ok || *e != want {
				t.Errorf("%s: got %+v, want %+v", name, e, want)
			}
			if text, advice, _ := strings.Cut(got.Error(), "; "); text != test.answer.Error() || text != e.Error() || (advice != "") != test.advice {
				t.Errorf("%s: got %q, want %q, with advice: %t", name, got, &test.answer, test.advice)
			}
			if got, want := rest.Classify(got), rest.Classify(&answer); got != want {
				t.Errorf("%s: %v means %d, want %d", name, e, got, want)
			}
			if a, _ := errors.AsType[*rest.Error](got); a.Details != "" {
				t.Errorf("%s: %v holds %q", name, e, a.Details)
			}
		}
		lost := errors.New("connection reset")
		if got := explain(&url.Error{Op: "Post", URL: "http://supabase.test", Err: lost}); got != lost {
			t.Errorf("%s: got %v, want %v", name, got, lost)
		}
		if got := explain(nil); got != nil {
			t.Errorf("%s: got %v for nil", name, got)
		}
	}
}
