package sqltest

import (
	"cmp"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/docevents/docevents-go"
)

// This file computes summaries and lists of documents in Go, by the definitions at the top
// of sql/014_create_docevents_reading.sql. The tests compare them with the results of the
// SQL functions. In the rows, "" stands for NULL.

// stored is a stored row. A negative MS stands for NULL.
type stored struct {
	ID, Document, User, Type, Stage, Message, Tenant string
	MS                                               float64
	At                                               time.Time
}

// plain computes the results from rows in memory.
type plain struct {
	rows  []stored
	types docevents.EventTypes
}

// kind returns the meaning of the row's type, such as "failed", or "" for a note.
func (p plain) kind(r stored) string {
	word := docevents.EventType(r.Type)
	switch t := p.types; {
	case slices.Contains(t.Arrived, word):
		return "arrived"
	case slices.Contains(t.Started, word):
		return "started"
	case slices.Contains(t.Completed, word), r.Stage != "" && slices.Contains(t.Skipped, word):
		return "completed"
	case slices.Contains(t.Failed, word):
		return "failed"
	case slices.Contains(t.Skipped, word):
		return "skipped"
	}
	return ""
}

// look returns the rows that q reads, sorted by time and id.
func (p plain) look(q docevents.Query) []stored {
	rows := slices.DeleteFunc(slices.Clone(p.rows), func(r stored) bool {
		tenant, filtered := q.Where["tenant"]
		return r.At.Before(q.Since) || !r.At.Before(q.Until) || filtered && r.Tenant != tenant
	})
	slices.SortFunc(rows, func(a, b stored) int { return cmp.Or(a.At.Compare(b.At), strings.Compare(a.ID, b.ID)) })
	return rows
}

// failures returns the failures that count. In their messages, fold has replaced numbers
// and UUIDs.
func (p plain) failures(rows []stored) (failures []stored) {
	stepFailed := map[[2]string]bool{}
	for _, r := range rows {
		if p.kind(r) == "failed" && r.Stage != "" {
			stepFailed[[2]string{r.Document, fold(r.Message)}] = true
		}
	}
	for _, r := range rows {
		r.Message = fold(r.Message)
		if p.kind(r) == "failed" && (r.Stage != "" || r.Document == "" || !stepFailed[[2]string{r.Document, r.Message}]) {
			failures = append(failures, r)
		}
	}
	return failures
}

func (p plain) summary(q docevents.Query) *docevents.Summary {
	rows := p.look(q)
	s := &docevents.Summary{Since: q.Since, Until: q.Until, Interval: plainInterval(q.Until.Sub(q.Since))}
	points := map[time.Time]*docevents.Point{}
	bin := func(at time.Time) time.Time {
		origin := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
		return origin.Add(time.Duration(math.Floor(float64(at.Sub(origin))/float64(s.Interval))) * s.Interval)
	}
	for at := bin(q.Since); at.Before(q.Until); at = at.Add(s.Interval) {
		points[at] = &docevents.Point{At: at}
	}
	for _, d := range p.documents(rows, q) {
		s.Documents++
		point := points[bin(d.LastAt)]
		switch d.State {
		case docevents.StateCompleted:
			s.Completed++
			point.Completed++
			if d.LastAt.After(s.LastCompleted) {
				s.LastCompleted = d.LastAt
			}
		case docevents.StateFailed:
			s.Failed++
			point.Failed++
		case docevents.StateSkipped:
			s.Skipped++
			point.Skipped++
		case docevents.StateUnderWay, docevents.StateStuck:
			s.UnderWay++
			point.UnderWay++
		}
		if d.State == docevents.StateStuck {
			s.Stuck = append(s.Stuck, docevents.StuckDocument{
				DocumentID: d.ID, Since: d.Started, Starts: d.starts, LastEvent: d.Type, LastStage: d.Stage, LastAt: d.LastAt,
			})
		}
	}
	byStage := map[string][]stored{}
	for _, r := range rows {
		if kind := p.kind(r); kind == "completed" || kind == "failed" {
			byStage[r.Stage] = append(byStage[r.Stage], r)
		}
	}
	for name, ends := range byStage {
		s.Stages = append(s.Stages, p.stage(name, ends))
	}
	byError := map[[2]string][]stored{}
	for _, f := range p.failures(rows) {
		byError[[2]string{f.Stage, f.Message}] = append(byError[[2]string{f.Stage, f.Message}], f)
		s.LastFailure = f.At
		points[bin(f.At)].Failures++
	}
	for key, failures := range byError {
		group := docevents.ErrorGroup{
			Stage: key[0], Message: key[1], Count: int64(len(failures)), First: failures[0].At, Last: failures[len(failures)-1].At,
		}
		documents := map[string]bool{}
		for _, f := range failures {
			if f.Document != "" {
				documents[f.Document], group.Example = true, f.Document
			}
		}
		group.Documents = int64(len(documents))
		s.Errors = append(s.Errors, group)
	}
	for _, p := range points {
		s.Series = append(s.Series, *p)
	}
	inOrder(s)
	return s
}

type plainDocument struct {
	docevents.Document
	starts int64
}

// documents returns all documents, in no particular order.
func (p plain) documents(rows []stored, q docevents.Query) (list []plainDocument) {
	byDocument := map[string][]stored{}
	for _, r := range rows {
		if r.Document != "" {
			byDocument[r.Document] = append(byDocument[r.Document], r)
		}
	}
	for _, events := range byDocument {
		list = append(list, p.document(events, q))
	}
	return list
}

