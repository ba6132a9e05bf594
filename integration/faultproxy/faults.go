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

// A Request is a client's request, for which a plan chooses a fault.
type Request struct {
	Number int // counts from 0 since Deal
	Method string
	URL    *url.URL
	Header http.Header
	Body   []byte
}

// Has reports whether the body contains the given text, for example the id of a row.
func (r *Request) Has(text string) bool { return bytes.Contains(r.Body, []byte(text)) }

// A Plan returns the fault that the proxy causes for a request. It must be safe for
// concurrent use. It is allowed to block: only this request then waits.
type Plan func(*Request) Fault

// Pass is a plan without faults.
func Pass(*Request) Fault { return Fault{} }

// Always returns a plan that causes the same fault for every request.
func Always(f Fault) Plan {
	return func(*Request) Fault { return f }
}

// Script returns a plan with a fault for each of the first requests, in the order of
// the arguments. Later requests get no fault.
func Script(faults ...Fault) Plan {
	return func(r *Request) Fault {
		if r.Number < len(faults) {
			return faults[r.Number]
		}
		return Fault{}
	}
}

// ForRow returns a plan with the fault f for each request whose body contains the given
// text, such as the id of a row. The argument "others" is the plan for all other
// requests.
func ForRow(text string, f Fault, others Plan) Plan {
	return func(r *Request) Fault {
		if r.Has(text) {
			return f
		}
		return others(r)
	}
}

// Random returns a plan that gives a random fault to a share of the requests. The
// argument "share" is from 0 to 1. With the same seed, the nth request gets the same
// fault in every run.
func Random(seed uint64, share float64, faults ...Fault) Plan {
	return func(r *Request) Fault {
		rng := rand.New(rand.NewPCG(seed, uint64(r.Number)))
		if rng.Float64() >= share {
			return Fault{}
		}
		return faults[rng.IntN(len(faults))]
	}
}

// A Fault describes how the proxy disturbs one request. The zero Fault disturbs
// nothing.
type Fault struct {
	Name string // for messages and the names of tests

	// Lost means that the request doesn't reach the server. With Stall, the client then
	// gets no answer. Without Stall, it gets Answer, or a reset if Answer is nil.
	Lost bool

	// Without is the name of a header that the proxy removes from the request. "" means
	// none.
	Without string

	// If Answer isn't nil, it replaces the server's answer.
	Answer *Answer

	// Stall means that the proxy sends no answer and waits until the client
	// disconnects.
	Stall bool

	// Cut is the part of the answer in which the proxy breaks the connection.
	Cut Cut

	// Pace is the pause after each byte of the answer, including its header. 0 means no
	// pause.
	Pace time.Duration
}

// A Cut is a part of an answer.
type Cut int

// The values of a [Cut]:
//
//   - NoCut: the client gets the complete answer.
//   - CutAll: the proxy resets the connection before the answer.
//   - CutHeader: the proxy closes the connection after half of the header.
//   - CutBody: the proxy closes the connection after half of the body.
const (
	NoCut Cut = iota
	CutAll
	CutHeader
	CutBody
)

// An Answer is a complete HTTP answer.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Committed returns a copy of f in which the server processes the request before the
// fault occurs. The rows of an insert are then stored, but the client sees only the
// fault.
func (f Fault) Committed() Fault {
	f.Name += " after the commit"
	f.Lost = false
	return f
}

// RequestLost returns a fault that resets the connection before the request reaches the
// server.
func RequestLost() Fault {
	return Fault{Name: "request lost", Lost: true, Cut: CutAll}
}

// AnswerLost returns a fault that resets the connection after the server has processed
// the request.
func AnswerLost() Fault {
	return Fault{Name: "answer lost", Cut: CutAll}
}

// AnswerCut returns a fault that closes the connection in the header or body of the
// server's answer.
func AnswerCut(at Cut) Fault {
	name := "answer cut in the header"
	if at == CutBody {
		name = "answer cut in the body"
	}
	return Fault{Name: name, Cut: at}
}

// Stall returns a fault in which nobody answers. The request doesn't reach the server.
func Stall() Fault {
	return Fault{Name: "stall", Lost: true, Stall: true}
}

// Trickle returns a fault that sends the server's answer byte by byte, with a pause
// after each byte.
func Trickle(pace time.Duration) Fault {
	return Fault{Name: fmt.Sprintf("trickle at %s a byte", pace), Pace: pace}
}

// HeaderLost returns a fault that removes a request header, as some gateways do.
func HeaderLost(name string) Fault {
	return Fault{Name: "without " + name, Without: name}
}

// Text returns a fault that answers with a status and a body. The request doesn't reach
// the server. The argument "headers" contains a header's name, its value, the next
// header's name, and so on. The default Content-Type is application/json.
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

// Refusal returns a fault that answers with an error in PostgREST's form. The request
// doesn't reach the server. The error's details contain [SecretRow].
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

// SecretRow is a made-up row in the details of a [Refusal]. PostgREST can send a real
// row there. Tests check that the client doesn't log it.
const SecretRow = "row-that-must-not-be-logged"

// Page returns a fault that answers with a status and an HTML page, as a firewall or a
// load balancer does. The request doesn't reach the server.
func Page(status int) Fault {
	f := Text(status, "<!DOCTYPE html><html><head><title>Sorry</title></head><body><h1>Sorry</h1></body></html>",
		"Content-Type", "text/html; charset=utf-8")
	f.Name = fmt.Sprintf("%d and a page", status)
	return f
}

// Garbage returns a fault that answers with a status and n random bytes. The bytes are
// the same in every run. The request doesn't reach the server.
func Garbage(status, n int) Fault {
	body := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(body) // never fails
	f := Text(status, string(body), "Content-Type", "application/octet-stream")
	f.Name = fmt.Sprintf("%d and %d bytes of garbage", status, n)
	return f
}
