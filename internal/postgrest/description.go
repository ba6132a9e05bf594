package postgrest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

const mediaOpenAPI = "application/openapi+json"

// A Table is a table or view as PostgREST's schema cache knows it.
type Table struct {
	Name, Comment string
	Columns       []Column
}

// A Column is a column of a table. Type and Default are SQL as PostgreSQL prints it
// with an empty search_path, so names contain their schema, as in the type public.mood.
type Column struct {
	Name, Comment string
	Type          string // without a modifier such as (10); for a domain, the base type
	Default       string // an SQL expression; "" means no default
	NotNull, Key  bool
	MaxLength     *int32   // in characters; nil means no limit
	Enum          []string // the values of an enum type
	// The target of the column's foreign key. A foreign key of several columns doesn't
	// count.
	ForeignTable, ForeignColumn string
}

// Describe answers GET / with an OpenAPI document that describes the tables and columns
// as PostgREST 14 does. Unlike PostgREST's document, it contains no operations such as
// GET and POST.
func Describe(r *http.Request, tables []Table) (*Answer, *Error) {
	if r.Method != http.MethodGet {
		return nil, ErrMethod(r.Method)
	}
	accept := r.Header.Get("Accept")
	if accept != "" && !slices.ContainsFunc(strings.Split(accept, ","), func(item string) bool {
		return slices.Contains([]string{mediaOpenAPI, mediaJSON, "*/*"}, mediaType(item))
	}) {
		return nil, Errorf(406, "PGRST107", "None of these media types are available: %s", accept)
	}
	paths := map[string]any{"/": struct{}{}}
	definitions := map[string]definition{}
	for _, t := range tables {
		paths["/"+t.Name] = struct{}{}
		definitions[t.Name] = t.define()
	}
	return &Answer{Status: http.StatusOK, ContentType: mediaOpenAPI, Body: EncodeJSON(struct {
		Swagger     string                `json:"swagger"`
		Info        map[string]string     `json:"info"`
		BasePath    string                `json:"basePath"`
		Paths       map[string]any        `json:"paths"`
		Definitions map[string]definition `json:"definitions"`
	}{"2.0", map[string]string{"title": "PostgREST API", "version": "14"}, "/", paths, definitions})}, nil
}

type definition struct {
	Comment    string              `json:"description,omitempty"`
	Required   []string            `json:"required,omitempty"`
	Properties map[string]property `json:"properties"`
	Type       string              `json:"type"`
}

type property struct {
	Default   json.RawMessage   `json:"default,omitempty"`
	Note      string            `json:"description,omitempty"`
	Enum      []string          `json:"enum,omitempty"`
	Format    string            `json:"format"`
	Items     map[string]string `json:"items,omitempty"`
	MaxLength *int32            `json:"maxLength,omitempty"`
	Type      string            `json:"type,omitempty"`
}

func (t Table) define() definition {
	d := definition{Comment: t.Comment, Properties: map[string]property{}, Type: "object"}
	for _, c := range t.Columns {
		d.Properties[c.Name] = c.define()
		if c.NotNull {
			d.Required = append(d.Required, c.Name)
		}
	}
	return d
}

func (c Column) define() property {
	p := property{
		Default: c.defaultJSON(), Note: c.note(), Enum: c.Enum, Format: c.Type, MaxLength: c.MaxLength, Type: jsonType(c.Type),
	}
	switch c.Type {
	case "smallint", "integer":
		p.Format = "int32"
	case "bigint":
		p.Format = "int64"
	}
	if element, isArray := strings.CutSuffix(c.Type, "[]"); isArray {
		p.Items = map[string]string{}
		if kind := jsonType(element); kind != "" {
			p.Items["type"] = kind
		}
	}
	return p
}

// jsonType returns the JSON type of a column's values, or "" if they can have any JSON
// type.
func jsonType(sqlType string) string {
	switch sqlType {
	case "boolean":
		return "boolean"
	case "smallint", "integer", "bigint":
		return "integer"
	case "numeric", "real", "double precision":
		return "number"
	case "json", "jsonb":
		return ""
	}
	if strings.HasSuffix(sqlType, "[]") {
		return "array"
	}
	return "string"
}

// defaultJSON converts the column's default, an SQL expression, to JSON. If that isn't
// possible, as for 1+1, it returns nil, and the column is described without a default.
// PostgREST does the same.
func (c Column) defaultJSON() json.RawMessage {
	text := c.Default
	if text == "" {
		return nil
	}
	if jsonType(c.Type) == "string" {
		if literal, found := strings.CutSuffix(text, "::"+c.Type); found {
			text = strings.Trim(literal, "'")
		}
		text = `"` + text + `"`
	}
	if !json.Valid([]byte(text)) {
		return nil
	}
	return json.RawMessage(text)
}

// note describes the column's comment and its keys, in PostgREST's words.
func (c Column) note() string {
	var keys string
	if c.Key {
		keys += "\nThis is a Primary Key.<pk/>"
	}
	if c.ForeignTable != "" {
		keys += "\nThis is a Foreign Key to `" + c.ForeignTable + "." + c.ForeignColumn + "`." +
			"<fk table='" + c.ForeignTable + "' column='" + c.ForeignColumn + "'/>"
	}
	if keys == "" {
		return c.Comment
	}
	if c.Comment != "" {
		return c.Comment + "\n\nNote:" + keys
	}
	return "Note:" + keys
}