func (p plain) document(events []stored, q docevents.Query) plainDocument {
	latest := events[len(events)-1]
	var wholeStart, wholeEnd, stepEnd, badEnd time.Time
	for _, e := range events {
		kind, whole := p.kind(e), e.Stage == ""
		if kind == "" {
			continue
		}
		latest = e
		ends := kind == "completed" || kind == "failed" || kind == "skipped"
		if whole && kind == "started" {
			wholeStart = e.At
		}
		if whole && ends {
			wholeEnd = e.At
		}
		if ends {
			stepEnd = e.At
		}
		if kind == "failed" || ends && whole {
			badEnd = e.At
		}
	}
	begun := wholeStart.After(wholeEnd)
	d := plainDocument{Document: docevents.Document{
		ID: latest.Document, UserID: latest.User, Type: docevents.EventType(latest.Type), Stage: cutRunes(latest.Stage, 200), Error: cutRunes(latest.Message, 200),
		Started: events[0].At, LastAt: latest.At,
	}}
	switch kind := p.kind(latest); {
	case kind == "completed" && !begun, kind == "failed", kind == "skipped":
		d.State = docevents.State(kind)
		return d
	case kind == "": // the document has only notes
		return d
	}
	d.State = docevents.StateUnderWay
	lastEnd := stepEnd
	if begun {
		lastEnd = badEnd
	}
	for _, e := range slices.Backward(events) {
		if kind := p.kind(e); (kind == "started" || kind == "arrived") && (e.At.After(lastEnd) || e.At.Equal(latest.At)) {
			d.starts++
			d.Started = e.At
		}
	}
	if d.starts > 0 && d.Started.Before(q.Until.Add(-cmp.Or(q.StuckAfter, 30*time.Minute))) {
		d.State = docevents.StateStuck
	}
	return d
}

// list returns the documents of all pages of a query.
func (p plain) list(q docevents.DocumentsQuery) (list []docevents.Document) {
	rows := p.look(q.Query)
	failed := map[string]bool{} // the documents with the error of q
	for _, f := range p.failures(rows) {
		if f.Message == q.Error && (q.Stage == "" || f.Stage == q.Stage) {
			failed[f.Document] = true
		}
	}
	for _, d := range p.documents(rows, q.Query) {
		switch {
		case q.Error != "" && !failed[d.ID],
			q.Error == "" && q.Stage != "" && d.Stage != q.Stage,
			q.State != "" && d.State != q.State && !(q.State == docevents.StateUnderWay && d.State == docevents.StateStuck):
		default:
			list = append(list, d.Document)
		}
	}
	slices.SortFunc(list, func(a, b docevents.Document) int {
		return cmp.Or(b.LastAt.Compare(a.LastAt), strings.Compare(b.ID, a.ID))
	})
	return list
}

func (p plain) stage(name string, ends []stored) docevents.Stage {
	stage := docevents.Stage{Name: name, Count: int64(len(ends))}
	var took []time.Duration
	for _, e := range ends {
		if p.kind(e) == "failed" {
			stage.Failed++
		}
		if e.MS >= 0 {
			took = append(took, time.Duration(math.Round(e.MS))*time.Millisecond)
		}
	}
	if stage.Measured = int64(len(took)); stage.Measured > 0 {
		slices.Sort(took)
		at := func(p float64) time.Duration { return took[int(math.Ceil(p*float64(len(took))))-1] }
		stage.P50, stage.P95, stage.Max = at(0.5), at(0.95), at(1)
	}
	return stage
}

func plainInterval(span time.Duration) time.Duration {
	for _, minutes := range []int{1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 480, 720, 1440} {
		if width := time.Duration(minutes) * time.Minute; 99*width >= span {
			return width
		}
	}
	days := math.Ceil(span.Hours() / 24 / 99)
	return time.Duration(days) * 24 * time.Hour
}

var varies = regexp.MustCompile(`[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9]+`)

func fold(message string) string {
	return cutRunes(varies.ReplaceAllString(cutRunes(message, 1000), "#"), 200)
}

func cutRunes(s string, n int) string { return string([]rune(s)[:min(n, len([]rune(s)))]) }

// inOrder sorts the lists, sets their totals and cuts them to 20 entries.
func inOrder(s *docevents.Summary) {
	nullsLast := func(a, b string) int { // "" is NULL
		if a == "" || b == "" {
			return strings.Compare(b, a)
		}
		return strings.Compare(a, b)
	}
	slices.SortFunc(s.Series, func(a, b docevents.Point) int { return a.At.Compare(b.At) })
	slices.SortFunc(s.Stages, func(a, b docevents.Stage) int {
		return cmp.Or(cmp.Compare(min(b.Measured, 1), min(a.Measured, 1)), cmp.Compare(b.P95, a.P95), cmp.Compare(b.Count, a.Count), nullsLast(a.Name, b.Name))
	})
	slices.SortFunc(s.Errors, func(a, b docevents.ErrorGroup) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), b.Last.Compare(a.Last), nullsLast(a.Stage, b.Stage), nullsLast(a.Message, b.Message))
	})
	slices.SortFunc(s.Stuck, func(a, b docevents.StuckDocument) int {
		return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.DocumentID, b.DocumentID))
	})
	s.StagesTotal, s.ErrorsTotal, s.StuckTotal = int64(len(s.Stages)), int64(len(s.Errors)), int64(len(s.Stuck))
	s.Stages, s.Errors, s.Stuck = s.Stages[:min(20, len(s.Stages))], s.Errors[:min(20, len(s.Errors))], s.Stuck[:min(20, len(s.Stuck))]
}
