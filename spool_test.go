package docevents_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docevents/docevents-go"
)

// away is the answer function of a server that can't be reached.
func away(*request) *answer { return &answer{err: errReset} }

// closed returns a context that has ended.
func closed(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// closeIn closes c within the given time.
func closeIn(t *testing.T, c *docevents.Client, d time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return c.Close(ctx)
}

func segments(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.seg*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// linesWith returns the log lines that contain a text.
func linesWith(o *observer, text string) (found []string) {
	for _, l := range o.logged() {
		if strings.Contains(l.text, text) {
			found = append(found, l.text)
		}
	}
	return found
}

// leaveRows leaves rows in dir, like a process whose Close has no time.
func leaveRows(t *testing.T, dir string, rows int, name string, opts ...docevents.Option) {
	t.Helper()
	c, o := newClient(t, &server{answer: away}, append(opts, docevents.WithSpool(dir))...)
	for i := range rows {
		c.Record(event(fmt.Sprint(name, i)))
	}
	if err := c.Close(closed(t)); err != nil {
		t.Fatal(err)
	}
	checkStats(t, c, &docevents.Stats{Recorded: int64(rows), Kept: int64(rows)})
	if lost := o.lost(); len(lost) > 0 {
		t.Errorf("got %d calls of the drop handler", len(lost))
	}
}

// replay runs a process that stores the rows in dir on db, in a synctest bubble.
func replay(t *testing.T, dir string, opts ...docevents.Option) (db *server, c *docevents.Client, o *observer) {
	t.Helper()
	db = &server{}
	c, o = newClient(t, db, append(opts, docevents.WithSpool(dir))...)
	synctest.Wait()
	if err := closeIn(t, c, time.Minute); err != nil {
		t.Error(err)
	}
	checkStats(t, c, nil)
	return db, c, o
}

func checkNoSegments(t *testing.T, dir string) {
	t.Helper()
	if left := segments(t, dir); len(left) > 0 {
		t.Errorf("got %q left", left)
	}
}

func TestCloseKeepsPendingRowsForTheNextProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const events = 2500
		dir := t.TempDir()
		leaveRows(t, dir, events, "left")
		db, next, _ := replay(t, dir)
		checkStats(t, next, &docevents.Stats{Replayed: events, Delivered: events})
		if len(db.rows) != events || len(db.stages()) != events {
			t.Errorf("got %d rows of %d events, want %d", len(db.rows), len(db.stages()), events)
		}
		checkNoSegments(t, dir)
	})
}

// The rows of a killed process are on disk within 50 ms, and are sent with the same ids.
func TestRowsOfAKilledProcessAreReplayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, then := t.TempDir(), filepath.Join(t.TempDir(), "then")
		db := &server{answer: func(*request) *answer { return &answer{delay: time.Hour} }} // the answer never comes
		c, _ := newClient(t, db, docevents.WithSpool(dir), docevents.WithRequestTimeout(time.Minute))
		for i := range 100 {
			c.Record(event(fmt.Sprint(i)))
		}
		time.Sleep(50 * time.Millisecond)
		if err := os.CopyFS(then, os.DirFS(dir)); err != nil { // the folder as a kill leaves it
			t.Fatal(err)
		}
		ids := map[string]string{}
		for _, row := range db.all()[0].rows {
			ids[*row.Stage] = row.ID
		}
		after, _, _ := replay(t, then)
		if got := len(after.stages()); got != 100 {
			t.Errorf("got %d events, want 100", got)
		}
		for _, row := range after.rows {
			if want := ids[*row.Stage]; want != "" && row.ID != want {
				t.Errorf("event %s: got id %s, want %s", *row.Stage, row.ID, want)
			}
		}
		c.Close(closed(t))
	})
}

