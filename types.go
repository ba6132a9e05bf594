package docevents

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// EventTypes lists the event types of a table by their meaning for a document. A
// type is 1 to 256 bytes of valid text and has one meaning. Record drops events
// of other types with reason [Invalid], unless Open is set.
//
// Four fields have a default, the migration's type: [UploadStarted] for Arrived,
// [ProcessingStarted] for Started, [Completed] for Completed and [Failed] for
// Failed. If a field is empty and another field lists its default, New returns an
// error; only Arrived may stay empty. Record accepts the defaults like listed
// types, but Check tries them only if the app lists no types at all.
type EventTypes struct {
	// Arrived types mean that the document is waiting for work. While such an
	// event is the document's latest, apart from Notes, the document counts as
	// under way, and as stuck if it waits for too long.
	Arrived []EventType

	// Started types mean that work has begun. After a Started event without a
	// Stage, the document stays under way until a Completed, Failed or Skipped
	// event without a Stage, or until a step fails. Step records the first type.
	Started []EventType

	// Completed types mean that work has succeeded. Step records the first type.
	Completed []EventType

	// Failed types mean that work has failed. Step records the first type.
	Failed []EventType

	// Skipped types mean that work has ended without success or failure, for
	// example because it was cancelled. A Skipped event without a Stage makes the
	// document skipped. With a Stage it counts like a Completed event.
	Skipped []EventType

	// Notes types don't change the state of the document. Examples are progress
	// and comments.
	Notes []EventType

	// Open makes Record accept types that aren't listed. They count as Notes.
	// The table may still reject them.
	Open bool
}

// eventTypes are the types that the app lists, with the migration's types in the
// fields that the app left empty.
type eventTypes struct {
	EventTypes

	known []EventType // all types of EventTypes

	// listed are the types that Check rehearses: the types that the app lists, or
	// the migration's four if it lists none. With Open and no listed types, listed
	// is empty.
	listed []EventType
}

type typeField struct {
	name  string
	word  EventType // the migration's type, or ""
	types *[]EventType
}

// fields returns the fields of EventTypes that list types.
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

// clone replaces the slices by copies, because the app may change its own.
func (types *EventTypes) clone() {
	for _, f := range types.fields() {
		*f.types = slices.Clone(*f.types)
	}
}

// newEventTypes fills the empty fields. Its error lists every invalid type.
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
		switch field, elsewhere := listed[f.word]; {
		case len(*f.types) > 0 || f.word == "":
		case !elsewhere:
			*f.types = []EventType{f.word}
		case f.name != "Arrived": // Step needs a type for Started, Completed and Failed
			bad = append(bad, fmt.Errorf("WithEventTypes: %s is empty, and its default %q is in %s: list a type in %s for Step to record", f.name, f.word, field, f.name))
		}
		types.known = append(types.known, *f.types...)
	}
	if len(types.listed) == 0 && !types.Open {
		types.listed = types.known
	}
	return types, errors.Join(bad...)
}

// accept returns a copy of t that doesn't share the caller's memory, or an error
// if an event of type t can't be stored.
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

// EventTypes returns the types of [WithEventTypes], with the empty fields filled
// in. On a nil Client it returns the zero EventTypes.
func (c *Client) EventTypes() EventTypes {
	if c.isNone() {
		return EventTypes{}
	}
	types := c.config.types.EventTypes
	types.clone()
	return types
}
