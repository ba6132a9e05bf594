package sqltest

import (
	"cmp"
	crand "crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/docevents/docevents-go"
)

const (
	readingFile     = "014_create_docevents_reading.sql"
	summaryOfAnHour = "SELECT docevents_summary('{}', now() - interval '1 hour', now())"
)

// reader returns a client whose transport calls the functions in the test's database. The
// REST API can't do that, because it serves only the stack's main database.
func (d *db) reader(opts ...docevents.Option) *docevents.Client {
	d.t.Helper()
	return d.client(append(opts, docevents.WithTransport(roundTripFunc(func(req *http.Request) (*http.Response, error) {
		types := map[string]string{
			"source": "jsonb", "since": "timestamptz", "until": "timestamptz", "before_at": "timestamptz", "stuck_after": "interval", "max": "int",
		}
		var names []string
		var values []any
		for name, given := range req.URL.Query() {
			values = append(values, given[0])
			names = append(names, fmt.Sprintf("%s => $%d::text::%s", name, len(values), cmp.Or(types[name], "text")))
		}
		status, body := 200, ""
		err := d.pool.QueryRow(req.Context(), "SELECT "+path.Base(req.URL.Path)+"("+strings.Join(names, ", ")+")::text", values...).Scan(&body)
		if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) {
			text, _ := json.Marshal(map[string]string{"code": pg.Code, "message": pg.Message})
			status, body, err = 400, string(text), nil
		}
		return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: req}, err
	})))...)
}

