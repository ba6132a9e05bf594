package docevents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// readRetryWait is the wait before a read that failed in passing is sent again.
const readRetryWait = 200 * time.Millisecond

// read sends a GET and passes the answer to use. After a failure that may pass
// it does both once more. A 401 with PGRST303 is waited out for lastingAfter:
// hosted projects give it for seconds to keys that are good. All of it is
// bounded by ctx and by the time of WithRequestTimeout.
func (c *Client) read(ctx context.Context, r reading, use func(*http.Response) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.requestTimeout)
	defer cancel()
	began, retried := time.Now(), false
	for step := 0; ; step++ {
		err := c.readOnce(ctx, r, use)
		e, answered := errors.AsType[*Error](err)
		wait := readRetryWait
		switch {
		case err == nil:
			return nil
		case answered && e.Status == http.StatusUnauthorized && e.Code == "PGRST303":
			if wait = backoff(step, longWait, err); time.Since(began)+wait > lastingAfter {
				return err
			}
		case retried || classify(err) != transient || answered && e.RetryAfter > 0:
			return err
		default:
			retried = true
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
	}
}

// A reading is a GET: of the table, or of a function.
type reading struct {
	path, schema string
	prefer       string
	query        url.Values
}

// readOnce doesn't use postgrest-go, which reads answers without a bound and
// hides a function's errors. The transport has made an error of every answer
// that isn't a success.
func (c *Client) readOnce(ctx context.Context, r reading, use func(*http.Response) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.restURL+"/"+r.path+"?"+r.query.Encode(), nil)
	if err != nil {
		return err
	}
	for name, value := range c.headers {
		req.Header.Set(name, value)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Accept-Profile", r.schema)
	if r.prefer != "" {
		req.Header.Set("Prefer", r.prefer)
	}
	resp, err := (&http.Client{Transport: c.transport}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return use(resp)
}

// ErrOtherAnswer is matched by the error of a Summary, Documents or Timeline whose
// answer is a success but not PostgREST's, or not that of this version's
// functions.
var ErrOtherAnswer = errors.New("the answer is not what PostgREST gives for this table and the functions of " + readingFile)

// otherAnswer is ErrOtherAnswer with the name of the field that is missing or of
// another type.
func otherAnswer(field string) error {
	return fmt.Errorf("%w: see the field %s", ErrOtherAnswer, field)
}

// unreadable tells an answer that was cut short from one of another service. An
// error of encoding/json about the latter may repeat a value.
func unreadable(err error) error {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && e.Field != "" {
		return otherAnswer(e.Field[strings.LastIndexByte(e.Field, '.')+1:])
	}
	switch {
	case errors.Is(err, ErrOtherAnswer):
		return err
	case errors.As(err, new(*json.SyntaxError)), errors.As(err, new(*json.UnmarshalTypeError)), errors.As(err, new(*time.ParseError)):
		return ErrOtherAnswer
	}
	return fmt.Errorf("answer cut short: %w", err)
}
