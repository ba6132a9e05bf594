package localstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/docevents/docevents-go/internal/postgrest"
)

// gateway stands in for PostgREST 14. It answers the requests that docevents and
// its tests send: reads with filters, order, limit and count, bulk inserts,
// deletes, calls of functions, and the description of tables. TestCases compares
// its answers with those of a real PostgREST, recorded in testdata.
//
// It differs from PostgREST 14.17 for a transaction that fails with 40001: 14.17
// retries it without end, but the gateway answers 500, as PostgREST 16.2 does.
//
// Like PostgREST, it doesn't cancel the statement of a client that has disconnected.
type gateway struct {
	pool    *pgxpool.Pool
	secret  string
	schemas []string
	maxRows int64
	log     func(format string, args ...any)

	// ctx ends when the gateway closes, which aborts running statements.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // the listener

	schema   atomic.Pointer[schemaCache]
	settings atomic.Pointer[roleSettings]
	config   atomic.Pointer[restConfig]
	delay    atomic.Int64 // seconds until the listener's next attempt, while it has no connection
}

// poolTimeout is PostgREST's db-pool-acquisition-timeout.
const poolTimeout = 10 * time.Second

// newGateway returns a gateway for the database. databaseURL must name the role
// authenticator. newGateway doesn't wait for a connection.
func newGateway(databaseURL string, secret string, opts Options, log func(string, ...any)) (*gateway, error) {
	config, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		return nil, err
	}
	config.MaxConns = int32(opts.PoolSize)
	ctx, cancel := context.WithCancel(context.Background())
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		cancel()
		return nil, err
	}
	g := &gateway{
		pool: pool, secret: secret, schemas: opts.Schemas, maxRows: int64(opts.MaxRows), log: log,
		ctx: ctx, cancel: cancel,
	}
	g.wg.Go(g.listen)
	return g, nil
}

// Close aborts the running requests, as if PostgREST had crashed: uncommitted
// transactions are rolled back.
func (g *gateway) Close() error {
	g.cancel()
	g.wg.Wait()
	g.pool.Close()
	return nil
}

// listen waits for NOTIFY pgrst until the gateway closes. After each loss of the
// connection it reads everything again, because it may have missed notifications.
func (g *gateway) listen() {
	wait := 50 * time.Millisecond
	for g.ctx.Err() == nil {
		connected, err := g.listenOnce()
		if connected {
			wait = 50 * time.Millisecond
		}
		if g.ctx.Err() != nil {
			return
		}
		g.log("gateway: listener: %v", err)
		// PostgREST waits up to 32 s, which is too long for tests.
		g.delay.Store(int64((wait + time.Second - 1) / time.Second))
		select {
		case <-time.After(wait):
		case <-g.ctx.Done():
		}
		wait = min(2*wait, time.Second)
	}
}

func (g *gateway) listenOnce() (connected bool, err error) {
	conn, err := pgx.ConnectConfig(g.ctx, g.pool.Config().ConnConfig)
	if err != nil {
		return false, err
	}
	defer conn.Close(context.WithoutCancel(g.ctx))
	if _, err := conn.Exec(g.ctx, "LISTEN pgrst"); err != nil {
		return false, err
	}
	if err := g.reloadConfig(conn); err != nil {
		return false, err
	}
	if err := g.reloadSchema(conn); err != nil { // the gateway answers requests from now on
		return false, err
	}
	g.delay.Store(0)
	for {
		notice, err := conn.WaitForNotification(g.ctx)
		if err != nil {
			return true, err
		}
		switch notice.Payload {
		case "", "reload schema":
			err = g.reloadSchema(conn)
		case "reload config":
			err = g.reloadConfig(conn)
		}
		if err != nil {
			return true, err
		}
	}
}

func (g *gateway) reloadSchema(conn *pgx.Conn) error {
	cache, err := loadSchema(g.ctx, conn, g.schemas)
	if err != nil {
		return fmt.Errorf("reading the schema: %w", err)
	}
	g.schema.Store(cache)
	return nil
}

func (g *gateway) reloadConfig(conn *pgx.Conn) error {
	settings, err := loadSettings(g.ctx, conn)
	if err != nil {
		return fmt.Errorf("reading the roles' settings: %w", err)
	}
	config, err := loadConfig(g.ctx, conn, restConfig{"jwt_secret": g.secret, "db_anon_role": anonRole})
	if err != nil {
		return fmt.Errorf("reading PostgREST's configuration: %w", err)
	}
	g.settings.Store(&settings)
	g.config.Store(&config)
	return nil
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, err := g.serve(r)
	if err != nil {
		if err.Status == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", strconv.FormatInt(g.delay.Load(), 10))
		}
		err.Write(w)
		return
	}
	answer.Write(w)
}

