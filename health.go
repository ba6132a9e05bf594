package docevents

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"
)

// Limits are what [Client.Health] holds the documents to.
type Limits struct {
	// Window is the range of time, up to now, whose failure rate is checked. A
	// short window reports a rise sooner, and needs more documents. It should be
	// longer than a document takes. 0 means 1 hour.
	Window time.Duration

	// StuckAfter is how long a document is under way before it counts as stuck.
	// 0 means 30 minutes.
	StuckAfter time.Duration

	// MaxStuck is how many documents may be stuck. 0 means none. A document
	// counts for at least a day, or until it ends.
	MaxStuck int

	// MaxFailureRate is the greatest share of failed documents among those that
	// completed or failed in the Window, from 0 to 1. 0 means 0.5.
	MaxFailureRate float64

	// MinEnded is how many documents must have completed or failed in the Window
	// before their failure rate is checked. 0 means 20.
	MinEnded int

	// Silence is how long no document may complete while another one is under
	// way for as long. 0 means that this isn't checked.
	Silence time.Duration

	// Where limits the documents to those whose events have these values in
	// these columns; see [Query].
	Where map[string]string
}

// Defaults of Limits. They fit a service with a document a minute or more, most
// of which succeed.
const (
	defaultWindow         = time.Hour
	defaultMaxFailureRate = 0.5
	defaultMinEnded       = 20
)

const (
	// stuckFor is how long Health counts a document as stuck, after the limit.
	// Without a bound each check would read all rows of the table.
	stuckFor = 24 * time.Hour

	maxLimit = 365 * 24 * time.Hour // of the durations in Limits
)

// Health is the verdict on the documents at a time, and the figures behind it.
type Health struct {
	OK       bool      `json:"ok"`       // there are no Problems
	Problems []string  `json:"problems"` // a sentence for each limit that is exceeded; never null in JSON
	At       time.Time `json:"at"`       // when it was checked, by this process's clock

	// Ended counts the documents that completed or failed in the Window, Failed
	// those that failed. FailureRate is their ratio, from 0 to 1. It is 0 if
	// fewer than MinEnded have ended.
	Ended       int64   `json:"ended"`
	Failed      int64   `json:"failed"`
	FailureRate float64 `json:"failure_rate"`

	// These count the documents with events in the last day, or longer if a
	// limit is longer.
	UnderWay      int64     `json:"under_way"`               // the stuck ones included
	Stuck         int64     `json:"stuck"`                   // under way for longer than StuckAfter
	StuckSince    time.Time `json:"stuck_since,omitzero"`    // the start of the oldest of them; zero if there is none
	LastCompleted time.Time `json:"last_completed,omitzero"` // zero if there is none

	// Stats are this process's counts. The verdict doesn't depend on them.
	Stats Stats `json:"stats"`
}

// Health checks the documents against limits, for an alert or an uptime monitor.
// An error means that the table couldn't be read, and so that there is no
// verdict.
//
// It calls [Client.Summary] two or three times, so it needs
// sql/014_create_docevents_reading.sql, and takes as long as a Summary of the
// last day. Call it once a minute, or less often. It is safe for concurrent
// use. On a nil Client it returns a Health that is OK.
func (c *Client) Health(ctx context.Context, l Limits) (Health, error) {
	now := time.Now()
	if c.isNone() {
		return Health{OK: true, Problems: []string{}, At: now}, nil
	}
	h, err := c.health(ctx, l, now)
	if err != nil {
		return Health{}, fmt.Errorf("docevents: Health: %w", err)
	}
	h.Stats = c.Stats()
	return h, nil
}

