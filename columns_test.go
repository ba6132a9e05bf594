package docevents_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/google/uuid"
)

func TestColumnNames(t *testing.T) {
	long := strings.Repeat("c", 63)
	many := make([]string, 51)
	for i := range many {
		many[i] = fmt.Sprintf("column_%d", i)
	}
	for name, test := range map[string]struct {
		columns docevents.Columns
		want    string // part of the error; "" for no error
	}{
		"all under other names":              {docevents.Columns{ID: "a", DocumentID: "b", UserID: "c", Type: "d", Duration: "e", ErrorMessage: "f", Stage: "g", CreatedAt: "h"}, ""},
		"only ID and CreatedAt":              {docevents.Columns{DocumentID: "-", UserID: "-", Type: "-", Duration: "-", ErrorMessage: "-", Stage: "-"}, ""},
		"the longest name":                   {docevents.Columns{Stage: long}, ""},
		"Extra under a name that's free":     {docevents.Columns{DocumentID: "-", Extra: []string{"document_id"}}, ""},
		"Extra with PostgREST's parameters":  {docevents.Columns{Extra: []string{"order", "limit"}}, ""},
		"the most names in Extra":            {docevents.Columns{Extra: many[:50]}, ""},
		"no ID":                              {docevents.Columns{ID: "-"}, "ID can't be"},
		"no CreatedAt":                       {docevents.Columns{CreatedAt: "-"}, "CreatedAt can't be"},
		"a parameter of PostgREST's":         {docevents.Columns{CreatedAt: "order"}, `CreatedAt can't be "order"`},
		"a query in the name":                {docevents.Columns{ID: "id&select=x"}, "is not a valid name"},
		"a digit first":                      {docevents.Columns{Stage: "1st"}, "is not a valid name"},
		"too long":                           {docevents.Columns{Stage: long + "c"}, "is not a valid name"},
		"a line end":                         {docevents.Columns{Stage: "stage\n"}, "is not a valid name"},
		"10 MB":                              {docevents.Columns{Stage: strings.Repeat("c", 10<<20)}, "is not a valid name"},
		"an Extra without a name":            {docevents.Columns{Extra: []string{""}}, `"" is not a valid name`},
		"an Extra named -":                   {docevents.Columns{Extra: []string{"-"}}, `"-" is not a valid name`},
		"the default name of another column": {docevents.Columns{DocumentID: "user_id"}, `two columns are named "user_id"`},
		"an Extra twice":                     {docevents.Columns{Extra: []string{"tenant_id", "tenant_id"}}, `two columns are named "tenant_id"`},
		"too many names in Extra":            {docevents.Columns{Extra: many}, "at most 50 names, not 51"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := docevents.New(testURL, testKey, docevents.WithTransport(refuseAll(t)), docevents.WithColumns(test.columns))
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), "WithColumns: ") || !strings.Contains(err.Error(), test.want)):
				t.Errorf("got %v, want %q", err, test.want)
			case err != nil && (len(err.Error()) > 300 || strings.Contains(strings.TrimPrefix(err.Error(), "docevents: "), "\n")):
				t.Errorf("%.400q: too long, or more than a line", err)
			}
		})
	}
}

// The client copies the slices in its settings, and Columns and EventTypes return
// copies.
func TestColumnsAndEventTypes(t *testing.T) {
	extra, failed := []string{"tenant_id"}, []docevents.EventType{"broken"}
	client, err := docevents.New("https://project.supabase.test", testKey,
		docevents.WithColumns(docevents.Columns{DocumentID: "doc", UserID: "-", TextIDs: true, Extra: extra}),
		docevents.WithEventTypes(docevents.EventTypes{Failed: failed, Skipped: []docevents.EventType{"cancelled"}, Open: true}))
	if err != nil {
		t.Fatal(err)
	}
	extra[0], failed[0] = "changed", "changed"
	columns := docevents.Columns{
		ID: "id", DocumentID: "doc", UserID: "-", Type: "event_type", Duration: "duration_ms",
		ErrorMessage: "error_message", Stage: "stage", CreatedAt: "created_at", TextIDs: true, Extra: []string{"tenant_id"},
	}
	types := docevents.EventTypes{
		Arrived: []docevents.EventType{"upload_started"}, Started: []docevents.EventType{"processing_started"}, Completed: []docevents.EventType{"completed"},
		Failed: []docevents.EventType{"broken"}, Skipped: []docevents.EventType{"cancelled"}, Open: true,
	}
	for range 2 {
		if got := client.Columns(); !reflect.DeepEqual(got, columns) {
			t.Errorf("columns %+v, want %+v", got, columns)
		}
		if got := client.EventTypes(); !reflect.DeepEqual(got, types) {
			t.Errorf("types %+v, want %+v", got, types)
		}
		client.Columns().Extra[0] = "changed"
		client.EventTypes().Failed[0] = "changed"
	}
	var none *docevents.Client
	if got := none.Columns(); !reflect.DeepEqual(got, docevents.Columns{}) {
		t.Errorf("a nil client's columns: %+v", got)
	}
	if got := none.EventTypes(); !reflect.DeepEqual(got, docevents.EventTypes{}) {
		t.Errorf("a nil client's types: %+v", got)
	}
}

