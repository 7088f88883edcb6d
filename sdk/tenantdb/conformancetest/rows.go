package conformancetest

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
)

// A forgotten WHERE touches own rows only, and they are where the tenant lives.
func ownRows(t *testing.T, s *subject) {
	t.Helper()
	acme, globex := s.In(t, "acme"), s.In(t, "globex")
	wantTitles(acme, t, s.DB, "acme one", "acme two")
	wantTitles(globex, t, s.DB, "globex one")
	for id, want := range map[string]int{"acme": 2, "globex": 1} {
		h, there := s.Home(t, id), 0
		sql := "SELECT count(*) FROM " + h.Schema + ".note WHERE tenant_id = $1" // not by what renders the SDK's statements
		if err := h.Admin(t).QueryRow(t.Context(), sql, [16]byte(s.Tenant(t, id).UID)).Scan(&there); there != want || err != nil {
			t.Errorf("%d rows of %s are at home in %s, want %d, %v", there, id, h.Model, want, err)
		}
	}
	if n, err := s.DB.Exec(acme, renameAll); n != 2 || err != nil {
		t.Errorf("UPDATE without WHERE touched %d rows, %v", n, err)
	}
	if n, err := s.DB.Exec(acme, dropNotes); n != 2 || err != nil {
		t.Errorf("DELETE without WHERE touched %d rows, %v", n, err)
	}
	wantTitles(acme, t, s.DB)
	wantTitles(globex, t, s.DB, "globex one")
}

//nolint:gochecknoglobals // statements are constants
var (
	plant        = tenantdb.Stmt(`INSERT INTO app.note (tenant_id, id, title) VALUES ($1, 7, 'planted')`)
	giveAway     = tenantdb.Stmt(`UPDATE app.note SET tenant_id = $1 WHERE id = 1`)
	dropForeign  = tenantdb.Stmt(`DELETE FROM app.note WHERE tenant_id = $1`)
	writeForeign = tenantdb.Stmt(`UPDATE app.note SET title = 'x' WHERE tenant_id = $1`)
)

func foreignRows(t *testing.T, s *subject) {
	t.Helper()
	acme, globex := s.In(t, "acme"), s.Tenant(t, "globex").UID.String()
	for _, stmt := range []tenantdb.Statement{plant, giveAway} {
		_, err := s.DB.Exec(acme, stmt, globex)
		wantRefusal(t, err, tenantdb.ErrForeignRow, fault.PermissionDenied, fault.ReasonPermissionMissing)
	}
	for _, stmt := range []tenantdb.Statement{dropForeign, writeForeign} {
		if n, err := s.DB.Exec(acme, stmt, globex); n != 0 || err != nil {
			t.Errorf("%s touched %d rows, %v", stmt, n, err)
		}
	}
	wantTitles(s.In(t, "globex"), t, s.DB, "globex one")
}

// The same key in two tenants is two rows, and no tenant learns of another's.
func keysPerTenant(t *testing.T, s *subject) {
	t.Helper()
	acme, globex := s.In(t, "acme"), s.In(t, "globex")
	if _, err := s.DB.Exec(acme, addNote, 3, "globex one"); err != nil {
		t.Errorf("a title that another tenant has: %v", err)
	}
	if _, err := s.DB.Exec(acme, addNote, 3, "again"); !tenantdb.IsUniqueViolation(err) {
		t.Errorf("own key twice: %v", err)
	}
	// A child cannot hang on another tenant's parent: globex has no note 2.
	if _, err := s.DB.Exec(globex, addTag, 2, "mine"); !tenantdb.IsForeignKeyViolation(err) {
		t.Errorf("tag on a note of acme: %v", err)
	}
	if _, err := s.DB.Exec(acme, addTag, 2, "mine"); err != nil {
		t.Errorf("tag on an own note: %v", err)
	}
	if _, err := s.DB.Exec(acme, dropNote, 2); err != nil {
		t.Error(err)
	}
	var tags int
	if err := s.DB.QueryRow(acme, countTags).Scan(&tags); tags != 0 || err != nil {
		t.Errorf("%d tags of a note that is gone, %v", tags, err)
	}
	wantTitles(globex, t, s.DB, "globex one")
}

//nolint:gochecknoglobals // statements are constants
var (
	countTags = tenantdb.Stmt(`SELECT count(*) FROM app.tag`)
	putNote   = tenantdb.Stmt(`INSERT INTO app.note (id, title) VALUES ($1, $2)
ON CONFLICT (tenant_id, id) DO UPDATE SET title = excluded.title RETURNING title`)
	addOnce = tenantdb.Stmt(`INSERT INTO app.note (id, title) VALUES ($1, $2) ON CONFLICT DO NOTHING`)
)

func conflicts(t *testing.T, s *subject) {
	t.Helper()
	globex := s.In(t, "globex")
	for id, title := range map[int]string{1: "replaced", 2: "acme two"} {
		var got string
		if err := s.DB.QueryRow(globex, putNote, id, title).Scan(&got); got != title || err != nil {
			t.Errorf("note %d is %q, want %q, %v", id, got, title, err)
		}
	}
	if n, err := s.DB.Exec(globex, addOnce, 9, "replaced"); n != 0 || err != nil {
		t.Errorf("a title twice: %d rows, %v", n, err)
	}
	wantTitles(globex, t, s.DB, "acme two", "replaced")
	wantTitles(s.In(t, "acme"), t, s.DB, "acme one", "acme two")
}

