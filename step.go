package docevents

import (
	"context"
	"crypto/fips140"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Step calls fn and returns its error. It records [ProcessingStarted] before the call.
// After the call it records a second event, with the duration of the call. If fn
// returns nil, the second event is [Completed]. If fn returns an error, the second
// event is [Failed] with this error. If fn panics or ends its goroutine, the second
// event is Failed. A panic then continues.
//
// If [WithEventTypes] sets other types, Step uses the first type in each of the lists
// Started, Completed and Failed. On a nil Client, Step only calls fn.
//
// e contains the document, the user and the stage of both events. Step sets their Type,
// Duration and ErrorMessage itself, but leaves Duration or ErrorMessage empty if the
// table has no column for it (see [Columns]). If e has a CreatedAt, it is the time of
// the first event, and the second event has this time plus the duration.
//
// If e has an ID, Step derives the ID of each event from e.ID and the event's type. So
// if you repeat the step with the same ID, only the first event of each type is stored.
//
// If e has a Stage, the events are about this step of the document. If e has no Stage,
// they are about the entire document, and the second event completes or fails it.
func (c *Client) Step(e Event, fn func() error) error {
	return c.StepContext(context.Background(), e, func(context.Context) error { return fn() })
}

// StepContext is like [Client.Step], but passes ctx to fn, and to the function of
// [WithBefore]. Both events are recorded even if ctx is cancelled.
func (c *Client) StepContext(ctx context.Context, e Event, fn func(context.Context) error) error {
	if c.isNone() {
		return fn(ctx)
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
	err := fn(ctx)
	outcome, message = types.Completed[0], ""
	if err != nil {
		outcome, message = types.Failed[0], fmt.Sprint(err) // unlike err.Error() it can't panic
	}
	return err
}

// record records one event of a step. duration is the time since the step began.
func (c *Client) record(ctx context.Context, e Event, t EventType, duration time.Duration, message string) {
	e.Type, e.Duration, e.ErrorMessage = t, duration, message
	if c.config.columns.Duration == noColumn {
		e.Duration = 0
	}
	if c.config.columns.ErrorMessage == noColumn {
		e.ErrorMessage = ""
	}
	if !e.CreatedAt.IsZero() {
		e.CreatedAt = e.CreatedAt.Add(duration)
	}
	if id, err := uuid.Parse(e.ID); err == nil && id != uuid.Nil { // Record drops the event if the ID is invalid
		e.ID = eventID(id, t).String()
	}
	c.RecordContext(ctx, e)
}

// eventID derives the id of an event from the id of its step and from the event's type.
// All versions of this package must derive the same id, so that an event isn't stored
// twice if its step is repeated after an upgrade.
//
// eventID uses SHA-1 (UUID version 5) even if GODEBUG=fips140=only forbids it, because
// this hash isn't used for security.
func eventID(step uuid.UUID, t EventType) (id uuid.UUID) {
	fips140.WithoutEnforcement(func() { id = uuid.NewSHA1(step, []byte(t)) })
	return id
}
