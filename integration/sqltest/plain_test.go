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

// Go's own summary, by the definitions at the head of 014.
func plainSummary(rows []stored, since, until time.Time) *docevents.Summary {
	rows = slices.DeleteFunc(slices.Clone(rows), func(r stored) bool { return r.At.Before(since) || !r.At.Before(until) })
	slices.SortFunc(rows, func(a, b stored) int { return cmp.Or(a.At.Compare(b.At), strings.Compare(a.ID, b.ID)) })
	s := &docevents.Summary{Since: since, Until: until, Interval: plainInterval(until.Sub(since))}
	points := map[time.Time]*docevents.Point{}
	bin := func(at time.Time) time.Time {
		origin := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
		return origin.Add(time.Duration(math.Floor(float64(at.Sub(origin))/float64(s.Interval))) * s.Interval)
	}
	for at := bin(since); at.Before(until); at = at.Add(s.Interval) {
		points[at] = &docevents.Point{At: at}
	}
	stepFailed := map[[2]string]bool{}
	for _, r := range rows {
		if r.Type == "failed" && r.Stage != "" {
			stepFailed[[2]string{r.Document, fold(r.Message)}] = true
		}
	}
	byDocument := map[string][]stored{}
	byStage := map[string][]stored{}
	byError := map[[2]string][]stored{}
	for _, r := range rows {
		byDocument[r.Document] = append(byDocument[r.Document], r)
		if r.Type == "completed" || r.Type == "failed" {
			byStage[r.Stage] = append(byStage[r.Stage], r)
		}
		if r.Type == "failed" && (r.Stage != "" || !stepFailed[[2]string{r.Document, fold(r.Message)}]) {
			key := [2]string{r.Stage, fold(r.Message)}
			byError[key] = append(byError[key], r)
			s.LastFailure = r.At
			points[bin(r.At)].Failures++
		}
	}
	for _, events := range byDocument {
		plainDocument(s, events, points[bin(events[len(events)-1].At)])
	}
	for name, ends := range byStage {
		s.Stages = append(s.Stages, plainStage(name, ends))
	}
	for key, failures := range byError {
		last := failures[len(failures)-1]
		group := docevents.ErrorGroup{
			Stage: key[0], Message: key[1], Count: int64(len(failures)), First: failures[0].At, Last: last.At, Example: last.Document,
		}
		documents := map[string]bool{}
		for _, f := range failures {
			documents[f.Document] = true
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

// plainDocument adds a document to s and to the point of its latest event.
func plainDocument(s *docevents.Summary, events []stored, p *docevents.Point) {
	latest := events[len(events)-1]
	var wholeStart, wholeEnd, stepEnd, badEnd time.Time
	for _, e := range events {
		whole, ends := e.Stage == "", e.Type == "completed" || e.Type == "failed"
		switch {
		case whole && e.Type == "processing_started":
			wholeStart = e.At
		case whole && ends:
			wholeEnd = e.At
		}
		if ends {
			stepEnd = e.At
		}
		if e.Type == "failed" || ends && whole {
			badEnd = e.At
		}
	}
	begun := wholeStart.After(wholeEnd)
	s.Documents++
	switch {
	case latest.Type == "completed" && !begun:
		s.Completed++
		p.Completed++
		if latest.At.After(s.LastCompleted) {
			s.LastCompleted = latest.At
		}
		return
	case latest.Type == "failed":
		s.Failed++
		p.Failed++
		return
	case latest.Type == "archived":
		return
	}
	s.UnderWay++
	p.UnderWay++
	lastEnd := stepEnd
	if begun {
		lastEnd = badEnd
	}
	stuck := docevents.StuckDocument{DocumentID: latest.Document, LastEvent: docevents.EventType(latest.Type), LastStage: latest.Stage, LastAt: latest.At}
	for _, e := range slices.Backward(events) {
		if strings.HasSuffix(e.Type, "_started") && e.At.After(lastEnd) {
			stuck.Starts++
			stuck.Since = e.At
		}
	}
	if stuck.Starts > 0 && stuck.Since.Before(s.Until.Add(-30*time.Minute)) {
		s.Stuck = append(s.Stuck, stuck)
	}
}

func plainStage(name string, ends []stored) docevents.Stage {
	stage := docevents.Stage{Name: name, Count: int64(len(ends))}
	var took []time.Duration
	for _, e := range ends {
		if e.Type == "failed" {
			stage.Failed++
		}
		if e.MS >= 0 {
			took = append(took, time.Duration(e.MS)*time.Millisecond)
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

// inOrder sorts the lists, cuts them at 20 and sets their totals.
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
