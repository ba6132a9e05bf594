package faultproxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"
)

// A Request is what a plan may look at.
type Request struct {
	Number int // from 0, since Deal
	Method string
	URL    *url.URL
	Header http.Header
	Body   []byte
}

// Has says whether the body contains text: one chosen row, say.
func (r *Request) Has(text string) bool { return bytes.Contains(r.Body, []byte(text)) }

// A Plan says which fault a request meets. It is called on the request's own
// goroutine, for several requests at once, and may wait: it holds up that
// request alone.
type Plan func(*Request) Fault

// Pass is the plan without faults.
func Pass(*Request) Fault { return Fault{} }

// Always deals the same fault to every request.
func Always(f Fault) Plan {
	return func(*Request) Fault { return f }
}

// Script deals the faults in turn, one a request, and none after the last.
func Script(faults ...Fault) Plan {
	return func(r *Request) Fault {
		if r.Number < len(faults) {
			return faults[r.Number]
		}
		return Fault{}
	}
}

// ForRow deals a fault to every request whose body contains text, and leaves
// the others to another plan.
func ForRow(text string, f Fault, others Plan) Plan {
	return func(r *Request) Fault {
		if r.Has(text) {
			return f
		}
		return others(r)
	}
}

// Random deals one of the faults, each as likely as another, to a share of the
// requests, between 0 and 1. The nth request meets the same in every run with
// the same seed.
func Random(seed uint64, share float64, faults ...Fault) Plan {
	return func(r *Request) Fault {
		rng := rand.New(rand.NewPCG(seed, uint64(r.Number)))
		if rng.Float64() >= share {
			return Fault{}
		}
		return faults[rng.IntN(len(faults))]
	}
}

// A Fault is what happens to one request. The zero Fault is none: the request
// reaches the server and its answer the client.
type Fault struct {
	Name string // in the proxy's counts

	// Lost keeps the request from the server. Without an Answer or Stall the
	// connection is cut.
	Lost bool

	// Without is a request header that gets lost on the way to the server.
	Without string

	// Answer comes instead of the server's.
	Answer *Answer

	// Stall: no answer comes, until the client gives up.
	Stall bool

	// Cut is where in the answer the connection breaks.
	Cut Cut

	// Pace is the time between two bytes of the answer, the header included.
	Pace time.Duration
}

// A Cut is where in an answer the connection breaks.
type Cut int

// The places. After CutAll the client sees a reset, after the others an answer
// that ends too soon.
const (
	NoCut Cut = iota
	CutAll
	CutHeader
	CutBody
)

// An Answer is a complete one.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Committed is f after the server has done what was asked.
func (f Fault) Committed() Fault {
	f.Name += " after the commit"
	f.Lost = false
	return f
}

// RequestLost cuts the connection before the request reaches the server.
func RequestLost() Fault {
	return Fault{Name: "request lost", Lost: true, Cut: CutAll}
}

// AnswerLost cuts the connection after the server has done what was asked and
// before a byte of its answer.
func AnswerLost() Fault {
	return Fault{Name: "answer lost", Cut: CutAll}
}

// AnswerCut breaks the server's answer off in its header or its body.
func AnswerCut(at Cut) Fault {
	name := "answer cut in the header"
	if at == CutBody {
		name = "answer cut in the body"
	}
	return Fault{Name: name, Cut: at}
}

// Stall never answers. The request does not reach the server.
func Stall() Fault {
	return Fault{Name: "stall", Lost: true, Stall: true}
}

// Trickle hands the server's answer back byte by byte.
func Trickle(pace time.Duration) Fault {
	return Fault{Name: fmt.Sprintf("trickle at %s a byte", pace), Pace: pace}
}

// HeaderLost loses a request header, as some gateways do.
func HeaderLost(name string) Fault {
	return Fault{Name: "without " + name, Without: name}
}

// Text answers with a body, empty perhaps, that names no code. Headers are names
// and values in turn. The request does not reach the server.
func Text(status int, body string, headers ...string) Fault {
	a := &Answer{Status: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(body)}
	for i := 0; i < len(headers); i += 2 {
		a.Header.Set(headers[i], headers[i+1])
	}
	name := fmt.Sprintf("%d %.20q", status, body)
	for i := 0; i < len(headers); i += 2 {
		name += fmt.Sprintf(" %s: %s", headers[i], headers[i+1])
	}
	return Fault{Name: name, Lost: true, Answer: a}
}

// Refusal answers with an error as PostgREST writes them, the row in its details
// included. The request does not reach the server.
func Refusal(status int, code, message string) Fault {
	body, err := json.Marshal(map[string]any{
		"code": code, "message": message, "hint": nil, "details": "Failing row contains (" + SecretRow + ").",
	})
	if err != nil {
		panic(err) // unreachable: they are strings
	}
	f := Text(status, string(body))
	f.Name = fmt.Sprintf("%d %s", status, code)
	return f
}

// SecretRow is what the details of a [Refusal] repeat of the row: it must not
// turn up in a log.
const SecretRow = "row-that-must-not-be-logged"

// Page answers with an HTML page, as a firewall, a captive portal or a load
// balancer does. The request does not reach the server.
func Page(status int) Fault {
	f := Text(status, "<!DOCTYPE html><html><head><title>Sorry</title></head><body><h1>Sorry</h1></body></html>",
		"Content-Type", "text/html; charset=utf-8")
	f.Name = fmt.Sprintf("%d and a page", status)
	return f
}

// Redirect sends the client elsewhere. The request does not reach the server.
func Redirect(status int, location string) Fault {
	f := Text(status, "", "Location", location)
	f.Name = fmt.Sprintf("%d redirect", status)
	return f
}

// Garbage answers with so many bytes that mean nothing, the same in every run.
// The request does not reach the server.
func Garbage(status, size int) Fault {
	body := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(body) // never fails
	f := Text(status, string(body), "Content-Type", "application/octet-stream")
	f.Name = fmt.Sprintf("%d and %d bytes of garbage", status, size)
	return f
}
