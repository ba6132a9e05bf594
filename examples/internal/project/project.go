// Package project gives the example programs a Supabase project to work on: the
// one that the environment names, else a local stand-in that lives as long as
// the program.
package project

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/supabase-community/postgrest-go"

	"github.com/docevents/docevents-go"
	"github.com/docevents/docevents-go/examples/internal/restapi"
	"github.com/docevents/docevents-go/integration/localstack"
)

// A Project is where a program's events go. It is safe for concurrent use.
type Project struct {
	URL string
	Key string // the service-role key

	stack *localstack.Stack // nil: somebody's own project
}

// Open returns the project of SUPABASE_URL and the service-role key, named as
// for [docevents.NewFromEnv]. Where neither is set it starts a local stack with
// the table in it, and says so on notes; ctx bounds the start. Nothing is sent
// to a project of the environment yet: see [Project.Connect].
func Open(ctx context.Context, notes io.Writer) (*Project, error) {
	switch _, err := docevents.NewFromEnv(); {
	case errors.Is(err, docevents.ErrNoSettings):
		return openLocal(ctx, notes)
	case err != nil:
		return nil, err
	}
	return &Project{
		URL: os.Getenv("SUPABASE_URL"),
		Key: restapi.KeyFromEnv(),
	}, nil
}

func openLocal(ctx context.Context, notes io.Writer) (*Project, error) {
	fmt.Fprintln(notes, "SUPABASE_URL is not set: starting a local PostgreSQL and REST API, which go away at the end.")
	start := time.Now()
	stack, err := localstack.Start(ctx, localstack.Options{})
	if err == nil {
		if err = stack.Migrate(ctx); err != nil {
			err = errors.Join(err, stack.Close())
		}
	}
	if err != nil {
		return nil, explainStart(ctx, err)
	}
	fmt.Fprintf(notes, "The local stack is up after %s, with the migration applied. To look into it, while this runs:\n"+
		"DATABASE_URL='%s'\n\n", time.Since(start).Round(100*time.Millisecond), stack.DatabaseURL)
	return &Project{URL: stack.URL, Key: stack.ServiceRoleKey, stack: stack}, nil
}

// explainStart makes one sentence of why there is no local stack.
func explainStart(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, localstack.ErrNoPostgres):
		return fmt.Errorf("%w: install it (apt-get install postgresql, brew install postgresql), "+
			"or set SUPABASE_URL and SUPABASE_SECRET_KEY to use a Supabase project", localstack.ErrNoPostgres)
	}
	return fmt.Errorf("the local stack did not start (SUPABASE_URL and SUPABASE_SECRET_KEY name a project instead): %w", err)
}

// Local reports whether the project is a stack of this program's own, which
// nobody else writes to and which goes away with it.
func (p *Project) Local() bool { return p.stack != nil }

// AlterTable changes the table of a local stack, as an app's own migration
// would. It must not be called for somebody's project.
func (p *Project) AlterTable(ctx context.Context, actions string) error {
	_, err := p.stack.Pool().Exec(ctx, "ALTER TABLE "+docevents.DefaultSchema+"."+docevents.DefaultTable+" "+actions)
	if err != nil {
		return err
	}
	return p.stack.Reload(ctx)
}

// checkTimeout is how long a project may take to answer when a program starts.
const checkTimeout = 15 * time.Second

// Connect returns a client of the project, after a check that it will work. Its
// error says what to do.
func (p *Project) Connect(ctx context.Context, opts ...docevents.Option) (*docevents.Client, error) {
	client, err := docevents.New(p.URL, p.Key, opts...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := client.Check(ctx); err != nil {
		where := "the local stack doesn't work"
		if !p.Local() {
			where = "the project of SUPABASE_URL can't be used"
		}
		return nil, fmt.Errorf("%s: %w", where, errors.Join(err, client.Close(ctx)))
	}
	return client, nil
}

// Table begins a query of the table, through the REST API as everything that
// these programs do: a project's database may be out of reach.
func (p *Project) Table() (*postgrest.QueryBuilder, error) {
	pg, err := postgrest.NewClientWithError(restapi.Base(p.URL), docevents.DefaultSchema, restapi.Headers(p.Key))
	if err != nil {
		return nil, err
	}
	return pg.From(docevents.DefaultTable), nil
}

// A Row of the table; what is NULL is the zero value.
type Row struct {
	DocumentID   string    `json:"document_id"`
	EventType    string    `json:"event_type"`
	DurationMS   int64     `json:"duration_ms"`
	ErrorMessage string    `json:"error_message"`
	Stage        string    `json:"stage"`
	CreatedAt    time.Time `json:"created_at"`
}

// Rows returns a user's rows in the order in which they were recorded, 1000 at
// most: their ids tell apart those of one microsecond.
func (p *Project) Rows(ctx context.Context, user string) ([]Row, error) {
	table, err := p.Table()
	if err != nil {
		return nil, err
	}
	ascending := &postgrest.OrderOpts{Ascending: true}
	var rows []Row
	_, err = table.Select("document_id,event_type,duration_ms,error_message,stage,created_at", "", false).
		Eq("user_id", user).Order("created_at", ascending).Order("id", ascending).ExecuteToWithContext(ctx, &rows)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", docevents.DefaultTable, err)
	}
	return rows, nil
}

// Count returns how many rows have these values in these columns. The server
// counts: a read returns no more than a project's max-rows, 1000 as a rule.
func (p *Project) Count(ctx context.Context, where map[string]string) (int64, error) {
	table, err := p.Table()
	if err != nil {
		return 0, err
	}
	// Not HEAD, whose errors have no body: a row at most comes with the count.
	_, n, err := table.Select("id", "exact", false).Match(where).Limit(1, "").ExecuteWithContext(ctx)
	if err != nil {
		return 0, fmt.Errorf("counting rows of %s: %w", docevents.DefaultTable, err)
	}
	return n, nil
}

// Close stops the local stack, if that is what it is.
func (p *Project) Close() error {
	if p.stack == nil {
		return nil
	}
	return p.stack.Close()
}
