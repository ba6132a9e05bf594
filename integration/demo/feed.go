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

// A feed is the events of an imagined pipeline, in the order of their times. Run
// again it is the same pipeline, with other ids.
type feed struct {
	rand    *rand.Rand
	start   time.Time
	next    time.Time // when the next document comes
	number  int       // of documents so far
	waiting []docevents.Event
}

func newFeed(start time.Time) *feed {
	return &feed{rand: rand.New(rand.NewPCG(7, 11)), start: start, next: start}
}

// play records the events up to now.
func (f *feed) play(client *docevents.Client, now time.Time) {
	for ; !f.next.After(now); f.next = f.next.Add(seconds(f.rand.ExpFloat64() * 6)) {
		f.number++
		f.waiting = append(f.waiting, f.story(f.next)...)
	}
	slices.SortStableFunc(f.waiting, func(a, b docevents.Event) int { return a.CreatedAt.Compare(b.CreatedAt) })
	for len(f.waiting) > 0 && !f.waiting[0].CreatedAt.After(now) {
		client.Record(f.waiting[0])
		f.waiting = f.waiting[1:]
	}
}

// The steps, how long half of the documents take, how much that varies, and
// which part of the documents fails there for good.
var steps = []struct {
	stage                 string
	median, spread, fails float64
}{
	{"extract", 0.7, 0.6, 0.015},
	{"ocr", 9, 0.9, 0.02}, // the slow one; scans alone
	{"summarize", 2.6, 0.4, 0.004},
	{"index", 0.09, 0.3, 0.001},
}

// The customers whose users the documents belong to.
var tenants = []string{"northwind", "contoso", "tailspin"}

// The outage, after the start: meanwhile the model behind summarize answers 503.
const outageStart, outageEnd = 72 * time.Minute, 86 * time.Minute

// story is what happens to a document that comes at a time.
func (f *feed) story(at time.Time) []docevents.Event {
	user := f.rand.IntN(25)
	d := &tale{
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
		if s.stage == "ocr" && f.number%97 == 0 { // its worker dies, and nobody begins again
			d.add(docevents.ProcessingStarted, s.stage, 0, "")
			return d.events
		}
		if message := d.step(s.stage, s.median, s.spread, s.fails); message != "" {
			d.add(docevents.Failed, "", d.at.Sub(begun), message)
			return d.events
		}
	}
	d.add(docevents.Completed, "", d.at.Sub(begun), "")
	return d.events
}

// A tale is a document's events so far, and its time.
type tale struct {
	*feed
	at     time.Time
	event  docevents.Event // what all of them have
	events []docevents.Event
}

func (d *tale) add(typ docevents.EventType, stage string, took time.Duration, message string) {
	e := d.event
	e.Type, e.Stage, e.Duration, e.ErrorMessage, e.CreatedAt = typ, stage, took, message, d.at
	d.events = append(d.events, e)
}

// step runs a step, again when the model is away, and returns what it failed
// with in the end.
func (d *tale) step(stage string, median, spread, fails float64) (message string) {
	const tries = 3
	for try := range tries {
		d.at = d.at.Add(seconds(0.02 + 0.1*d.rand.Float64()))
		d.add(docevents.ProcessingStarted, stage, 0, "")
		took := seconds(median * math.Exp(spread*d.rand.NormFloat64()))
		message = d.message(stage, fails)
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

// message is what a step fails with at this time, "" if it doesn't.
func (d *tale) message(stage string, fails float64) string {
	since := d.at.Sub(d.start)
	outage := stage == "summarize" && since > outageStart && since < outageEnd
	page, pages := 1+d.rand.IntN(20), 20+d.rand.IntN(60)
	switch {
	case outage && d.rand.IntN(10) > 0:
		return fmt.Sprintf("model answered 503: overloaded, try again in %d s (request %s)", 5+d.rand.IntN(50), uuid.NewString())
	case d.rand.Float64() > fails:
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

// encrypted is an error with the output of a program, as errors often are.
const encrypted = `the file is encrypted: pdftotext: exit status 1
Syntax Warning: May not be a PDF file (continuing anyway)
Syntax Error (212): Illegal character <8e> in hex string
Syntax Error (214): Illegal character <c1> in hex string
Syntax Error (219): Dictionary key must be a name object
Command Line Error: Incorrect password
Error: the document needs a user password to open (Encrypt dictionary: V=4 R=4 Length=128)`

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
