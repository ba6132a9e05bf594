package rest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"testing"
	"time"
)

// The cases are in the order of the table in docs/delivery.md. The first match counts.
func TestClassify(t *testing.T) {
	answer := func(status int, code string) error { return &Error{Status: status, Code: code} }
	for _, test := range []struct {
		name string
		want Verdict
		errs []error
	}{
		{"no error", Accepted, []error{nil}},
		{
			"1: no answer, or a body cut short", Transient,
			[]error{
				io.ErrUnexpectedEOF, context.DeadlineExceeded, context.Canceled, errors.New("connection reset"),
				fmt.Errorf("answer with status 400 cut short: %w", io.ErrUnexpectedEOF),
			},
		},
		{
			"2: by the status, whatever the code", Configuration,
			[]error{
				answer(401, ""), answer(401, "22023"), answer(401, "23514"), answer(401, "57014"), answer(401, "08006"), answer(401, "PGRST301"),
				answer(402, ""), answer(402, "PT402"), answer(405, ""), answer(405, "PGRST117"), answer(406, ""), answer(406, "22P02"),
				answer(540, ""), answer(540, "23505"), answer(200, ""), answer(201, ""), answer(204, ""), answer(299, "23514"),
				answer(404, ""), answer(404, "NotFound"), answer(404, "404"),
				answer(300, "PGRST203"), answer(302, ""), answer(307, "23514"), answer(399, ""), answer(0, ""),
			},
		},
		{
			"3: too much at once", TooMuch,
			[]error{answer(500, "57014"), answer(504, "57014"), answer(413, ""), answer(413, "23514"), answer(413, "PGRST205"), answer(400, "PGRST102")},
		},
		{
			"4: stored before", StoredBefore,
			[]error{&Error{Status: 409, Code: "23505", meaning: StoredBefore}},
		},
		{
			"5: this data", BadData,
			[]error{
				answer(400, "21000"), answer(400, "22001"), answer(400, "22P02"), answer(400, "22P05"), answer(400, "23502"), answer(400, "23514"),
				answer(409, "23505"), answer(409, "23P01"), answer(400, "23000"), answer(400, "27000"), answer(400, "44000"), answer(500, "54000"),
				answer(400, "P0001"), answer(500, "P0004"), answer(503, "22001"), answer(403, "23514"), answer(404, "22003"),
			},
		},
		{
			"6: configuration, by the code", Configuration,
			[]error{
				answer(500, "0A000"), answer(403, "28000"), answer(500, "28P01"), answer(500, "3D000"), answer(400, "3F000"),
				answer(404, "42P01"), answer(400, "42703"), answer(403, "42501"), answer(404, "42883"), answer(500, "55000"), answer(405, "25006"), answer(500, "25006"), answer(400, "428C9"),
				&Error{Status: 400, Code: "23514", meaning: Configuration},
				answer(400, "PGRST100"), answer(404, "PGRST125"), answer(404, "PGRST205"), answer(400, "PGRST204"), answer(403, "PGRST301"), answer(500, "PGRST302"),
			},
		},
		{
			"7: all else", Transient,
			[]error{
				answer(400, ""), answer(403, ""), answer(404, "PT404"), answer(408, ""), answer(409, ""), answer(418, ""), answer(422, ""), answer(429, ""),
				answer(500, ""), answer(502, ""), answer(503, ""), answer(504, ""), answer(520, ""), answer(599, ""),
				answer(500, "08000"), answer(503, "08006"), answer(409, "23503"), answer(409, "40001"), answer(409, "40P01"), answer(503, "53300"),
				answer(500, "53100"), answer(500, "55P03"), answer(500, "55006"), answer(500, "57P01"), answer(500, "57P03"), answer(500, "58030"),
				answer(500, "XX000"), answer(500, "XX001"), answer(503, "PGRST000"), answer(503, "PGRST001"), answer(503, "PGRST002"), answer(504, "PGRST003"),
				answer(500, "PT500"), answer(400, "PT22P"), answer(500, "25001"), answer(500, "ZZ999"),
				answer(400, "PGRST400"), answer(400, "PGRST"), answer(400, "PGRST1"), answer(400, "PGRST1000"), answer(400, "PGRSTX00"), answer(400, "pgrst102"),
				answer(400, "2351"), answer(400, "235140"), answer(400, "2350٣"), answer(400, " 23514"), answer(400, "23514\n"), answer(400, "x23514"),
				answer(400, "bad_request"), answer(400, "22"), answer(400, "4xx"), answer(500, "\x00\x00\x00\x00\x00"),
			},
		},
	} {
		for _, err := range test.errs {
			if got := Classify(err); got != test.want {
				t.Errorf("%s: %v: got %d, want %d", test.name, err, got, test.want)
			}
			if got := Classify(fmt.Errorf("wrapped: %w", err)); err != nil && got != test.want {
				t.Errorf("%s: %v, wrapped: got %d, want %d", test.name, err, got, test.want)
			}
		}
	}
}

