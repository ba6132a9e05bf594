package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/docevents/docevents-go/examples/internal/restapi"
)

// countDue returns how many rows were created before cutoff. Where counting
// takes longer than the server lets it, it returns the planner's estimate.
//
// It follows docevents' Check, which has made sure of the URL and the key.
func countDue(ctx context.Context, rt http.RoundTripper, o *options, cutoff time.Time) (n int64, estimated bool, err error) {
	n, code, err := count(ctx, rt, o, cutoff, "exact")
	if code == "57014" { // a statement timeout
		n, _, err = count(ctx, rt, o, cutoff, "planned")
		estimated = true
	}
	if err != nil {
		return 0, false, fmt.Errorf("counting the rows: %w", err)
	}
	return n, estimated, nil
}

// count has the server count. It returns the code of an error of the server's.
func count(ctx context.Context, rt http.RoundTripper, o *options, cutoff time.Time, how string) (n int64, code string, err error) {
	query := url.Values{"select": {"id"}, "created_at": {"lt." + cutoff.Format(time.RFC3339Nano)}, "limit": {"1"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, restapi.Base(os.Getenv("SUPABASE_URL"))+"/"+o.table+"?"+query.Encode(), nil)
	if err != nil {
		return 0, "", err
	}
	for name, value := range restapi.Headers(restapi.KeyFromEnv()) {
		req.Header.Set(name, value)
	}
	req.Header.Set("Accept-Profile", o.schema)
	req.Header.Set("Prefer", "count="+how)
	// No http.Client: it would follow a redirect with the key, and its errors print the query.
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return 0, "", err
	}
	if resp.StatusCode >= 300 {
		var answer struct{ Code, Message string }
		_ = json.Unmarshal(body, &answer) // a gateway's own answer is anything
		return 0, answer.Code, fmt.Errorf("HTTP %d %s: %.200s", resp.StatusCode, answer.Code, answer.Message)
	}
	_, total, _ := strings.Cut(resp.Header.Get("Content-Range"), "/")
	n, err = strconv.ParseInt(total, 10, 64)
	if err != nil {
		return 0, "", errors.New("the answer has no count")
	}
	return n, "", nil
}
