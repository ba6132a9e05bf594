package docevents_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
)

// onDisk returns the size of the segments in dir, in bytes.
func onDisk(t *testing.T, dir string) (size int64) {
	t.Helper()
	for _, name := range segments(t, dir) {
		if info, err := os.Stat(name); err == nil { // the file may have been removed
			size += info.Size()
		}
	}
	return size
}

// An outage is a server that is down until set or end is called.
type outage struct {
	server
	mu sync.Mutex
	up bool
}

func newOutage(latency time.Duration) *outage {
	o := &outage{}
	o.answer = func(*request) *answer {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.up {
			return &answer{delay: latency, stored: true}
		}
		return away(nil)
	}
	return o
}

func (o *outage) set(up bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.up = up
}

func (o *outage) end() { o.set(true) }

// TestReplayByShortProcesses runs jobs that record one event and end. Close must replay
// the rows that earlier jobs left.
func TestReplayByShortProcesses(t *testing.T) {
	for _, latency := range []time.Duration{0, time.Second} {
		t.Run(fmt.Sprint("an answer takes ", latency), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const left = 2500
				dir := t.TempDir()
				leaveRows(t, dir, left, "left")
				db := newOutage(latency)
				db.end()
				for run := range 3 {
					c, _ := newClient(t, db, docevents.WithSpool(dir))
					c.Record(event(fmt.Sprint("run", run)))
					if err := closeIn(t, c, 10*time.Second); err != nil {
						t.Errorf("run %d: %v", run, err)
					}
					checkStats(t, c, nil)
				}
				if got := len(db.stages()); got != left+3 {
					t.Errorf("got %d of %d events stored", got, left+3)
				}
				checkNoSegments(t, dir)
			})
		})
	}
}

// TestReplayDoesNotMultiply lets 20 processes end, one after the other, in an outage.
// Each row must still be on disk only once, also if its file has been read only in part.
func TestReplayDoesNotMultiply(t *testing.T) {
	for _, long := range []bool{false, true} {
		t.Run(fmt.Sprint("long-lived processes: ", long), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const processes, rows = 20, 50
				dir := t.TempDir()
				limits := docevents.WithQueueLimits(400, 1<<20) // replays stop in the middle of files
				for n := range processes {
					c, _ := newClient(t, &server{answer: away}, docevents.WithSpool(dir), limits)
					if long {
						time.Sleep(time.Minute)
					}
					for i := range rows {
						c.Record(event(fmt.Sprint(n, ".", i)))
					}
					c.Close(closed(t))
					if st := c.Stats(); st.Kept != st.Recorded+st.Replayed {
						t.Fatalf("got %+v, want all kept", st)
					}
				}
				db, c, _ := replay(t, dir)
				if got, stored := c.Stats().Replayed, len(db.stages()); got != processes*rows || stored != processes*rows {
					t.Errorf("got %d rows replayed, %d stored, want %d", got, stored, processes*rows)
				}
			})
		})
	}
}

// TestReplayWhileRunning checks that a client replays rows of a process that dies
// after the client has started.
func TestReplayWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		db := newOutage(0)
		old, _ := newClient(t, db, docevents.WithSpool(dir))
		for i := range 100 {
			old.Record(event(fmt.Sprint("old ", i)))
		}
		time.Sleep(time.Second)
		next, _ := newClient(t, db, docevents.WithSpool(dir))
		time.Sleep(time.Second)
		if err := closeIn(t, old, 5*time.Second); err != nil || old.Stats().Kept != 100 {
			t.Fatal(err, old.Stats())
		}
		db.end()
		for hour := range 24 {
			next.Record(event(fmt.Sprint("new ", hour)))
			time.Sleep(time.Hour)
		}
		if s := next.Stats(); s.Replayed != 100 || s.Delivered != 124 || len(segments(t, dir)) > 0 {
			t.Errorf("got %+v, %d files left, want 100 events replayed", s, len(segments(t, dir)))
		}
		closeIn(t, next, 5*time.Second)
	})
}

