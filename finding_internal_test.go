package docevents

import (
	"encoding/json"
	"testing"

	"github.com/docevents/docevents-go/internal/rest"
)

func TestRehearsalReacts(t *testing.T) {
	const (
		defaults = ""
		table    = `{"required": ["id", "tenant_id"], "properties": {"id": {"format": "uuid"}, "tenant_id": {}}}`
		view     = `{"properties": {"id": {"format": "uuid"}}}`
	)
	refusal := func(code, message string) *rest.Error { return &rest.Error{Status: 400, Code: code, Message: message} }
	withKey := func(code, details string) *rest.Error {
		return &rest.Error{Status: 409, Code: code, Message: "m", Details: details}
	}
	noPartition := func(key string) *rest.Error {
		return &rest.Error{Status: 400, Code: "23514", Message: "no partition of relation", Details: "Partition key of the failing row contains (" + key + ") = (x)."}
	}
	null := func(column string) *rest.Error {
		return refusal("23502", `null value in column "`+column+`" of relation "x" violates not-null constraint`)
	}
	check := func(constraint string) *rest.Error {
		return refusal("23514", `new row for relation "x" violates check constraint "`+constraint+`"`)
	}
	number := refusal("22P02", `invalid input syntax for type bigint: "…"`)
	enum := refusal("22P02", `invalid input value for enum kind: "…"`)
	noTypes := []Option{WithEventTypes(EventTypes{Open: true})}
	withExtra := []Option{WithColumns(Columns{Extra: []string{"tenant_id"}})}
	for name, test := range map[string]struct {
		refusal    *rest.Error
		alone      bool
		definition string
		want       reaction
		column     string
		opts       []Option
		change     func(*rehearsal) // changes the insert
	}{
		"success":                     {nil, false, defaults, accept, "", nil, nil},
		"a trigger raises":            {refusal("P0001", rest.LeftOut), false, defaults, ignore, "", nil, nil},
		"a trigger raises, alone":     {refusal("23514", rest.LeftOut), true, defaults, ignore, "", nil, nil},
		"a right, in other words":     {refusal("42501", rest.LeftOut), false, defaults, tryNoRows, "", nil, nil},
		"a right":                     {refusal("42501", "permission denied for table x"), false, defaults, stop, "", nil, nil},
		"no table":                    {refusal("PGRST205", "m"), false, defaults, stop, "", nil, nil},
		"a server that is overloaded": {&rest.Error{Status: 503}, false, defaults, stop, "", nil, nil},
		"a role that is missing":      {&rest.Error{Status: 401, Code: "22023", Message: "m"}, false, defaults, stop, "", nil, nil},
		"a foreign key":               {withKey("23503", `Key (document_id)=(x) is not present in table "documents".`), false, defaults, ignore, "", nil, nil},
		"a view WITH CHECK OPTION":    {refusal("44000", "m"), false, defaults, ignore, "", nil, nil},

		"a missing column":                       {refusal("PGRST204", "Could not find the 'stage' column of 'x' in the schema cache"), false, defaults, leaveOut, "stage", nil, nil},
		"a generated column":                     {refusal("428C9", `cannot insert a non-DEFAULT value into column "id"`), false, defaults, leaveOut, "id", nil, nil},
		"a column of a view that takes no value": {refusal("0A000", `cannot insert into column "stage" of view "x"`), false, view, leaveOut, "stage", nil, nil},
		"a generated column of another name":     {refusal("428C9", `cannot insert a non-DEFAULT value into column "other"`), false, defaults, stop, "other", nil, nil},
		"NULL in a column that is left out":      {null("stage"), false, defaults, ignore, "", nil, func(r *rehearsal) { r.leave("stage") }},

		"the id exists":                         {withKey("23505", "Key (id)=(x) already exists."), false, defaults, sendOnce, "", nil, nil},
		"a key of a partition exists":           {withKey("23505", ""), false, defaults, sendOnce, "", nil, nil},
		"an exclusion constraint":               {withKey("23P01", ""), false, defaults, sendOnce, "", nil, nil},
		"an exclusion constraint, sent once":    {withKey("23P01", ""), false, defaults, ignore, "", nil, func(r *rehearsal) { r.copies = 1 }},
		"one event for each stage":              {withKey("23505", "Key (stage)=(x) already exists."), false, defaults, ignore, "", nil, nil},
		"a trigger's row for each document":     {withKey("23505", "Key (id)=(doc-1) already exists."), false, defaults, stop, "", nil, func(r *rehearsal) { r.documents[0] = "doc-1" }},
		"one event for each document":           {withKey("23505", "Key (document_id)=(x) already exists."), false, defaults, stop, "", nil, nil},
		"one event for each document and stage": {withKey("23505", "Key (document_id, stage)=(x, y) already exists."), false, defaults, ignore, "", nil, nil},
		"no partition for the time":             {noPartition("created_at"), false, defaults, stop, "", nil, nil},
		"no partition for a type":               {noPartition("event_type"), false, defaults, tryTypes, "", nil, nil},

		"a value that doesn't fit":    {number, false, defaults, tryTypes, "", nil, nil},
		"NULL":                        {null("tenant_id"), false, table, tryTypes, "tenant_id", nil, nil},
		"a CHECK":                     {check("x_event_type_check"), false, defaults, tryTypes, "", nil, nil},
		"no partition for all types":  {noPartition("event_type"), true, defaults, rejectTypes, "", withExtra, nil},
		"no partition for the tenant": {noPartition("tenant_id"), true, defaults, ignore, "", withExtra, nil},

		"NULL that nobody fills":                             {null("tenant_id"), true, table, fill, "tenant_id", nil, nil},
		"NULL that nobody fills, no description":             {null("tenant_id"), true, defaults, rejectTypes, "tenant_id", nil, nil},
		"NULL that nobody fills, below a view":               {null("tenant_id"), true, view, rejectTypes, "tenant_id", nil, nil},
		"NULL in another table":                              {null("org_id"), true, table, ignore, "", nil, nil},
		"NULL although the column is filled":                 {null("tenant_id"), true, table, ignore, "", withExtra, nil},
		"NULL although the column is filled, no description": {null("tenant_id"), true, defaults, ignore, "", withExtra, nil},
		"NULL in a domain":                                   {refusal("23502", "domain tenant does not allow null values"), true, table, rejectTypes, "", nil, nil},
		"a CHECK of types":                                   {check("x_event_type_check"), true, table, rejectTypes, "", withExtra, nil},
		"a CHECK of types, but the app lists none":           {check("x_event_type_check"), true, defaults, ignore, "", noTypes, nil},
		"a CHECK of another name":                            {check("valid_kind"), true, defaults, rejectTypes, "", nil, nil},
		"a CHECK of another name, and an extra":              {check("valid_kind"), true, defaults, ignore, "", withExtra, nil},
		"a CHECK of the stage, with the row's columns":       {&rest.Error{Status: 400, Code: "23514", Message: check("x_stage_check").Message, Details: "Failing row contains (id, event_type, stage, created_at) = (a, b, c, d)."}, true, view, ignore, "", nil, nil},
		"a CHECK of types, with the row's columns":           {&rest.Error{Status: 400, Code: "23514", Message: check("valid_kind").Message, Details: "Failing row contains (id, event_type, stage, created_at) = (a, b, c, d)."}, true, view, rejectTypes, "", nil, nil},
		"a CHECK of a stage that was filled":                 {check("known_step"), true, defaults, ignore, "", nil, func(r *rehearsal) { r.fillings = map[EventType][]string{Failed: {"stage"}} }},
		"a CHECK of a column whose name contains the type's": {check("x_file_type_check"), true, table, ignore, "", []Option{WithColumns(Columns{Type: "type", Extra: []string{"file_type"}})}, nil},
		"a text that is too long, and a filled column":       {refusal("22001", "value too long for type character varying(20)"), true, table, rejectTypes, "", withExtra, nil},
		"a CHECK of the stage":                               {check("x_stage_check"), true, defaults, ignore, "", nil, nil},
		"a CHECK of the stage in a table event_types":        {check("my_event_type_stage_check"), true, defaults, ignore, "", []Option{WithTable("my_event_type")}, nil},
		"a number":                            {number, true, defaults, rejectTypes, "", nil, nil},
		"a number, and ids that are text":     {number, true, defaults, ignore, "", []Option{WithColumns(Columns{TextIDs: true})}, nil},
		"a number, and a filled column":       {number, true, table, ignore, "", withExtra, nil},
		"an enum, and a filled column":        {enum, true, table, rejectTypes, "", withExtra, nil},
		"an enum, and a type that is made up": {enum, true, defaults, ignore, "", noTypes, nil},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := newConfig(test.opts)
			if err != nil {
				t.Fatal(err)
			}
			r := newRehearsal(&Client{config: cfg})
			if test.definition != "" {
				if err := json.Unmarshal([]byte(test.definition), &r.about); err != nil {
					t.Fatal(err)
				}
			}
			if test.change != nil {
				test.change(r)
			}
			do, column := r.react(test.refusal, test.alone)
			if do != test.want || test.column != "" && column != test.column {
				t.Errorf("got %d, %q; want %d, %q", do, column, test.want, test.column)
			}
		})
	}
}
