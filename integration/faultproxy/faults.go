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

// A Request is the client's request, for which a plan chooses a fault.
type Request struct {
	Number int // counts from 0 since Deal
	Method string
	URL    *url.URL
	Header http.Header
	Body   []byte
}

// Has reports whether the body contains text, for example a chosen row.
func (r *Request) Has(text string) bool { return bytes.Contains(r.Body, []byte(text)) }

// A Plan returns the fault for a request. The proxy calls it on the goroutine that
// handles the request, so it must be safe for concurrent use. If it blocks, it delays
// only that request.
type Plan func(*Request) Fault

// Pass is a plan without faults.
func Pass(*Request) Fault { return Fault{} }

// Always returns a plan that causes the same fault for every request.
func Always(f Fault) Plan {
	return func(*Request) Fault { return f }
}

// Script returns a plan that causes the faults in order, one per request, and no
// fault after the last.
func Script(faults ...Fault) Plan {
	return func(r *Request) Fault {
		if r.Number < len(faults) {
			return faults[r.Number]
		}
		return Fault{}
	}
}

// ForRow returns a plan that causes a fault for every request whose body contains
// text. The plan others chooses the faults of all other requests.
func ForRow(text string, f Fault, others Plan) Plan {
	return func(r *Request) Fault {
		if r.Has(text) {
			return f
		}
		return others(r)
	}
}

// Random returns a plan that causes faults for a random share of the requests. share is
// from 0 to 1. All faults are equally likely. With the same seed, the nth request has
// the same fault in every run.
func Random(seed uint64, share float64, faults ...Fault) Plan {
	return func(r *Request) Fault {
		rng := rand.New(rand.NewPCG(seed, uint64(r.Number)))
		if rng.Float64() >= share {
			return Fault{}
		}
		return faults[rng.IntN(len(faults))]
	}
}

// A Fault describes how the proxy handles one request. With the zero Fault, the
// request reaches the server and the answer reaches the client.
type Fault struct {
	Name string // for messages and the names of tests

	// Lost means that the request doesn't reach the server. If there is neither
	// Answer nor Stall, the connection is reset.
	Lost bool

	// Without names a request header that doesn't reach the server. The default is
	// none.
	Without string

	// Answer replaces the server's answer. With nil, the server's answer is used.
	Answer *Answer

	// Stall means that no answer comes. The proxy waits until the client disconnects.
	Stall bool

	// Cut is the part of the answer in which the connection breaks.
	Cut Cut

	// Pace is the time between two bytes of the answer, including its header. With
	// 0, the answer is not delayed.
	Pace time.Duration
}

// A Cut is the part of an answer in which the connection breaks.
type Cut int

// The values of Cut. With CutAll, the connection is reset before the answer. With
// CutHeader and CutBody, the answer ends after half of the header or body.
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

// Committed returns f with the difference that the server processes the request before
// the fault.
func (f Fault) Committed() Fault {
	f.Name += " after the commit"
	f.Lost = false
	return f
}

// RequestLost cuts the connection before the request reaches the server.
func RequestLost() Fault {
	return Fault{Name: "request lost", Lost: true, Cut: CutAll}
}

// AnswerLost cuts the connection after the server has processed the request, before
// the first byte of its answer.
func AnswerLost() Fault {
	return Fault{Name: "answer lost", Cut: CutAll}
}

// AnswerCut cuts the connection in the header or the body of the server's answer.
func AnswerCut(at Cut) Fault {
	name := "answer cut in the header"
	if at == CutBody {
		name = "answer cut in the body"
	}
	return Fault{Name: name, Cut: at}
}

// Stall never answers. The request doesn't reach the server.
func Stall() Fault {
	return Fault{Name: "stall", Lost: true, Stall: true}
}

// Trickle sends the server's answer byte by byte.
func Trickle(pace time.Duration) Fault {
	return Fault{Name: fmt.Sprintf("trickle at %s a byte", pace), Pace: pace}
}

// HeaderLost removes a request header, as some gateways do.
func HeaderLost(name string) Fault {
	return Fault{Name: "without " + name, Without: name}
}

// Text answers with a body that has no error code and may be empty. headers are
// pairs of a name and a value. The request doesn't reach the server.
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

// Refusal answers with an error in the form of PostgREST. Its details contain a row, as
// PostgREST's do. The request doesn't reach the server.
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

// SecretRow stands for the row in the details of a [Refusal]. It must not appear in
// a log.
const SecretRow = "row-that-must-not-be-logged"

// Page answers with an HTML page, as a firewall, a captive portal or a load
// balancer does. The request doesn't reach the server.
func Page(status int) Fault {
	f := Text(status, "<!DOCTYPE html><html><head><title>Sorry</title></head><body><h1>Sorry</h1></body></html>",
		"Content-Type", "text/html; charset=utf-8")
	f.Name = fmt.Sprintf("%d and a page", status)
	return f
}

// Garbage answers with size random bytes, the same in every run. The request doesn't
// reach the server.
func Garbage(status, size int) Fault {
	body := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(body) // never fails
	f := Text(status, string(body), "Content-Type", "application/octet-stream")
	f.Name = fmt.Sprintf("%d and %d bytes of garbage", status, size)
	return f
}
