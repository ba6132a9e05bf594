package docevents

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// EventTypes lists the event types of a table by their meaning for a document. A type
// must be 1 to 256 bytes of valid text, and in one field only. If no field lists an
// event's type, Record drops the event with reason [Invalid]. But if Open is set,
// Record accepts every valid type.
//
// Four fields have a default, which applies if the field is empty: Arrived has
// [UploadStarted], Started has [ProcessingStarted], Completed has [Completed], and
// Failed has [Failed]. But if UploadStarted is in another field, Arrived stays empty.
// If Started, Completed or Failed is empty and its default is in another field, New
// returns an error.
//
// If the app lists any types, Check tests only these types and not the defaults.
type EventTypes struct {
	// Arrived types mean that the document is waiting to be processed. If the latest
	// event of a document, apart from Notes, has an Arrived type, the document counts
	// as under way.
	Arrived []EventType

	// Started types mean that work has begun. After a Started event without a Stage,
	// the document is under way until any Failed event, or until a Completed or Skipped
	// event without a Stage. Step records the first type in Started.
	Started []EventType

	// Completed types mean that work has succeeded. Step records the first type in
	// Completed.
	Completed []EventType

	// Failed types mean that work has failed. Step records the first type in Failed.
	Failed []EventType

	// Skipped types mean that work has ended without success or failure, for example
	// because it was cancelled. After a Skipped event without a Stage, the document
	// counts as skipped. A Skipped event with a Stage counts like a Completed event
	// with a Stage.
	Skipped []EventType

	// Notes types don't change the state of the document. Examples are progress and
	// comments.
	Notes []EventType

	// Open makes Record accept types that no field lists. Events with these types
	// count like Notes. The table may still reject them.
	Open bool
}

// eventTypes holds the types that the app passed to WithEventTypes, with the defaults
// in the fields that the app left empty.
type eventTypes struct {
	EventTypes

	known []EventType // all types of EventTypes

	// listed contains the types that Check tries to insert: the types that the app
	// lists. If there are none, listed contains the four defaults, or is empty if the
	// app sets Open.
	listed []EventType
}

type typeField struct {
	name        string
	defaultType EventType // "" if the field has no default
	types       *[]EventType
}

func (types *EventTypes) fields() []typeField {
	return []typeField{
		{"Arrived", UploadStarted, &types.Arrived},
		{"Started", ProcessingStarted, &types.Started},
		{"Completed", Completed, &types.Completed},
		{"Failed", Failed, &types.Failed},
		{"Skipped", "", &types.Skipped},
		{"Notes", "", &types.Notes},
	}
}

// clone replaces the slices with copies, because the app may change the originals.
func (types *EventTypes) clone() {
	for _, f := range types.fields() {
		*f.types = slices.Clone(*f.types)
	}
}

// newEventTypes fills in the defaults. Its error lists every problem.
func newEventTypes(given EventTypes) (eventTypes, error) {
	types := eventTypes{EventTypes: given}
	var bad []error
	listed := map[EventType]string{} // the name of the field that lists the type
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
		switch field, elsewhere := listed[f.defaultType]; {
		case len(*f.types) > 0 || f.defaultType == "":
		case !elsewhere:
			*f.types = []EventType{f.defaultType}
		case f.name != "Arrived": // Step needs a type for Started, Completed and Failed
			bad = append(bad, fmt.Errorf("WithEventTypes: %s is empty, and its default %q is in %s: list a type in %s for Step to record", f.name, f.defaultType, field, f.name))
		}
		types.known = append(types.known, *f.types...)
	}
	if len(types.listed) == 0 && !types.Open {
		types.listed = types.known
	}
	return types, errors.Join(bad...)
}

// accept returns a copy of t that doesn't share the caller's memory. If Record doesn't
// accept events with the type t, accept returns an error.
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
	errNotListed   = errors.New("the event's Type is not one of the accepted types: use the constants, or list the table's types with WithEventTypes")
	errNotStorable = errors.New("the event's Type is empty, too long or not valid text: use a type that the table accepts")
)

// EventTypes returns the types that the app passed to [WithEventTypes], with the
// defaults filled in. On a nil Client it returns the zero EventTypes.
func (c *Client) EventTypes() EventTypes {
	if c.isNone() {
		return EventTypes{}
	}
	types := c.config.types.EventTypes
	types.clone()
	return types
}