// newWired returns a client and the wire that records its requests.
func newWired(t *testing.T, opts ...docevents.Option) (*docevents.Client, *observer, *wire) {
	t.Helper()
	w := &wire{}
	c, o := newClient(t, roundTripFunc(w.answer(http.StatusCreated, "")), opts...)
	return c, o, w
}

// Without WithColumns, the bodies of the requests are equal to the output of
// encoding/json.
func TestRowsOnTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, w := newWired(t, docevents.WithMaxInFlight(1))
		text := "<a href=\"x\">\\u0000\b\f\n\r\t\x01\x7f&'\u2028\u2029é\uFFFD📄</a>"
		c.Record(docevents.Event{
			ID: "{AAAAAAAA-0000-4000-8000-000000000001}", DocumentID: testDocument, UserID: docevents.SystemUser, Type: docevents.Failed,
			Duration: 1999 * time.Microsecond, ErrorMessage: text, Stage: "ocr",
		})
		c.Record(docevents.Event{ID: "aaaaaaaa-0000-4000-8000-000000000002", DocumentID: testDocument, UserID: testDocument, Type: docevents.Completed})
		c.Record(docevents.Event{ID: "aaaaaaaa-0000-4000-8000-000000000003", DocumentID: testDocument, UserID: testDocument, Type: docevents.Completed})
		synctest.Wait() // Flush would send more than one request at once
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		row := func(n int, user, rest string) string {
			return fmt.Sprintf(`{"id":"aaaaaaaa-0000-4000-8000-00000000000%d","document_id":"%s","user_id":"%s",%s,"created_at":"2000-01-01T00:00:00.000000Z"}`, n, testDocument, user, rest)
		}
		const completed = `"event_type":"completed","duration_ms":null,"error_message":null,"stage":null`
		want := []string{
			"[" + row(1, docevents.SystemUser, `"event_type":"failed","duration_ms":1,"error_message":`+string(quoted)+`,"stage":"ocr"`),
			row(2, testDocument, completed),
			row(3, testDocument, completed) + "]",
		}
		var bodies []string
		for _, sent := range w.all() {
			bodies = append(bodies, sent.body)
			const query = "columns=id,document_id,user_id,event_type,duration_ms,error_message,stage,created_at"
			if got := sent.url.RawQuery; sent.method != "POST" || got != query {
				t.Errorf("%s ?%s, want %s", sent.method, got, query)
			}
			if got := sent.header.Values("Prefer"); !slices.Equal(got, []string{"return=minimal", "resolution=ignore-duplicates"}) {
				t.Errorf("Prefer: %q", got)
			}
		}
		// The rows may come in any number of requests.
		if got := strings.ReplaceAll(strings.Join(bodies, ","), "],[", ","); got != strings.Join(want, ",") {
			t.Errorf("got  %s\nwant %s", got, strings.Join(want, ","))
		}
	})
}