// TestIdleSpool checks that a client with nothing to do doesn't use the disk, even if
// there are rows to replay.
func TestIdleSpool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		files := &faultyFiles{}
		c, _ := newClient(t, &server{}, docevents.WithSpool(dir), docevents.WithSpoolFiles(files))
		c.Record(event("one"))
		synctest.Wait()
		leaveRows(t, dir, 1, "left")
		before := files.count()
		time.Sleep(time.Hour)
		if got := files.count(); got != before {
			t.Errorf("got %d uses of the disk in an idle hour", got-before)
		}
		c.Close(t.Context())
		if got := c.Stats(); got.Replayed != 1 {
			t.Errorf("got %+v, want Close to replay the row", got)
		}
	})
}

const mib = 1 << 20

// bigEvent returns an event of a little more than 1,000 bytes.
func bigEvent(stage string) docevents.Event {
	e := event(stage)
	e.ErrorMessage = strings.Repeat("m", 1000)
	return e
}

// TestSpoolIsBoundedInACrashLoop checks that the files stay small if processes end again
// and again. Then the newest events are in memory alone, and the oldest ones on disk.
func TestSpoolIsBoundedInACrashLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := docevents.WithQueueLimits(100_000, mib)
		dir := t.TempDir()
		leaveRows(t, dir, 10, "oldest", limits)
		var o *observer
		var c *docevents.Client
		for range 12 {
			c, o = newClient(t, &server{answer: away}, docevents.WithSpool(dir), limits)
			synctest.Wait()
			for i := range 2000 { // more than the queue can hold
				c.Record(bigEvent(fmt.Sprint(i)))
			}
			c.Close(closed(t)) // leaves the files on disk, as a kill would
			checkStats(t, c, nil)
		}
		if got := onDisk(t, dir); got > 2*mib+mib/4 {
			t.Errorf("got %.1f times the queue's limit, want 2", float64(got)/mib)
		}
		if got := linesWith(o, "the spool is full"); len(got) == 0 || len(got) > 2 { // the second line has the count of repeats
			t.Errorf("got %q, want a line about the bound", got)
		}
		if c.Stats().Dropped.Abandoned == 0 {
			t.Errorf("got %+v, want the newest events in memory alone", c.Stats())
		}
		db := &server{}
		next, _ := newClient(t, db, docevents.WithSpool(dir), limits)
		time.Sleep(time.Hour)
		next.Close(t.Context())
		if stored := db.stages(); stored["oldest0"] != 1 || stored["oldest9"] != 1 {
			t.Error("the oldest events are not stored")
		}
		checkNoSegments(t, dir)
	})
}

func TestSpoolIsBoundedOnASlowDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 4 * mib
		dir := t.TempDir()
		files := &faultyFiles{fault: func(_ int, use string) error {
			if use == "write" {
				time.Sleep(120 * time.Millisecond) // at most 8 MiB per second
			}
			return nil
		}}
		db := &server{discard: true, answer: func(*request) *answer { return &answer{delay: 400 * time.Millisecond} }}
		c, _ := newClient(t, db, docevents.WithSpool(dir), docevents.WithSpoolFiles(files), docevents.WithQueueLimits(100_000, limit))
		e := event("ocr")
		e.ErrorMessage = strings.Repeat("m", 10_000)
		most := int64(0)
		for i := range 400 {
			for n := 0; n < 400 && c.Stats().PendingBytes < limit-20_000; n++ { // the queue stays full
				c.Record(e)
			}
			time.Sleep(10 * time.Millisecond)
			if i%10 == 0 {
				most = max(most, onDisk(t, dir))
			}
		}
		if most > 5*limit {
			t.Errorf("got %.1f times the queue's limit on disk, want about 4", float64(most)/limit)
		}
		c.Close(closed(t))
		checkStats(t, c, nil)
	})
}

