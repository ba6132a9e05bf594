package docevents_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/docevents/docevents-go"
	"github.com/google/uuid"
)

// FuzzRecord checks that PostgreSQL stores every event that Record accepts, that the drop
// handler gets every other event, and that the next event is stored.
func FuzzRecord(f *testing.F) {
	id := testDocument
	add := func(document, user, eventType, message, stage string, duration, sec, nsec int64, zone int, anyType bool) {
		f.Add(document, user, eventType, message, stage, duration, sec, nsec, zone, anyType)
	}
	add(strings.ToUpper(id), "{"+id+"}", "failed", "boom", "ocr", int64(time.Second), 1_767_323_045, 678_901_999, 3600, false)
	add("urn:uuid:"+id, strings.ReplaceAll(id, "-", ""), "archived", "\x00", "\x00", -1, -1, 999_999_999, -3600, true)
	add("", id, "completed", "a", "b", 1, 1, 1, 0, false)
	add(id, "x", "unknown", "a", "b", 1, 1, 1, 0, false)
	add(id, id, "a\x00b", "a", "b", 1, 1, 1, 0, true)
	add(id, id, "\xff", "\xff\xfe", "\xed\xa0\x80", math.MaxInt64, math.MaxInt64, math.MaxInt64, 0, true)
	add(id, id, "completed", strings.Repeat("é", 40_000), strings.Repeat("\xff", 2000), math.MinInt64, math.MinInt64, 0, 0, false)
	add(id, id, "completed", "\\u0000 \" </script> \u2028 \ufffe", "\U0010FFFF", 999_999, 253_402_300_799, 999_999_999, 0, false)
	add(id, id, "completed", "", "", 0, 253_402_300_800, 0, -7200, false)
	add(id, id, "completed", "", "", 0, -62_135_596_800, 0, 7200, false)
	f.Fuzz(func(t *testing.T, document, user, eventType, message, stage string, duration, sec, nsec int64, zone int, anyType bool) {
		var opts []docevents.Option
		if anyType {
			opts = append(opts, openTypes)
		}
		c, o, w := newWired(t, opts...)
		e := docevents.Event{
			DocumentID: document, UserID: user, Type: docevents.EventType(eventType), ErrorMessage: message, Stage: stage,
			Duration: time.Duration(duration), CreatedAt: time.Unix(sec, nsec%int64(time.Second)).In(time.FixedZone("", zone%86_400)),
		}
		before := time.Now()
		c.Record(e)
		const next = "the event after the one that is fuzzed"
		c.Record(event(next))
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		known := slices.Contains([]string{"upload_started", "processing_started", "completed", "failed"}, eventType)
		if anyType {
			known = eventType != "" && isStorable(eventType, 256)
		}
		_, badDocument := uuid.Parse(document)
		_, badUser := uuid.Parse(user)
		year := e.CreatedAt.UTC().Year()
		valid := badDocument == nil && badUser == nil && known && (e.CreatedAt.IsZero() || year >= 1 && year <= 9999)
		rows := storableRows(t, w)
		rows = slices.DeleteFunc(rows, func(row wireRow) bool { return row.Stage != nil && *row.Stage == next })
		if !valid {
			checkStats(t, c, &docevents.Stats{Recorded: 2, Delivered: 1, Dropped: docevents.Drops{Invalid: 1}})
			if len(o.lost()) != 1 || len(rows) != 0 {
				t.Errorf("lost %v, stored %v", o.lost(), rows)
			}
			return
		}
		checkStats(t, c, &docevents.Stats{Recorded: 2, Delivered: 2})
		if len(rows) != 1 {
			t.Fatalf("%d rows of one event, lost %v", len(rows), o.lost())
		}
		row := rows[0]
		if row.DocumentID != uuid.MustParse(document).String() || row.UserID != uuid.MustParse(user).String() || row.EventType != eventType {
			t.Errorf("got %s, %s, %q, want %s, %s, %q", row.DocumentID, row.UserID, row.EventType, document, user, eventType)
		}
		checkText(t, "message", row.ErrorMessage, message, maxMessage)
		checkText(t, "stage", row.Stage, stage, maxStage)
		switch ms := duration / int64(time.Millisecond); {
		case (duration > 0) != (row.DurationMS != nil):
			t.Errorf("a duration of %d is stored as %v", duration, row.DurationMS)
		case duration > 0 && *row.DurationMS != min(ms, math.MaxInt32):
			t.Errorf("a duration of %d is stored as %d ms", duration, *row.DurationMS)
		}
		at, err := time.Parse("2006-01-02T15:04:05.000000Z", row.CreatedAt)
		if err != nil {
			t.Fatal(err)
		}
		earliest, latest := e.CreatedAt.Add(-time.Microsecond), e.CreatedAt
		if e.CreatedAt.IsZero() {
			earliest, latest = before.Add(-time.Microsecond), time.Now()
		}
		if !at.After(earliest) || at.After(latest) {
			t.Errorf("created at %s, want %s", row.CreatedAt, e.CreatedAt.UTC())
		}
	})
}

