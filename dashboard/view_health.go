package dashboard

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/docevents/docevents-go"
)

// WithHealth sets the limits for the health check, which an uptime monitor can request
// at /health below the page's prefix, such as /admin/documents/health. The response is
// a [docevents.Health] as JSON. Its status is 200 if no limit is exceeded, and 503 if a
// limit is exceeded or the table can't be read.
//
// Without WithHealth, or for a limit of 0, the defaults in [docevents.Limits] apply.
// Only StuckAfter has a different default: the duration of [WithStuckAfter].
func WithHealth(l docevents.Limits) Option {
	return func(h *handler) { h.limits = l }
}

func (h *handler) serveHealth(w http.ResponseWriter, r *http.Request) {
	p := h.newPage(r, maxRows)
	health := h.health(r.Context(), p)
	status := http.StatusOK
	if !health.OK {
		status = http.StatusServiceUnavailable
	}
	body, err := json.MarshalIndent(health, "", "  ")
	if err != nil {
		http.Error(w, "The result of the health check could not be encoded as JSON.", http.StatusInternalServerError)
		return
	}
	p.setRetryAfter(w.Header())
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the client may have closed the connection
	}
}

// health returns the result of [docevents.Client.Health]. If the table can't be read,
// the only problem in the result is the reason.
func (h *handler) health(ctx context.Context, p *page) docevents.Health {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	if p.Problem == nil || p.isUnset {
		limits := h.limits
		if limits.StuckAfter == 0 {
			limits.StuckAfter = h.stuckAfter
		}
		health, err := share(ctx, &h.reads, "health", func(ctx context.Context) (docevents.Health, error) {
			return h.client.Health(ctx, limits)
		})
		if err == nil {
			return health
		}
		p.fail(err)
	}
	problem := p.Problem.Title + ". " + p.Problem.Advice
	if p.Problem.Detail != "" {
		problem += " " + p.Problem.Detail
	}
	return docevents.Health{Problems: []string{problem}, At: p.Now, Stats: h.client.Stats()}
}
