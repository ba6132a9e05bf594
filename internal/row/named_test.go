package row

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
)

// migration has the names of the migration's columns.
var migration = [Fields]string{"id", "document_id", "user_id", "event_type", "duration_ms", "error_message", "stage", "created_at"}

func all(rows []Row) (pointers []*Row) {
	for i := range rows {
		pointers = append(pointers, &rows[i])
	}
	return pointers
}

// Details name rows by a key or by an id, in any of PostgreSQL's languages. The text in
// a row may look like details.
func TestNamed(t *testing.T) {
	c := NewColumns(migration, []string{"tenant", "team"})
	const at = "2026-01-02 03:04:05.678901+00"
	row := func(n byte) Row {
		created := time.Date(2026, 1, 2, 3, 4, 5, 678_901_000, time.UTC).Add(time.Duration(n) * time.Second)
		return Row{
			ID: uuid.UUID{0: 0xaa, 15: n}, DocumentID: uuid.UUID{0: 0xdd, 15: n}, Type: "failed", Stage: "ocr",
			CreatedAt: created.UnixMicro(), Extra: fmt.Sprintf(`,"tenant":%d,"team":"t%d"`, 70+n, n),
		}
	}
	rows := []Row{row(0), row(1), row(2)}
	rows[2].DocumentID = rows[1].DocumentID
	id := func(n int) string { return rows[n].ID.String() }
	doc := func(n int) string { return rows[n].DocumentID.String() }
	for details, want := range map[string][]int{
		"": nil,
		"Failing row contains (" + id(1) + ", " + doc(1) + ", failed, 12, null, {a,\"b, c\"}).":                {1},
		"失敗した行は(7, null, {\"a\": [1]}, " + id(2) + ")を含みます":                                                    {2},
		"La fila que falla contiene (" + id(0) + ", a)=(b, (id)=(" + id(1) + ")).":                             nil,
		"Failing row contains (" + id(0) + ", Key (document_id)=(" + doc(1) + ") is not pre...).":              {0},
		"Failing row contains (" + id(0) + ", see " + id(1) + ").":                                             nil,
		"Key (document_id)=(" + doc(1) + ") is not present in table \"documents\".":                            {1, 2},
		"テーブル\"documents\"にキー(document_id)=(" + doc(0) + ")がありません":                                             {0},
		"La clé « (id, created_at)=(" + id(0) + ", " + at + ") » existe déjà.":                                 {0},
		"Key (id, created_at)=(" + id(1) + ", " + at + ") already exists.":                                     nil,
		"Key (created_at, event_type)=(2026-01-02 05:04:06.678901+02, failed) already exists.":                 {1},
		"Key (created_at)=(yesterday) already exists.":                                                         nil,
		"Key (tenant)=(71) is not present in table \"tenants\".":                                               {1},
		"Key (tenant)=(7) is not present in table \"tenants\".":                                                nil,
		"Key (tenant, \"team\")=(72, t2) is not present in table \"teams\".":                                   {2},
		"Key (lower(stage))=(ocr) already exists.":                                                             nil,
		"Key (stage)=(a, b) already exists.":                                                                   nil,
		"Key (stage, event_type)=(ocr, failed) conflicts with existing key (stage, event_type)=(ocr, failed).": {0, 1, 2},
	} {
		if got := c.Named(all(rows), details); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", details, got, want)
		}
	}
}

// Details with text ids name the rows, even if an id contains a parenthesis or a
// comma.
func TestNamedByTextIDs(t *testing.T) {
	c := NewColumns(migration, nil)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixMicro()
	rows := []Row{
		{textIDs: "42\x00ann", CreatedAt: at},
		{textIDs: "4\x00", NoUser: true},
		{textIDs: "a\x00b, c"},
		{textIDs: "a) is not\x00b"},
		{textIDs: "a\x00b"},
		{ID: uuid.UUID{15: 6}, textIDs: uuid.UUID{15: 7}.String() + "\x00e"},
		{ID: uuid.UUID{15: 7}, textIDs: "f\x00f"},
	}
	for details, want := range map[string][]int{
		`Key (document_id)=(42) is not present in table "documents".`:         {0},
		`Key (document_id)=(4) is not present in table "documents".`:          {1},
		`Key (document_id)=(a) is not present in table "documents".`:          {2, 4},
		`Key (document_id)=(a) is not) is not present in table "documents".`:  {2, 3, 4}, // only row 3 is meant; the others are sent again as well
		`Key (user_id)=(ann) is not present in table "users".`:                {0},
		`Key (user_id)=() is not present in table "users".`:                   nil,
		`Key (document_id, user_id)=(a, b, c) is not present in table "x".`:   {2},
		`Key (document_id, user_id)=(a, b) already exists.`:                   {4},
		`Key (document_id)=(a (b)) already exists.`:                           nil,
		`Key (document_id, created_at)=(42, 2026-01-02 03:04:05) is not`:      {0}, // a timestamp without a zone
		`Key (created_at, document_id)=(2026-01-02 08:34:05+05:30, 42) is no`: {0},
		`Key (document_id)=(` + uuid.UUID{15: 7}.String() + `) is not`:        {5}, // another row's id
		`Key (document_id)=(4`: nil,
		`Key (document_id)=(`:  nil,
	} {
		if got := c.Named(all(rows), details); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", details, got, want)
		}
	}
}
