package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// An api sends requests for a table to the REST API.
type api struct {
	url    string // the table's URL
	header http.Header
}

func newAPI(project, key, table string) *api {
	a := &api{url: restURL(project) + "/" + table, header: http.Header{}}
	for name, value := range keyHeaders(key) {
		a.header.Set(name, value)
	}
	return a
}

func restURL(project string) string {
	return strings.TrimSuffix(strings.TrimRight(strings.TrimSpace(project), "/"), "/rest/v1") + "/rest/v1"
}

// keyHeaders returns the request headers for an API key: always "apikey", and for a JWT
// also "Authorization". The server rejects a secret key (sb_secret_...) in
// "Authorization".
func keyHeaders(key string) map[string]string {
	key = strings.TrimSpace(key)
	headers := map[string]string{"apikey": key}
	if !strings.HasPrefix(key, "sb_secret_") {
		headers["Authorization"] = "Bearer " + key
	}
	return headers
}

// do sends a request and returns the answer's body and header.
func (a *api) do(ctx context.Context, client *http.Client, method, query, prefer string, body io.Reader) ([]byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.url+"?"+query, body)
	if err != nil {
		return nil, nil, err
	}
	req.Header = a.header.Clone()
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if prefer != "" {
		req.Header.Set("Prefer", prefer)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, withoutURL(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("the server answered a %s with %s", method, resp.Status)
	}
	return answer, resp.Header, err
}

func (a *api) get(ctx context.Context, client *http.Client, query, prefer string) ([]byte, http.Header, error) {
	return a.do(ctx, client, http.MethodGet, query, prefer, nil)
}

func (a *api) count(ctx context.Context, user string) (int, error) {
	_, header, err := a.get(ctx, http.DefaultClient, "select=id&limit=1&user_id=eq."+user, "count=exact")
	if err != nil {
		return 0, err
	}
	_, total, _ := strings.Cut(header.Get("Content-Range"), "/")
	n, err := strconv.Atoi(total)
	if err != nil {
		return 0, fmt.Errorf("no count in the answer: %w", err)
	}
	return n, nil
}

func (a *api) remove(ctx context.Context, user string) error {
	_, _, err := a.do(ctx, http.DefaultClient, http.MethodDelete, "user_id=eq."+user, "return=minimal", nil)
	return err
}
