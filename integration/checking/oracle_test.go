// Package checking runs Check on many kinds of tables, and then compares its findings
// with the answers to real inserts and deletes.
package checking

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/integration/localstack"
)

func TestMain(m *testing.M) { localstack.Main(m) }

var (
	pairs = flag.Int("pairs", 25, "number of random pairs of quirks")
	seed  = flag.Uint64("seed", 1, "random seed of the pairs")
)

// A subject is a table with quirks, and a client that is configured for it.
type subject struct {
	name   string
	quirks []quirk
	stack  *localstack.Stack
	client *docevents.Client
	types  []docevents.EventType
	id     string
}

// TestOracle sends events to each table, as an app that suits the table would. If the
// table stores each event once and its rows can be deleted, Check must return nil.
// Otherwise Check must return an error. For quirks that are marked as hidden, nil is
// right as well, because Check can't detect their faults.
func TestOracle(t *testing.T) {
	stack := localstack.Shared(t)
	if !stack.Ours() {
		t.Skip("the test creates types and grants rights to roles")
	}
	random := mathrand.New(mathrand.NewPCG(*seed, 0))
	var sets [][]quirk
	for _, q := range quirks {
		sets = append(sets, []quirk{q})
	}
	for len(sets) < len(quirks)+*pairs {
		a, b := quirks[random.IntN(len(quirks))], quirks[random.IntN(len(quirks))]
		if a.name != b.name && (a.about == "" || a.about != b.about) {
			sets = append(sets, []quirk{a, b})
		}
	}
	exec(t, stack, parents)
	var subjects []*subject
	for _, set := range sets {
		if s := create(t, stack, set); s != nil {
			subjects = append(subjects, s)
		}
	}
	if err := stack.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	alarms, clears, stopped := 0, 0, 0
	t.Run("tables", func(t *testing.T) {
		for _, s := range subjects {
			t.Run(strings.ReplaceAll(s.title(), " ", "_"), func(t *testing.T) {
				t.Parallel()
				check := s.client.Check(t.Context())
				left := s.count(t)
				fault := s.store(t)
				hidden := slices.ContainsFunc(s.quirks, func(q quirk) bool { return q.hidden })
				mu.Lock()
				defer mu.Unlock()
				switch {
				case left > 0:
					t.Errorf("Check leaves %d rows", left)
				case check != nil && fault == nil:
					alarms++
					t.Errorf("false alarm: %v", check)
				case check == nil && fault != nil && hidden:
					stopped++
				case check == nil && fault != nil:
					clears++
					t.Errorf("false all-clear: %v", fault)
				}
			})
		}
	})
	t.Logf("%d tables: %d false alarms, %d false all-clears, %d faults that Check can't detect", len(subjects), alarms, clears, stopped)
	drop(t, stack, subjects)
}

func (s *subject) title() string {
	var names []string
	for _, q := range s.quirks {
		names = append(names, q.name)
	}
	return strings.Join(names, " + ")
}

func exec(t *testing.T, stack *localstack.Stack, sql string) {
	t.Helper()
	if _, err := stack.Pool().Exec(context.WithoutCancel(t.Context()), sql); err != nil {
		t.Fatalf("%v: %s", err, sql)
	}
}

// create creates the table. It returns nil if PostgreSQL can't combine both quirks.
func create(t *testing.T, stack *localstack.Stack, set []quirk) *subject {
	t.Helper()
	s := &subject{name: "check_" + strings.ToLower(rand.Text()[:10]), quirks: set, stack: stack, id: "id"}
	ddl, columns, own := table, docevents.Columns{}, false
	types := docevents.EventTypes{}
	for _, q := range set {
		if q.table != "" {
			ddl = q.table
		}
		columns.Extra = append(columns.Extra, q.columns.Extra...)
		columns.TextIDs = columns.TextIDs || q.columns.TextIDs
		for mine, theirs := range map[*string]string{&columns.ID: q.columns.ID, &columns.UserID: q.columns.UserID, &columns.DocumentID: q.columns.DocumentID, &columns.Stage: q.columns.Stage, &columns.Type: q.columns.Type} {
			if theirs != "" {
				*mine = theirs
			}
		}
		own = own || q.own || q.columns.Extra != nil || q.columns.TextIDs || q.columns.ID != "" || q.columns.UserID != "" || q.columns.DocumentID != "" || q.columns.Stage != "" || q.columns.Type != ""
		if len(q.types.Completed) > 0 {
			types = q.types
		}
	}
	for _, q := range set {
		ddl += ";" + q.sql
	}
	ddl += "; GRANT ALL ON {t} TO service_role"
	for _, q := range set {
		ddl += ";" + q.after
	}
	tx, err := stack.Pool().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), strings.ReplaceAll(strings.ReplaceAll(ddl, "{t}", "public."+s.name), "{n}", s.name)); err != nil {
		_ = tx.Rollback(t.Context())
		if len(set) == 1 {
			t.Fatalf("%s: %v", set[0].name, err)
		}
		return nil
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if columns.ID != "" {
		s.id = columns.ID
	}
	s.types = []docevents.EventType{docevents.UploadStarted, docevents.ProcessingStarted, docevents.Completed, docevents.Failed}
	if len(types.Completed) > 0 {
		s.types = slices.Concat(types.Arrived, types.Started, types.Completed, types.Failed)
	}
	opts := []docevents.Option{docevents.WithTable(s.name), docevents.WithSlog(slog.New(slog.DiscardHandler)), docevents.WithEventTypes(types)}
	if own {
		opts = append(opts, docevents.WithColumns(columns))
	}
	if s.client, err = docevents.New(stack.URL, stack.ServiceRoleKey, opts...); err != nil {
		t.Fatalf("%s: %v", s.title(), err)
	}
	return s
}

