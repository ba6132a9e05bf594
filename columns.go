package docevents

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// Columns says how the table's columns differ from those of
// sql/013_create_processing_events_table.sql: "" is the migration's name, "-"
// says that the table has none. An event that fills a field without a column is
// dropped as Invalid; one that leaves it empty is fine.
//
// A name is 1 to 63 letters, digits and underscores, the first no digit:
// PostgreSQL takes more, but it becomes a part of the URL. Nor can it be a word
// that PostgREST keeps for itself there, such as order.
type Columns struct {
	// ID is a uuid column, by which an event is stored once. One of another
	// name than the migration's need not be the table's primary key, but it
	// must be UNIQUE, and better NOT NULL. It can't be "-".
	ID string

	DocumentID, UserID, Type string

	Duration string // of whole milliseconds

	ErrorMessage, Stage string

	// CreatedAt is what a purge goes by. It can't be "-".
	CreatedAt string

	// Extra names further columns, at most 50, for the values of [Event].Extra.
	// They may have any name that no column above has: a table whose document
	// ids are text says DocumentID: "-" and Extra: []string{"document_id"}.
	Extra []string
}

const (
	noColumn        = "-"
	maxExtraColumns = 50

	// An event's Extra is bounded as JSON: its size with its keys, and how deep
	// it nests, since beyond some thousands PostgreSQL (max_stack_depth) and
	// encoding/json (10,000) refuse the whole request.
	maxExtraBytes = 64 << 10
	maxExtraDepth = 1000
	maxJSONDepth  = 10_000 // encoding/json's
)

// base are the fields of Event that Columns renames, and the migration's names,
// in the order of names.
var base = [...]struct{ field, column string }{
	{"ID", "id"},
	{"DocumentID", "document_id"},
	{"UserID", "user_id"},
	{"Type", "event_type"},
	{"Duration", "duration_ms"},
	{"ErrorMessage", "error_message"},
	{"Stage", "stage"},
	{"CreatedAt", "created_at"},
}

func (c *Columns) names() [len(base)]*string {
	return [...]*string{&c.ID, &c.DocumentID, &c.UserID, &c.Type, &c.Duration, &c.ErrorMessage, &c.Stage, &c.CreatedAt}
}

// columns are the table's, by their real names or noColumn, and what requests
// need of them.
type columns struct {
	Columns
	query     string            // of an insert
	keys      [len(base)]string // as they stand in a row; "" where there is no column
	extraKeys []string
}

var (
	columnFormat = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)
	queryWords   = []string{"and", "columns", "limit", "offset", "on_conflict", "or", "order", "select"} // PostgREST's
)

// newColumns gives what is left out its name, and names all that is wrong.
//
// Every row of a request must have the same keys. With columns=... in the query
// PostgREST hands the body to PostgreSQL as it is, instead of parsing it to
// learn them.
func newColumns(named Columns) (columns, error) {
	c := columns{Columns: named}
	var all []string
	var bad []error
	for i, name := range c.names() {
		*name = cmp.Or(*name, base[i].column)
		switch {
		case *name != noColumn:
			all = append(all, *name)
			c.keys[i] = `,"` + *name + `":`
		case name == &c.ID || name == &c.CreatedAt:
			bad = append(bad, fmt.Errorf("WithColumns: %s can't be \"-\": an event is stored once by the one, and purged by the other", base[i].field))
		}
		if slices.Contains(queryWords, *name) {
			bad = append(bad, fmt.Errorf("WithColumns: %s can't be %q: PostgREST keeps that word for itself", base[i].field, *name))
		}
	}
	c.keys[0] = "{" + strings.TrimPrefix(c.keys[0], ",")
	for _, name := range c.Extra {
		c.extraKeys = append(c.extraKeys, `,"`+name+`":`)
	}
	all = append(all, c.Extra...)
	for i, name := range all {
		switch {
		case !columnFormat.MatchString(name):
			bad = append(bad, fmt.Errorf("WithColumns: %.70q is no name here: it must be 1 to 63 letters, digits and underscores, the first no digit", name))
		case slices.Contains(all[:i], name):
			bad = append(bad, fmt.Errorf("WithColumns: two columns are named %q", name))
		}
	}
	if len(c.Extra) > maxExtraColumns {
		bad = append(bad, fmt.Errorf("WithColumns: Extra must be at most %d names, not %d", maxExtraColumns, len(c.Extra)))
	}
	c.query = "columns=" + strings.Join(all, ",")
	if c.ID != base[0].column { // by itself PostgREST takes the primary key
		c.query = "on_conflict=" + c.ID + "&" + c.query
	}
	return c, errors.Join(bad...)
}

