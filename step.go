package docevents

import (
	"context"
	"crypto/fips140"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Step records ProcessingStarted, runs do, and records Completed with the time
// that do took, or Failed with the time and do's error. It returns do's error. If
// do panics or ends its goroutine, Step records Failed, and the panic goes on.
// With [WithEventTypes], the first type of Started, Completed and Failed stands
// for these three. On a nil Client Step only runs do.
//
// e holds the document, the user and the stage. Step sets Type, Duration and
// ErrorMessage; the latter two stay empty if [Columns] has "-" for them. If e has a
// CreatedAt, it is the time of the first event, and the second event's is later
// by the time that do took. If e has an ID, each event's ID is derived from it and
// the type, so that a step that runs twice leaves one row of each type.
//
// With a Stage, the events are about that step and Duration is the step's.
// Without one, they are about the whole document.
func (c *Client) Step(e Event, do func() error) error {
	return c.StepContext(context.Background(), e, func(context.Context) error { return do() })
}

// StepContext is Step with a context, which it passes to do and to the function
// of [WithBefore]. Nothing else uses ctx: if it is cancelled, both events are
// stored all the same.
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
		c.record(ctx, e, outcome, max(time.Since(began), 1), message) // 0 would be: not measured
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

// record records one event of a step that so far has taken so long.
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
	if id, err := uuid.Parse(e.ID); err == nil && id != uuid.Nil { // else Record says what is wrong with it
		e.ID = eventID(id, t).String()
	}
	c.RecordContext(ctx, e)
}

// eventID returns the id of the event of type t in a step with id step: a UUID
// version 5. It must never change, in any version or mode of the program: a step
// that is repeated after an upgrade would leave its rows twice. SHA-1 protects
// nothing here, so the enforcement of GODEBUG=fips140=only doesn't apply.
func eventID(step uuid.UUID, t EventType) (id uuid.UUID) {
	fips140.WithoutEnforcement(func() { id = uuid.NewSHA1(step, []byte(t)) })
	return id
}
