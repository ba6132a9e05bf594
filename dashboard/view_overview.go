package dashboard

import (
	"context"
	"slices"
	"time"

	"github.com/docevents/docevents-go"
)

type overview struct {
	*page
	Summary    *docevents.Summary
	HasSkipped bool // the app has types for skipped documents, or skipped documents exist
	Chart      chart
	Ticks      []time.Time // the labels of the chart's axis
	Stages     []stage
	ByFailures bool // Stages are sorted by failures, not by time
	Errors     []failure
	Stuck      []docevents.StuckDocument
	Stats      docevents.Stats
	Lost       []loss

	types docevents.EventTypes
}

func (h *handler) overview(ctx context.Context, p *page) any {
	v := &overview{page: p, Stats: h.client.Stats(), types: h.types}
	v.Lost = losses(v.Stats.Dropped)
	p.Title = "Documents"
	if p.Range.Name != "" { // the other ranges end at a fixed time
		p.refresh = refreshEvery
	}
	if p.query.Get("sort") == "failures" {
		p.own["sort"], v.ByFailures = "failures", true
	}
	if p.Problem != nil {
		return v
	}
	query, scope := p.scopeQuery()
	s, err := share(ctx, &h.reads, "summary?"+scope, func(ctx context.Context) (*docevents.Summary, error) {
		return h.client.Summary(ctx, query)
	})
	if err != nil {
		p.fail(err)
		return v
	}
	v.Summary = s
	v.HasSkipped = len(h.types.Skipped) > 0 || s.Skipped > 0
	v.Chart = newChart(s.Series)
	for i := range min(len(s.Series), 4) {
		v.Ticks = append(v.Ticks, s.Series[i*len(s.Series)/4].At)
	}
	v.Stages = newStages(s.Stages, v.ByFailures)
	v.Stages = v.Stages[:min(len(v.Stages), p.rows)]
	v.Errors = newFailures(s.Errors)
	v.Errors = v.Errors[:min(len(v.Errors), p.rows)]
	v.Stuck = s.Stuck[:min(len(s.Stuck), p.rows)]
	return v
}

// IsRoomy reports whether there is room for the chart's links and table.
func (v *overview) IsRoomy() bool { return v.rows == maxRows }

func (v *overview) List(state docevents.State) string {
	return v.To("documents", "state", string(state))
}

// Bar returns a link to the overview of the interval that a bar covers.
func (v *overview) Bar(at time.Time) string {
	return v.Here("since", inputTime(at), "until", inputTime(at.Add(v.Summary.Interval)))
}

// Tick formats a time for the axis of the chart. Row formats it for the chart's table.
func (v *overview) Tick(t time.Time) string { return v.short(t, "2 Jan") }
func (v *overview) Row(t time.Time) string  { return v.short(t, "2 Jan 15:04") }

func (v *overview) short(t time.Time, format string) string {
	if v.Summary.Until.Sub(v.Summary.Since) <= 24*time.Hour {
		format = "15:04"
	}
	return t.UTC().Format(format)
}

// Edge returns the label at the end of the chart's axis.
func (v *overview) Edge() string {
	if v.Range.Name != "" {
		return "now"
	}
	return v.Tick(v.Summary.Until)
}

// Each returns the length of the interval that a bar covers, such as 1 min.
func (v *overview) Each() string { return v.Rough(v.Summary.Interval) }

// Ended returns the number of documents that completed or failed.
func (v *overview) Ended() int64 { return v.Summary.Completed + v.Summary.Failed }

// StageLink returns a link to the documents that have an event of a stage, or, if name
// is "", to all documents, because no filter can select events without a stage.
func (v *overview) StageLink(name string) string { return v.To("documents", "stage", name) }

// StageFailedLink returns a link to the documents that failed in a stage. If the app
// has several types for failures, or if name is "", no filter selects exactly these
// documents. The link then selects the state "failed", which leaves out documents that
// completed later.
func (v *overview) StageFailedLink(name string) string {
	if failed := v.types.Failed; len(failed) == 1 && name != "" {
		return v.To("documents", "stage", name, "type", string(failed[0]))
	}
	return v.To("documents", "stage", name, "state", string(docevents.StateFailed))
}

// HasCutStage reports whether any stage's bar is cut off.
func (v *overview) HasCutStage() bool {
	return slices.ContainsFunc(v.Stages, func(s stage) bool { return s.HasBar && s.IsCut })
}

// FailureLink returns a link to the documents that failed with the message of f.
func (v *overview) FailureLink(f failure) string {
	if len(f.Stages) == 1 {
		return v.ErrorLink(f.Message, f.Stages[0].Stage)
	}
	return v.ErrorLink(f.Message, "")
}

// ErrorLink returns a link to the documents that failed with a message in a stage. If
// stage is "", the stage doesn't matter. If message is "", the message doesn't matter.
func (v *overview) ErrorLink(message, stage string) string {
	if message == "" {
		return v.StageFailedLink(stage)
	}
	return v.To("documents", "error", message, "failed_in", stage)
}

// A loss is the number of events that were dropped for the Reason.
type loss struct {
	Reason string
	Count  int64
}

func losses(d docevents.Drops) (lost []loss) {
	for _, l := range []loss{
		{"invalid", d.Invalid},
		{"filtered", d.Filtered},
		{"queue full", d.QueueFull},
		{"rejected", d.Rejected},
		{"closed", d.Closed},
		{"abandoned", d.Abandoned},
	} {
		if l.Count > 0 {
			lost = append(lost, l)
		}
	}
	return lost
}
