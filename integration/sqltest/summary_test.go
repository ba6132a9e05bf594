package sqltest

import (
	"bytes"
	crand "crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/docevents/docevents-go"
)

const summaryFile = "014_create_document_processing_events_summary.sql"

// summary asks the function by docevents' Summary, past the REST API, which
// doesn't know a database of the test's own.
func (d *db) summary(since, until time.Time) *docevents.Summary {
	d.t.Helper()
	client := d.client(docevents.WithTransport(roundTripFunc(func(req *http.Request) (*http.Response, error) {
		var body []byte
		query := req.URL.Query()
		err := d.pool.QueryRow(req.Context(), "SELECT "+d.table+"_summary($1::text::timestamptz, $2::text::timestamptz)",
			query.Get("since"), query.Get("until")).Scan(&body)
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body)), Request: req}, err
	})))
	s, err := client.Summary(ctx(d.t), since, until)
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

// A stored row, as the reference reads it. An empty text is NULL, and so is a
// negative time.
type stored struct {
	ID, Document, Type, Stage, Message string
	MS                                 int
	At                                 time.Time
}

// store empties the table and puts the rows in.
func (d *db) store(rows []stored) {
	d.t.Helper()
	text, err := json.Marshal(rows)
	if err != nil {
		d.t.Fatal(err)
	}
	d.exec("DELETE FROM " + d.table)
	_, err = d.pool.Exec(ctx(d.t), `INSERT INTO `+d.table+` (id, document_id, user_id, event_type, stage, error_message, duration_ms, created_at)
		SELECT "ID", "Document", '`+user+`', "Type", nullif("Stage", ''), nullif("Message", ''), CASE WHEN "MS" >= 0 THEN "MS" END, "At"
		FROM jsonb_to_recordset($1::jsonb) AS r("ID" uuid, "Document" uuid, "Type" text, "Stage" text, "Message" text, "MS" int, "At" timestamptz)`, text)
	if err != nil {
		d.t.Fatal(err)
	}
}

// randomRows are of few documents and times, so that all kinds of ties are
// there, and some of them outside of the range.
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
			MS:   r.IntN(9) - 2, At: at.Truncate(time.Microsecond),
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