//nolint:gochecknoglobals // statements are constants
var (
	addThing = tenantdb.Stmt(`INSERT INTO app.thing (id, words, numbers, doc, key, made, day, raw, price, real, yes, nothing, host)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`)
	getThing = tenantdb.Stmt(`SELECT words, numbers, doc, key, made, day, raw, price::text, real, yes, nothing, host
FROM app.thing WHERE id = $1`)
	made = tenantdb.Stmt(`SELECT (SELECT count(*)::int FROM app.event), (SELECT note FROM app.event), app.longest(),
	(SELECT array_agg(title ORDER BY title) FROM app.titles), (SELECT code FROM app.currency)`)
)

// Triggers, functions, views, partitions and global tables are those of the tenant's home.
func madeByMigrations(t *testing.T, s *subject) {
	t.Helper()
	for id, want := range map[string][]string{"acme": {"acme one", "acme two"}, "globex": {"globex one"}} {
		ctx := s.In(t, id)
		if _, err := s.DB.Exec(ctx, addThing, 1, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil); err != nil {
			t.Fatal(err)
		}
		var events, longest int
		var note, code string
		var got []string
		if err := s.DB.QueryRow(ctx, made).Scan(&events, &note, &longest, &got, &code); err != nil {
			t.Fatal(err)
		}
		if events != 1 || note != "thing" || longest != len(want[0]) || !slices.Equal(got, want) || code != "app.currency" {
			t.Errorf("%s: %d events of %q, longest %d, titles %q, currency %q", id, events, note, longest, got, code)
		}
	}
}

type thing struct {
	Words   []string
	Numbers []int64
	Doc     map[string]any
	Key     [16]byte
	Made    time.Time
	Day     time.Time
	Raw     []byte
	Price   string
	Real    float64
	Yes     bool
	Nothing *string
	Host    netip.Addr
}

func valuesComeBack(t *testing.T, s *subject) {
	t.Helper()
	acme := s.In(t, "acme")
	want := thing{
		Words: []string{"app.note", `a "b", c`, "NULL", "", "ü\U0001f600"}, Numbers: []int64{-1 << 63, 0, 1<<63 - 1},
		Doc: map[string]any{"app": []any{1.5, nil, true}}, Key: [16]byte{1, 15: 255},
		Made: time.Date(2026, 2, 28, 23, 59, 59, 123_456_000, time.UTC),
		Day:  time.Date(2000, 2, 29, 0, 0, 0, 0, time.UTC), Raw: []byte{0, 255, '\''}, Price: "-123456789.125", Real: 0.1, Yes: true,
		Host: netip.MustParseAddr("2001:db8::1"),
	}
	_, err := s.DB.Exec(acme, addThing, 5, want.Words, want.Numbers, want.Doc, want.Key, want.Made, want.Day, want.Raw, want.Price,
		want.Real, want.Yes, want.Nothing, want.Host)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := s.DB.Query(acme, getThing, 5)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[thing])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}), cmp.Comparer(time.Time.Equal)); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
}

//nolint:gochecknoglobals // statements are constants
var (
	imports = tenantdb.Into("app.import", "id integer", "words text[]", "doc jsonb", "nothing text")
	sumUp   = tenantdb.Stmt(`SELECT count(*)::int, count(nothing)::int, coalesce(max(doc ->> 'n'), ''), coalesce(max(words[2]), '')
FROM app.import`)
)

func manyRows(t *testing.T, s *subject) {
	t.Helper()
	const n = 6_251 // five chunks and a row
	acme := s.In(t, "acme")
	row := func(i int) []any { return []any{i, []string{"a", "b,\"c\""}, map[string]string{"n": "x"}, nil} }
	insert := func(last []any) (int64, error) {
		return s.DB.InsertRows(acme, imports, func(yield func([]any) bool) {
			for i := range n - 1 {
				if !yield(row(i)) {
					return
				}
			}
			yield(last)
		})
	}
	if _, err := insert(row(0)); !tenantdb.IsUniqueViolation(err) {
		t.Errorf("a key twice: %v", err)
	}
	for id, want := range map[string]string{"acme": "0 0  ", "globex": "0 0  "} {
		wantSum(t, s, id, want)
	}
	if got, err := insert(row(n)); got != n || err != nil {
		t.Errorf("inserted %d of %d rows, %v", got, n, err)
	}
	for id, want := range map[string]string{"acme": fmt.Sprintf("%d 0 x b,\"c\"", n), "globex": "0 0  "} {
		wantSum(t, s, id, want)
	}
}

func wantSum(t *testing.T, s *subject, id, want string) {
	t.Helper()
	var rows, texts int
	var n, word string
	err := s.DB.QueryRow(s.In(t, id), sumUp).Scan(&rows, &texts, &n, &word)
	if got := fmt.Sprintf("%d %d %s %s", rows, texts, n, word); got != want || err != nil {
		t.Errorf("%s has %q, want %q, %v", id, got, want, err)
	}
}

//nolint:gochecknoglobals // statements are constants
var (
	unknownTable = tenantdb.Stmt(`SELECT FROM app.nothing`)
	divide       = tenantdb.Stmt(`SELECT 1 / (count(*) - 2) FROM app.note`)
)

func rowsAndErrors(t *testing.T, s *subject) {
	t.Helper()
	acme := s.In(t, "acme")
	var text string
	if err := s.DB.QueryRow(acme, getNote, 99).Scan(&text); err != tenantdb.ErrNoRows { //nolint:errorlint // it is documented to be that
		t.Errorf("absent row: %v", err)
	}
	if err := s.DB.QueryRow(acme, allNotes).Scan(&text); err != nil || text != "acme one" {
		t.Errorf("first of several: %q, %v", text, err)
	}
	if _, err := s.DB.Query(acme, unknownTable); state(err) != "42P01" {
		t.Errorf("unknown table: %v", err)
	}
	if _, err := s.DB.Exec(acme, divide); state(err) != "22012" {
		t.Errorf("division by zero: %v", err)
	}
	wantTitles(acme, t, s.DB, "acme one", "acme two")
}
