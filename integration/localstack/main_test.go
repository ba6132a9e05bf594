package localstack_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/docevents/docevents-go/integration/localstack"
)

// Tests start this test program again as another program. These environment variables
// select the program.
const (
	orphanEnv  = "LOCALSTACK_TEST_ORPHAN"   // a program that is killed while it has a stack
	pgrestFake = "PGRST_SERVER_UNIX_SOCKET" // PostgREST, whose socket this variable names
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(pgrestFake) != "": // first, because an orphan's PostgREST has both variables
		fakePostgREST(os.Getenv(pgrestFake))
	case os.Getenv(orphanEnv) != "":
		orphan()
	default:
		localstack.Main(m)
	}
}

// orphan starts a stack, prints its DatabaseURL, and waits to be killed.
func orphan() {
	stack, err := localstack.Start(context.Background(), localstack.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(stack.DatabaseURL)
	select {}
}

// fakePostgREST answers every request with a description of the request. It ignores
// all signals except SIGKILL.
func fakePostgREST(socket string) {
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stderr, http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s apikey=%q authorization=%q schemas=%s", r.Method, r.URL, r.Header.Get("Apikey"),
			r.Header.Get("Authorization"), os.Getenv("PGRST_DB_SCHEMAS"))
	})))
}

// reply is a response with its body.
type reply struct {
	status int
	header http.Header
	body   string
}

// code returns the error code in the body, or "".
func (r reply) code() string {
	_, code, _ := strings.Cut(r.body, `"code":"`)
	code, _, _ = strings.Cut(code, `"`)
	return code
}

// call sends a request to the REST API as service_role. headers are pairs of a name
// and a value; an empty value removes the header.
func call(t *testing.T, stack *localstack.Stack, method, path, body string, headers ...string) reply {
	t.Helper()
	r, err := tryCall(t.Context(), stack, method, path, body, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func tryCall(ctx context.Context, stack *localstack.Stack, method, path, body string, headers ...string) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, stack.URL+"/rest/v1/"+path, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	req.Header.Set("Authorization", "Bearer "+stack.ServiceRoleKey)
	for i := 0; i < len(headers); i += 2 {
		if headers[i+1] == "" {
			req.Header.Del(headers[i])
			continue
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(text)}, err
}

// event returns a row as JSON, with an id that ends in n.
func event(n int) string {
	return fmt.Sprintf(`{"id":"00000000-0000-4000-8000-%012d",`+
		`"document_id":"11111111-1111-4111-8111-111111111111",`+
		`"user_id":"22222222-2222-4222-8222-222222222222","event_type":"completed"}`, n)
}