// The outcome is unknown only if the request may have been carried out.
func TestOutcomeUnknown(t *testing.T) {
	for want, errs := range map[bool][]error{
		true: {
			io.ErrUnexpectedEOF,
			&net.OpError{Op: "dial", Err: io.EOF}, // net/http may have sent the request before, on a connection that died
			&Error{Status: 200},
			&Error{Status: 299},
			&Error{Status: 408},
			&Error{Status: 499},
			&Error{Status: 500},
			&Error{Status: 503, Code: "overloaded"}, // a gateway's own code
			&Error{Status: 503, Code: "08006"},
			&Error{Status: 500, Code: "57P01"},
			&Error{Status: 409, Code: "40003"}, // statement completion unknown
			&Error{Status: 503, Code: "PGRST000"},
			&Error{Status: 503, Code: "PGRST002"},
			&Error{Status: 500, Code: "PGRSTX00"},
			&Error{Status: 400, meaning: Transient},          // PostgREST lost its database
			&Error{Status: 400, Code: "22001", resent: true}, // the first attempt may have succeeded
		},
		false: {
			nil,
			unsent{context.DeadlineExceeded},
			fmt.Errorf("wrapped: %w", unsent{context.DeadlineExceeded}),
			&Error{Status: 300},
			&Error{Status: 403}, // a firewall's page
			&Error{Status: 429, Code: "throttled"},
			&Error{Status: 500, Code: "57014"}, // rolled back
			&Error{Status: 408, Code: "23514"},
			&Error{Status: 409, Code: "40001"},
			&Error{Status: 500, Code: "XX000"},
			&Error{Status: 500, Code: "PT500"},
			&Error{Status: 504, Code: "PGRST003"}, // no connection in time
			fmt.Errorf("wrapped: %w", &Error{Status: 404, Code: "PGRST205"}),
		},
	} {
		for _, err := range errs {
			if got := OutcomeUnknown(err); got != want {
				t.Errorf("%v: got %t, want %t", err, got, want)
			}
		}
	}
}

