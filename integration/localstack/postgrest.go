package localstack

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// newBackend starts PostgREST or the stand-in. The comment of Options.PostgREST
// describes how it chooses.
func (s *Stack) newBackend() (backend, error) {
	database := s.cluster.databaseURL("authenticator")
	program := s.opts.PostgREST
	if program == "" {
		program = os.Getenv("POSTGREST_BIN")
	}
	if program == "" {
		program, _ = exec.LookPath("postgrest")
	}
	if program == "" || program == StandIn {
		return newStandIn(database, s.JWTSecret, s.logf)
	}
	return newPostgREST(program, s.dir, database, s.JWTSecret, s.opts.Log, s.logf)
}

// postgREST is a real PostgREST, which runs as a child process and listens on a Unix
// socket in the stack's folder.
type postgREST struct {
	http.Handler
	process *process
}

func newPostgREST(program, dir, database, secret string, output io.Writer, log func(string, ...any)) (*postgREST, error) {
	socket := filepath.Join(dir, "postgrest.sock")
	if err := os.RemoveAll(socket); err != nil { // a killed PostgREST doesn't remove it
		return nil, err
	}
	cmd := exec.Command(program)
	cmd.Dir = dir
	// PostgREST reads its configuration from these environment variables, see
	// https://docs.postgrest.org/en/v14/references/configuration.html.
	cmd.Env = append(os.Environ(),
		"PGRST_DB_URI="+database,
		"PGRST_DB_SCHEMAS="+exposed,
		"PGRST_DB_ANON_ROLE="+anonRole,
		"PGRST_DB_MAX_ROWS="+strconv.Itoa(maxRows),
		"PGRST_DB_POOL="+strconv.Itoa(poolSize),
		"PGRST_JWT_SECRET="+secret,
		"PGRST_SERVER_UNIX_SOCKET="+socket,
	)
	detach(cmd, nil)
	process, err := startProcess(cmd, dir, "postgrest", output)
	if err != nil {
		return nil, fmt.Errorf("PostgREST: %w", err)
	}
	return &postgREST{
		Handler: &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(&url.URL{Scheme: "http", Host: "postgrest"})
			},
			Transport: &http.Transport{
				DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return (&net.Dialer{}).DialContext(ctx, "unix", socket)
				},
				MaxIdleConnsPerHost: 100,
			},
			ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
				log("PostgREST: %v", err)
				w.WriteHeader(http.StatusBadGateway)
			},
		},
		process: process,
	}, nil
}

func (p *postgREST) Close() error { return p.process.kill() }