func (c *Client) health(ctx context.Context, l Limits, now time.Time) (Health, error) {
	if err := l.normalize(); err != nil {
		return Health{}, err
	}
	q := Query{Since: now.Add(-l.Window), Until: now, StuckAfter: l.StuckAfter, Where: l.Where}
	recent, err := c.summary(ctx, q)
	if err != nil {
		return Health{}, err
	}
	q.Since = now.Add(-max(l.Window, stuckFor+max(l.StuckAfter, l.Silence)))
	long, err := c.summary(ctx, q)
	if err != nil {
		return Health{}, err
	}
	waiting := int64(0)
	if l.Silence > 0 && long.UnderWay > 0 && now.Sub(long.LastCompleted) > l.Silence {
		q.StuckAfter = l.Silence
		s, err := c.summary(ctx, q)
		if err != nil {
			return Health{}, err
		}
		waiting = s.StuckTotal
	}
	return l.judge(now, recent, long, waiting), nil
}

// judge returns the verdict at now. recent is the Summary of the Window, long
// that of the range in which documents may be stuck. waiting counts the
// documents that have been under way for longer than Silence.
func (l *Limits) judge(now time.Time, recent, long *Summary, waiting int64) Health {
	h := Health{
		Problems: []string{}, At: now,
		Ended: recent.Completed + recent.Failed, Failed: recent.Failed,
		UnderWay: long.UnderWay, Stuck: long.StuckTotal, LastCompleted: long.LastCompleted,
	}
	if len(long.Stuck) > 0 {
		h.StuckSince = long.Stuck[0].Since
	}
	if h.Stuck > int64(l.MaxStuck) {
		h.problem("%s been under way for longer than %s, the oldest since %s; the limit is %d.",
			documentsHave(h.Stuck), inMinutes(l.StuckAfter), inUTC(h.StuckSince), l.MaxStuck)
	}
	if h.Ended >= int64(l.MinEnded) {
		h.FailureRate = float64(h.Failed) / float64(h.Ended)
	}
	if h.FailureRate > l.MaxFailureRate {
		h.problem("%d of the %d documents that ended in the last %s failed, %.1f %%; the limit is %.1f %%.",
			h.Failed, h.Ended, inMinutes(l.Window), 100*h.FailureRate, 100*l.MaxFailureRate)
	}
	if last := laterOf(h.LastCompleted, long.Since); l.Silence > 0 && waiting > 0 && now.Sub(last) > l.Silence {
		h.problem("No document has completed since %s, although %s been under way for longer than %s.",
			inUTC(last), documentsHave(waiting), inMinutes(l.Silence))
	}
	h.OK = len(h.Problems) == 0
	return h
}

func (h *Health) problem(format string, args ...any) {
	h.Problems = append(h.Problems, fmt.Sprintf(format, args...))
}

// normalize fills in defaults.
func (l *Limits) normalize() error {
	for _, d := range []struct {
		field string
		value *time.Duration
		other time.Duration // stands for 0
	}{{"Window", &l.Window, defaultWindow}, {"StuckAfter", &l.StuckAfter, defaultStuckAfter}, {"Silence", &l.Silence, 0}} {
		if *d.value < 0 || *d.value > maxLimit {
			return fmt.Errorf("%s must be from 0 to %s, not %s", d.field, maxLimit, *d.value)
		}
		if *d.value == 0 {
			*d.value = d.other
		}
	}
	switch {
	case l.MaxStuck < 0 || l.MinEnded < 0:
		return fmt.Errorf("MaxStuck and MinEnded must not be negative, not %d and %d", l.MaxStuck, l.MinEnded)
	case l.MaxFailureRate < 0 || l.MaxFailureRate > 1 || math.IsNaN(l.MaxFailureRate):
		return fmt.Errorf("MaxFailureRate must be from 0 to 1, not %v", l.MaxFailureRate)
	}
	if l.MaxFailureRate == 0 {
		l.MaxFailureRate = defaultMaxFailureRate
	}
	if l.MinEnded == 0 {
		l.MinEnded = defaultMinEnded
	}
	return nil
}

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// The words of the sentences are those of sql/optional/alert_pg_cron.sql.

func documentsHave(n int64) string {
	if n == 1 {
		return "1 document has"
	}
	return fmt.Sprint(n, " documents have")
}

func inMinutes(d time.Duration) string {
	return strconv.FormatFloat(math.Round(10*d.Minutes())/10, 'f', -1, 64) + " min"
}

func inUTC(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
