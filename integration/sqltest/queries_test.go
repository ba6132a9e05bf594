package sqltest

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/docevents/docevents-go"
)

// longAgo is before every row of these tests.
var longAgo = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// queries returns the six queries of queries.sql and their questions.
func (d *db) queries() (questions, queries []string) {
	d.t.Helper()
	parts := regexp.MustCompile(`(?m)^-- (\d\. .*\?)$`).Split(d.read("optional/queries.sql"), -1)
	for _, match := range regexp.MustCompile(`(?m)^-- (\d\. .*\?)$`).FindAllStringSubmatch(d.read("optional/queries.sql"), -1) {
		questions = append(questions, match[1])
	}
	if len(questions) != 6 {
		d.t.Fatalf("%d questions: %q", len(questions), questions)
	}
	for i, query := range parts[1:] {
		if query = strings.TrimSpace(query); strings.Count(query, ";") != 1 || !strings.HasSuffix(query, ";") {
			d.t.Fatalf("query %d is not one statement", i+1)
		}
		queries = append(queries, query)
	}
	return questions, queries
}

// ask runs a query and returns its rows, with the values separated by bars.
func (d *db) ask(query string) []string {
	d.t.Helper()
	query = "SELECT replace(trim(both '()' from q::text), ',', '|') FROM (" + strings.TrimSuffix(query, ";") + ") AS q"
	return d.texts(query)
}

const day = 24 * time.Hour

// A cast records the events of the documents in TestQueries. The id of a document repeats
// one digit.
type cast struct {
	documents [12]string
	now, noon time.Time
	first     time.Time // the start of query 3's range
}

func (c *cast) ago(d time.Duration) time.Time { return c.now.Add(-d) }

// record records the events of the documents.
func (d *db) record() *cast {
	d.t.Helper()
	now := time.Now().UTC()
	c := &cast{now: now, noon: now.Truncate(day).Add(day / 2), first: now.Truncate(day).Add(-13 * day)}
	for i := range c.documents {
		c.documents[i] = strings.ReplaceAll(uuid.Nil.String(), "0", string("0123456789ab"[i]))
	}
	client := d.client()
	record := func(document int, typ docevents.EventType, at time.Time, stage string, took time.Duration, message string) {
		client.Record(docevents.Event{
			DocumentID: c.documents[document], UserID: user, Type: typ, CreatedAt: at,
			Stage: stage, Duration: took, ErrorMessage: message,
		})
	}

	// Documents 0 and 1 complete. 2 fails, is retried and completes.
	for i := range 2 {
		at := c.noon.Add(-3 * day)
		record(i, docevents.UploadStarted, at, "", 0, "")
		record(i, docevents.ProcessingStarted, at.Add(time.Second), "extract", 0, "")
		record(i, docevents.Completed, at.Add(3*time.Second), "extract", time.Duration(1+i)*time.Second, "")
	}
	record(2, docevents.ProcessingStarted, c.noon.Add(-2*day), "extract", 0, "")
	record(2, docevents.Failed, c.noon.Add(-2*day+time.Second), "extract", 9*time.Second, "page 3: too small")
	record(2, docevents.ProcessingStarted, c.noon.Add(-2*day+time.Minute), "extract", 0, "")
	record(2, docevents.Completed, c.noon.Add(-2*day+2*time.Minute), "summarize", 5*time.Second, "")
	// 3 and 4 failed within the hour with the same error, 5 with another. 6 failed
	// before that.
	record(3, docevents.Failed, c.ago(10*time.Minute), "extract", 0, "page 7 of "+c.documents[3]+": too small")
	record(4, docevents.Failed, c.ago(5*time.Minute), "extract", 0, "page 12 of "+c.documents[4]+": too small")
	record(5, docevents.Failed, c.ago(time.Minute), "summarize", 0, "out of memory")
	record(6, docevents.Failed, c.ago(90*time.Minute), "extract", 0, "page 9: too small")
	// 7 hangs. 8 starts again and again. 9 started 10 minutes ago. 1 starts again
	// and completes at the same time.
	record(7, docevents.UploadStarted, c.ago(3*time.Hour), "", 0, "")
	record(7, docevents.ProcessingStarted, c.ago(2*time.Hour), "ocr", 0, "")
	record(8, docevents.ProcessingStarted, c.ago(70*time.Minute), "extract", 0, "")
	record(8, docevents.ProcessingStarted, c.ago(40*time.Minute), "extract", 0, "")
	record(8, docevents.ProcessingStarted, c.ago(5*time.Minute), "extract", 0, "")
	record(9, docevents.ProcessingStarted, c.ago(10*time.Minute), "extract", 0, "")
	record(1, docevents.ProcessingStarted, c.ago(45*time.Minute), "extract", 0, "")
	record(1, docevents.Completed, c.ago(45*time.Minute), "extract", 3*time.Second, "")
	// 10 is at the start of query 3's range, and 11 is just before it.
	record(10, docevents.Completed, c.first, "", 0, "")
	record(11, docevents.Completed, c.first.Add(-time.Microsecond), "", 0, "")
	d.flush(client)
	return c
}