// lacks returns the field that e fills and that has no column, if there is one.
func (c *columns) lacks(e *Event) string {
	filled := [...]bool{false, e.DocumentID != "", e.UserID != "", e.Type != "", e.Duration != 0, e.ErrorMessage != "", e.Stage != "", false}
	for i, key := range c.keys {
		if key == "" && filled[i] {
			return base[i].field
		}
	}
	return ""
}

// An extraEncoder is reused: an event costs no more than the string of its JSON,
// and what encoding/json needs for maps.
type extraEncoder struct {
	text bytes.Buffer
	json *json.Encoder // to text
}

var extraEncoders = sync.Pool{New: func() any {
	e := &extraEncoder{}
	e.json = json.NewEncoder(&e.text)
	e.json.SetEscapeHTML(false)
	return e
}}

// encodeExtra returns the values as they stand in a row, each behind its key.
// Its errors name the key, never the value.
func (c *columns) encodeExtra(extra map[string]any) (string, error) {
	if len(extra) == 0 {
		return "", nil
	}
	e := extraEncoders.Get().(*extraEncoder)
	defer func() {
		if e.text.Cap() <= 2*maxExtraBytes { // else it goes
			e.text.Reset()
			extraEncoders.Put(e)
		}
	}()
	found := 0
	for i, name := range c.Extra {
		value, given := extra[name]
		if !given {
			continue
		}
		found++
		e.text.WriteString(c.extraKeys[i])
		if !e.encode(value) {
			return "", fmt.Errorf("Extra[%q] is a %T that can't be encoded as JSON: pass strings, numbers, maps and slices", name, value)
		}
	}
	if found < len(extra) {
		unknown := slices.Sorted(maps.Keys(extra))
		unknown = slices.DeleteFunc(unknown, func(name string) bool { return slices.Contains(c.Extra, name) })
		return "", fmt.Errorf("Extra[%.70q] has no column: name it in WithColumns' Extra", unknown[0])
	}
	text := cleanJSON(e.text.Bytes())
	switch {
	case len(text) > maxExtraBytes:
		return "", fmt.Errorf("Extra is %d bytes as JSON: %d are the most", len(text), maxExtraBytes)
	case tooDeep(text):
		return "", fmt.Errorf("Extra nests deeper than %d levels", maxExtraDepth)
	}
	return string(text), nil
}

// encode says whether v has a JSON form. A method of the app's may fail, or
// panic.
func (e *extraEncoder) encode(v any) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	if err := e.json.Encode(v); err != nil {
		return false
	}
	e.text.Truncate(e.text.Len() - 1) // the line's end
	return true
}

// escapes are those of a JSON text, surrogates by the pair where they are one.
var escapes = regexp.MustCompile(`\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u....|\\.`)

// cleanJSON makes the JSON's texts storable, as cleanText does: PostgreSQL
// refuses escaped NULs (22P05) and surrogates without their other half (22P02).
func cleanJSON(text []byte) []byte {
	if !utf8.Valid(text) {
		text = bytes.ToValidUTF8(text, []byte("\uFFFD"))
	}
	if !bytes.Contains(text, []byte(`\u`)) {
		return text
	}
	return escapes.ReplaceAllFunc(text, func(escape []byte) []byte {
		switch {
		case string(escape) == `\u0000`:
			return nil
		case len(escape) == 6 && escape[2]|0x20 == 'd' && escape[3] >= '8':
			return []byte(`\ufffd`)
		}
		return escape
	})
}

// tooDeep leaves it to encoding/json to count the levels of ,"key":value,... by
// putting it into as many as leave maxExtraDepth.
func tooDeep(text []byte) bool {
	if bytes.Count(text, []byte("{"))+bytes.Count(text, []byte("[")) <= maxExtraDepth {
		return false
	}
	const around = maxJSONDepth - maxExtraDepth - 1
	nested := strings.Repeat("[", around) + "{" + string(text[1:]) + "}" + strings.Repeat("]", around)
	return !json.Valid([]byte(nested))
}

// decodeExtra is the way back, with numbers as json.Number, which loses no
// digit.
func decodeExtra(text string) map[string]any {
	if text == "" {
		return nil
	}
	var extra map[string]any
	d := json.NewDecoder(strings.NewReader("{" + text[1:] + "}"))
	d.UseNumber()
	_ = d.Decode(&extra) // it is encodeExtra's
	return extra
}