// For other tables, the body and the query contain the names of these tables'
// columns, and leave out the columns that the tables lack.
func TestRowsOfOtherTables(t *testing.T) {
	const id = "aaaaaaaa-0000-4000-8000-000000000001"
	at := time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)
	none := docevents.Columns{DocumentID: "-", UserID: "-", Type: "-", Duration: "-", ErrorMessage: "-", Stage: "-"}
	twoExtra, anotherDocument := none, none
	twoExtra.Extra = []string{"a", "b"}
	anotherDocument.Stage, anotherDocument.Extra = "", []string{"metadata", "document_id", "tenant_id"}
	for name, test := range map[string]struct {
		columns     docevents.Columns
		event       docevents.Event
		query, body string
		partial     bool // the row leaves out a column, so PostgreSQL stores the default
	}{
		"other names for all columns": {
			docevents.Columns{ID: "event_id", DocumentID: "doc", UserID: "owner", Type: "kind", Duration: "ms", ErrorMessage: "problem", Stage: "step", CreatedAt: "at"},
			docevents.Event{ID: id, DocumentID: testDocument, UserID: docevents.SystemUser, Type: docevents.Failed, Duration: time.Second, ErrorMessage: "boom", Stage: "ocr", CreatedAt: at},
			"on_conflict=event_id&columns=event_id,doc,owner,kind,ms,problem,step,at",
			`[{"event_id":"aaaaaaaa-0000-4000-8000-000000000001","doc":"11111111-1111-4111-8111-111111111111","owner":"00000000-0000-0000-0000-000000000000","kind":"failed","ms":1000,"problem":"boom","step":"ocr","at":"2026-01-02T03:04:05.678901Z"}]`,
			false,
		},
		"only id and created_at": {
			none,
			docevents.Event{ID: id, CreatedAt: at},
			"columns=id,created_at", `[{"id":"aaaaaaaa-0000-4000-8000-000000000001","created_at":"2026-01-02T03:04:05.678901Z"}]`, false,
		},
		"all Extra columns set": {
			twoExtra,
			docevents.Event{ID: id, CreatedAt: at, Extra: map[string]any{"b": 1, "a": []int{2}}},
			"columns=id,created_at,a,b", `[{"id":"aaaaaaaa-0000-4000-8000-000000000001","created_at":"2026-01-02T03:04:05.678901Z","a":[2],"b":1}]`, false,
		},
		"an Extra column left out": {
			anotherDocument,
			docevents.Event{ID: id, CreatedAt: at, Extra: map[string]any{"tenant_id": nil, "document_id": "a <b>"}},
			"columns=id,stage,created_at,metadata,document_id,tenant_id",
			`[{"id":"aaaaaaaa-0000-4000-8000-000000000001","stage":null,"created_at":"2026-01-02T03:04:05.678901Z","document_id":"a <b>","tenant_id":null}]`,
			true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, o, w := newWired(t, docevents.WithColumns(test.columns))
			c.Record(test.event)
			if err := c.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			sent := w.all()
			if len(sent) != 1 {
				t.Fatalf("%d requests; lost %+v", len(sent), o.lost())
			}
			if sent[0].url.RawQuery != test.query || sent[0].body != test.body {
				t.Errorf("got  ?%s %s\nwant ?%s %s", sent[0].url.RawQuery, sent[0].body, test.query, test.body)
			}
			if got := slices.Contains(sent[0].header.Values("Prefer"), "missing=default"); got != test.partial {
				t.Errorf("Prefer: %q", sent[0].header.Values("Prefer"))
			}
		})
	}
}

func TestFieldsWithoutAColumn(t *testing.T) {
	none := docevents.WithColumns(docevents.Columns{DocumentID: "-", UserID: "-", Type: "-", Duration: "-", ErrorMessage: "-", Stage: "-"})
	for field, e := range map[string]docevents.Event{
		"DocumentID":   {DocumentID: testDocument},
		"UserID":       {UserID: docevents.SystemUser},
		"Type":         {Type: docevents.Completed},
		"Duration":     {Duration: time.Second},
		"ErrorMessage": {ErrorMessage: "boom"},
		"Stage":        {Stage: "ocr"},
	} {
		t.Run(field, func(t *testing.T) {
			c, o, w := newWired(t, none)
			c.Record(e)
			if err := c.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			lost := o.lost()
			if len(lost) != 1 || lost[0].reason != docevents.Invalid || !strings.HasPrefix(lost[0].err.Error(), field+" is set") || len(w.all()) != 0 {
				t.Errorf("%d requests, lost %+v", len(w.all()), lost)
			}
		})
	}
}

