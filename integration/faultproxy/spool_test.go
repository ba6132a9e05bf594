package faultproxy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
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

// recordUntilKilled records events if recorderEnv is set. It prints the stage of each
// event when the event is in the spool's files or stored.
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
		var stages []string
		for n := range 100 {
			stages = append(stages, fmt.Sprintf("%s.%d.%d", args[5], i, n))
			c.Record(docevents.Event{DocumentID: args[4], UserID: docevents.SystemUser, Type: docevents.Completed, Stage: stages[n]})
		}
		for !areOnDisk(args[3], stages) && c.Stats().Pending > 0 {
			time.Sleep(time.Millisecond)
		}
		fmt.Println(strings.Join(stages[:99], "\n")) // a part of the last row may not be on disk yet
	}
}

// areOnDisk reports whether the spool's files contain events with these stages.
func areOnDisk(dir string, stages []string) bool {
	names, _ := filepath.Glob(filepath.Join(dir, "*.seg"))
	var all []byte
	for _, name := range names {
		b, _ := os.ReadFile(name) // the file may have been removed
		all = append(all, b...)
	}
	return !slices.ContainsFunc(stages, func(stage string) bool {
		return !bytes.Contains(all, []byte("\x00"+stage+"\x00")) // each text of a row ends in a NUL
	})
}

// killed runs a recorder, and kills it some time after its first line. It returns the
// stages that the recorder has printed.
func (b *bench) killed(dir, name string, after time.Duration) (printed []string) {
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
	kill := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	for lines := bufio.NewReader(out); ; {
		line, err := lines.ReadString('\n')
		if err != nil { // the kill may have cut the line short
			break
		}
		if printed = append(printed, strings.TrimSuffix(line, "\n")); len(printed) == 1 {
			kill.Reset(after)
		}
	}
	cmd.Wait()
	if len(printed) == 0 {
		b.t.Fatalf("no event of process %s gets to the disk", name)
	}
	return printed
}

// TestSpoolKilled kills processes while the server is up, slow or down. After the next
// start, all events that were on disk before a kill must be stored, none of them twice.
func TestSpoolKilled(t *testing.T) {
	rounds := 12
	if os.Getenv("DOCEVENTS_LONG_TESTS") != "" && !testing.Short() {
		rounds = 51
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
	t.Logf("%d rounds, %d events, %d of them seen on disk, %d replayed by the last client", rounds, len(stored), len(want), last.client.Stats().Replayed)
	if missing > 0 || twice > 0 {
		t.Errorf("of %d events %d are missing, %d are stored twice", len(want), missing, twice)
	}
}