// TestRowsThatWaitDoNotGrowTheSpool checks that the files stay small if a few rows wait
// for their documents while many others are stored.
func TestRowsThatWaitDoNotGrowTheSpool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := docevents.WithQueueLimits(100_000, mib)
		dir := t.TempDir()
		early := regexp.MustCompile(`0198a5e2-[0-9a-f-]*`)
		db := &server{discard: true, answer: func(r *request) *answer { // refuses rows whose documents come later
			for _, row := range r.rows {
				if id := early.FindString(row.DocumentID); id != "" {
					return &answer{status: 409, code: "23503", details: "Key (document_id)=(" + id + ") is not present in table \"documents\"."}
				}
			}
			return nil
		}}
		c, _ := newClient(t, db, docevents.WithSpool(dir), limits)
		most := int64(0)
		for i := range 10_000 {
			if i%1000 == 500 {
				e := event("early")
				e.DocumentID = fmt.Sprintf("0198a5e2-0000-7000-8000-%012d", i)
				c.Record(e)
			}
			c.Record(bigEvent("big"))
			if i%100 == 99 {
				time.Sleep(10 * time.Millisecond)
				most = max(most, onDisk(t, dir))
			}
		}
		if got := c.Stats(); got.Dropped.Total() > 0 || got.Pending == 0 {
			t.Errorf("got %+v, want rows that wait", got)
		}
		if most > 2*mib {
			t.Errorf("got %.1f times the queue's limit on disk, want 2", float64(most)/mib)
		}
		c.Close(closed(t))
		kept := c.Stats().Kept
		if kept == 0 || kept > 10 {
			t.Errorf("got %+v, want the rows that waited kept", c.Stats())
		}
		after, _, _ := replay(t, dir, limits)
		if got := after.stages()["early"]; int64(got) != kept {
			t.Errorf("got %d of %d rows that waited", got, kept)
		}
	})
}

// TestSpoolOfARelativeFolder checks that a relative path is resolved once, by
// WithSpool.
func TestSpoolOfARelativeFolder(t *testing.T) {
	home, other := t.TempDir(), t.TempDir()
	t.Chdir(home)
	synctest.Test(t, func(t *testing.T) {
		c, _ := newClient(t, &server{answer: away}, docevents.WithSpool("spool"))
		c.Record(event("before"))
		synctest.Wait()
		t.Chdir(other)
		c.Record(event("after"))
		if err := c.Close(closed(t)); err != nil {
			t.Error(err)
		}
		checkStats(t, c, &docevents.Stats{Recorded: 2, Kept: 2})
		if _, err := os.Stat(filepath.Join(other, "spool")); err == nil {
			t.Error("there is a second folder")
		}
		if db, _, _ := replay(t, filepath.Join(home, "spool")); len(db.rows) != 2 {
			t.Errorf("got %v", db.stages())
		}
	})
}

