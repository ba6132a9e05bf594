package localstack

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/docevents/docevents-go/internal/postgrest"
)

// function is a database function that returns one value. A request passes the
// arguments by name, and may leave out those with a default, which are always the last.
type function struct {
	name      string
	arguments []*column
	required  int // the number of arguments without a default
}

const functionsQuery = `
SELECT p.proname, coalesce(p.proargnames[1:p.pronargs], '{}'),
       ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS a(t, n) ORDER BY a.n),
       p.pronargs - p.pronargdefaults
FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = '` + exposed + `' AND p.prokind = 'f' AND NOT p.proretset`

// loadFunctions returns the database functions that requests can call, by name. Several
// functions may have the same name.
func loadFunctions(ctx context.Context, conn *pgx.Conn) (map[string][]*function, error) {
	found, err := conn.Query(ctx, functionsQuery)
	if err != nil {
		return nil, err
	}
	functions := map[string][]*function{}
	var name string
	var names, types []string
	var required int
	_, err = pgx.ForEachRow(found, []any{&name, &names, &types, &required}, func() error {
		f := &function{name: name, required: required}
		if len(names) != len(types) { // some arguments have no name
			return nil
		}
		for i := range names {
			f.arguments = append(f.arguments, &column{name: names[i], typ: types[i]})
		}
		functions[name] = append(functions[name], f)
		return nil
	})
	return functions, err
}

// takes reports whether the function can be called with these arguments.
func (f *function) takes(argumentNames []string) bool {
	for i, a := range f.arguments {
		if i < f.required && !slices.Contains(argumentNames, a.name) {
			return false
		}
	}
	return !slices.ContainsFunc(argumentNames, func(name string) bool {
		return !slices.ContainsFunc(f.arguments, func(a *column) bool { return a.name == name })
	})
}

// call builds a SELECT that calls the function. argumentNames contains the names of the
// arguments, and body is a JSON object with their values. If allStrings is true, as for
// a GET, the SELECT casts each value to its argument's type.
func (f *function) call(argumentNames []string, body []byte, allStrings bool) *statement {
	s := &statement{}
	var arguments []*column
	for _, a := range f.arguments {
		if slices.Contains(argumentNames, a.name) {
			arguments = append(arguments, a)
		}
	}
	s.add("SELECT NULL::bigint, 1::bigint, 0::bigint, coalesce(to_json(", exposed, ".", quote(f.name), "(")
	for i, a := range arguments {
		s.separate(i, ", ")
		if s.add(quote(a.name), " := "); allStrings {
			s.add("(")
			s.bind(body)
			s.add("::json ->> ")
			s.bind(a.name)
			s.add("::text)::", a.typ)
		} else {
			s.add("arguments.", quote(a.name))
		}
	}
	s.add(")), 'null')::text")
	if len(arguments) > 0 && !allStrings {
		s.add(" FROM json_to_record(")
		s.bind(body)
		s.add("::json) AS arguments(")
		s.columnTypes(arguments)
		s.add(")")
	}
	return s
}

// call answers a request that calls a database function. A GET has the arguments in the
// query string and runs in a read-only transaction. A POST has them in the body.
func (s *standIn) call(r *http.Request, who caller, functionName string) (*postgrest.Answer, *postgrest.Error) {
	access, argumentNames, body := pgx.ReadOnly, []string{}, []byte(nil)
	var apiErr *postgrest.Error
	switch r.Method {
	case http.MethodGet:
		argumentNames, body, apiErr = queryArguments(r.URL.RawQuery)
	case http.MethodPost:
		access = pgx.ReadWrite
		text, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, errInvalidJSON // the client is gone
		}
		if len(text) == 0 {
			text = []byte("{}")
		}
		argumentNames, body, apiErr = payloadKeys(text)
	default:
		apiErr = postgrest.Errorf(405, "PGRST101", "Cannot use the %s method on RPC", r.Method)
	}
	if apiErr != nil {
		return nil, apiErr
	}
	for _, f := range s.schema.Load().functions[functionName] {
		if f.takes(argumentNames) {
			result, err := s.run(who, access, f.call(argumentNames, body, r.Method == http.MethodGet), nil)
			return &postgrest.Answer{Status: http.StatusOK, ContentRange: "0-0/*", Body: result.body}, err
		}
	}
	return nil, postgrest.ErrFunction(exposed+"."+functionName, argumentNames, r.Method == http.MethodPost)
}

// queryArguments returns the arguments in a query string: their names, and a JSON
// object with their values.
func queryArguments(rawQuery string) ([]string, []byte, *postgrest.Error) {
	params, err := postgrest.ParseParams(rawQuery)
	if err != nil {
		return nil, nil, err
	}
	names, values := []string{}, map[string]string{}
	for _, p := range params {
		names = append(names, p.Key)
		values[p.Key] = p.Value
	}
	body, _ := json.Marshal(values) // strings can always be marshaled
	return names, body, nil
}
