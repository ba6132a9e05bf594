package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/integration/localstack"
)

// A target is the server of a measurement.
type target struct {
	URL, Key, DatabaseURL, Table string

	stack *localstack.Stack // nil for a project from the environment
	delay *delayProxy       // nil without -rtt
}

// openTarget returns the project at SUPABASE_URL. If this variable isn't set,
// openTarget starts a local stack.
func openTarget(ctx context.Context, o options, notes io.Writer) (*target, error) {
	t := &target{Table: docevents.DefaultTable}
	if t.URL = os.Getenv("SUPABASE_URL"); t.URL != "" {
		t.Key = cmp.Or(os.Getenv("SUPABASE_SECRET_KEY"), os.Getenv("SUPABASE_SERVICE_ROLE_KEY"))
		t.DatabaseURL = os.Getenv("DATABASE_URL")
	} else {
		fmt.Fprintln(notes, "SUPABASE_URL is not set: starting a local stack")
		var err error
		if t.stack, err = localstack.Start(ctx, localstack.Options{}); err != nil {
			return nil, err
		}
		if err := t.stack.Migrate(ctx); err != nil {
			return nil, errors.Join(err, t.close())
		}
		t.URL, t.Key, t.DatabaseURL = t.stack.URL, t.stack.ServiceRoleKey, t.stack.DatabaseURL
	}
	if err := t.check(ctx); err != nil {
		return nil, errors.Join(err, t.close())
	}
	if o.rtt > 0 {
		var err error
		if t.delay, err = startDelayProxy(t.URL, o.rtt/2); err != nil {
			return nil, errors.Join(err, t.close())
		}
		t.URL = t.delay.url
	}
	return t, nil
}

func (t *target) check(ctx context.Context) error {
	client, err := docevents.New(t.URL, t.Key, docevents.WithTable(t.Table))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	return errors.Join(client.Check(ctx), client.Close(ctx))
}

func (t *target) close() error {
	var errs []error
	if t.delay != nil {
		errs = append(errs, t.delay.close())
	}
	if t.stack != nil {
		errs = append(errs, t.stack.Close())
	}
	return errors.Join(errs...)
}

func (t *target) api() *api { return newAPI(t.URL, t.Key, t.Table) }

const (
	pollEvery = 500 * time.Millisecond
	pollLimit = time.Minute
)

// countStable counts a user's rows after a measurement. If rows are missing, the server
// may still be storing them. So countStable counts again every 500 ms, until no row is
// missing or two consecutive counts are equal. After a minute without such a count, it
// returns an error.
func (t *target) countStable(ctx context.Context, user uuid.UUID, expected int) (int, error) {
	last := -1
	ctx, cancel := context.WithTimeout(ctx, pollLimit)
	defer cancel()
	for {
		n, err := t.api().count(ctx, user.String())
		if err == nil && (n == expected || n == last) {
			return n, nil
		}
		if err == nil {
			last = n
		}
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return 0, fmt.Errorf("no stable number of rows after %s: %w", pollLimit, cmp.Or(err, ctx.Err()))
		}
	}
}

// clean deletes the rows of a measurement, which all have the given user id. On a local
// stack, it truncates the table instead, because the dead rows of a DELETE would slow
// the next measurement.
func (t *target) clean(ctx context.Context, user uuid.UUID) error {
	http.DefaultClient.CloseIdleConnections()
	debug.FreeOSMemory() // so that the stand-in's garbage doesn't slow the next cell
	if t.stack != nil {
		_, err := t.stack.Pool().Exec(ctx, "TRUNCATE "+pgx.Identifier{docevents.DefaultSchema, t.Table}.Sanitize())
		return err
	}
	if err := t.api().remove(ctx, user.String()); err != nil {
		return fmt.Errorf("the rows with user_id %s are left in %s: %w", user, t.Table, err)
	}
	return nil
}

// A machine describes the machine and the server of a report.
type machine struct {
	Taken      time.Time `json:"taken"`
	CPU        string    `json:"cpu"`
	CPUs       int       `json:"cpus"`
	Platform   string    `json:"platform"`
	Go         string    `json:"go"`
	Node       string    `json:"node,omitempty"`
	Server     string    `json:"server"`
	PostgreSQL string    `json:"postgresql,omitempty"`
	RTT        string    `json:"rtt,omitempty"`
}

// localStandIn is the server's name in a local stack without a PostgREST.
const localStandIn = "the local stack's stand-in for PostgREST"

func (t *target) describe(ctx context.Context) machine {
	m := machine{
		Taken: time.Now().UTC().Truncate(time.Second), CPU: cpuModel(), CPUs: runtime.NumCPU(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(), Server: "an unknown server",
	}
	if t.stack != nil {
		m.Server = localStandIn
	}
	if t.delay != nil {
		m.RTT = (2 * t.delay.each).String()
	}
	if out, err := exec.CommandContext(ctx, "node", "--version").Output(); err == nil {
		m.Node = strings.TrimSpace(string(out))
	}
	_, header, err := t.api().get(ctx, http.DefaultClient, "select=id&limit=1", "")
	if server := header.Get("Server"); err == nil && strings.HasPrefix(server, "postgrest") {
		m.Server = server
	}
	if t.DatabaseURL != "" {
		if conn, err := pgx.Connect(ctx, t.DatabaseURL); err == nil {
			defer conn.Close(ctx)
			m.PostgreSQL, _, _ = strings.Cut(conn.PgConn().ParameterStatus("server_version"), " ")
		}
	}
	return m
}

func cpuModel() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, model, found := strings.Cut(line, ":"); found && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(model)
		}
	}
	return "unknown"
}