// serve returns the answer to a request.
func (g *gateway) serve(r *http.Request) (*postgrest.Answer, *postgrest.Error) {
	if g.schema.Load() == nil {
		return nil, errNoSchemaCache
	}
	who, apiErr := verify(*g.config.Load(), r.Header.Get("Authorization"))
	if apiErr != nil {
		return nil, apiErr
	}
	schema := postgrest.Schema(r, g.schemas[0])
	if !slices.Contains(g.schemas, schema) {
		return nil, postgrest.ErrSchema(schema, g.schemas...)
	}
	path := strings.Trim(r.URL.Path, "/")
	if path == "" {
		return g.describe(r, who, schema)
	}
	if name, found := strings.CutPrefix(path, "rpc/"); found && !strings.Contains(name, "/") {
		return g.call(r, who, schema, name)
	}
	t, apiErr := g.table(schema, path)
	if apiErr != nil {
		return nil, apiErr
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
		result, err := g.run(who, pgx.ReadOnly, q.read(g.maxRows, prefer.Counts()), check)
		if err != nil {
			return nil, err
		}
		answer, err := prefer.ReadAnswer(q.Offset, result.rows, result.total, result.body)
		if err != nil {
			return nil, err
		}
		return answer.For(r), nil
	case http.MethodPost:
		return g.insert(who, q, prefer, r, check)
	case http.MethodDelete:
		result, err := g.run(who, pgx.ReadWrite, q.remove(prefer), check)
		return prefer.ChangeAnswer(r.Method, result.rows, result.body).For(r), err
	}
	return nil, postgrest.ErrMethod(r.Method)
}

// table returns the table that the path names.
func (g *gateway) table(schema, path string) (*table, *postgrest.Error) {
	if strings.Contains(path, "/") {
		return nil, errInvalidPath
	}
	t := g.schema.Load().tables[schema+"."+path]
	if t == nil {
		var known []string
		for _, other := range g.schema.Load().tables {
			if other.schema == schema {
				known = append(known, other.relation)
			}
		}
		slices.Sort(known)
		return nil, postgrest.ErrTable(schema, path, known...)
	}
	return t, nil
}

func (g *gateway) insert(who caller, q *query, prefer postgrest.Preferences, r *http.Request, check rowCheck) (*postgrest.Answer, *postgrest.Error) {
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
	result, apiErr := g.run(who, pgx.ReadWrite, q.insert(columns, body, prefer), check)
	if apiErr != nil {
		return nil, apiErr
	}
	a := prefer.ChangeAnswer(r.Method, result.rows, result.body)
	if prefer.Resolution == postgrest.MergeDuplicates && result.inserted == 0 {
		a.Status = http.StatusOK
	}
	return a.For(r), nil
}

// result is the one row that every statement returns.
type result struct {
	total    *int64
	rows     int64
	inserted int64
	body     []byte
}

// rowCheck returns an error if a statement's number of rows is not acceptable.
type rowCheck func(rows int64) *postgrest.Error

// run runs the statement as the caller, in a new transaction. If check is not nil and
// returns an error, run rolls the transaction back and returns that error.
func (g *gateway) run(who caller, access pgx.TxAccessMode, s *statement, check rowCheck) (result, *postgrest.Error) {
	acquire, cancel := context.WithTimeout(g.ctx, poolTimeout)
	conn, err := g.pool.Acquire(acquire)
	cancel()
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return result{}, errPoolTimeout
		}
		return result{}, connectError(err)
	}
	defer conn.Release()
	var r result
	err = pgx.BeginTxFunc(g.ctx, conn, pgx.TxOptions{AccessMode: access}, func(tx pgx.Tx) error {
		if err := g.become(tx, who); err != nil {
			return err
		}
		if err := tx.QueryRow(g.ctx, s.String(), s.args...).Scan(&r.total, &r.rows, &r.inserted, &r.body); err != nil {
			return err
		}
		if check != nil {
			if refusal := check(r.rows); refusal != nil {
				return refusal
			}
		}
		return nil
	})
	var own *postgrest.Error
	switch {
	case err == nil:
		return r, nil
	case errors.As(err, &own):
		return r, own
	}
	return r, databaseError(err, who.anonymous())
}

// become switches to the caller's role for the rest of the transaction. It applies
// the role's settings first, while still authenticator, because the role may lack
// the right to change them.
func (g *gateway) become(tx pgx.Tx, who caller) error {
	s := &statement{}
	set := func(name, value string) {
		if s.Len() == 0 {
			s.add("SELECT ")
		} else {
			s.add(", ")
		}
		s.add("set_config(")
		s.bind(name)
		s.add(", ")
		s.bind(value)
		s.add(", true)")
	}
	set("search_path", quote(g.schemas[0])+", public")
	for _, setting := range (*g.settings.Load())[who.role] {
		set(setting[0], setting[1])
	}
	set("role", who.role)
	set("request.jwt.claims", string(who.claims))
	_, err := tx.Exec(g.ctx, s.String(), s.args...)
	return err
}
