package docevents_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
)

var textIDs = docevents.WithColumns(docevents.Columns{TextIDs: true})

// TestIDs checks the JSON that is sent for an id, or the error of the event that is
// dropped for it. The same rules apply to ids of users and documents.
func TestIDs(t *testing.T) {
	longest := strings.Repeat("d", 1024)
	own := docevents.WithColumns(docevents.Columns{})
	for name, test := range map[string]struct {
		id   string
		opt  docevents.Option
		want string // "" means that the event is dropped
		err  string
	}{
		"a number":                     {"42", textIDs, `"42"`, ""},
		"a UUID is sent as it is":      {strings.ToUpper("{" + testDocument + "}"), textIDs, `"` + strings.ToUpper("{"+testDocument+"}") + `"`, ""},
		"spaces, quotes, line ends":    {" a\"\\\n\t<&>\u2028é📄 ", textIDs, `" a\"\\\n\t\u003c\u0026\u003e\u2028é📄 "`, ""},
		"the longest":                  {longest, textIDs, `"` + longest + `"`, ""},
		"text that is NULL":            {"", textIDs, "null", ""},
		"a UUID that is NULL":          {"", own, "null", ""},
		"a UUID in a table of its own": {strings.ToUpper(testDocument), own, `"` + testDocument + `"`, ""},
		"zero is not NULL":             {docevents.SystemUser, own, `"` + docevents.SystemUser + `"`, ""},

		"empty":              {"", nil, "", "is empty: pass the "},
		"text for a UUID":    {"invoice", nil, "", "is not a UUID: pass the "},
		"text names TextIDs": {"invoice", own, "", "WithColumns(Columns{TextIDs: true})"},
		"too long":           {longest + "d", textIDs, "", "is not 1 to 1024 bytes of valid text"},
		"a NUL":              {"\x00b", textIDs, "", "is not 1 to 1024 bytes of valid text"},
		"invalid UTF-8":      {"caf\xe9", textIDs, "", "is not 1 to 1024 bytes of valid text"},
	} {
		for field, column := range map[string]string{"DocumentID": "document_id", "UserID": "user_id"} {
			t.Run(name+"/"+field, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c, o, w := newWired(t, test.opt)
					e := event("a")
					if field == "DocumentID" {
						e.DocumentID = test.id
					} else {
						e.UserID = test.id
					}
					c.Record(e)
					if err := c.Close(t.Context()); err != nil {
						t.Error(err)
					}
					lost := o.lost()
					if test.want != "" {
						if want := `"` + column + `":` + test.want + ","; len(lost) != 0 || !strings.Contains(w.only(t).body, want) {
							t.Errorf("got %.300s, want %.300s; lost %+v", w.only(t).body, want, lost)
						}
						return
					}
					if len(w.all()) != 0 || len(lost) != 1 || lost[0].reason != docevents.Invalid {
						t.Fatalf("%d requests, lost %+v", len(w.all()), lost)
					}
					if err := lost[0].err.Error(); !strings.HasPrefix(err, field+" is ") || !strings.Contains(err, test.err) {
						t.Errorf("got %q, want %s and %q", err, field, test.err)
					}
				})
			})
		}
	}
}

// SystemUser is proposed only for the user of the migration's table. Another table may
// have a foreign key.
func TestUserIDAdvice(t *testing.T) {
	own := docevents.WithColumns(docevents.Columns{})
	for _, test := range []struct {
		opt            docevents.Option
		document, user string
		want           string
	}{
		{nil, testDocument, "ann", "pass the owner's UUID, or docevents.SystemUser if no user caused the event"},
		{own, testDocument, "ann", "pass the owner's UUID, or leave it empty for NULL"},
		{own, "invoice", "", "pass the document's UUID; if the column"},
	} {
		synctest.Test(t, func(t *testing.T) {
			c, o := newClient(t, &server{}, test.opt)
			c.Record(docevents.Event{DocumentID: test.document, UserID: test.user, Type: docevents.Completed})
			if err := c.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if lost := o.lost(); len(lost) != 1 || !strings.Contains(lost[0].err.Error(), test.want) {
				t.Errorf("got %+v, want %q", lost, test.want)
			}
		})
	}
}

