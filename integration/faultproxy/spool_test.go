package faultproxy_test

import (
	"bufio"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/integration/faultproxy"
	"github.com/docevents/docevents-go/integration/internal/observe"
)

// recorderEnv makes the test binary a process that records events until it is
// killed. Its value holds the URL, key, table, spool folder, document and a prefix
// of the events' stage.
const recorderEnv = "DOCEVENTS_TEST_RECORDER"

// recordUntilKilled records events if recorderEnv is set. After each Record, it
// prints the event's stage and the time.
func recordUntilKilled() {
	args := strings.Fields(os.Getenv(recorderEnv))
	if len(args) == 0 {
		return
	}
	c, err := docevents.New(args[0], args[1], docevents.WithTable(args[2]), docevents.WithSpool(args[3]), docevents.WithSlog(slog.New(slog.DiscardHandler)))
	if err != nil {
		panic(err)
	}
	for i := 0; ; i++ {
		stage := fmt.Sprintf("%s.%d", args[5], i)
		c.Record(docevents.Event{DocumentID: args[4], UserID: docevents.SystemUser, Type: docevents.Completed, Stage: stage})
		fmt.Println(stage, time.Now().UnixNano())
		if i%100 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
}

// killed runs a recorder, kills it after some time, and returns the stages of the
// events recorded at least 50 ms before the kill. A gap between two events counts as
// 5 ms at most, because the recorder may have been waiting for a processor.
func (b *bench) killed(dir, name string, after time.Duration) (recorded []string) {
	b.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), strings.Join([]string{recorderEnv + "=" + b.proxy.URL, b.stack.ServiceRoleKey, b.table, dir, b.document, name}, " "))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.t.Fatal(err)
	}
	var at atomic.Int64            // the time of the kill
	kill := sync.OnceFunc(func() { // called after the first event
		timer := time.AfterFunc(after, func() {
			at.Store(time.Now().UnixNano())
			cmd.Process.Kill()
		})
		b.t.Cleanup(func() { timer.Stop() })
	})
	var times []int64
	for lines := bufio.NewScanner(out); lines.Scan(); kill() {
		stage, then, _ := strings.Cut(lines.Text(), " ")
		if n, err := strconv.ParseInt(then, 10, 64); err == nil && len(then) == 19 { // otherwise the kill cut the line short
			recorded, times = append(recorded, stage), append(times, n)
		}
	}
	cmd.Wait()
	n, ran := len(times), time.Duration(0)
	for next := at.Load(); n > 0 && ran < 50*time.Millisecond; n-- {
		ran += min(time.Duration(next-times[n-1]), 5*time.Millisecond)
		next = times[n-1]
	}
	return recorded[:n]
}

// TestSpoolKilled kills processes while the server is up, slow or down. After the next
// start, the events recorded at least 50 ms before a kill must be stored. No event may
// be stored twice.
func TestSpoolKilled(t *testing.T) {
	rounds := 51
	if testing.Short() {
		rounds = 6
	}
	dir := t.TempDir()
	s := newFixture(t)
	b := s.open(t)
	b.client.Close(t.Context())
	var want []string
	for round := range rounds {
		switch round % 3 {
		case 0: // the server is up
			b.proxy.Deal(faultproxy.Pass)
		case 1: // the server's answers are slow
			b.proxy.Deal(faultproxy.Always(faultproxy.Fault{Pace: time.Millisecond}))
		case 2: // the server is down
			if err := b.proxy.Refuse(); err != nil {
				t.Fatal(err)
			}
		}
		want = append(want, b.killed(dir, fmt.Sprint(round), 60*time.Millisecond+rand.N(200*time.Millisecond))...)
		if round%3 == 2 {
			if err := b.proxy.Accept(); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.proxy.Deal(faultproxy.Pass)
	last := s.through(t, b.proxy, docevents.WithSpool(dir))
	observe.Await(t, "everything is replayed", func() bool {
		left, _ := filepath.Glob(filepath.Join(dir, "*.seg"))
		return len(left) == 0 && last.client.Stats().Pending == 0
	})
	last.client.Close(t.Context())
	if st := last.client.Stats(); st.Replayed == 0 || st.Replayed != st.Delivered {
		t.Errorf("got %+v, want all replayed events delivered", st)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*[^d]")); len(left) > 0 { // all but .bad files
		t.Errorf("got %q left in the folder", left)
	}
	stored := map[string]int{}
	rows, err := s.stack.Pool().Query(t.Context(), "SELECT stage FROM "+s.table+" WHERE document_id = $1", b.document)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var stage string
		if err := rows.Scan(&stage); err != nil {
			t.Fatal(err)
		}
		stored[stage]++
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	missing, twice := 0, 0
	for _, stage := range want {
		if stored[stage] == 0 {
			missing++
		}
	}
	for _, n := range stored {
		if n > 1 {
			twice++
		}
	}
	t.Logf("%d rounds, %d events, %d of them at least 50 ms old, %d replayed by the last client", rounds, len(stored), len(want), last.client.Stats().Replayed)
	if missing > 0 || twice > 0 || len(want) == 0 {
		t.Errorf("of %d events %d are missing, %d are stored twice", len(want), missing, twice)
	}
}