// TestReplayUnderOtherColumns checks that a value goes to its field's new column, or to
// the column of the same name. If there is neither, the row stays in its file.
func TestReplayUnderOtherColumns(t *testing.T) {
	full := event("ocr")
	full.Duration = 1500 * time.Millisecond
	full.ErrorMessage = "boom"
	with := func(extra map[string]any) docevents.Event {
		e := event("ocr")
		e.Extra = extra
		return e
	}
	without := func(e docevents.Event) docevents.Event {
		e.DocumentID = ""
		return e
	}
	type cols = docevents.Columns
	for name, test := range map[string]struct {
		before, after cols
		event         docevents.Event
		want          map[string]string // the columns as JSON; nil means that the row is kept
	}{
		"document ids move to Extra":            {cols{DocumentID: "doc"}, cols{DocumentID: "-", Extra: []string{"doc"}}, full, map[string]string{"doc": `"` + testDocument + `"`, "error_message": `"boom"`}},
		"document ids move from Extra":          {cols{DocumentID: "-", Extra: []string{"document_id"}}, cols{}, without(with(map[string]any{"document_id": testDocument})), map[string]string{"document_id": `"` + testDocument + `"`}},
		"text ids don't fit into a uuid column": {cols{DocumentID: "-", Extra: []string{"document_id"}}, cols{}, without(with(map[string]any{"document_id": "INV-7"})), nil},
		"the duration moves":                    {cols{}, cols{Duration: "-", Extra: []string{"duration_ms"}}, full, map[string]string{"duration_ms": "1500", "stage": `"ocr"`}},
		"the message and stage move":            {cols{}, cols{ErrorMessage: "-", Stage: "-", Extra: []string{"stage", "error_message"}}, full, map[string]string{"error_message": `"boom"`, "stage": `"ocr"`}},
		"columns are renamed":                   {cols{}, cols{ID: "event", DocumentID: "doc", Stage: "step"}, full, map[string]string{"doc": `"` + testDocument + `"`, "step": `"ocr"`}},
		"a column is gone":                      {cols{}, cols{Stage: "-"}, full, nil},
		"a column that was empty is gone":       {cols{}, cols{Duration: "-", ErrorMessage: "-"}, event("ocr"), map[string]string{"stage": `"ocr"`}},
		"an Extra column is gone":               {cols{Extra: []string{"tenant"}}, cols{}, with(map[string]any{"tenant": 7}), nil},
		"an Extra column that was NULL is gone": {cols{Extra: []string{"tenant"}}, cols{}, with(map[string]any{"tenant": nil}), map[string]string{"stage": `"ocr"`}},
		"an Extra column is new":                {cols{Extra: []string{"tenant"}}, cols{Extra: []string{"tenant", "region"}}, with(map[string]any{"tenant": int64(9007199254740993)}), map[string]string{"tenant": "9007199254740993"}},
		"a column is new":                       {cols{DocumentID: "-"}, cols{}, without(event("ocr")), map[string]string{"document_id": "null"}},
		"ids are text now":                      {cols{}, cols{TextIDs: true}, full, map[string]string{"document_id": `"` + testDocument + `"`}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				before, _ := newClient(t, &server{answer: away}, docevents.WithSpool(dir), docevents.WithColumns(test.before))
				before.Record(test.event)
				before.Close(closed(t))
				checkStats(t, before, &docevents.Stats{Recorded: 1, Kept: 1})
				var rows []map[string]json.RawMessage
				var query string
				after, o := newClient(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
					query = req.URL.RawQuery
					if err := json.NewDecoder(req.Body).Decode(&rows); err != nil {
						t.Error(err)
					}
					lacks := len(rows[0]) < 1+strings.Count(req.URL.Query().Get("columns"), ",")
					if lacks && !slices.Contains(req.Header.Values("Prefer"), "missing=default") {
						t.Error("a column without a value doesn't get its default")
					}
					return (&answer{}).response(req), nil
				}), docevents.WithSpool(dir), docevents.WithColumns(test.after))
				time.Sleep(time.Second)
				after.Close(t.Context())
				if test.want == nil {
					checkStats(t, after, &docevents.Stats{})
					if got := segments(t, dir); len(got) != 1 || len(linesWith(o, "WithColumns has no column")) != 1 {
						t.Errorf("got files %q, %v, want the row kept, and a line", got, o.logged())
					}
					return
				}
				checkStats(t, after, &docevents.Stats{Replayed: 1, Delivered: 1})
				if len(rows) != 1 || len(segments(t, dir)) > 0 {
					t.Fatalf("got %v, %d files left", rows, len(segments(t, dir)))
				}
				for column, want := range test.want {
					if got := string(rows[0][column]); got != want || !strings.Contains(query, column) {
						t.Errorf("%s: got %s with %s, want %s", column, got, query, want)
					}
				}
			})
		})
	}
}

// TestRowsWithoutColumnsStayOnDisk checks that the other rows of their file are stored,
// and that the log tells how to replay the rows that stay.
func TestRowsWithoutColumnsStayOnDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		extra := docevents.WithColumns(docevents.Columns{Extra: []string{"tenant"}})
		before, _ := newClient(t, &server{answer: away}, docevents.WithSpool(dir), extra)
		for i := range 100 {
			e := event(fmt.Sprint(i))
			if i%2 == 0 {
				e.Extra = map[string]any{"tenant": i}
			}
			before.Record(e)
		}
		before.Close(closed(t))
		db, after, o := replay(t, dir)
		checkStats(t, after, &docevents.Stats{Replayed: 50, Delivered: 50})
		if got := linesWith(o, "WithColumns has no column"); len(got) != 1 {
			t.Errorf("got %q, want one line", got)
		}
		kept := segments(t, dir)
		if len(kept) != 1 || filepath.Ext(kept[0]) != ".kept" {
			t.Fatalf("got %q", kept)
		}
		if err := os.Rename(kept[0], strings.TrimSuffix(kept[0], ".kept")); err != nil { // as the log line advises
			t.Fatal(err)
		}
		again, _, _ := replay(t, dir, extra)
		if maps.Copy(db.rows, again.rows); len(db.rows) != 100 {
			t.Errorf("got %d of 100 events", len(db.rows))
		}
		checkNoSegments(t, dir)
	})
}
