package docevents

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// EventTypes lists the event types of a table by what they mean for a document.
// Record drops events of other types as Invalid, unless Open is set.
//
// An empty field keeps the migration's word, if it has one and the app lists it
// nowhere else: upload_started in Arrived, processing_started in Started,
// completed in Completed and failed in Failed. Record accepts a kept word, and
// Check doesn't ask whether the table does. A type is 1 to 256 bytes of valid
// text and has one meaning.
type EventTypes struct {
	// Arrived: the document is there. It is under way, but no such event alone
	// makes it count as stuck.
	Arrived []EventType

	// Started: work has begun. Without a Stage it keeps the document under way
	// until an event without a Stage ends it. Step records the first.
	Started []EventType

	// Completed: work has ended well. Step records the first.
	Completed []EventType

	// Failed: work has ended badly. Step records the first.
	Failed []EventType

	// Skipped: work has ended, neither well nor badly, such as skipped or
	// cancelled. With a Stage it counts as Completed does; only without one
	// does it make the document skipped.
	Skipped []EventType

	// Notes say nothing about the document's state: progress, comments.
	Notes []EventType

	// Open accepts types that aren't listed, as Notes. The table decides whether
	// it takes them.
	Open bool
}

// A meaning is what a type says about a document.
type meaning uint8

const (
	meansNote meaning = iota // also of a type that isn't listed
	meansArrived
	meansStarted
	meansCompleted
	meansFailed
	meansSkipped
)

// eventTypes are the types of a client: those that the app lists, and the
// migration's for the fields that it leaves empty.
type eventTypes struct {
	EventTypes

	// listed are the types that Check rehearses: the app's own, or the
	// migration's four if the app lists none. It is empty if the table decides.
	listed []EventType

	known []EventType // all types of EventTypes; the order is Record's search
	means []meaning   // of known, by index
}

// meaning returns what t says about a document.
func (types *eventTypes) meaning(t EventType) meaning {
	if i := slices.Index(types.known, t); i >= 0 {
		return types.means[i]
	}
	return meansNote
}

// fields returns the lists of types, each with its name, its meaning and the
// migration's word for it.
func (types *EventTypes) fields() []typeField {
	return []typeField{
		{"Arrived", meansArrived, UploadStarted, &types.Arrived},
		{"Started", meansStarted, ProcessingStarted, &types.Started},
		{"Completed", meansCompleted, Completed, &types.Completed},
		{"Failed", meansFailed, Failed, &types.Failed},
		{"Skipped", meansSkipped, "", &types.Skipped},
		{"Notes", meansNote, "", &types.Notes},
	}
}

type typeField struct {
	name string
	meaning
	word  EventType // "" if the migration has none
	types *[]EventType
}

// clone replaces the slices by copies: those the app may change.
func (types *EventTypes) clone() {
	for _, f := range types.fields() {
		*f.types = slices.Clone(*f.types)
	}
}

// newEventTypes fills the empty fields and reports everything that is wrong.
func newEventTypes(given EventTypes) (eventTypes, error) {
	types := eventTypes{EventTypes: given}
	var bad []error
	listed := map[EventType]string{} // the field's name
	for _, f := range types.fields() {
		for i, t := range *f.types {
			if !storable(string(t), maxTypeBytes) {
				bad = append(bad, fmt.Errorf("WithEventTypes: %s[%d] must be valid text of 1 to %d bytes", f.name, i, maxTypeBytes))
			}
			if other := cmp.Or(listed[t], f.name); other != f.name {
				bad = append(bad, fmt.Errorf("WithEventTypes: %q is both in %s and in %s: a type has one meaning", t, other, f.name))
			}
			listed[t] = f.name
		}
		types.listed = append(types.listed, *f.types...)
	}
	for _, f := range types.fields() {
		switch field, elsewhere := listed[f.word]; {
		case len(*f.types) > 0 || f.word == "":
		case !elsewhere:
			*f.types = []EventType{f.word}
		case f.meaning != meansArrived: // Step needs one of the others
			bad = append(bad, fmt.Errorf("WithEventTypes: %s is empty, and its word %q is in %s: list a type in %s, which Step records", f.name, f.word, field, f.name))
		}
		for _, t := range *f.types {
			types.known = append(types.known, t)
			types.means = append(types.means, f.meaning)
		}
	}
	if len(types.listed) == 0 && !types.Open {
		types.listed = types.known
	}
	return types, errors.Join(bad...)
}

// accept returns t, of no memory of the caller's, or why an event of it can't be
// stored.
func (types *eventTypes) accept(t EventType) (EventType, error) {
	if i := slices.Index(types.known, t); i >= 0 {
		return types.known[i], nil
	}
	switch {
	case !types.Open:
		return "", errNotListed
	case !storable(string(t), maxTypeBytes):
		return "", errNotStorable
	}
	return EventType(strings.Clone(string(t))), nil
}

var (
	errNotListed   = errors.New("the event's Type is none of those accepted: use the constants, or list the table's own with WithEventTypes")
	errNotStorable = errors.New("the event's Type is empty, too long or not valid text: use one that the table takes")
)

// EventTypes returns the types of [WithEventTypes] with the empty fields filled
// in. Those of a nil Client are all empty.
func (c *Client) EventTypes() EventTypes {
	if c.isNone() {
		return EventTypes{}
	}
	types := c.config.types.EventTypes
	types.clone()
	return types
}