// summary returns the result of Client.Summary.
func (d *db) summary(since, until time.Time) *docevents.Summary {
	d.t.Helper()
	s, err := d.reader().Summary(ctx(d.t), docevents.Query{Since: since, Until: until})
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

// store replaces the table's rows.
func (d *db) store(rows []stored) {
	d.t.Helper()
	text, err := json.Marshal(rows)
	if err != nil {
		d.t.Fatal(err)
	}
	d.exec("DELETE FROM " + d.table)
	_, err = d.pool.Exec(ctx(d.t), `INSERT INTO `+d.table+` (id, document_id, user_id, event_type, stage, error_message, duration_ms, created_at)
		SELECT "ID", "Document", '`+user+`', "Type", nullif("Stage", ''), nullif("Message", ''), CASE WHEN "MS" >= 0 THEN "MS" END, "At"
		FROM jsonb_to_recordset($1::jsonb) AS r("ID" uuid, "Document" uuid, "Type" text, "Stage" text, "Message" text, "MS" float, "At" timestamptz)`, text)
	if err != nil {
		d.t.Fatal(err)
	}
}

var migrationTypes = docevents.EventTypes{
	Arrived: []docevents.EventType{docevents.UploadStarted}, Started: []docevents.EventType{docevents.ProcessingStarted},
	Completed: []docevents.EventType{docevents.Completed}, Failed: []docevents.EventType{docevents.Failed},
}

// randomRows returns rows with few documents and times, so that many rows have the same
// time. Some rows are outside the range.
func randomRows(r *rand.Rand, since, until time.Time, kinds int) []stored {
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	step := until.Sub(since) / 50
	rows := make([]stored, r.IntN(200))
	for i := range rows {
		at := since.Add(time.Duration(r.IntN(56)-3) * step)
		if r.IntN(4) == 0 {
			at = at.Add(-time.Microsecond)
		}
		rows[i] = stored{
			ID: uuid.UUID{0: byte(r.Uint32()), 1: byte(i), 15: 1}.String(), Document: uuid.UUID{15: byte(r.IntN(40))}.String(),
			Type: pick("upload_started", "processing_started", "processing_started", "completed", "completed", "failed", "archived"),
			MS:   float64(r.IntN(9) - 2), At: at.Truncate(time.Microsecond),
		}
		if r.IntN(3) > 0 {
			rows[i].Stage = fmt.Sprint("stage ", string(rune('a'+r.IntN(kinds))))
		}
		if rows[i].Type == "failed" && r.IntN(8) > 0 {
			rows[i].Message = fmt.Sprintf("%s %c: page %d of %s", pick("timeout", "Ünlesbar", strings.Repeat("long ", 50), strings.Repeat("7 ", 600)),
				'a'+rune(r.IntN(kinds)), r.IntN(300), strings.ToUpper(rows[i].Document))
		}
	}
	return rows
}

// lines returns a summary as text, with a line for each item.
func lines(s *docevents.Summary) []string {
	at := func(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000") }
	out := []string{
		fmt.Sprint("range ", at(s.Since), " ", at(s.Until), " by ", s.Interval),
		fmt.Sprint("documents ", s.Documents, " completed ", s.Completed, " failed ", s.Failed, " under way ", s.UnderWay, " skipped ", s.Skipped),
		fmt.Sprint("last ", at(s.LastCompleted), " ", at(s.LastFailure), " of ", s.StagesTotal, " ", s.ErrorsTotal, " ", s.StuckTotal),
	}
	for _, p := range s.Series {
		out = append(out, fmt.Sprint("point ", at(p.At), " ", p.Completed, " ", p.Failed, " ", p.UnderWay, " ", p.Skipped, " ", p.Failures))
	}
	for _, v := range s.Stages {
		out = append(out, fmt.Sprintf("stage %+v", v))
	}
	for _, e := range s.Errors {
		out = append(out, fmt.Sprint("error ", e.Stage, ": ", e.Message, " ", e.Count, " ", e.Documents, " ", at(e.First), " ", at(e.Last), " ", e.Example))
	}
	for _, v := range s.Stuck {
		out = append(out, fmt.Sprint("stuck ", v.DocumentID, " ", at(v.Since), " ", v.Starts, " ", v.LastEvent, " ", v.LastStage, " ", at(v.LastAt)))
	}
	return out
}

// anyType drops the CHECK on event_type, so that rows can have other types.
func (d *db) anyType() {
	d.t.Helper()
	d.exec("ALTER TABLE " + d.table + " DROP CONSTRAINT document_processing_events_event_type_check")
}

// TestSummary compares the result of docevents_summary with the result of plain for
// the same random rows.
func TestSummary(t *testing.T) {
	both(t, newDatabase, func(t *testing.T, d *db) {
		d.run(readingFile)
		d.run(readingFile)
		d.anyType()
		r := rand.New(rand.NewPCG(1, 2))
		month := time.Now().UTC().AddDate(0, -1, 0).Truncate(time.Minute)
		for i, span := range []time.Duration{
			time.Microsecond, time.Minute, time.Hour, 99 * time.Minute, 99*time.Minute + time.Microsecond, 24 * time.Hour,
			7 * 24 * time.Hour, 30 * 24 * time.Hour, 99 * 24 * time.Hour, 100 * 24 * time.Hour, 693 * 24 * time.Hour,
		} {
			for n := range 4 {
				until := month.Truncate(24 * time.Hour)
				if n > 0 {
					until = month.Add(-time.Duration(r.IntN(1e9)) * time.Microsecond)
				}
				since := until.Add(-span)
				rows := randomRows(r, since, until, 1+r.IntN(26))
				d.store(rows)
				got := d.summary(since, until)
				if len(got.Series) > 100 {
					t.Errorf("%v: %d points", span, len(got.Series))
				}
				wantLines(t, fmt.Sprint(i, ": ", span), lines(got), lines(plain{rows, migrationTypes}.summary(docevents.Query{Since: since, Until: until}))...)
			}
		}
	})
}

// TestSummaryOfAllTimes checks a range that starts at the zero time. The first point of
// the series has the zero time, although its interval starts earlier.
func TestSummaryOfAllTimes(t *testing.T) {
	d := newDatabase(t).migrated()
	d.run(readingFile)
	now := time.Now().UTC().Truncate(time.Microsecond)
	d.store([]stored{
		{ID: uuid.NewString(), Document: uuid.NewString(), Type: "completed", MS: 1, At: time.Time{}},
		{ID: uuid.NewString(), Document: uuid.NewString(), Type: "completed", MS: 1, At: now},
	})
	for _, until := range []time.Time{now.Add(time.Minute), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)} {
		s := d.summary(time.Time{}, until)
		if first := s.Series[0]; s.Documents != 2 || len(s.Series) > 100 || !first.At.IsZero() || first.Completed != 1 {
			t.Errorf("%d documents, %d points, the first is %+v", s.Documents, len(s.Series), first)
		}
	}
}

// TestSummaryOfNow checks that documents don't count as stuck earlier if the range ends in
// the future.
func TestSummaryOfNow(t *testing.T) {
	d := newDatabase(t).migrated()
	d.run(readingFile)
	now := time.Now().UTC().Truncate(time.Microsecond)
	d.store([]stored{
		{ID: uuid.NewString(), Document: uuid.NewString(), Type: "processing_started", MS: -1, At: now.Add(-29 * time.Minute)},
		{ID: uuid.NewString(), Document: user, Type: "processing_started", MS: -1, At: now.Add(-31 * time.Minute)},
	})
	s := d.summary(now.Add(-time.Hour), now.Add(24*time.Hour))
	if s.UnderWay != 2 || s.StuckTotal != 1 || s.Stuck[0].DocumentID != user {
		t.Errorf("%+v", s)
	}
	if got := d.text("SELECT json_array_length(docevents_summary('{}', now() - interval '1 hour', now(), '5 minutes') -> 'stuck')::text"); got != "2" {
		t.Errorf("stuck for 5 minutes: %s, want 2", got)
	}
}

// TestSummaryOfNotes checks that an upload_started event doesn't change the state of its
// document if the app lists this type in Notes.
func TestSummaryOfNotes(t *testing.T) {
	d := newDatabase(t).migrated()
	d.run(readingFile)
	now := time.Now().UTC().Truncate(time.Microsecond)
	d.store([]stored{
		{ID: uuid.NewString(), Document: user, Type: "completed", MS: 1, At: now.Add(-2 * time.Minute)},
		{ID: uuid.NewString(), Document: user, Type: "upload_started", MS: -1, At: now.Add(-time.Minute)},
	})
	client := d.reader(docevents.WithEventTypes(docevents.EventTypes{Notes: []docevents.EventType{docevents.UploadStarted}}))
	s, err := client.Summary(t.Context(), docevents.Query{Since: now.Add(-time.Hour), Until: now})
	if err != nil || s.Completed != 1 || s.UnderWay != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestQueriesAgree compares queries 3 to 6 of queries.sql with docevents_summary.
func TestQueriesAgree(t *testing.T) {
	d := newDatabase(t).migrated()
	d.run(readingFile)
	d.anyType()
	_, queries := d.queries()
	r := rand.New(rand.NewPCG(3, 4))
	for range 10 {
		now := time.Now().UTC()
		rows := randomRows(r, now.Add(-50*time.Hour-30*time.Minute), now, 3) // no row is near the start of a query's range
		rows = slices.DeleteFunc(rows, func(r stored) bool { return r.At.After(now.Add(-time.Minute)) })
		d.store(rows)
		for i, q := range []struct {
			since   time.Time
			columns string
			want    func(*docevents.Summary) []string
		}{
			{now.Truncate(24*time.Hour).AddDate(0, 0, -13), "sum(completed)::int, sum(failed)::int", func(s *docevents.Summary) []string {
				if s.Completed+s.Failed == 0 {
					return []string{"|"}
				}
				return []string{fmt.Sprint(s.Completed, "|", s.Failed)}
			}},
			{now.Add(-7 * 24 * time.Hour), "coalesce(stage, ''), ended, failed, measured, coalesce(max_ms, 0)", func(s *docevents.Summary) (list []string) {
				for _, v := range s.Stages {
					list = append(list, fmt.Sprint(v.Name, "|", v.Count, "|", v.Failed, "|", v.Measured, "|", v.Max.Milliseconds()))
				}
				return list
			}},
			{now.Add(-time.Hour), "times, documents, example_document", func(s *docevents.Summary) (list []string) {
				for _, e := range s.Errors {
					list = append(list, fmt.Sprint(e.Count, "|", e.Documents, "|", e.Example))
				}
				return list
			}},
			{now.Add(-48 * time.Hour), "document_id, starts, last_event", func(s *docevents.Summary) (list []string) {
				for _, v := range s.Stuck {
					list = append(list, fmt.Sprint(v.DocumentID, "|", v.Starts, "|", v.LastEvent))
				}
				return list
			}},
		} {
			query := "SELECT " + q.columns + " FROM (" + strings.TrimSuffix(queries[i+2], ";") + ") AS asked"
			got := d.ask(query)
			for i := range got {
				got[i] = strings.ReplaceAll(got[i], `"`, "")
			}
			want := q.want(d.summary(q.since, now.Add(time.Hour)))
			slices.Sort(got)
			slices.Sort(want)
			if len(want) < 20 { // longer lists are cut
				wantLines(t, fmt.Sprint("query ", i+3), got, want...)
			}
		}
	}
}

// TestSummaryRights checks that only service_role may execute docevents_summary,
// also after partitioned.sql has run.
func TestSummaryRights(t *testing.T) {
	d := newDatabase(t)
	// By default in Supabase, the API roles may execute new functions.
	d.exec("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON FUNCTIONS TO anon, authenticated, service_role")
	d.run(migration)
	for range 2 {
		d.run(readingFile)
		d.plant(10, "now()")
		for role, want := range map[string]string{"anon": denied, "authenticated": denied, "service_role": ""} {
			if got := d.as(role, summaryOfAnHour); got != want {
				t.Errorf("%s: error %q, want %q", role, got, want)
			}
		}
		d.run(partitionedFile)
		if got := d.as("service_role", summaryOfAnHour); got != "" {
			t.Errorf("after partitioned.sql: error %q", got)
		}
	}
	if got := d.summary(time.Now().Add(-time.Hour), time.Now().Add(time.Minute)).Documents; got != 20 {
		t.Errorf("%d documents in the partitions, want 20", got)
	}
}

// TestReadingUsesTheIndex checks that the functions find the rows of the range by
// an index and don't scan the table.
func TestReadingUsesTheIndex(t *testing.T) {
	for _, created := range []string{"timestamptz", "timestamp"} {
		d := newDatabase(t).migrated()
		d.run(readingFile)
		d.plant(20_000, "now()")
		d.exec("ALTER TABLE " + d.table + " ALTER created_at TYPE " + created)
		d.exec("ANALYZE " + d.table)
		for _, query := range []string{summaryOfAnHour, "SELECT docevents_documents('{}', now() - interval '1 hour', now(), 'failed')"} {
			// The test uses the statistics, because not every PostgreSQL has auto_explain.
			conn := d.conn()
			read := func() (n int64) {
				t.Helper()
				if err := conn.QueryRow(ctx(t), "SELECT pg_stat_get_xact_tuples_returned('"+d.table+"'::regclass)").Scan(&n); err != nil {
					t.Fatal(err)
				}
				return n
			}
			tx, err := conn.Begin(ctx(t))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(ctx(t), "SET LOCAL max_parallel_workers_per_gather = 0; "+query); err != nil {
				t.Fatal(err)
			}
			if n := read(); n != 0 { // counts only rows of table scans
				t.Errorf("%s, %s: %d rows read without the index", created, query, n)
			}
			if err := tx.Rollback(ctx(t)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestReadingBySQL runs the examples of sql/README.md.
func TestReadingBySQL(t *testing.T) {
	d := newDatabase(t).migrated()
	d.run(readingFile)
	d.plant(10, "now()")
	d.exec("CREATE VIEW steps AS SELECT id, document_id AS doc, 'timeout' AS event_type, duration_ms, error_message, stage, created_at FROM " + d.table)
	blocks := d.section("## Reading by SQL")
	var failed []string
	for statement := range strings.SplitSeq(strings.ReplaceAll(blocks[0], " -- the table of 013", ""), ";\n") {
		if statement != "" {
			failed = append(failed, d.text("SELECT coalesce(answer ->> 'failed', json_array_length(answer)::text) FROM ("+statement+") AS asked (answer)"))
		}
	}
	wantLines(t, "failed", failed, "0", "10", "0")

	role := "reporting_" + strings.ToLower(crand.Text()[:12]) // all databases share the roles
	d.exec("CREATE ROLE " + role + "; GRANT USAGE ON SCHEMA public TO " + role)
	t.Cleanup(func() { d.exec("DROP OWNED BY " + role + "; DROP ROLE " + role) })
	d.exec(strings.ReplaceAll(blocks[1], "reporting", role))
	for role, want := range map[string]string{role: "", "anon": denied, "authenticated": denied} {
		if got := d.as(role, "SELECT my_summary(now() - interval '1 hour', now())"); got != want {
			t.Errorf("%s: error %q, want %q", role, got, want)
		}
	}
}

// TestGrafana runs the SQL that sql/README.md has for Grafana, as the Grafana user.
func TestGrafana(t *testing.T) {
	d := newDatabase(t).migrated()
	d.run(readingFile)
	now := time.Now().UTC()
	d.store([]stored{
		{ID: uuid.NewString(), Document: uuid.NewString(), Type: "failed", Stage: "extract", MS: 7, At: now.Add(-20 * time.Minute)},
		{ID: uuid.NewString(), Document: uuid.NewString(), Type: "completed", MS: 9, At: now.Add(-10 * time.Minute)},
	})
	blocks := d.section("## Grafana")
	role := "grafana_" + strings.ToLower(crand.Text()[:12])
	d.exec(strings.ReplaceAll(blocks[0], "grafana", role)) // all databases share the roles
	t.Cleanup(func() { d.exec("DROP OWNED BY " + role + "; DROP ROLE " + role) })
	ask := func(i int) []string {
		t.Helper()
		query := strings.NewReplacer(
			"$__timeFrom()", "'"+now.Add(-time.Hour).Format(time.RFC3339)+"'", "$__timeTo()", "'"+now.Format(time.RFC3339)+"'").Replace(blocks[i])
		tx, err := d.pool.Begin(ctx(t))
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback(ctx(t))
		if _, err := tx.Exec(ctx(t), "SET LOCAL ROLE "+role); err != nil {
			t.Fatal(err)
		}
		found, err := tx.Query(ctx(t), "SELECT q::text FROM ("+strings.TrimSuffix(strings.TrimSpace(query), ";")+") AS q")
		if err != nil {
			t.Fatal(err)
		}
		list, err := pgx.CollectRows(found, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if series := ask(1); len(series) < 60 || !slices.ContainsFunc(series, func(p string) bool { return strings.HasSuffix(p, ",0,1,0,1)") }) {
		t.Errorf("series: %q", series)
	}
	wantLines(t, "stages", ask(2), `("whole document",1,0,9,9,9)`, "(extract,1,1,7,7,7)")
	if minutes := ask(3); len(minutes) != 1 || !strings.HasPrefix(minutes[0], "(10.") {
		t.Errorf("minutes since the last success: %q", minutes)
	}
}

// TestSummaryByREST reads a summary, documents and a timeline through the REST API.
func TestSummaryByREST(t *testing.T) {
	both(t, newTable, func(t *testing.T, d *db) {
		client := d.client()
		start := time.Now().UTC().Add(-time.Hour).Truncate(time.Microsecond)
		want := make([]docevents.Event, 1100)
		for i := range want {
			want[i] = docevents.Event{
				DocumentID: uuid.Max.String(), UserID: user, Type: docevents.Failed, Stage: "extract",
				Duration: time.Second, ErrorMessage: fmt.Sprintf("page %d", i), CreatedAt: start.Add(time.Duration(i) * time.Microsecond),
			}
			client.Record(want[i])
		}
		client.Record(docevents.Event{DocumentID: uuid.Nil.String(), UserID: user, Type: docevents.UploadStarted, CreatedAt: start})
		d.flush(client)

		// The stack has run 014, which works for every table.
		query := docevents.Query{Since: start, Until: start.Add(time.Hour), Where: map[string]string{"user_id": user}}
		s, err := client.Summary(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		if s.Documents != 2 || s.Failed != 1 || s.UnderWay != 1 || len(s.Errors) != 1 || s.Errors[0].Count != 1100 || s.Stages[0].P95 != time.Second {
			t.Errorf("%+v", s)
		}

		page, err := client.Documents(t.Context(), docevents.DocumentsQuery{Query: query, Limit: 1})
		if err != nil || len(page.Documents) != 1 || page.Documents[0].ID != uuid.Max.String() || page.Next == "" {
			t.Fatalf("%+v, %v", page, err)
		}
		page, err = client.Documents(t.Context(), docevents.DocumentsQuery{Limit: 1, Cursor: page.Next, Query: docevents.Query{Where: query.Where}})
		if err != nil || len(page.Documents) != 1 || page.Documents[0].State != docevents.StateStuck || page.Documents[0].UserID != user || page.Next != "" {
			t.Fatalf("%+v, %v", page, err)
		}
		query.Where["nobody"] = "1"
		if _, err = client.Summary(t.Context(), query); err == nil || !strings.Contains(err.Error(), `column "nobody" of relation "public.`+d.table+`" does not exist; name the columns of`) {
			t.Errorf("a filter of a missing column: %v", err)
		}

		newest, err := client.Timeline(t.Context(), uuid.Max.String())
		if !errors.Is(err, docevents.ErrTruncated) || len(newest) != 1000 {
			t.Fatalf("%d of 1,100 events: %v", len(newest), err)
		}
		events, err := client.TimelineBefore(t.Context(), uuid.Max.String(), newest[0].CreatedAt)
		if err != nil || len(events) != 100 {
			t.Fatalf("%d of the 100 events before: %v", len(events), err)
		}
		for i, e := range append(events, newest...) {
			if e.ErrorMessage != want[i].ErrorMessage || !e.CreatedAt.Equal(want[i].CreatedAt) {
				t.Fatalf("event %d: %+v, want %+v", i, e, want[i])
			}
		}
		if events, err = client.Timeline(t.Context(), uuid.Nil.String()); err != nil || len(events) != 1 || events[0].Type != docevents.UploadStarted {
			t.Errorf("%+v, %v", events, err)
		}
		if events, err = client.Timeline(t.Context(), user); err != nil || len(events) != 0 {
			t.Errorf("timeline of an unknown document: %+v, %v", events, err)
		}
	})
}

var summaryRows = flag.Int("summary-rows", 100_000, "rows in the range of BenchmarkSummary")

// BenchmarkSummary compares docevents_summary with queries 3 to 6 of queries.sql.
// The function should take at most 1.5 times as long as the slowest of them.
func BenchmarkSummary(b *testing.B) {
	d := newDatabase(b).migrated()
	d.run(readingFile)
	d.exec(fmt.Sprintf(`INSERT INTO document_processing_events (document_id, user_id, event_type, stage, duration_ms, error_message, created_at)
		SELECT md5(document::text)::uuid, '%s', type, stage, CASE WHEN type IN ('completed', 'failed') THEN document %% 5000 END,
			CASE WHEN type = 'failed' THEN 'page ' || document || ' of ' || md5(document::text)::uuid || ': too small' END,
			now() - interval '23 hours' * document / (%d / 6) - interval '1 second' * (7 - step) AS at
		FROM generate_series(1, %[2]d / 6) AS document CROSS JOIN LATERAL (VALUES
			(1, 'upload_started', NULL), (2, 'processing_started', NULL), (3, 'processing_started', 'extract'),
			(4, 'completed', 'extract'), (5, 'processing_started', 'summarize'),
			(6, CASE WHEN document %% 20 = 0 THEN 'failed' ELSE 'completed' END, CASE WHEN document %% 20 = 0 THEN 'summarize' END)) AS e (step, type, stage)
		ORDER BY at`, user, *summaryRows))
	d.exec("VACUUM ANALYZE document_processing_events")
	_, queries := d.queries()
	asked := []string{"SELECT docevents_summary('{}', now() - interval '1 day', now())"}
	for _, query := range queries[2:] {
		query = strings.ReplaceAll(query, "date_trunc('day', now(), 'UTC')", "now()")
		asked = append(asked, regexp.MustCompile(`(- interval '[^']*')( -- how (many days|far back))`).ReplaceAllString(query, "- interval '1 day'$2"))
	}
	took := make([]time.Duration, len(asked))
	for range b.N {
		for i, query := range asked {
			start := time.Now()
			d.texts("SELECT count(q)::text FROM (" + strings.TrimSuffix(query, ";") + ") AS q")
			took[i] += time.Since(start)
		}
	}
	for i, name := range []string{"function", "days", "stages", "errors", "stuck"} {
		b.ReportMetric(took[i].Seconds()/float64(b.N), name+"-s")
	}
	b.ReportMetric(took[0].Seconds()/max(took[1], took[2], took[3], took[4]).Seconds(), "of-slowest")
}
