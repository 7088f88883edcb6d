package tenantdb_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
)

// A value of each type goes as its text and as what pgx reads it as, alone and in an array, if Exec
// takes it so.
func TestInsertRowsTakesEachType(t *testing.T) {
	t.Parallel()
	types := []struct{ typ, text string }{
		{"aclitem", "=r/postgres"},
		{"bit(3)", "101"},
		{"bool", "t"},
		{"box", "(2,2),(1,1)"},
		{"char(3)", "abc"},
		{"bytea", `\x00ff`},
		{"cid", "7"},
		{"cidr", "10.0.0.0/8"},
		{"circle", "<(1,2),3>"},
		{"date", "2026-01-02"},
		{"datemultirange", "{[2026-01-02,2026-01-05)}"},
		{"daterange", "[2026-01-02,2026-01-05)"},
		{"float4", "1.5"},
		{"float8", "1.5"},
		{"inet", "10.0.0.1"},
		{"int2", "2"},
		{"int4", "4"},
		{"int4range", "[1,5)"},
		{"int4multirange", "{[1,5)}"},
		{"int8", "8"},
		{"int8range", "[1,5)"},
		{"int8multirange", "{[1,5)}"},
		{"interval", "1 day 02:03:04"},
		{"json", `{"a":[1,"b"]}`},
		{"jsonb", `{"a": [1, "b"]}`},
		{"jsonpath", `$."a"`},
		{"line", "{1,2,3}"},
		{"lseg", "[(1,2),(3,4)]"},
		{"macaddr", "08:00:2b:01:02:03"},
		{"macaddr8", "08:00:2b:01:02:03:04:05"},
		{"name", "a name"},
		{"numeric(10,2)", "1.50"},
		{"numrange", "[1.5,2.5)"},
		{"nummultirange", "{[1.5,2.5)}"},
		{"oid", "9"},
		{"path", "((1,2),(3,4))"},
		{"point", "(1,2)"},
		{"polygon", "((1,2),(3,4))"},
		{"text", `a "text", {NULL}`},
		{"tid", "(1,2)"},
		{"tsvector", "'a':1 'b'"},
		{"time", "01:02:03"},
		{"timestamp", "2026-01-02 03:04:05"},
		{"tsrange", `["2026-01-02 03:04:05","2026-01-03 03:04:05")`},
		{"tsmultirange", `{["2026-01-02 03:04:05","2026-01-03 03:04:05")}`},
		{"timestamptz", "2026-01-02 03:04:05+00"},
		{"tstzrange", `["2026-01-02 03:04:05+00","2026-01-03 03:04:05+00")`},
		{"tstzmultirange", `{["2026-01-02 03:04:05+00","2026-01-03 03:04:05+00")}`},
		{"uuid", "00000000-0000-4000-8000-000000000001"},
		{"varbit", "10101"},
		{"varchar(9)", "abc"},
		{"xid", "11"},
		{"xid8", "12"},
		{"xml", "<a>b</a>"},
		// pgx does not know these
		{"timetz", "01:02:03+00"},
		{"money", "$1.50"},
		{"tsquery", "'a' & 'b'"},
		{"pg_lsn", "0/1"},
		{"regtype", "integer"},
	}
	var ddl strings.Builder
	ddl.WriteString("CREATE TABLE app.kind (tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(), id int NOT NULL, PRIMARY KEY (tenant_id, id)")
	for i, kind := range types {
		fmt.Fprintf(&ddl, ", v%d %s, w%d %s[]", i, kind.typ, i, kind.typ)
	}
	d := dbtest.New(t, dbtest.Migrations(fstest.MapFS{"0001_kind.sql": {Data: []byte(ddl.String() + ")")}}))
	acme := d.In(t, "acme")
	id := 0
	same := func(column, typ, want string, value any) {
		id++
		_, refused := d.Admin.Exec(t.Context(), "SELECT $1::"+typ, value)
		into := tenantdb.IntoOf("app.kind", "id int", column+" "+typ)
		_, err := d.DB.InsertRows(acme, into, slices.Values([][]any{{id, value}, {-id, nil}}))
		if refused != nil { // pgx does not write all that it reads
			if !errors.Is(err, tenantdb.ErrArgument) {
				t.Errorf("%s of %T: %v, but Exec: %v", typ, value, err, refused)
			}
			return
		}
		var got string
		if err == nil {
			err = d.Admin.QueryRow(t.Context(), "SELECT "+column+"::text FROM app.kind WHERE id = $1", id).Scan(&got)
		}
		if err != nil || got != want {
			t.Errorf("%s of %T is stored as %q, want %q: %v", typ, value, got, want, err)
		}
	}
	for i, kind := range types {
		var text, list string
		var value, values any
		sql := fmt.Sprintf("SELECT v::text, ARRAY[v, v]::text, v, ARRAY[v, v] FROM (SELECT $1::text::%s AS v) x", kind.typ)
		if err := d.Admin.QueryRow(t.Context(), sql, kind.text).Scan(&text, &list, &value, &values); err != nil {
			t.Fatal(kind.typ, err)
		}
		v, w := fmt.Sprint("v", i), fmt.Sprint("w", i)
		same(v, kind.typ, text, kind.text)
		same(v, kind.typ, text, value)
		same(w, kind.typ+"[]", list, []string{kind.text, kind.text})
		same(w, kind.typ+"[]", list, values)
	}
}