// The details and the message show whether a row is stored already, or has no
// partition.
func TestMeaningOf(t *testing.T) {
	const id = "aaaaaaaa-0000-4000-8000-000000000001"
	for _, test := range []struct {
		code, message, details string
		want                   Verdict
	}{
		{"23505", "", "", Accepted},
		{"23505", "", "Key (id)=(" + id + ") already exists.", StoredBefore},
		{"23505", "", "Schlüssel »(id)=(" + id + ")« existiert bereits.", StoredBefore},
		{"23505", "", `Key (tenant_id, "id")=(7, ` + id + `) already exists.`, StoredBefore},
		{"23505", "", "Key (document_id, event_type)=(" + id + ", completed) already exists.", Accepted},
		{"23505", "", "Key (stage)=((id)=(" + id + ")) already exists.", Accepted},
		{"23505", "", "Key (lower(id), id)=(ocr) already exists.", Accepted},
		{"23503", "", "Key (id)=(" + id + ") is not present in table \"documents\".", Accepted},
		{"23514", "", "Failing row contains (" + id + ", " + id + ", failed, 12, null, ocr).", Accepted},
		{"23514", "", "Failing row contains (" + id + ", failed, oops) = (1).", Accepted},
		{"23514", "", "Failing row contains (id, stage) = (" + id + ", ocr).", Accepted}, // without a grant for the table
		{"23514", "", "실패한 로우의 파티션 키 값: (event_type, created_at) = (failed, 2031-01-02)", Configuration},
		{"23505", "", `Key ("tenant-id", id)=(7, ` + id + `) already exists.`, StoredBefore},
		{"23505", `duplicate key value violates unique constraint "document_processing_events_pkey"`, "", StoredBefore},
		{"23505", "doppelter Schlüsselwert verletzt Unique-Constraint »pk_events«", "", StoredBefore},
		{"23505", `duplicate key value violates unique constraint "events_once"`, "", Accepted},
		{"23505", `duplicate key value violates unique constraint "a_pkey_b"`, "", Accepted},
		{"23505", `duplicate key value violates unique constraint "a_pkey"`, "Key (stage)=(ocr) already exists.", Accepted},
		{"23514", `new row for relation "events" violates check constraint "a_pkey"`, "", Accepted},
		{"23514", `no partition of relation "events" found for row`, "", Configuration},
	} {
		if got := meaningOf(test.code, test.message, test.details, "id"); got != test.want {
			t.Errorf("%s %s %s: got %d, want %d", test.code, test.message, test.details, got, test.want)
		}
	}
	if got := meaningOf("23505", "", "Key (event_id)=("+id+") already exists.", "event_id"); got != StoredBefore {
		t.Errorf("a renamed id: %d", got)
	}
}

func TestErrorText(t *testing.T) {
	for want, e := range map[string]Error{
		"HTTP 503":                               {Status: 503},
		"HTTP 503: Service Unavailable":          {Status: 503, Message: "Service Unavailable"},
		"HTTP 400 23514":                         {Status: 400, Code: "23514"},
		"HTTP 404 PGRST205: no table (hint: it)": {Status: 404, Code: "PGRST205", Message: "no table", Hint: "it"},
		"HTTP 500 (hint: try again)":             {Status: http.StatusInternalServerError, Hint: "try again", RetryAfter: time.Second},
	} {
		if got := e.Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// rejected matches the codes for which rows are dropped. It repeats the library's list in
// other words.
var rejected = regexp.MustCompile(`^(P0|2[1237]|44|54)[0-9A-Z]{3}$`)

// FuzzClassify checks that every error has a meaning, and that rows are dropped only for
// a code of the closed list.
func FuzzClassify(f *testing.F) {
	for _, status := range []int{200, 302, 400, 401, 409, 413, 500, 503, 540} {
		for _, code := range []string{"", "23514", "23505", "23503", "57014", "55000", "PGRST102", "PGRST205", "PT500", "08006", "23514 ", "\xff"} {
			f.Add(status, code, `violates unique constraint "document_processing_events_pkey"`, "7")
		}
	}
	f.Fuzz(func(t *testing.T, status int, code, message, retryAfterHeader string) {
		wait := retryAfter(retryAfterHeader, time.Now())
		if wait < 0 || wait > maxRetryAfter {
			t.Errorf("Retry-After %q: %s", retryAfterHeader, wait)
		}
		err := &Error{Status: status, Code: code, Message: message, RetryAfter: wait, meaning: meaningOf(code, message, "", "id")}
		got := Classify(err)
		if got <= Accepted || got > BadData {
			t.Errorf("%v: %d is no meaning of an error", err, got)
		}
		if mayDrop := rejected.MatchString(code) && status >= 400 && code != "23503"; (got == BadData || got == StoredBefore) && !mayDrop {
			t.Errorf("%v: its rows are dropped, but its code is not in the list", err)
		}
		if got == StoredBefore && code != "23505" {
			t.Errorf("%v: rows are taken for stored", err)
		}
		if got := RetryAfter(fmt.Errorf("wrapped: %w", err)); got != wait {
			t.Errorf("%v: asks for %s, want %s", err, got, wait)
		}
		_ = err.Error() // doesn't panic
	})
}