// drop drops the tables, each in a separate transaction, because a transaction
// holds a lock for each table.
func drop(t *testing.T, stack *localstack.Stack, subjects []*subject) {
	for _, s := range subjects {
		exec(t, stack, "DROP TABLE IF EXISTS public."+s.name+"_base CASCADE; DROP TABLE IF EXISTS public."+s.name+" CASCADE; DROP TYPE IF EXISTS public."+s.name+"_kind CASCADE")
	}
}

func (s *subject) count(t *testing.T) (rows int) {
	t.Helper()
	if err := s.stack.Pool().QueryRow(t.Context(), "SELECT count(*) FROM public."+s.name).Scan(&rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

// store sends two rows of each event type, each row twice, as a suitable app does,
// and then deletes them. If optional values are required, it tries several. It
// returns the first error.
func (s *subject) store(t *testing.T) error {
	t.Helper()
	at := time.Now()
	for _, eventType := range s.types {
		for range 2 {
			at = at.Add(time.Millisecond)
			var err error
			for _, fill := range []map[string]any{{}, {"stage": "ocr"}, {"duration_ms": 1840}, {"error_message": "no"}, {"duration_ms": 1840, "error_message": "no", "stage": "ocr"}} {
				row := map[string]any{
					s.id: uuid.NewString(), "document_id": document, "user_id": user, "event_type": eventType,
					"duration_ms": nil, "error_message": nil, "stage": nil, "created_at": at.UTC().Format("2006-01-02T15:04:05.000000Z"),
				}
				maps.Copy(row, fill)
				for _, q := range s.quirks {
					for name, value := range q.fill {
						row[name] = value
					}
					for _, name := range q.none {
						delete(row, name)
					}
				}
				if err = s.storeOnce(t, row); err == nil {
					break
				}
			}
			if err != nil {
				return fmt.Errorf("%s: %w", eventType, err)
			}
		}
	}
	_, err := s.request(t, http.MethodDelete, url.Values{"created_at": {"lt.2200-01-01"}}, nil)
	return err
}

// storeOnce sends a row twice and checks that it is stored once, with its values.
func (s *subject) storeOnce(t *testing.T, row map[string]any) error {
	before := s.count(t)
	query := url.Values{"columns": {strings.Join(slices.Sorted(maps.Keys(row)), ",")}}
	if s.id != "id" {
		query.Set("on_conflict", s.id)
	}
	for range 2 {
		if status, err := s.request(t, http.MethodPost, query, []map[string]any{row}); err != nil && status != http.StatusConflict {
			return err
		} else if err != nil && s.count(t) == before { // otherwise the conflict is with the row itself
			return err
		}
	}
	switch n := s.count(t) - before; {
	case n != 1:
		return fmt.Errorf("stored %d times", n)
	case row["duration_ms"] != nil && s.wrong(t, "duration_ms::text NOT IN ('1840', '1840.00', '2')", row):
		return errors.New("the stored duration differs")
	case s.wrong(t, "created_at::text NOT LIKE '%:%' OR created_at::text NOT LIKE '20%'", row):
		return errors.New("the stored time differs")
	}
	return nil
}

func (s *subject) wrong(t *testing.T, condition string, row map[string]any) bool {
	var wrong bool
	err := s.stack.Pool().QueryRow(t.Context(), fmt.Sprintf("SELECT %s FROM public.%s WHERE %s::text = $1", condition, s.name, s.id), row[s.id]).Scan(&wrong)
	return err == nil && wrong
}

func (s *subject) request(t *testing.T, method string, query url.Values, rows any) (int, error) {
	t.Helper()
	body, err := json.Marshal(rows)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, s.stack.URL+"/rest/v1/"+s.name+"?"+query.Encode(), bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{
		"Apikey": {s.stack.ServiceRoleKey}, "Authorization": {"Bearer " + s.stack.ServiceRoleKey}, "Content-Type": {"application/json"},
		"Prefer": {"return=minimal", "resolution=ignore-duplicates", "missing=default"},
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	if resp.StatusCode >= 300 {
		return resp.StatusCode, fmt.Errorf("%s: %s", resp.Status, text)
	}
	return resp.StatusCode, nil
}
