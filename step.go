package docevents

import (
	"crypto/fips140"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Step records ProcessingStarted, runs do, and records Completed, or Failed with
// do's error, with the time it took. It returns do's error. Where do panics, or
// ends its goroutine, that is Failed too, and goes on as it would without Step.
// On a nil Client it only runs do.
//
// e says which document, user and stage. Its Type, Duration and ErrorMessage
// are Step's own, and left out where [Columns] says that the table has none. Its
// CreatedAt, where given, is the time of the first event, and so much later is
// the second's. Its ID, where given, is of the step, and each event's is made of
// it and the type, so that a step done twice leaves one row of each type.
//
// With a Stage the events are about that step and Duration is the step's, without
// one they are about the whole document.
func (c *Client) Step(e Event, do func() error) error {
	if c == nil {
		return do()
	}
	began := time.Now()
	c.record(e, ProcessingStarted, 0, "")
	outcome, message := Failed, "the goroutine has ended"
	defer func() {
		p := recover()
		if p != nil {
			message = "panic: " + fmt.Sprint(p)
		}
		c.record(e, outcome, max(time.Since(began), 1), message) // 0 would be: not measured
		if p != nil {
			panic(p)
		}
	}()
	err := do()
	outcome, message = Completed, ""
	if err != nil {
		outcome, message = Failed, fmt.Sprint(err) // unlike err.Error() it can't panic
	}
	return err
}

// record records one event of a step that so far has taken so long.
func (c *Client) record(e Event, t EventType, took time.Duration, message string) {
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
	c.Record(e)
}

// eventID returns the id of the event of type t in a step with id step: a UUID
// version 5. It must never change, in any version or mode of the program: a step
// that is repeated after an upgrade would leave its rows twice. SHA-1 protects
// nothing here, so the enforcement of GODEBUG=fips140=only doesn't apply.
func eventID(step uuid.UUID, t EventType) (id uuid.UUID) {
	fips140.WithoutEnforcement(func() { id = uuid.NewSHA1(step, []byte(t)) })
	return id
}
