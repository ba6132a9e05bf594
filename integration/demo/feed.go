package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/docevents/docevents-go"
)

// A feed generates the events of an imaginary document pipeline, the oldest first. In
// each run of the program, the feed generates the same documents with other ids and
// times.
type feed struct {
	rand    *rand.Rand
	start   time.Time
	next    time.Time         // the time of the next document
	number  int               // the number of documents so far
	waiting []docevents.Event // generated events that play hasn't recorded yet
}

func newFeed(start time.Time) *feed {
	return &feed{rand: rand.New(rand.NewPCG(7, 11)), start: start, next: start}
}

// play records the events that are due by now.
func (f *feed) play(client *docevents.Client, now time.Time) {
	for ; !f.next.After(now); f.next = f.next.Add(seconds(f.rand.ExpFloat64() * 6)) {
		f.number++
		f.waiting = append(f.waiting, f.history(f.next)...)
	}
	slices.SortStableFunc(f.waiting, func(a, b docevents.Event) int { return a.CreatedAt.Compare(b.CreatedAt) })
	for len(f.waiting) > 0 && !f.waiting[0].CreatedAt.After(now) {
		client.Record(f.waiting[0])
		f.waiting = f.waiting[1:]
	}
}

// steps are the steps of the pipeline. The duration of a step has a log-normal
// distribution: "median" is in seconds, and "spread" is the standard deviation of the
// logarithm. failShare is the share of attempts that fail.
var steps = []struct {
	stage                     string
	median, spread, failShare float64
}{
	{"extract", 0.7, 0.6, 0.015},
	{"ocr", 9, 0.9, 0.02}, // the slow step; only for scans
	{"summarize", 2.6, 0.4, 0.004},
	{"index", 0.09, 0.3, 0.001},
}

// tenants are the customers. Each user belongs to one of them.
var tenants = []string{"northwind", "contoso", "tailspin"}

// The step "summarize" calls a model that is overloaded from outageStart to outageEnd
// after the pipeline's start. In this time, nine of ten attempts fail with status 503.
const outageStart, outageEnd = 72 * time.Minute, 86 * time.Minute

// history returns the events of a document that arrives at the given time.
func (f *feed) history(at time.Time) []docevents.Event {
	user := f.rand.IntN(25)
	d := &history{
		feed: f, at: at,
		event: docevents.Event{
			DocumentID: uuid.Must(uuid.NewV7()).String(),
			UserID:     uuid.NewSHA1(uuid.Nil, []byte{byte(user)}).String(),
			Extra:      map[string]any{"tenant_id": tenants[user%len(tenants)]},
		},
	}
	d.add(docevents.UploadStarted, "", 0, "")
	d.at = d.at.Add(seconds(0.2 + f.rand.ExpFloat64()))
	begun := d.at
	d.add(docevents.ProcessingStarted, "", 0, "")
	scan := f.rand.IntN(10) < 4
	for _, s := range steps {
		if s.stage == "ocr" && !scan {
			continue
		}
		if s.stage == "ocr" && f.number%97 == 0 { // the worker dies, and nobody retries
			d.add(docevents.ProcessingStarted, s.stage, 0, "")
			return d.events
		}
		if message := d.step(s.stage, s.median, s.spread, s.failShare); message != "" {
			d.add(docevents.Failed, "", d.at.Sub(begun), message)
			return d.events
		}
	}
	d.add(docevents.Completed, "", d.at.Sub(begun), "")
	return d.events
}

// A history contains the events of a document so far.
type history struct {
	*feed
	at     time.Time       // the time of the next event
	event  docevents.Event // the fields that all events have
	events []docevents.Event
}

func (d *history) add(typ docevents.EventType, stage string, took time.Duration, message string) {
	e := d.event
	e.Type, e.Stage, e.Duration, e.ErrorMessage, e.CreatedAt = typ, stage, took, message, d.at
	d.events = append(d.events, e)
}

// step adds the events of one step. It repeats an attempt that fails with status 503,
// up to three attempts in total. It returns the error message of the last attempt, or
// "" if that attempt succeeded. The parameters are the fields of an element of the
// variable "steps".
func (d *history) step(stage string, median, spread, failShare float64) (message string) {
	const tries = 3
	for try := range tries {
		d.at = d.at.Add(seconds(0.02 + 0.1*d.rand.Float64()))
		d.add(docevents.ProcessingStarted, stage, 0, "")
		took := seconds(median * math.Exp(spread*d.rand.NormFloat64()))
		message = d.message(stage, failShare)
		d.at = d.at.Add(took)
		if message == "" {
			d.add(docevents.Completed, stage, took, "")
			return ""
		}
		d.add(docevents.Failed, stage, took, message)
		if !strings.Contains(message, "503") {
			return message
		}
		d.at = d.at.Add(time.Duration(30<<try) * time.Second)
	}
	return message
}

// message returns the error message of an attempt at a step, or "" if it succeeds.
func (d *history) message(stage string, failShare float64) string {
	since := d.at.Sub(d.start)
	outage := stage == "summarize" && since > outageStart && since < outageEnd
	page, pages := 1+d.rand.IntN(20), 20+d.rand.IntN(60)
	switch {
	case outage && d.rand.IntN(10) > 0:
		return fmt.Sprintf("model answered 503: overloaded, try again in %d s (request %s)", 5+d.rand.IntN(50), uuid.NewString())
	case d.rand.Float64() > failShare:
		return ""
	case stage == "extract" && d.rand.IntN(3) > 0:
		return fmt.Sprintf("page %d of %d: no text layer", page, pages)
	case stage == "extract":
		return encrypted
	case stage == "ocr":
		return fmt.Sprintf("page %d of %d: resolution of %d dpi is too low", page, pages, 40+d.rand.IntN(30))
	case stage == "summarize":
		return fmt.Sprintf("context length exceeded: %d tokens, 128000 at most", 128_000+d.rand.IntN(90_000))
	}
	return fmt.Sprintf("connection refused: 10.0.0.%d:6333", 2+d.rand.IntN(3))
}

// encrypted is an error message of several lines, such as the output of a program.
const encrypted = `the file is encrypted: pdftotext: exit status 1
Syntax Warning: May not be a PDF file (continuing anyway)
Syntax Error (212): Illegal character <8e> in hex string
Syntax Error (214): Illegal character <c1> in hex string
Syntax Error (219): Dictionary key must be a name object
Command Line Error: Incorrect password
Error: the document needs a user password to open (Encrypt dictionary: V=4 R=4 Length=128)`

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
