package docevents_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
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

func TestSpool(t *testing.T) {
	t.Run("Close keeps pending rows, and the next client replays them", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			const events = 2500
			dir := t.TempDir()
			c, o := newClient(t, &server{answer: away}, docevents.WithSpool(dir))
			for i := range events {
				c.Record(event(fmt.Sprint(i)))
			}
			if err := c.Close(closed(t)); err != nil {
				t.Errorf("Close: %v", err)
			}
			checkStats(t, c, &docevents.Stats{Recorded: events, Kept: events})
			if lost := o.lost(); len(lost) > 0 {
				t.Errorf("got %d calls of the drop handler", len(lost))
			}
			if len(segments(t, dir)) == 0 {
				t.Fatal("nothing is kept")
			}

			db := &server{}
			next, _ := newClient(t, db, docevents.WithSpool(dir))
			synctest.Wait()
			if err := next.Close(t.Context()); err != nil {
				t.Error(err)
			}
			checkStats(t, next, &docevents.Stats{Replayed: events, Delivered: events})
			if stored := db.stages(); len(stored) != events || slices.Max(slices.Collect(maps.Values(stored))) > 1 {
				t.Errorf("got %d of %d events, or some of them twice", len(stored), events)
			}
			if left := segments(t, dir); len(left) > 0 {
				t.Errorf("got %q left", left)
			}
		})
	})
	t.Run("the rows of a killed process are stored once, with their ids", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			dir, then := t.TempDir(), filepath.Join(t.TempDir(), "then")
			db := &server{answer: func(r *request) *answer { // the answer never comes
				return &answer{delay: time.Hour, stored: true}
			}}
			c, _ := newClient(t, db, docevents.WithSpool(dir), docevents.WithRequestTimeout(time.Minute))
			for i := range 100 {
				c.Record(event(fmt.Sprint(i)))
			}
			time.Sleep(50 * time.Millisecond)                      // until the rows are on disk
			if err := os.CopyFS(then, os.DirFS(dir)); err != nil { // the folder as a kill leaves it
				t.Fatal(err)
			}
			ids := map[string]string{}
			db.mu.Lock()
			for _, row := range db.requests[0].rows {
				ids[*row.Stage] = row.ID
			}
			db.mu.Unlock()
			after := &server{}
			next, _ := newClient(t, after, docevents.WithSpool(then))
			synctest.Wait()
			next.Close(t.Context())
			if got := after.stages(); len(got) != 100 {
				t.Errorf("got %d events, want 100", len(got))
			}
			for _, row := range after.rows {
				if want := ids[*row.Stage]; want != "" && row.ID != want {
					t.Errorf("event %s: got id %s, want %s", *row.Stage, row.ID, want)
				}
			}
			c.Close(closed(t))
		})
	})
	for name, limit := range map[string]docevents.Option{
		"events": docevents.WithQueueLimits(1000, 2<<20),
		"bytes":  docevents.WithQueueLimits(2000, 1<<20),
	} {
		t.Run("half of the queue is left to new events/"+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				big := func(stage string) docevents.Event { // 500 have half a MiB, and 1,000 a little more than one MiB
					e := event(stage)
					e.ErrorMessage = strings.Repeat("m", 1049-300-len(stage)-len(e.Type))
					return e
				}
				dir := t.TempDir()
				one, _ := newClient(t, &server{answer: away}, docevents.WithSpool(dir), limit)
				two, _ := newClient(t, &server{answer: away}, docevents.WithSpool(dir), limit)
				synctest.Wait() // both have looked for events in the folder
				for _, c := range []*docevents.Client{one, two} {
					for i := range 500 {
						c.Record(big(fmt.Sprint(i)))
					}
					c.Close(closed(t))
				}
				db := &server{answer: away}
				c, _ := newClient(t, db, docevents.WithSpool(dir), limit)
				synctest.Wait()
				if got := c.Stats(); got.Pending != 500 || got.Replayed != 500 {
					t.Errorf("got %+v, want half of the queue replayed", got)
				}
				for i := range 499 {
					c.Record(big(fmt.Sprint("new", i)))
				}
				checkStats(t, c, nil)
				if got := c.Stats().Dropped.QueueFull; got > 0 {
					t.Errorf("got %d events dropped", got)
				}
				db.mu.Lock()
				db.answer = nil
				db.mu.Unlock()
				time.Sleep(time.Minute)
				if got := c.Stats(); got.Delivered != got.Recorded+got.Replayed || got.Replayed != 1000 {
					t.Errorf("got %+v, want all delivered", got)
				}
				c.Close(t.Context())
				if left := segments(t, dir); len(left) > 0 {
					t.Errorf("got %q left", left)
				}
			})
		})
	}
	t.Run("a folder that can't be made is logged", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(dir, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			db := &server{}
			c, o := newClient(t, db, docevents.WithSpool(dir))
			for i := range 100 {
				c.Record(event(fmt.Sprint(i)))
				time.Sleep(time.Second)
			}
			if err := c.Close(t.Context()); err != nil {
				t.Error(err)
			}
			checkStats(t, c, &docevents.Stats{Recorded: 100, Delivered: 100})
			if got := linesWith(o, "spool"); len(got) == 0 || len(got) > 4 {
				t.Errorf("got %d lines, want one in 30 s: %q", len(got), got)
			}
		})
	})
	t.Run("a folder that others can write to is refused with a log line", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			planted, _ := newClient(t, &server{answer: away}, docevents.WithSpool(dir))
			planted.Record(event("planted"))
			planted.Close(closed(t))
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			db := &server{}
			c, o := newClient(t, db, docevents.WithSpool(dir))
			c.Record(event("ours"))
			time.Sleep(time.Second)
			if err := c.Close(t.Context()); err != nil {
				t.Error(err)
			}
			checkStats(t, c, &docevents.Stats{Recorded: 1, Delivered: 1})
			if got := linesWith(o, "other users can write"); len(got) != 1 {
				t.Errorf("got %q", got)
			}
		})
	})
	t.Run("a folder that is removed keeps nothing", func(t *testing.T) {
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
				t.Error("want to hear of what is lost")
			}
			checkStats(t, c, &docevents.Stats{Recorded: 100, Dropped: docevents.Drops{Abandoned: 100}})
			if lost := o.lost(); len(lost) != 100 {
				t.Errorf("got %d calls of the drop handler", len(lost))
			}
		})
	})
	t.Run("rows of another table are left alone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			other, _ := newClient(t, &server{answer: away}, docevents.WithSpool(dir), docevents.WithTable("other"))
			other.Record(event("not ours"))
			other.Close(closed(t))
			db := &server{}
			c, o := newClient(t, db, docevents.WithSpool(dir))
			c.Record(event("ours"))
			synctest.Wait()
			c.Close(t.Context())
			if got := db.stages(); got["not ours"] > 0 || got["ours"] != 1 {
				t.Errorf("got %v", got)
			}
			if got := linesWith(o, "spool"); len(got) > 0 { // two tables may use one folder
				t.Errorf("got %q", got)
			}
			if left := segments(t, dir); len(left) != 1 {
				t.Errorf("got %q left", left)
			}
		})
	})
	t.Run("a damaged segment is logged once and kept as .bad", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			dead, _ := newClient(t, &server{answer: away}, docevents.WithSpool(dir))
			dead.Record(event("whole"))
			synctest.Wait()
			dead.Record(event("torn"))
			dead.Close(closed(t))
			name := segments(t, dir)[0]
			info, err := os.Stat(name)
			if err == nil {
				err = os.Truncate(name, info.Size()-1)
			}
			if err != nil {
				t.Fatal(err)
			}
			db := &server{}
			c, o := newClient(t, db, docevents.WithSpool(dir))
			synctest.Wait()
			c.Close(t.Context())
			if got := db.stages(); got["whole"] != 1 || got["torn"] > 0 {
				t.Errorf("got %v", got)
			}
			if got := linesWith(o, "damaged"); len(got) != 1 {
				t.Errorf("got %q", got)
			}
			if left := segments(t, dir); len(left) != 1 || filepath.Ext(left[0]) != ".bad" {
				t.Errorf("got %q left", left)
			}
		})
	})
	t.Run("100,000 events of an outage are stored in full requests", func(t *testing.T) {
		const events = 100_000
		dir := t.TempDir()
		leaveRows(t, dir, events, "left")
		c, _ := newClient(t, &server{discard: true}, docevents.WithSpool(dir))
		for c.Stats().Delivered < events && t.Context().Err() == nil {
			time.Sleep(time.Millisecond)
		}
		c.Close(t.Context())
		if got := c.Stats(); got.Delivered != events || got.Requests > events/1000*5 { // reading takes longer than sending
			t.Errorf("got %+v, want %d delivered in full requests", got, events)
		}
	})
}