// lines prints a summary, a line for each item, so that a difference shows.
func lines(s *docevents.Summary) []string {
	at := func(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000") }
	out := []string{
		fmt.Sprint("range ", at(s.Since), " ", at(s.Until), " by ", s.Interval),
		fmt.Sprint("documents ", s.Documents, " completed ", s.Completed, " failed ", s.Failed, " under way ", s.UnderWay),
		fmt.Sprint("last ", at(s.LastCompleted), " ", at(s.LastFailure), " of ", s.StagesTotal, " ", s.ErrorsTotal, " ", s.StuckTotal),
	}
	for _, p := range s.Series {
		out = append(out, fmt.Sprint("point ", at(p.At), " ", p.Completed, " ", p.Failed, " ", p.UnderWay, " ", p.Failures))
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

// anyType takes the CHECK away, so that there are types of an app's own.
func (d *db) anyType() {
	d.t.Helper()
	d.exec("ALTER TABLE " + d.table + " DROP CONSTRAINT document_processing_events_event_type_check")
}

// TestSummary: the function's numbers are plain Go's over the same random rows.
func TestSummary(t *testing.T) {
	both(t, newDatabase, func(t *testing.T, d *db) {
		d.run(summaryFile)
		d.run(summaryFile)
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
				wantLines(t, fmt.Sprint(i, ": ", span), lines(got), lines(plainSummary(rows, since, until))...)
			}
		}
	})
}

// TestSummaryOfAllTimes: the zero time is a beginning like others, though the
// first point would be before it.
func TestSummaryOfAllTimes(t *testing.T) {
	d := newDatabase(t).migrated()
	d.run(summaryFile)
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

// TestSummaryOfNow: what lies ahead doesn't make a document stuck.
func TestSummaryOfNow(t *testing.T) {
	d := newDatabase(t).migrated()
	d.run(summaryFile)
	now := time.Now().UTC().Truncate(time.Microsecond)
	d.store([]stored{
		{ID: uuid.NewString(), Document: uuid.NewString(), Type: "processing_started", MS: -1, At: now.Add(-29 * time.Minute)},
		{ID: uuid.NewString(), Document: user, Type: "processing_started", MS: -1, At: now.Add(-31 * time.Minute)},
	})
	s := d.summary(now.Add(-time.Hour), now.Add(24*time.Hour))
	if s.UnderWay != 2 || s.StuckTotal != 1 || s.Stuck[0].DocumentID != user {
		t.Errorf("%+v", s)
	}
	if got := d.text("SELECT json_array_length(document_processing_events_summary(now() - interval '1 hour', now(), '5 minutes') -> 'stuck')::text"); got != "2" {
		t.Errorf("stuck for 5 minutes: %s, want 2", got)
	}
}

// TestQueriesAgree: 3 to 6 of queries.sql say what the function says.
func TestQueriesAgree(t *testing.T) {
	d := newDatabase(t).migrated()
	d.run(summaryFile)
	d.anyType()
	_, queries := d.queries()
	r := rand.New(rand.NewPCG(3, 4))
	for range 10 {
		now := time.Now().UTC()
		rows := randomRows(r, now.Add(-50*time.Hour-30*time.Minute), now, 3) // none near the edge of a range
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
			if len(want) < 20 { // what is more is cut
				wantLines(t, fmt.Sprint("query ", i+3), got, want...)
			}
		}
	}
}

// TestSummaryRights: the function is service_role's, and stays so on the way to
// partitions.
func TestSummaryRights(t *testing.T) {
	d := newDatabase(t)
	// As in every Supabase project: new functions are everybody's.
	d.exec("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON FUNCTIONS TO anon, authenticated, service_role")
	d.run(migration)
	for range 2 {
		d.run(summaryFile)
		d.plant(10, "now()")
		for role, want := range map[string]string{"anon": denied, "authenticated": denied, "service_role": ""} {
			if got := d.as(role, "SELECT document_processing_events_summary(now() - interval '1 hour', now())"); got != want {
				t.Errorf("%s: error %q, want %q", role, got, want)
			}
		}
		d.run(partitionedFile)
		if got := d.as("service_role", "SELECT document_processing_events_summary(now() - interval '1 hour', now())"); got != "" {
			t.Errorf("behind partitioned.sql: error %q", got)
		}
	}
	if got := d.summary(time.Now().Add(-time.Hour), time.Now().Add(time.Minute)).Documents; got != 20 {
		t.Errorf("%d documents in the partitions, want 20", got)
	}
}

// TestSummaryUsesTheIndex: whatever the table holds beside the range, it is not
// read.
func TestSummaryUsesTheIndex(t *testing.T) {
	d := newDatabase(t).migrated()
	d.plant(20_000, "now()")
	d.exec("ANALYZE " + d.table)
	body := regexp.MustCompile(`(?s)AS \$\$(.*?)\$\$;`).FindStringSubmatch(d.read(summaryFile))[1]
	for i, name := range []string{"since", "until", "stuck_after"} {
		body = regexp.MustCompile(`(^|[^'])\b`+name+`\b`).ReplaceAllString(body, fmt.Sprintf("${1}$$%d", i+1))
	}
	conn := d.conn()
	for _, sql := range []string{
		"SET plan_cache_mode = force_generic_plan", "PREPARE q (timestamptz, timestamptz, interval) AS " + body,
	} {
		if _, err := conn.Exec(ctx(t), sql); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := conn.Query(ctx(t), "EXPLAIN EXECUTE q (now() - interval '1 hour', now(), '30 minutes')")
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	plan := strings.Join(lines, "\n")
	if n := strings.Count(plan, "Index Cond: ((created_at >= $1) AND (created_at < $2))"); n != 3 || strings.Contains(plan, "Seq Scan") {
		t.Error(plan)
	}
}

// TestSummaryOfOtherColumns does what sql/README.md says of a table that differs.
func TestSummaryOfOtherColumns(t *testing.T) {
	d := newDatabase(t)
	_, text, _ := strings.Cut(d.read("README.md"), "## "+summaryFile)
	_, subselect, _ := strings.Cut(text, "```\n")
	subselect, _, _ = strings.Cut(subselect, "\n```")
	const table = "public.document_processing_events AS event"
	file := d.read(summaryFile)
	if n := strings.Count(file, table); n != 4 {
		t.Fatalf("the table is named %d times", n)
	}
	d.exec("CREATE TABLE steps (event_id uuid PRIMARY KEY, doc uuid, kind text, message text, step text, at timestamptz)")
	d.exec(strings.ReplaceAll(strings.ReplaceAll(file, table, subselect), tableName+"_summary", "steps_summary"))
	d.exec("INSERT INTO steps SELECT gen_random_uuid(), '" + user + "', 'failed', 'page ' || i, 'extract', now() - i * interval '1 second' FROM generate_series(1, 3) AS i")
	d.table = "steps"
	s := d.summary(time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	if s.Failed != 1 || len(s.Errors) != 1 || s.Errors[0].Count != 3 || s.Errors[0].Message != "page #" || s.Stages[0].Name != "extract" {
		t.Errorf("%+v", s)
	}
}

// TestGrafana runs what sql/README.md gives for it, as its user.
func TestGrafana(t *testing.T) {
	d := newDatabase(t).migrated()
	d.run(summaryFile)
	now := time.Now().UTC()
	d.store([]stored{
		{ID: uuid.NewString(), Document: uuid.NewString(), Type: "failed", Stage: "extract", MS: 7, At: now.Add(-20 * time.Minute)},
		{ID: uuid.NewString(), Document: uuid.NewString(), Type: "completed", MS: 9, At: now.Add(-10 * time.Minute)},
	})
	blocks := d.section("## Grafana")
	role := "grafana_" + strings.ToLower(crand.Text()[:12])
	d.exec(strings.ReplaceAll(blocks[0], "grafana", role)) // a role is the whole server's
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
		t.Errorf("the series: %q", series)
	}
	wantLines(t, "the stages", ask(2), `("whole document",1,0,9,9,9)`, "(extract,1,1,7,7,7)")
	if minutes := ask(3); len(minutes) != 1 || !strings.HasPrefix(minutes[0], "(10.") {
		t.Errorf("minutes since the last success: %q", minutes)
	}
}

// TestSummaryByREST is a program's way to it, and to a document's timeline.
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

		_, err := client.Summary(t.Context(), start, start.Add(time.Hour))
		if err == nil || !strings.Contains(err.Error(), "create the function: run sql/"+summaryFile) {
			t.Errorf("without the function: %v", err)
		}
		d.run(summaryFile)
		d.reload()
		s, err := client.Summary(t.Context(), start, start.Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if s.Documents != 2 || s.Failed != 1 || s.UnderWay != 1 || len(s.Errors) != 1 || s.Errors[0].Count != 1100 || s.Stages[0].P95 != time.Second {
			t.Errorf("%+v", s)
		}

		events, err := client.Timeline(t.Context(), uuid.Max.String())
		if !errors.Is(err, docevents.ErrTruncated) || len(events) != 1000 {
			t.Fatalf("%d of 1,100 events: %v", len(events), err)
		}
		for i, e := range events {
			if e.ErrorMessage != want[i].ErrorMessage || !e.CreatedAt.Equal(want[i].CreatedAt) {
				t.Fatalf("event %d: %+v, want %+v", i, e, want[i])
			}
		}
		if events, err = client.Timeline(t.Context(), uuid.Nil.String()); err != nil || len(events) != 1 || events[0].Type != docevents.UploadStarted {
			t.Errorf("%+v, %v", events, err)
		}
		if events, err = client.Timeline(t.Context(), user); err != nil || len(events) != 0 {
			t.Errorf("of no document: %+v, %v", events, err)
		}
	})
}

var summaryRows = flag.Int("summary-rows", 100_000, "rows in the range of BenchmarkSummary")

// BenchmarkSummary compares the function with its sections asked one by one, as
// queries.sql does: it should take no more than 1.5 times the slowest of them.
func BenchmarkSummary(b *testing.B) {
	d := newDatabase(b).migrated()
	d.run(summaryFile)
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
	asked := []string{"SELECT document_processing_events_summary(now() - interval '1 day', now())"}
	for _, query := range queries[2:] {
		query = strings.ReplaceAll(query, "date_trunc('day', now(), 'UTC')", "now()")
		asked = append(asked, regexp.MustCompile(`(- interval '[^']*')( -- (so many|the time looked at))`).ReplaceAllString(query, "- interval '1 day'$2"))
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
