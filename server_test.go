package docevents_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/google/uuid"
)

// A server stands in for PostgREST, in memory and without sockets, so that tests can
// use it in a synctest bubble. It stores rows by id, all rows of a request or none.
// It ignores ids that it has, as PostgREST does in the recorded cases.
type server struct {
	// answer chooses the answer to a request. If it is nil or returns nil, the server
	// stores the rows and answers 201.
	answer func(*request) *answer

	discard bool // the server keeps neither rows nor requests

	mu       sync.Mutex
	rows     map[string]wireRow
	requests []*request
	count    int // requests
	inFlight int
	most     int             // the most requests in flight at once
	sending  map[string]bool // the ids of the rows in flight
	twice    string          // an id that was in two requests in flight at once
}

type wireRow struct {
	ID           string  `json:"id"`
	DocumentID   string  `json:"document_id"`
	UserID       string  `json:"user_id"`
	EventType    string  `json:"event_type"`
	DurationMS   *int64  `json:"duration_ms"`
	ErrorMessage *string `json:"error_message"`
	Stage        *string `json:"stage"`
	CreatedAt    string  `json:"created_at"`
}

// isLong reports whether the long versions of tests run, with more events, outages
// of days and more random runs. CI sets the variable.
func isLong() bool { return os.Getenv("DOCEVENTS_LONG_TESTS") != "" && !testing.Short() }

type request struct {
	number int // from 0
	at     time.Time
	method string
	url    string
	header http.Header
	rows   []wireRow
}

// has reports whether the request has a row with the given stage.
func (r *request) has(stage string) bool {
	for _, row := range r.rows {
		if row.Stage != nil && *row.Stage == stage {
			return true
		}
	}
	return false
}

// waited returns how long ago the request's oldest row was recorded.
func (r *request) waited() time.Duration {
	oldest := r.rows[0].CreatedAt
	for _, row := range r.rows {
		oldest = min(oldest, row.CreatedAt)
	}
	at, _ := time.Parse(time.RFC3339Nano, oldest)
	return time.Since(at)
}

// bad returns the index of the first bad row, or -1.
func (r *request) bad() int {
	return slices.IndexFunc(r.rows, func(row wireRow) bool { return row.Stage != nil && strings.HasPrefix(*row.Stage, "bad") })
}

type answer struct {
	delay   time.Duration // the time before anything else happens; it ends with the request's context
	stored  bool          // the rows are stored before the answer
	err     error         // the transport returns this instead of an answer
	status  int           // 0 means 201
	code    string        // the code of a PostgREST error
	text    string        // the message of the error
	details string
	names   func(bad *wireRow) string // returns the details, for answerBad
	body    string                    // the body if code is ""
	header  map[string]string
	cut     bool // reading the body ends in an error
}

func (s *server) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	req.Body.Close()
	var rows []wireRow
	if err := json.Unmarshal(body, &rows); err != nil {
		return nil, fmt.Errorf("not a list of rows: %w", err)
	}
	s.mu.Lock()
	r := &request{at: time.Now(), method: req.Method, url: req.URL.String(), header: req.Header, rows: rows}
	if r.number = s.count; !s.discard {
		s.requests = append(s.requests, r)
	}
	s.count++
	s.inFlight++
	s.most = max(s.most, s.inFlight)
	if s.sending == nil {
		s.sending = map[string]bool{}
	}
	for _, row := range rows {
		if s.sending[row.ID] {
			s.twice = row.ID
		}
		s.sending[row.ID] = true
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.inFlight--
		for _, row := range rows {
			delete(s.sending, row.ID)
		}
	}()
	a := &answer{stored: true}
	if s.answer != nil {
		if chosen := s.answer(r); chosen != nil {
			a = chosen
		}
	}
	if err := a.wait(req); err != nil {
		return nil, err
	}
	if a.stored && !s.discard {
		s.mu.Lock()
		if s.rows == nil {
			s.rows = map[string]wireRow{}
		}
		for _, row := range rows {
			if _, known := s.rows[row.ID]; !known {
				s.rows[row.ID] = row
			}
		}
		s.mu.Unlock()
	}
	if a.err != nil {
		return nil, a.err
	}
	return a.response(req), nil
}

// wait waits for the answer's delay. If the request's context ends, wait returns its error.
func (a *answer) wait(req *http.Request) error {
	if a.delay <= 0 {
		return nil
	}
	select {
	case <-time.After(a.delay):
		return nil
	case <-req.Context().Done():
		return req.Context().Err()
	}
}