func TestHalfOfTheQueueIsLeftToNewEvents(t *testing.T) {
	for name, limit := range map[string]docevents.Option{
		"events": docevents.WithQueueLimits(1000, 2<<20),
		"bytes":  docevents.WithQueueLimits(2000, 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				record := func(c *docevents.Client, events int) { // 500 have half a MiB, and 1,000 a little more than one MiB
					for i := range events {
						e := event(fmt.Sprint(i))
						e.ErrorMessage = strings.Repeat("m", 1049-300-len(e.Stage)-len(e.Type))
						c.Record(e)
					}
				}
				dir := t.TempDir()
				one, _ := newClient(t, &server{answer: away}, docevents.WithSpool(dir), limit)
				two, _ := newClient(t, &server{answer: away}, docevents.WithSpool(dir), limit)
				synctest.Wait() // both have looked for events in the folder
				for _, c := range []*docevents.Client{one, two} {
					record(c, 500)
					c.Close(closed(t))
				}
				db := newOutage(0)
				c, _ := newClient(t, db, docevents.WithSpool(dir), limit)
				synctest.Wait()
				if got := c.Stats(); got.Pending != 500 || got.Replayed != 500 {
					t.Errorf("got %+v, want half of the queue replayed", got)
				}
				record(c, 499)
				checkStats(t, c, nil)
				if got := c.Stats().Dropped.QueueFull; got > 0 {
					t.Errorf("got %d events dropped", got)
				}
				db.end()
				time.Sleep(time.Minute)
				checkStats(t, c, &docevents.Stats{Recorded: 499, Replayed: 1000, Delivered: 1499})
				c.Close(t.Context())
				checkNoSegments(t, dir)
			})
		})
	}
}

// If the spool's folder can't be used, events are stored as without a spool, and the log
// tells why at most once in 30 s.
func TestUnusableFolderIsLogged(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(dir string) error
		want    string
	}{
		"a file has its name":      {func(dir string) error { return os.WriteFile(dir, nil, 0o600) }, "not a directory"},
		"other users can write it": {func(dir string) error { return os.Chmod(dir, 0o777) }, "other users can write"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "spool")
				if name != "a file has its name" {
					leaveRows(t, dir, 1, "planted")
				}
				if err := test.prepare(dir); err != nil {
					t.Fatal(err)
				}
				c, o := newClient(t, &server{}, docevents.WithSpool(dir))
				for i := range 100 {
					c.Record(event(fmt.Sprint(i)))
					time.Sleep(time.Second)
				}
				if err := c.Close(t.Context()); err != nil {
					t.Error(err)
				}
				checkStats(t, c, &docevents.Stats{Recorded: 100, Delivered: 100})
				if got := linesWith(o, test.want); len(got) == 0 || len(got) > 4 {
					t.Errorf("got %d lines, want one in 30 s: %q", len(got), got)
				}
			})
		})
	}
}

func TestCloseReportsRowsOfARemovedFolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "new")
		c, o := newClient(t, &server{answer: away}, docevents.WithSpool(dir))
		for i := range 100 {
			c.Record(event(fmt.Sprint(i)))
		}
		synctest.Wait()
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(closed(t)); err == nil {
			t.Error("Close: nil")
		}
		checkStats(t, c, &docevents.Stats{Recorded: 100, Dropped: docevents.Drops{Abandoned: 100}})
		checkReported(t, c, o)
	})
}

func TestRowsOfAnotherTableAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		leaveRows(t, dir, 1, "other", docevents.WithTable("other"))
		leaveRows(t, dir, 1, "ours")
		db, _, o := replay(t, dir)
		if stored := db.stages(); len(stored) != 1 || stored["ours0"] != 1 {
			t.Errorf("got %v", stored)
		}
		if got := linesWith(o, "spool"); len(got) > 0 { // two tables may use one folder
			t.Errorf("got %q", got)
		}
		if left := segments(t, dir); len(left) != 1 {
			t.Errorf("got %q left", left)
		}
	})
}

func TestDamagedSegmentIsLoggedOnceAndKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		leaveRows(t, dir, 2, "")
		name := segments(t, dir)[0]
		info, err := os.Stat(name)
		if err == nil {
			err = os.Truncate(name, info.Size()-1)
		}
		if err != nil {
			t.Fatal(err)
		}
		db, _, o := replay(t, dir)
		if stored := db.stages(); len(stored) != 1 || stored["0"] != 1 {
			t.Errorf("got %v, want the row before the damage", stored)
		}
		if got := linesWith(o, "damaged"); len(got) != 1 {
			t.Errorf("got %q", got)
		}
		if left := segments(t, dir); len(left) != 1 || filepath.Ext(left[0]) != ".bad" {
			t.Errorf("got %q left", left)
		}
	})
}

// The events of an outage are stored in full requests, although they take longer to read
// than to send.
func TestReplayInFullRequests(t *testing.T) {
	const events = 20_000
	dir := t.TempDir()
	leaveRows(t, dir, events, "left")
	c, _ := newClient(t, &server{discard: true}, docevents.WithSpool(dir))
	for c.Stats().Delivered < events && t.Context().Err() == nil {
		time.Sleep(time.Millisecond)
	}
	c.Close(t.Context())
	if got := c.Stats(); got.Delivered != events || got.Requests > events/1000*5 {
		t.Errorf("got %+v, want %d delivered in full requests", got, events)
	}
}
