package docevents

import (
	"context"
	"crypto/fips140"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Step records [ProcessingStarted], calls do, and records [Completed] or, if do
// returns an error, [Failed] with that error. Both have the duration of do. Step
// returns the error of do. If do panics or ends its goroutine, Step records
// Failed and the panic continues. With [WithEventTypes], Step uses the first
// type in each of Started, Completed and Failed instead. On a nil Client, Step only calls
// do.
//
// e holds the document, the user and the stage. Step sets Type, Duration and
// ErrorMessage; it leaves Duration or ErrorMessage empty if [Columns] has "-" for
// it. If e has a CreatedAt, the first event has that time, and the second event
// has that time plus the duration. If e has an ID, each event gets an ID derived
// from it and the type, so a step that runs twice stores one row of each type.
//
// If e has a Stage, the events are about that step of the document. Otherwise
// they are about the document itself, and the second event completes or fails it.
func (c *Client) Step(e Event, do func() error) error {
	return c.StepContext(context.Background(), e, func(context.Context) error { return do() })
}

// StepContext is like Step and passes ctx to do and to the function of
// [WithBefore]. Nothing else uses ctx: if it is cancelled, both events are still
// stored.
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

// record records one event of a step, at the time took after its start.
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

// eventID derives the id of the event of type t from the id of its step. It is a
// UUID of version 5. The result must stay the same in all versions of this
// package and in all modes of the program. Otherwise a step that is repeated
// after an upgrade would store its rows twice. SHA-1 is allowed even under
// GODEBUG=fips140=only, because it protects nothing here.
func eventID(step uuid.UUID, t EventType) (id uuid.UUID) {
	fips140.WithoutEnforcement(func() { id = uuid.NewSHA1(step, []byte(t)) })
	return id
}