func TestEventID(t *testing.T) {
	const id = "aabbccdd-eeff-5011-8233-445566778899"
	for form, good := range map[string]bool{
		"": true, id: true, strings.ToUpper(id): true, "{" + id + "}": true, "urn:uuid:" + id: true, strings.ReplaceAll(id, "-", ""): true,
		"job-7": false, id + "0": false, docevents.SystemUser: false, "{" + docevents.SystemUser + "}": false, " " + id: false,
	} {
		t.Run(form, func(t *testing.T) {
			c, o, w := newWired(t)
			e := event("a")
			e.ID = form
			c.Record(e)
			if err := c.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			lost, sent := o.lost(), w.all()
			if !good {
				if len(lost) != 1 || len(sent) != 0 || lost[0].reason != docevents.Invalid || !strings.HasPrefix(lost[0].err.Error(), "ID is not a UUID") || lost[0].event.ID != form {
					t.Errorf("%d requests, lost %+v", len(sent), lost)
				}
				return
			}
			if len(sent) != 1 {
				t.Fatalf("lost %+v", lost)
			}
			got := sent[0].rows(t)[0]["id"]
			if made, err := uuid.Parse(fmt.Sprint(got)); form == "" && (err != nil || made.Version() != 7) || form != "" && got != id {
				t.Errorf("got %v", got)
			}
		})
	}
}

type failing struct{ how string }

func (f failing) MarshalJSON() ([]byte, error) {
	switch f.how {
	case "panics":
		panic("hunter2")
	case "fails":
		return nil, errors.New("hunter2")
	}
	return []byte(f.how), nil
}

// Values of Extra are sent as the JSON in this table.
func TestExtraValues(t *testing.T) {
	for name, test := range map[string]struct {
		value any
		want  string
	}{
		"nothing":                           {nil, `null`},
		"a text":                            {"invoice", `"invoice"`},
		"an empty text":                     {"", `""`},
		"a number":                          {42, `42`},
		"a struct":                          {struct{ Pages int }{3}, `{"Pages":3}`},
		"JSON":                              {json.RawMessage(`{ "a" : [ 1 ] }`), `{"a":[1]}`},
		"a number of many digits":           {json.Number("123456789012345678901234567890.1"), `123456789012345678901234567890.1`},
		"quotes and line ends":              {"\"a\"\n\\", `"\"a\"\n\\"`},
		"HTML":                              {"<&>", `"<&>"`},
		"a NUL":                             {"a\x00b", `"ab"`},
		"a NUL in a key":                    {map[string]any{"a\x00": 1}, `{"a":1}`},
		"an escaped backslash before u0000": {`a\u0000`, `"a\\u0000"`},
		"invalid UTF-8":                     {"caf\xe9", `"caf\ufffd"`},
		"invalid UTF-8 in JSON":             {json.RawMessage("\"caf\xe9\""), "\"caf\uFFFD\""},
		"a lone surrogate":                  {json.RawMessage(`"a\ud800b"`), `"a\ufffdb"`},
		"a lone low surrogate":              {json.RawMessage(`"\uDC00"`), `"\ufffd"`},
		"two high surrogates":               {json.RawMessage(`"\ud83d\ud83d\ude00"`), `"\ufffd\ud83d\ude00"`},
		"surrogates with a NUL between":     {json.RawMessage(`"\ud83d\u0000\ude00"`), `"\ufffd\ufffd"`},
		"a surrogate pair":                  {json.RawMessage(`"\ud83d\ude00"`), `"\ud83d\ude00"`},
		"another escape":                    {json.RawMessage(`"\u00e9\ue000"`), `"\u00e9\ue000"`},
		"the deepest slices":                {nested(9_998), strings.Repeat("[", 9_998) + "null" + strings.Repeat("]", 9_998)},
		"the longest":                       {strings.Repeat("x", 64<<10-len(`,"metadata":""`)), `"` + strings.Repeat("x", 64<<10-len(`,"metadata":""`)) + `"`},
		"brackets in a text":                {strings.Repeat("[", 10_000), `"` + strings.Repeat("[", 10_000) + `"`},
		"many lists side by side": {
			json.RawMessage(`[` + strings.Repeat("[],", 10_000) + `[]]`),
			`[` + strings.Repeat("[],", 10_000) + `[]]`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			escaped := strings.NewReplacer("\uFFFD", `\ufffd`).Replace // the Go version decides which form encoding/json writes
			if got := sentExtra(t, test.value); escaped(got) != escaped(test.want) || !json.Valid([]byte(got)) {
				t.Errorf("got %.300s, want %.300s", got, test.want)
			}
		})
	}
}

