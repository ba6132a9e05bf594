package localstack

import (
	"context"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/docevents/docevents-go/internal/postgrest"
)

const (
	exposed  = "public" // the only schema that the REST API exposes, as in a new hosted project
	maxRows  = 1000     // the greatest number of rows that a read returns, as in a hosted project
	poolSize = 10       // PostgREST's default number of database connections
)

// standIn is a Go imitation of PostgREST 14, for the requests that docevents and its
// tests send. TestCases compares the stand-in's answers with recorded answers of
// PostgREST 14.17.
//
// One answer differs on purpose. After a serialization failure (40001), PostgREST 14.17
// retries endlessly. The stand-in answers with status 500, as PostgREST 16.2 does.
type standIn struct {
	pool   *pgxpool.Pool
	secret string // the JWT secret
	log    func(format string, args ...any)

	// ctx ends when the stand-in closes, which aborts running statements.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // the goroutine that runs listen

	schema   atomic.Pointer[schemaCache]  // nil until listen has read it
	settings atomic.Pointer[roleSettings] // set before schema
	delay    atomic.Int64                 // seconds until listen's next attempt to connect; 0 while it is connected
}

// newStandIn starts a stand-in. databaseURL must contain the user "authenticator". JWTs
// must be signed with jwtSecret. Until the stand-in is connected to the database,
// requests get status 503.
func newStandIn(databaseURL, jwtSecret string, log func(string, ...any)) (*standIn, error) {
	config, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		return nil, err
	}
	config.MaxConns = poolSize
	ctx, cancel := context.WithCancel(context.Background())
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		cancel()
		return nil, err
	}
	s := &standIn{pool: pool, secret: jwtSecret, log: log, ctx: ctx, cancel: cancel}
	s.wg.Go(s.listen)
	return s, nil
}

// Close stops the stand-in like a crash of PostgREST: PostgreSQL rolls back the
// transactions of running requests.
func (s *standIn) Close() error {
	s.cancel()
	s.wg.Wait()
	s.pool.Close()
	return nil
}

func (s *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, err := s.answer(r)
	if err != nil {
		if err.Status == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", strconv.FormatInt(s.delay.Load(), 10))
		}
		err.Write(w)
		return
	}
	answer.Write(w)
}

func (s *standIn) answer(r *http.Request) (*postgrest.Answer, *postgrest.Error) {
	if s.schema.Load() == nil {
		return nil, errNoSchemaCache
	}
	who, err := verify(s.secret, r.Header.Get("Authorization"))
	if err != nil {
		return nil, err
	}
	if schema := postgrest.Schema(r, exposed); schema != exposed {
		return nil, postgrest.ErrSchema(schema, exposed)
	}
	path := strings.Trim(r.URL.Path, "/")
	function, isCall := strings.CutPrefix(path, "rpc/")
	switch {
	case path == "":
		return s.describe(r, who)
	case isCall && !strings.Contains(function, "/"):
		return s.call(r, who, function)
	case strings.Contains(path, "/"):
		return nil, errInvalidPath
	}
	return s.answerTable(r, who, path)
}

// answerTable answers a request for a table or view.
func (s *standIn) answerTable(r *http.Request, who caller, name string) (*postgrest.Answer, *postgrest.Error) {
	schema := s.schema.Load()
	t := schema.tables[name]
	if t == nil {
		return nil, postgrest.ErrTable(exposed, name, schema.names()...)
	}
	prefer := postgrest.ParsePreferences(r.Header.Values("Prefer"))
	if prefer.Strict() && len(prefer.Unknown) > 0 {
		return nil, postgrest.Errorf(400, "PGRST122", "Invalid preferences given with handling=strict").
			WithDetails("Invalid preferences: " + strings.Join(prefer.Unknown, ", "))
	}
	asked, apiErr := postgrest.ParseQuery(r.URL.RawQuery)
	if apiErr != nil {
		return nil, apiErr
	}
	q := &query{asked, t}
	if r.Method == http.MethodPost && prefer.Resolution != "" && len(q.conflictTarget(prefer)) == 0 {
		prefer.Resolution = "" // without a conflict target, PostgREST ignores it
	}
	check := func(rows int64) *postgrest.Error { return postgrest.CheckRows(r, prefer, rows) }
	switch r.Method {
	case http.MethodGet:
		result, err := s.run(who, pgx.ReadOnly, q.read(prefer.Counts()), check)
		if err != nil {
			return nil, err
		}
		answer, err := prefer.ReadAnswer(q.Offset, result.rows, result.total, result.body)
		if err != nil {
			return nil, err
		}
		return answer.FitTo(r), nil
	case http.MethodPost:
		return s.insert(who, q, prefer, r, check)
	case http.MethodDelete:
		result, err := s.run(who, pgx.ReadWrite, q.remove(prefer), check)
		return prefer.ChangeAnswer(r.Method, result.rows, result.body).FitTo(r), err
	}
	return nil, postgrest.ErrMethod(r.Method)
}

func (s *standIn) insert(who caller, q *query, prefer postgrest.Preferences, r *http.Request, check rowCheck) (*postgrest.Answer, *postgrest.Error) {
	if header := r.Header.Get("Content-Type"); header != "" {
		if kind, _, err := mime.ParseMediaType(header); err != nil || kind != "application/json" {
			return nil, postgrest.Errorf(400, "PGRST102", "Content-Type not acceptable: %s", header)
		}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, errInvalidJSON // the client is gone
	}
	names := q.Columns
	if names == nil {
		var err *postgrest.Error
		if names, body, err = payloadKeys(body); err != nil {
			return nil, err
		}
	}
	columns, apiErr := q.table.find(names)
	if apiErr != nil {
		return nil, apiErr
	}
	result, apiErr := s.run(who, pgx.ReadWrite, q.insert(columns, body, prefer), check)
	if apiErr != nil {
		return nil, apiErr
	}
	a := prefer.ChangeAnswer(r.Method, result.rows, result.body)
	if prefer.Resolution == postgrest.MergeDuplicates && result.inserted == 0 {
		a.Status = http.StatusOK
	}
	return a.FitTo(r), nil
}