func (a *answer) response(req *http.Request) *http.Response {
	resp := &http.Response{StatusCode: a.status, Header: http.Header{}, Request: req}
	if resp.StatusCode == 0 {
		resp.StatusCode = http.StatusCreated
	}
	body := a.body
	if a.code != "" {
		b, _ := json.Marshal(map[string]any{"code": a.code, "message": a.text, "hint": nil, "details": cmp.Or(a.details, "Failing row contains (secret row)")})
		body = string(b)
		resp.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	if strings.HasPrefix(body, "<") {
		resp.Header.Set("Content-Type", "text/html")
	}
	for name, value := range a.header {
		resp.Header.Set(name, value)
	}
	var r io.Reader = strings.NewReader(body)
	if a.cut {
		r = io.MultiReader(r, &errorReader{io.ErrUnexpectedEOF})
	}
	resp.Body = io.NopCloser(r)
	return resp
}

type errorReader struct{ err error }

func (r *errorReader) Read([]byte) (int, error) { return 0, r.err }

var errReset = errors.New("connection reset by peer")

// refusal is PostgREST's answer to a row that violates a CHECK.
var refusal = answer{status: 400, code: "23514", text: `new row for relation "t" violates check constraint "c"`}

// failingRow returns PostgreSQL's details about a row that it rejects.
func failingRow(row *wireRow) string {
	return fmt.Sprintf("Failing row contains (%s, %s, %s, completed, null, null, secret row, 2026-01-02 03:04:05+00).", row.ID, row.DocumentID, row.UserID)
}

// answerBad returns a function that answers a to requests with a bad row, and
// stores other requests, both after delay. A row is bad if its stage begins with
// "bad".
func answerBad(a answer, delay time.Duration) func(*request) *answer {
	return func(r *request) *answer {
		at := r.bad()
		if at < 0 {
			return &answer{delay: delay, stored: true}
		}
		bad := a
		bad.delay += delay
		if a.names != nil {
			bad.details = a.names(&r.rows[at])
		}
		return &bad
	}
}

func refused(code, text string) *answer { return &answer{status: 400, code: code, text: text} }

// all returns all requests so far.
func (s *server) all() []*request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// peak returns the largest number of requests that were in flight at once.
func (s *server) peak() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.most
}

// sent returns the number of requests that were sent.
func (s *server) sent() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// stages returns how many rows are stored, by stage. Tests use the stage as a name.
func (s *server) stages() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := map[string]int{}
	for _, row := range s.rows {
		stage := ""
		if row.Stage != nil {
			stage = *row.Stage
		}
		m[stage]++
	}
	return m
}

// An observer keeps a client's log lines and the calls to its drop handler.
type observer struct {
	mu    sync.Mutex
	lines []line
	drops []drop
}

type line struct {
	at    time.Time
	level slog.Level
	text  string // message and attributes
}

type drop struct {
	event  docevents.Event
	reason docevents.DropReason
	err    error
}

func (o *observer) Enabled(context.Context, slog.Level) bool { return true }
func (o *observer) WithAttrs([]slog.Attr) slog.Handler       { return o }
func (o *observer) WithGroup(string) slog.Handler            { return o }

func (o *observer) Handle(_ context.Context, r slog.Record) error {
	var b bytes.Buffer
	b.WriteString(r.Message)
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&b, " %s=%v", a.Key, a.Value)
		return true
	})
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lines = append(o.lines, line{time.Now(), r.Level, b.String()})
	return nil
}

func (o *observer) dropped(e docevents.Event, reason docevents.DropReason, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drops = append(o.drops, drop{e, reason, err})
}

func (o *observer) logged() []line {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]line(nil), o.lines...)
}

func (o *observer) lost() []drop {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]drop(nil), o.drops...)
}

const (
	testURL = "http://supabase.test"
	testKey = "sb_secret_0123456789"
)