// sentExtra returns the JSON that is sent for a value in Extra.
func sentExtra(t *testing.T, value any) string {
	t.Helper()
	c, o, w := newWired(t, docevents.WithColumns(docevents.Columns{Extra: []string{"metadata"}}))
	e := event("a")
	e.Extra = map[string]any{"metadata": value}
	c.Record(e)
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	sent := w.all()
	if len(sent) != 1 {
		t.Fatalf("%d requests, lost %.300v", len(sent), o.lost())
	}
	_, got, _ := strings.Cut(sent[0].body, `,"metadata":`)
	return strings.TrimSuffix(got, "}]")
}

// Maps are encoded as encoding/json encodes them.
func TestExtraMaps(t *testing.T) {
	wide, deep := map[string]any{}, map[string]any{}
	for i := range 40 {
		wide[fmt.Sprint(i*7)] = i
	}
	for inner, i := deep, 0; i < 20; i++ {
		next := map[string]any{"é\"": i}
		inner["in"], inner["a"], inner = next, []any{map[string]any{}, nil}, next
	}
	for name, value := range map[string]any{
		"wide": wide, "deep": deep, "empty": map[string]any{}, "nil": map[string]any(nil),
		"of strings": map[string]string{"b": "1", "a": "2"}, "by number": map[int]string{2: "b", 1: "a"},
		"of all kinds": map[string]any{"": "", "n": nil, "f": 1e21, "u": uint8(3), "t": true, "neg": -7, "é": "é\u2028", "s": struct{ A int }{1}},
	} {
		t.Run(name, func(t *testing.T) {
			want, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			if got := sentExtra(t, value); got != string(want) {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

// nested returns slices in slices, with the given number of levels.
func nested(levels int) (value any) {
	for range levels {
		value = []any{value}
	}
	return value
}

// An event with an invalid Extra is dropped. The error names the key but doesn't
// contain the value.
func TestInvalidExtra(t *testing.T) {
	cyclic := map[string]any{"secret": "hunter2"}
	cyclic["self"] = cyclic
	for name, test := range map[string]struct {
		extra map[string]any
		want  string
	}{
		"a key without a column":       {map[string]any{"metadata": 1, "tenant": "hunter2"}, `Extra["tenant"] has no column`},
		"a column of Columns":          {map[string]any{"stage": "hunter2"}, `Extra["stage"] has no column`},
		"a key of 10 MB":               {map[string]any{strings.Repeat("k", 10<<20): 1}, `has no column`},
		"a line end in a key":          {map[string]any{"a\nb": 1}, `Extra["a\nb"] has no column`},
		"a channel":                    {map[string]any{"metadata": make(chan int)}, `Extra["metadata"]`},
		"a function in a map":          {map[string]any{"metadata": map[string]any{"secret": "hunter2", "f": func() {}}}, `Extra["metadata"]`},
		"not a number":                 {map[string]any{"metadata": math.NaN()}, `Extra["metadata"]`},
		"a cycle":                      {map[string]any{"metadata": cyclic}, `Extra["metadata"]`},
		"a method that fails":          {map[string]any{"metadata": failing{"fails"}}, `Extra["metadata"]`},
		"a method that panics":         {map[string]any{"metadata": failing{"panics"}}, `Extra["metadata"]`},
		"JSON of two values":           {map[string]any{"metadata": json.RawMessage(`1,"id":"hunter2"`)}, `Extra["metadata"]`},
		"too long":                     {map[string]any{"metadata": strings.Repeat("hunter2 ", 10<<10)}, "Extra is 81934 bytes as JSON: 65536 are the most"},
		"too long together":            {map[string]any{"metadata": strings.Repeat("h", 40<<10), "tenant_id": strings.Repeat("h", 40<<10)}, "65536 are the most"},
		"too many levels":              {map[string]any{"metadata": nested(9_999)}, "more than 9998 levels"},
		"JSON that Go can't read back": {map[string]any{"metadata": json.RawMessage(strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001))}, `Extra["metadata"]`},
	} {
		t.Run(name, func(t *testing.T) {
			c, o, w := newWired(t, docevents.WithColumns(docevents.Columns{Extra: []string{"metadata", "tenant_id"}}))
			bad, good := event("bad"), event("good")
			bad.Extra = test.extra
			c.Record(bad)
			c.Record(good)
			if err := c.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			checkStats(t, c, &docevents.Stats{Recorded: 2, Delivered: 1, Dropped: docevents.Drops{Invalid: 1}})
			if sent := w.all(); len(sent) != 1 || strings.Contains(sent[0].body, `"bad"`) {
				t.Errorf("sent %+v", sent)
			}
			lost := o.lost()
			if len(lost) != 1 || lost[0].reason != docevents.Invalid || lost[0].event.Extra != nil {
				t.Fatalf("lost %.300v", lost)
			}
			said := []string{lost[0].err.Error()}
			for _, line := range o.logged() {
				said = append(said, line.text)
			}
			for _, text := range said {
				if !strings.Contains(text, test.want) || strings.Contains(text, "hunter2") || len(text) > 400 {
					t.Errorf("%.500q: want %s", text, test.want)
				}
			}
		})
	}
}

// Record copies Extra: the caller may change the map afterwards. The handler gets
// the values that would have been stored.
func TestExtraIsCopied(t *testing.T) {
	columns := docevents.WithColumns(docevents.Columns{Extra: []string{"metadata", "tenant_id", "left_out"}})
	want := map[string]any{"metadata": map[string]any{"pages": json.Number("9007199254740993")}, "tenant_id": "x"}
	for _, reason := range []docevents.DropReason{docevents.Rejected, docevents.Invalid} {
		t.Run(string(reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, o := newClient(t, &server{answer: answerBad(refusal, 0)}, columns)
				e := event("bad")
				pages := map[string]any{"pages": int64(9007199254740993)}
				e.Extra = map[string]any{"metadata": pages, "tenant_id": "x"}
				if reason == docevents.Invalid {
					e.DocumentID = "x"
				}
				c.Record(e)
				pages["pages"] = "changed"
				clear(e.Extra)
				drain(t, c)
				if err := c.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				lost := o.lost()
				if len(lost) != 1 || lost[0].reason != reason || !reflect.DeepEqual(lost[0].event.Extra, want) {
					t.Errorf("lost %+v, want one with %v", lost, want)
				}
			})
		})
	}
}

// Extra and text ids count against the bytes of WithQueueLimits.
func TestExtraAndTextIDsCountAgainstQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(*request) *answer { return &answer{delay: time.Hour} }}
		c, _ := newClient(t, s, docevents.WithColumns(docevents.Columns{TextIDs: true, Extra: []string{"a"}}))
		bytes := func(e docevents.Event) int64 {
			before := c.Stats().PendingBytes
			c.Record(e)
			return c.Stats().PendingBytes - before
		}
		e := event("")
		e.DocumentID, e.UserID = "d", "u"
		small := bytes(e)
		e.Extra = map[string]any{"a": "xyz"}
		if got := bytes(e) - small; got != int64(len(`,"a":"xyz"`)) {
			t.Errorf("Extra counts %d", got)
		}
		e.DocumentID, e.UserID, e.Extra = strings.Repeat("d", 1001), strings.Repeat("u", 1001), nil
		if got := bytes(e) - small; got != 2000 {
			t.Errorf("2,000 bytes more count as %d", got)
		}
		abandon(t, c)
	})
}

// Extra counts against the 1 MiB of text that waits for a slow drop handler.
func TestExtraCountsAgainstHandlerCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		c, _ := newClient(t, &server{}, docevents.WithColumns(docevents.Columns{Extra: []string{"a"}}),
			docevents.WithDropHandler(func(docevents.Event, docevents.DropReason, error) { <-stuck }))
		for range 100 {
			e := event("")
			e.DocumentID, e.Extra = "invalid", map[string]any{"a": strings.Repeat("x", 60<<10)}
			c.Record(e)
		}
		synctest.Wait()
		if got := c.Stats().Unreported; got < 80 {
			t.Errorf("%d of 100 events of 60 KiB skipped", got)
		}
		close(stuck)
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// abandon closes c without waiting.
func abandon(t *testing.T, c *docevents.Client) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Close(ctx); err == nil {
		t.Error("nothing to abandon")
	}
}