func TestQueries(t *testing.T) {
	both(t, newTable, func(t *testing.T, d *db) {
		c := d.record()
		questions, queries := d.queries()
		check := func(i int, query, columns string, want ...string) {
			t.Helper()
			query = "SELECT " + columns + " FROM (" + strings.TrimSuffix(query, ";") + ") AS asked"
			wantLines(t, questions[i-1], d.ask(query), want...)
		}
		replace := func(i int, old, change string) string {
			t.Helper()
			if !strings.Contains(queries[i-1], old) {
				t.Fatalf("query %d has no %s to change", i, old)
			}
			return strings.ReplaceAll(queries[i-1], old, change)
		}
		check(1, replace(1, c.documents[0], c.documents[2]), "event_type, stage, duration_ms, error_message IS NULL",
			"processing_started|extract||t", "failed|extract|9000|f", "processing_started|extract||t", "completed|summarize|5000|t")
		check(2, replace(2, c.documents[1], c.documents[7]), "left(document_id::text, 1), event_type, stage",
			"0|completed|extract", "7|processing_started|ocr")
		check(2, queries[1], "left(document_id::text, 1), event_type, created_at > now() - interval '1 day'", "0|completed|f", "1|completed|t")

		// The newest day is first. An event of some minutes ago may be of yesterday.
		daily := map[string][2]int{}
		count := func(at time.Time, failed int) {
			n := daily[at.Format(time.DateOnly)]
			n[failed]++
			daily[at.Format(time.DateOnly)] = n
		}
		for at, failed := range map[time.Time]int{
			c.ago(10 * time.Minute): 1, c.ago(5 * time.Minute): 1, c.ago(time.Minute): 1, c.ago(90 * time.Minute): 1, c.ago(45 * time.Minute): 0,
			c.noon.Add(-2*day + time.Minute): 0, c.noon.Add(-3 * day): 0, c.first: 0, // only a document's latest event counts
		} {
			count(at, failed)
		}
		var want []string
		for at := c.now; at.After(c.now.Add(-20 * day)); at = at.Add(-day) {
			if n, ok := daily[at.Format(time.DateOnly)]; ok {
				want = append(want, at.Format(time.DateOnly)+"|"+d.text("SELECT concat_ws('|', $1::int, $2::int, round(100.0 * $2 / ($1 + $2), 1))", n[0], n[1]))
			}
		}
		check(3, queries[2], "*", want...)

		check(4, queries[3], "*", "extract|7|4|4|2000|9000|9000", "summarize|2|1|1|5000|5000|5000")
		check(5, queries[4], "times, documents, stage, error, left(example_document::text, 1)",
			`2|2|extract|"page # of #: too small"|4`, `1|1|summarize|"out of memory"|5`)
		check(6, queries[5], "left(document_id::text, 1), starts, last_event", "7|2|processing_started", "8|3|processing_started")
	})
}

// TestQueriesUseIndexes checks the plans of the queries on a table with events of
// more than a year.
func TestQueriesUseIndexes(t *testing.T) {
	d := newDatabase(t).migrated()
	d.exec(`INSERT INTO document_processing_events (document_id, user_id, event_type, duration_ms, stage, created_at)
		SELECT md5((i / 3)::text)::uuid, gen_random_uuid(), (ARRAY['processing_started', 'completed', 'failed', 'upload_started'])[1 + i % 4],
			i % 1000, 'extract', now() - i * interval '7 minutes' FROM generate_series(1, 100000) AS i;
		ANALYZE document_processing_events`)
	questions, queries := d.queries()
	for i, query := range queries {
		rows, err := d.pool.Query(ctx(t), "EXPLAIN "+query)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		plan := strings.Join(lines, "\n")
		index := "idx_document_processing_events_created_at"
		if i < 2 {
			index = "idx_document_processing_events_document_id"
		}
		if !strings.Contains(plan, index) || strings.Contains(plan, "Seq Scan") {
			t.Errorf("%s\n%s", questions[i], plan)
		}
		d.exec(query)
	}
}