// newClient returns a client of s, and an observer of that client.
func newClient(t *testing.T, s http.RoundTripper, opts ...docevents.Option) (*docevents.Client, *observer) {
	t.Helper()
	o := &observer{}
	opts = append([]docevents.Option{
		docevents.WithTransport(s),
		docevents.WithSlog(slog.New(o)),
		docevents.WithDropHandler(o.dropped),
	}, opts...)
	c, err := docevents.New(testURL, testKey, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return c, o
}

// event returns a valid event with the name as its stage.
func event(stage string) docevents.Event {
	return docevents.Event{DocumentID: testDocument, UserID: docevents.SystemUser, Type: docevents.Completed, Stage: stage}
}

var testDocument = uuid.MustParse("11111111-1111-4111-8111-111111111111").String()

// recordMany records n events with the given stage.
func recordMany(c *docevents.Client, n int, stage string) {
	for range n {
		c.Record(event(stage))
	}
}

// recordMixed records n events, of which every event i with isBad(i) is bad.
func recordMixed(c *docevents.Client, n int, isBad func(i int) bool) {
	for i := range n {
		c.Record(event(fineOrBad(isBad(i))))
	}
}

// fineOrBad returns the stage of a bad event or of a fine one (see answerBad).
func fineOrBad(bad bool) string { return map[bool]string{false: "fine", true: "bad"}[bad] }

// oneIn makes one event of every few bad. The first bad event has the index at.
func oneIn(every, at int) func(i int) bool { return func(i int) bool { return i%every == at } }

// inBubble runs a subtest in a synctest bubble.
func inBubble(t *testing.T, name string, test func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

// within calls f, which is Flush or Close, with a deadline.
func within(d time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return f(ctx)
}

// checkTook checks how much time has passed since start.
func checkTook(t *testing.T, start time.Time, least, most time.Duration) {
	t.Helper()
	if took := time.Since(start); took < least || took > most {
		t.Errorf("took %s, want %s to %s", took, least, most)
	}
}

// answerIn returns the answer of the server that err wraps, or an empty one.
func answerIn(err error) docevents.Error {
	if e, ok := errors.AsType[*docevents.Error](err); ok {
		return *e
	}
	return docevents.Error{}
}

// drain records an event every 100 ms until nothing is pending, and returns their
// number. A bad row is dropped only after other rows have been stored.
func drain(t *testing.T, c *docevents.Client) (others int64) {
	t.Helper()
	for c.Stats().Pending > 0 {
		if others++; others > 36_000 {
			t.Fatalf("not drained within an hour: %+v", c.Stats())
		}
		c.Record(event("other"))
		time.Sleep(100 * time.Millisecond)
	}
	return others
}

// closeNow closes c without waiting, and so abandons what is pending.
func closeNow(t *testing.T, c *docevents.Client) {
	t.Helper()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if pending := c.Stats().Pending; c.Close(ended) == nil && pending > 0 {
		t.Errorf("Close returns no error and abandons %d events", pending)
	}
}

// checkStats checks that the counts of a snapshot add up, and that they are want.
func checkStats(t *testing.T, c *docevents.Client, want *docevents.Stats) {
	t.Helper()
	got := c.Stats()
	if got.Recorded+got.Replayed != got.Delivered+got.Dropped.Total()+got.Pending+got.Kept {
		t.Errorf("counts don't add up: %+v", got)
	}
	if got.Pending == 0 && got.PendingBytes != 0 || got.PendingBytes < 0 {
		t.Errorf("bytes don't add up: %+v", got)
	}
	if want != nil && (got.Recorded != want.Recorded || got.Delivered != want.Delivered || got.Pending != want.Pending || got.Replayed != want.Replayed || got.Kept != want.Kept || got.Dropped != want.Dropped) {
		t.Errorf("got %+v, want %+v", got, *want)
	}
}

// linesAt returns the log lines of a level.
func linesAt(o *observer, level slog.Level) []line {
	return slices.DeleteFunc(o.logged(), func(l line) bool { return l.level != level })
}

// checkQuiet checks that in any 30 s, the log has at most one Error line with the
// same message.
func checkQuiet(t *testing.T, o *observer) {
	t.Helper()
	last := map[string]time.Time{}
	for _, l := range linesAt(o, slog.LevelError) {
		kind, _, _ := strings.Cut(l.text, "=")
		if before, ok := last[kind]; ok && l.at.Sub(before) < 30*time.Second {
			t.Errorf("%q again after %s", l.text, l.at.Sub(before))
		}
		last[kind] = l.at
	}
}

// checkReported checks that the drop handler got every dropped event, or that the
// event was counted as Unreported.
func checkReported(t *testing.T, c *docevents.Client, o *observer) {
	t.Helper()
	st := c.Stats()
	if got := int64(len(o.lost())); got+st.Unreported != st.Dropped.Total() {
		t.Errorf("%d handler calls and %d skipped, for %+v", got, st.Unreported, st.Dropped)
	}
}

// checkLost checks that only bad rows were lost, all of them Rejected.
func checkLost(t *testing.T, o *observer) {
	t.Helper()
	for _, d := range o.lost() {
		if !strings.HasPrefix(d.event.Stage, "bad") || d.reason != docevents.Rejected {
			t.Errorf("lost %q: %s, %v", d.event.Stage, d.reason, d.err)
		}
	}
}

// checkRejected checks that the bad events were Rejected, and that the others, of n in
// all, were delivered.
func checkRejected(t *testing.T, c *docevents.Client, o *observer, n, bad int64) {
	t.Helper()
	checkStats(t, c, &docevents.Stats{Recorded: n, Delivered: n - bad, Dropped: docevents.Drops{Rejected: bad}})
	checkLost(t, o)
}

// checkOnlyBadLost checks that only bad rows were lost, for any reason.
func checkOnlyBadLost(t *testing.T, o *observer) {
	t.Helper()
	for _, d := range o.lost() {
		if !strings.HasPrefix(d.event.Stage, "bad") {
			t.Fatalf("lost %q: %s, %v", d.event.Stage, d.reason, d.err)
		}
	}
}

// heap returns how many bytes are allocated after a garbage collection.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
