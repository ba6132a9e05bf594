package docevents

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"strconv"
	"time"
)

// Limits are the limits that [Client.Health] checks. Each duration must be from 0 to
// 365 days.
type Limits struct {
	// Window is the period for which Health computes the failure rate. It ends when
	// Health is called. The shorter the Window is, the sooner Health notices a rise in
	// the rate. But choose a Window that is longer than it takes to process a document.
	// 0 means 1 hour.
	Window time.Duration

	// StuckAfter is how long a document may be under way before it counts as stuck. 0
	// means 30 minutes.
	StuckAfter time.Duration

	// MaxStuck is the highest acceptable number of stuck documents. 0 means that a
	// single stuck document is a problem. Health can miss a document that has been
	// stuck for more than a day, because Health reads only recent events.
	MaxStuck int

	// MaxFailureRate is the highest acceptable failure rate, from 0 to 1. The failure
	// rate is the number of documents that failed in the Window, divided by the number
	// that completed or failed. 0 means 0.5.
	MaxFailureRate float64

	// MinEnded is the number of documents that must complete or fail in the Window
	// before Health checks the failure rate. 0 means 20.
	MinEnded int

	// Silence is the longest acceptable time in which no document completes. Health
	// checks it only if a document has been under way for longer than Silence. So a
	// night without documents is not a problem. 0 disables this check.
	Silence time.Duration

	// Where selects only the events that have the given values: see [Query].
	Where map[string]string
}

const (
	// stuckFor is the minimum time for which Health counts a document after it became
	// stuck. To count every stuck document, Health would have to read the entire table.
	stuckFor = 24 * time.Hour

	maxLimit = 365 * 24 * time.Hour // the longest duration in Limits
)

// Health is a verdict on the documents, with the figures behind it.
type Health struct {
	OK       bool      `json:"ok"`       // true if there are no Problems
	Problems []string  `json:"problems"` // a sentence for each limit that is exceeded; [] in JSON if no limit is
	At       time.Time `json:"at"`       // time of the check, by this process's clock

	// Ended is the number of documents that completed or failed in the Window, and
	// Failed is the number that failed. FailureRate is Failed / Ended, or 0 if Ended is
	// less than MinEnded.
	Ended       int64   `json:"ended"`
	Failed      int64   `json:"failed"`
	FailureRate float64 `json:"failure_rate"`

	// Health computes the next four fields from the events of this period: a day plus
	// the longer of StuckAfter and Silence. If the Window is longer than this sum,
	// Health uses the events of the Window instead.
	UnderWay      int64     `json:"under_way"`               // including stuck documents
	Stuck         int64     `json:"stuck"`                   // documents under way for longer than StuckAfter
	StuckSince    time.Time `json:"stuck_since,omitzero"`    // when the oldest stuck document started; zero if no document is stuck
	LastCompleted time.Time `json:"last_completed,omitzero"` // when a document last completed; zero if none did

	// Stats are this client's counters. The verdict doesn't depend on them.
	Stats Stats `json:"stats"`
}

// Health checks whether the documents are within the limits l, for an alert or an
// uptime monitor. If a limit is not valid or the table can't be read, Health returns an
// error and an empty Health.
//
// Health calls [Client.Summary] two or three times. Summary needs
// sql/014_create_docevents_reading.sql in the database. Call Health at most once a
// minute, because it reads the events of more than a day. Health is safe for concurrent
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

// judge returns the result of a check. windowSummary is the Summary of the Window, and
// longSummary is the Summary of at least a day. numWaiting is the number of documents
// under way for longer than Silence. It is 0 if Silence is 0, or if a document
// completed less than Silence ago.
func (l *Limits) judge(now time.Time, windowSummary, longSummary *Summary, numWaiting int64) Health {
	h := Health{
		Problems: []string{}, At: now,
		Ended: windowSummary.Completed + windowSummary.Failed, Failed: windowSummary.Failed,
		UnderWay: longSummary.UnderWay, Stuck: longSummary.StuckTotal, LastCompleted: longSummary.LastCompleted,
	}
	if len(longSummary.Stuck) > 0 {
		h.StuckSince = longSummary.Stuck[0].Since
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
	if numWaiting > 0 {
		last := h.LastCompleted
		if last.IsZero() {
			last = longSummary.Since
		}
		h.problem("No document has completed since %s, although %s been under way for longer than %s.",
			inUTC(last), documentsHave(numWaiting), inMinutes(l.Silence))
	}
	h.OK = len(h.Problems) == 0
	return h
}

func (h *Health) problem(format string, args ...any) {
	h.Problems = append(h.Problems, fmt.Sprintf(format, args...))
}

// normalize sets defaults and validates l. The defaults suit a service that processes
// at least one document a minute, most of them without failure.
func (l *Limits) normalize() error {
	l.Window = cmp.Or(l.Window, time.Hour)
	l.StuckAfter = cmp.Or(l.StuckAfter, defaultStuckAfter)
	l.MaxFailureRate = cmp.Or(l.MaxFailureRate, 0.5)
	l.MinEnded = cmp.Or(l.MinEnded, 20)
	switch {
	case min(l.Window, l.StuckAfter, l.Silence) < 0, max(l.Window, l.StuckAfter, l.Silence) > maxLimit:
		return fmt.Errorf("the times Window, StuckAfter and Silence must be from 0 to 365 days, not %s, %s and %s", l.Window, l.StuckAfter, l.Silence)
	case l.MaxStuck < 0 || l.MinEnded < 0:
		return fmt.Errorf("MaxStuck and MinEnded must not be negative, not %d and %d", l.MaxStuck, l.MinEnded)
	case l.MaxFailureRate < 0 || l.MaxFailureRate > 1 || math.IsNaN(l.MaxFailureRate):
		return fmt.Errorf("MaxFailureRate must be from 0 to 1, not %v", l.MaxFailureRate)
	}
	return nil
}

// The sentences of Problems have the same wording as in sql/optional/alert_pg_cron.sql.

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