// isStorable reports whether PostgreSQL can store a text, and it has at most the given
// number of bytes.
func isStorable(text string, most int) bool {
	return len(text) <= most && utf8.ValidString(text) && !strings.Contains(text, "\x00")
}

// storableRows returns all rows that were sent. It checks that PostgreSQL accepts their
// ids and texts, and that each row has all columns.
func storableRows(t *testing.T, w *wire) (rows []wireRow) {
	t.Helper()
	for _, sent := range w.all() {
		var some []wireRow
		if err := json.Unmarshal([]byte(sent.body), &some); err != nil || !utf8.ValidString(sent.body) {
			t.Fatalf("%v: %.2000q", err, sent.body)
		}
		rows = append(rows, some...)
		want := slices.Sorted(strings.SplitSeq(sent.url.Query().Get("columns"), ","))
		for _, row := range sent.rows(t) {
			if got := slices.Sorted(maps.Keys(row)); !slices.Equal(got, want) {
				t.Errorf("columns %v, want %v", got, want)
			}
		}
	}
	for _, row := range rows {
		if id, err := uuid.Parse(row.ID); err != nil || id.String() != row.ID {
			t.Errorf("%q is no UUID", row.ID)
		}
		for _, text := range []*string{&row.EventType, row.ErrorMessage, row.Stage} {
			if text != nil && (*text == "" || strings.Contains(*text, "\x00")) {
				t.Errorf("text %q", *text)
			}
		}
	}
	return rows
}

// FuzzTextIDs checks that an id is stored unchanged, that an empty id is NULL, that an
// event whose id PostgreSQL can't store is dropped, and that log lines have no breaks.
func FuzzTextIDs(f *testing.F) {
	for _, id := range []string{"", "42", " a\"\\\n\x1b ", "caf\xe9", "a\x00b", strings.Repeat("é", 512), strings.Repeat("é", 513), "=", "-"} {
		f.Add(id, "ann", false)
		f.Add("invoice-42", id, true)
	}
	f.Fuzz(func(t *testing.T, document, user string, reject bool) {
		db := &server{answer: func(*request) *answer {
			if reject {
				return refused("22P02", "invalid input syntax for type bigint")
			}
			return nil
		}}
		c, o := newClient(t, db, textIDs)
		e := event("fuzzed")
		e.DocumentID, e.UserID = document, user
		c.Record(e)
		if reject {
			_ = c.Close(closed(t)) // abandons the event
		} else if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
		valid := isStorable(document, 1024) && isStorable(user, 1024)
		if drops := c.Stats().Dropped; (drops.Invalid == 0) != valid {
			t.Errorf("%q, %q: %+v", document, user, drops)
		}
		for _, row := range db.rows {
			if !valid || row.DocumentID != document || row.UserID != user {
				t.Errorf("stored %q, %q as %q, %q", document, user, row.DocumentID, row.UserID)
			}
		}
		for _, lost := range o.lost() {
			if got := lost.event; valid && (got.DocumentID != document || got.UserID != user) {
				t.Errorf("dropped %q, %q as %q, %q", document, user, got.DocumentID, got.UserID)
			}
		}
		for _, line := range o.logged() {
			if strings.ContainsAny(line.text, "\n\r\x1b\x00") || !utf8.ValidString(line.text) {
				t.Errorf("logged %q", line.text)
			}
		}
	})
}

// checkText checks a stored text against the recorded text.
func checkText(t *testing.T, name string, stored *string, recorded string, limit int) {
	t.Helper()
	clean := strings.ReplaceAll(recorded, "\x00", "")
	switch {
	case stored == nil:
		if clean != "" {
			t.Errorf("%s: NULL, want %d bytes", name, len(clean))
		}
	case len(*stored) > limit:
		t.Errorf("%s: %d bytes", name, len(*stored))
	case len(recorded) <= limit && utf8.ValidString(recorded):
		if *stored != clean {
			t.Errorf("%s: %q, want %q", name, *stored, clean)
		}
	case len(recorded) > limit:
		if !strings.HasSuffix(*stored, " bytes cut]") {
			t.Errorf("%s: cut without a note", name)
		}
	}
}