// TestDroppedTextIDs checks that a dropped event keeps its ids, and that its log line
// has the document's id without line breaks, cut to 128 bytes.
func TestDroppedTextIDs(t *testing.T) {
	long := strings.Repeat("long/", 200)
	for name, test := range map[string]struct {
		event  docevents.Event
		reason docevents.DropReason
		logged string // "" means no document
	}{
		"rejected, no ids":     {docevents.Event{Stage: "bad"}, docevents.Rejected, ""},
		"invalid type":         {docevents.Event{DocumentID: long, UserID: long, Type: "nonsense"}, docevents.Invalid, long[:128] + " "},
		"invalid user":         {docevents.Event{DocumentID: "invoice-42", UserID: long + long}, docevents.Invalid, "invoice-42 "},
		"invalid document":     {docevents.Event{DocumentID: "invoice\x00", UserID: "ann"}, docevents.Invalid, "invoice "},
		"a terminal's escapes": {docevents.Event{DocumentID: "a\n\x1b[31m\u202eb", UserID: "ann", Stage: "bad"}, docevents.Rejected, "a \ufffd[31m\ufffdb "},
		"a rune that is cut":   {docevents.Event{DocumentID: strings.Repeat("d", 127) + "éé", Stage: "bad"}, docevents.Rejected, strings.Repeat("d", 127) + " "},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{answer: func(r *request) *answer {
					if r.has("bad") {
						return refused("22P02", "invalid input syntax for type bigint")
					}
					return nil
				}}
				c, o := newClient(t, s, textIDs)
				if test.event.Type == "" {
					test.event.Type = docevents.Completed
				}
				c.Record(test.event)
				for range 5 { // rows that are stored are evidence
					c.Record(event("good"))
					time.Sleep(time.Second)
				}
				if err := c.Close(t.Context()); err != nil {
					t.Error(err)
				}
				lost := o.lost()
				if len(lost) != 1 || lost[0].reason != test.reason {
					t.Fatalf("lost %+v", lost)
				}
				got := lost[0].event
				if test.reason == docevents.Rejected && (got.DocumentID != test.event.DocumentID || got.UserID != test.event.UserID) {
					t.Errorf("got %q, %q", got.DocumentID, got.UserID)
				}
				if len(got.DocumentID) > 1024 || len(got.UserID) > 1024 || strings.Contains(got.DocumentID, "\x00") {
					t.Errorf("got %d and %d bytes", len(got.DocumentID), len(got.UserID))
				}
				for _, line := range o.logged() {
					if !strings.Contains(line.text, "event dropped") {
						continue
					}
					_, named, _ := strings.Cut(line.text, "document_id=")
					if !strings.HasPrefix(named, test.logged) || test.logged == "" && named != "" {
						t.Errorf("logged %q, want %q", line.text, test.logged)
					}
				}
			})
		})
	}
}

// TestSpooledIDs checks that text ids, NULL and UUIDs are the same after a replay, and
// that a process with text ids replays the rows of a process with UUIDs.
func TestSpooledIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		ids := map[string][2]string{ // by stage
			"text": {"invoice-42", "ann"}, "punctuation": {"-", "="}, "no document": {"", "ann"}, "no user": {"invoice-42", ""}, "none": {"", ""},
			"UUIDs": {testDocument, docevents.SystemUser}, "UUIDs without TextIDs": {testDocument, docevents.SystemUser},
		}
		uuids, _ := newClient(t, &server{answer: away}, docevents.WithSpool(dir))
		texts, _ := newClient(t, &server{answer: away}, docevents.WithSpool(dir), textIDs)
		for stage, pair := range ids {
			e := event(stage)
			e.DocumentID, e.UserID = pair[0], pair[1]
			if stage == "UUIDs without TextIDs" {
				uuids.Record(e)
			} else {
				texts.Record(e)
			}
		}
		for _, c := range []*docevents.Client{uuids, texts} {
			if err := c.Close(closed(t)); err != nil {
				t.Error(err)
			}
		}
		after, _, w := newWired(t, docevents.WithSpool(dir), textIDs)
		synctest.Wait()
		if err := after.Close(t.Context()); err != nil {
			t.Error(err)
		}
		found := map[string][2]string{}
		for _, row := range allRows(t, w) {
			document, _ := row["document_id"].(string) // "" stands for NULL
			user, _ := row["user_id"].(string)
			found[fmt.Sprint(row["stage"])] = [2]string{document, user}
		}
		if !maps.Equal(found, ids) {
			t.Errorf("got %q, want %q", found, ids)
		}
	})
}
