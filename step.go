package docevents

import (
	"context"
	"crypto/fips140"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Step records two events around a call of do, and returns the error of do. The first
// event is [ProcessingStarted]. If do returns nil, the second event is [Completed].
// If do returns an error, the second event is [Failed] with that error. The second
// event has the duration of do. If do panics or ends its goroutine, Step records Failed
// and doesn't stop the panic. With [WithEventTypes], Step uses the first type of
// Started, Completed and Failed. On a nil Client, Step only calls do.
//
// e holds the document, the user and the stage. Step replaces its Type, Duration and
// ErrorMessage. It leaves Duration or ErrorMessage empty if the table has no column for
// it, see [Columns]. If e has a CreatedAt, that is the time of the first event. The
// second event then has that time plus the duration. If e has an ID, Step derives the
// IDs of both events from it and their types. So if the step runs again with the same
// ID, events of the same type are stored only once.
//
// If e has a Stage, the events are about that step of the document. Otherwise they
// are about the document itself, and the second event completes or fails the document.
func (c *Client) Step(e Event, do func() error) error {
	return c.StepContext(context.Background(), e, func(context.Context) error { return do() })
}

// StepContext is like [Client.Step], and passes ctx to do and to the function of
// [WithBefore]. Both events are stored even if ctx is cancelled.
func (c *Client) StepContext(ctx context.Context, e Event, do func(context.Context) error) error {
	if c.isNone() {
		return do(ctx)
	}
	types := &c.config.types
	began := time.Now()
	c.record(ctx, e, types.Started[0], 0, "")
	outcome, message := types.Failed[0], "the goroutine has ended"
	defer func() {
		p := recover()
		if p != nil {
			message = "panic: " + fmt.Sprint(p)
		}
		c.record(ctx, e, outcome, max(time.Since(began), 1), message) // at least 1 ns, because 0 means not measured
		if p != nil {
			panic(p)
		}
	}()
	err := do(ctx)
	outcome, message = types.Completed[0], ""
	if err != nil {
		outcome, message = types.Failed[0], fmt.Sprint(err) // unlike err.Error() it can't panic
	}
	return err
}

// record records one of the two events of a step. took is the time since the start.
func (c *Client) record(ctx context.Context, e Event, t EventType, took time.Duration, message string) {
	e.Type, e.Duration, e.ErrorMessage = t, took, message
	if c.config.columns.Duration == noColumn {
		e.Duration = 0
	}
	if c.config.columns.ErrorMessage == noColumn {
		e.ErrorMessage = ""
	}
	if !e.CreatedAt.IsZero() {
		e.CreatedAt = e.CreatedAt.Add(took)
	}
	if id, err := uuid.Parse(e.ID); err == nil && id != uuid.Nil { // Record drops the event if the ID is invalid
		e.ID = eventID(id, t).String()
	}
	c.RecordContext(ctx, e)
}

// eventID derives the id of an event from the id of its step and the type of the event.
// The result is a UUID of version 5, which is a SHA-1 hash. It must be the same in all
// versions of this package and for all values of GODEBUG. Otherwise a step that is
// repeated after an upgrade would be stored twice. GODEBUG=fips140=only forbids SHA-1,
// but here the hash protects nothing, so eventID allows it.
func eventID(step uuid.UUID, t EventType) (id uuid.UUID) {
	fips140.WithoutEnforcement(func() { id = uuid.NewSHA1(step, []byte(t)) })
	return id
}