// FuzzExtra checks that any Extra results in JSON that PostgreSQL stores, and that
// clean values are sent unchanged.
func FuzzExtra(f *testing.F) {
	for _, seed := range []string{
		"", "{}", "null", "1e999", `{"a":"\u0000"}`, `"\ud800"`, `"\ud83d\ude00"`, `"\ud83d\u0000\ude00"`, `"\\u0000"`, `"\\\u0000"`, "\"\xff\"", "\x00",
		`[1,2`, `1,"id":2`, `{"a":1,"a":2}`, strings.Repeat("[", 1001) + strings.Repeat("]", 1001), `"<&>\u2028"`, "\"\u2028\"", `"\uD83D\uDE00\uDE00"`, `"\`,
	} {
		f.Add([]byte(seed), seed)
	}
	surrogate := regexp.MustCompile(`\\u[dD][89a-fA-F]..`)
	pairs := regexp.MustCompile(`\\u[dD][89abAB]..\\u[dD][c-fC-F]..`)
	f.Fuzz(func(t *testing.T, raw []byte, text string) {
		c, o, wire := newWired(t, docevents.WithColumns(docevents.Columns{Extra: []string{"raw", "text"}}))
		e := event("fuzzed")
		e.Extra = map[string]any{"raw": json.RawMessage(raw), "text": text}
		c.Record(e)
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		sent, lost := wire.all(), o.lost()
		if len(sent)+len(lost) != 1 {
			t.Fatalf("%d requests, lost %+v", len(sent), lost)
		}
		if len(lost) == 1 {
			if small := len(raw)+6*len(text) < 60_000 && bytes.Count(raw, []byte("["))+bytes.Count(raw, []byte("{")) < 1000; small && json.Valid(raw) {
				t.Errorf("dropped for nothing: %v", lost[0].err)
			}
			return
		}
		body := sent[0].body
		if !json.Valid([]byte(body)) || !utf8.ValidString(body) || strings.Contains(body, "\x00") {
			t.Fatalf("%q is no JSON", body)
		}
		escapes := strings.ReplaceAll(body, `\\`, " ")
		if unpaired := pairs.ReplaceAllString(escapes, " "); strings.Contains(unpaired, `\u0000`) || surrogate.MatchString(unpaired) {
			t.Fatalf("%q: a NUL, or half a pair", body)
		}
		var rows []map[string]json.RawMessage
		if err := json.Unmarshal([]byte(body), &rows); err != nil || len(rows) != 1 || len(rows[0]) != 10 || string(rows[0]["stage"]) != `"fuzzed"` {
			t.Fatalf("%q: %v, or other columns", body, err)
		}
		got, want := "", strings.ReplaceAll(text, "\x00", "")
		if err := json.Unmarshal(rows[0]["text"], &got); err != nil || utf8.ValidString(text) && got != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
		if compact := new(bytes.Buffer); utf8.Valid(raw) && !bytes.Contains(raw, []byte(`\u`)) {
			if err := json.Compact(compact, raw); err != nil || !strings.Contains(body, `,"raw":`+compact.String()+`,"text":`) && !bytes.ContainsAny(raw, "\u2028\u2029") {
				t.Errorf("got %s, want %s", body, compact)
			}
		}
	})
}

// FuzzURL checks that New either refuses a URL without repeating it, or sends to the
// host of the URL.
func FuzzURL(f *testing.F) {
	for _, raw := range []string{
		"", "https://abcdefgh.supabase.co", "https://abcdefgh.supabase.co/rest/v1/", "http://127.0.0.1:54321", "http://[::1]:54321/x",
		"http://[fe80::1%25eth0]/", "http://[::%25\xdc]", "https://u:hunter2@a.co", "https://a.co?apikey=hunter2", "https://a.co#x", "https://a.co/a//b", "https://a.co/%2e%2e/",
		"https://a.co/../..", "https://a.co/a%2fb", "https://a.co:99999", "https://é.co", "https://%C3%A9.co", "HTTPS://A.CO", "https:a.co", "https://a.co:", "https://a.co\r\nX: y",
		"https://a.co\\@b.co", "https://a.co/;p", "//a.co", "javascript:alert(1)", "https://[", "https://a b", "https://a%20b", "https://a.co/%", "https://a.co?", "https://*",
	} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		wire := &wire{}
		c, err := docevents.New(raw, testKey, docevents.WithTransport(roundTripFunc(wire.answer(http.StatusCreated, ""))))
		if err != nil {
			_, known := docevents.New("", testKey)
			if strings.Contains(err.Error(), testKey) || len(raw) > 3 && strings.Contains(err.Error(), raw) && !strings.Contains(known.Error(), raw) {
				t.Errorf("%q: %v", raw, err)
			}
			return
		}
		want, err := url.Parse(strings.TrimSpace(raw))
		if err != nil {
			t.Fatalf("%q is accepted: %v", raw, err)
		}
		if err := c.Check(t.Context()); err != nil {
			t.Fatalf("%q is accepted, and of no use: %v", raw, err)
		}
		for _, sent := range wire.all() {
			u := sent.url
			if u.Scheme != want.Scheme || u.Scheme != "http" && u.Scheme != "https" || u.Host != want.Host || u.User != nil || u.Fragment != "" ||
				!strings.HasSuffix(u.Path, "/rest/v1/document_processing_events") && !strings.HasSuffix(u.Path, "/rest/v1/") || slices.Contains(strings.Split(u.Path, "/"), "..") {
				t.Errorf("%q: sent to %s", raw, u)
			}
			if _, err := url.Parse(u.String()); err != nil {
				t.Errorf("%q: sent to %q: %v", raw, u, err)
			}
		}
	})
}

// FuzzKey checks that errors of New never repeat a key, and that a key is sent
// unchanged or not at all.
func FuzzKey(f *testing.F) {
	for _, key := range []string{
		"", " ", testKey, "sb_publishable_0123456789", "SB_PUBLISHABLE_0", "opaque", " key\n", "k e y", "k\x00y", "k\x7fy", "ké", "\xff", "a.b.c", "..", "a..c",
		jwt(`{"role":"service_role"}`), jwt(`{"role":"anon"}`), jwt(`{}`), jwt(`null`), jwt(`[]`), jwt(`{"role":["service_role"]}`),
		jwt(`{"role":"anon","role":"service_role"}`), jwt(`{"role":"service_role"`), jwt(`{"role":"service_role"}`) + ".x", "e30." + strings.Repeat("A", 1000) + ".x",
		"sb_secret_." + base64.RawURLEncoding.EncodeToString([]byte(`{"role":"anon"}`)) + ".x",
	} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		wire := &wire{}
		c, err := docevents.New(testURL, raw, docevents.WithTransport(roundTripFunc(wire.answer(http.StatusCreated, ""))))
		key := strings.TrimSpace(raw)
		role, isJWT := "", false
		if parts := strings.Split(key, "."); len(parts) == 3 {
			var claims map[string]any
			payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
			isJWT = err == nil && json.Unmarshal(payload, &claims) == nil
			role, _ = claims["role"].(string)
		}
		if err != nil {
			var known strings.Builder // the errors about other keys
			for _, other := range []string{"", "a b", "sb_publishable_x", jwt(`{}`)} {
				_, err := docevents.New(testURL, other)
				fmt.Fprintln(&known, err)
			}
			if key != "" && strings.Contains(err.Error(), key) && !strings.Contains(known.String(), key) {
				t.Errorf("%q: %v", raw, err)
			}
			if len(err.Error()) > 500 {
				t.Errorf("%q: an error of %d bytes", raw, len(err.Error()))
			}
			return
		}
		if key == "" || strings.HasPrefix(key, "sb_publishable_") || isJWT && role != "service_role" {
			t.Fatalf("%q is accepted, role %q", raw, role)
		}
		if err := c.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, sent := range wire.all() {
			want := []string{"Bearer " + key}
			if strings.HasPrefix(key, "sb_secret_") {
				want = nil
			}
			if got := sent.header.Values("Authorization"); !slices.Equal(got, want) || !slices.Equal(sent.header.Values("Apikey"), []string{key}) {
				t.Errorf("%q: sent %q", raw, sent.header)
			}
			for _, r := range key {
				if r <= ' ' || r > '~' {
					t.Errorf("%q: %q in a header", raw, r)
				}
			}
		}
	})
}
