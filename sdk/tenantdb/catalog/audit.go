package catalog

import (
	"cmp"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

//go:embed sql/*.sql
var scripts embed.FS

// ErrConfig says that an audit was asked for that cannot be made.
var ErrConfig = errors.New("audit refused")

// Conn is a connection, a pool or a transaction of pgx.
type Conn interface {
	// Begin starts a transaction, or a savepoint in one.
	Begin(ctx context.Context) (pgx.Tx, error)
}

// Config says what an audit looks at. The zero value is right for databases that cell.Init
// made, but for Shipped, which cell.Audit fills in.
type Config struct {
	// AppRole is the role with the app's grants; the roles of that name and _suffix that
	// may connect to the database are the app, too. Empty means rowhouse_app.
	AppRole string
	// OwnerRole owns the tables; empty means the rowhouse_owner_<app> that owns schema app.
	OwnerRole string
	// SecurityRole owns OwnSchema; empty means rowhouse_sec.
	SecurityRole string
	// OwnSchema holds what verifies the tenant; empty means rowhouse.
	OwnSchema string
	// TenantColumn makes a table a tenant table; empty means tenant_id.
	TenantColumn string
	// Schemas is a regular expression of PostgreSQL's for the schemas that are judged.
	// Empty means all but PostgreSQL's own and OwnSchema.
	Schemas string
	// ContextFunctions return the tenant; empty means rowhouse.tenant_id. Without arguments.
	ContextFunctions []string
	// Carriers are the settings that carry the tenant; empty means those of both rungs.
	Carriers []string
	// Definers are functions with their owner's rights that the app may call, each as
	// schema.name(types). Those in OwnSchema are judged by R37 and need not be here.
	Definers []string
	// Floors replaces [Floors].
	Floors map[int]int
	// Dedicated says that the database holds one tenant. One that is named
	// <app>_<32 hex digits>, as the DATABASE model does, is known to.
	Dedicated bool
	// Shipped is what OwnSchema must hold. Nil leaves R37 out.
	Shipped *Shipped
	// Touched judges only what the transaction that Conn is has changed, and only by
	// rules of the area [Tables].
	Touched bool
	// Rules are the ids to look for; empty means all.
	Rules []string
	// Accept are the ids of rules whose findings are risks that somebody took: they are
	// reported, and count as accepted.
	Accept []string
}

// Shipped describes schema rowhouse as a release installs it. Grants are "role PRIVILEGE",
// in the order of their bytes, without the owner's.
type Shipped struct {
	Schema    []string          `json:"schema"`
	Tables    []ShippedTable    `json:"tables"`
	Functions []ShippedFunction `json:"functions"`
}

// ShippedTable is a table and its grants.
type ShippedTable struct {
	Name   string   `json:"name"`
	Grants []string `json:"grants"`
}

// ShippedFunction is a function. Rung is "" when all rungs have it. Body is the text between
// the quotes, or for one in SQL's own form what [CanonicalBody] makes of it.
type ShippedFunction struct {
	Name    string   `json:"name"`
	Args    int      `json:"args"`
	Rung    string   `json:"rung"`
	Definer bool     `json:"definer"`
	Body    string   `json:"body"`
	Grants  []string `json:"grants"`
}

// CanonicalBody takes from a body in SQL's own form (RETURN …) what PostgreSQL shows in
// another way than it was written: blanks, parentheses, casts of constants.
func CanonicalBody(sql string) string {
	sql = regexp.MustCompile(`[\s()]`).ReplaceAllString(sql, "")
	return strings.NewReplacer("pg_catalog.", "", "::text", "", "doubleprecision", "float8").Replace(sql)
}

// Audit looks for the faults of [Rules] in the database to which conn leads, in one
// statement. It needs no rights: any login sees the catalogs. Findings are no error; an
// error means that nothing is known.
func Audit(ctx context.Context, conn Conn, config Config) (Report, error) {
	config = config.withDefaults()
	chosen, err := config.rules()
	if err != nil {
		return Report{}, fmt.Errorf("catalog audit: %w", err)
	}
	text, err := statement(chosen)
	if err != nil {
		return Report{}, fmt.Errorf("catalog audit: %w", err)
	}
	report, err := config.run(ctx, conn, text)
	if err != nil {
		return Report{}, fmt.Errorf("catalog audit: %w", err)
	}
	report.Rules = chosen
	return report, nil
}

func (c Config) withDefaults() Config {
	c.AppRole = cmp.Or(c.AppRole, "rowhouse_app")
	c.SecurityRole = cmp.Or(c.SecurityRole, "rowhouse_sec")
	c.OwnSchema = cmp.Or(c.OwnSchema, "rowhouse")
	c.TenantColumn = cmp.Or(c.TenantColumn, "tenant_id")
	if len(c.ContextFunctions) == 0 {
		c.ContextFunctions = []string{c.OwnSchema + ".tenant_id"}
	}
	if len(c.Carriers) == 0 {
		c.Carriers = []string{"backtrace_functions", "rowhouse.seal"}
	}
	if c.Floors == nil {
		c.Floors = Floors()
	}
	if c.Definers == nil {
		c.Definers = []string{}
	}
	return c
}

// rules are those to look for.
func (c Config) rules() ([]Rule, error) {
	for _, id := range slices.Concat(c.Rules, c.Accept) {
		if _, known := RuleOf(id); !known {
			return nil, fmt.Errorf("%w: there is no rule %q", ErrConfig, id)
		}
	}
	var chosen []Rule
	for _, r := range Rules() {
		if (len(c.Rules) == 0 || slices.Contains(c.Rules, r.ID)) && (!c.Touched || r.Area == Tables) && (r.ID != "R37" || c.Shipped != nil) {
			chosen = append(chosen, r)
		}
	}
	return chosen, nil
}

// statement puts the rules behind what they look at.
func statement(chosen []Rule) (string, error) {
	base, sections, err := load()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(base)
	b.WriteString("SELECT '' AS rule, current_database()::text AS object, concat_ws(' ', version, revoked, rung) AS what, " +
		"'' AS mend, false AS note FROM facts\n")
	for _, r := range chosen {
		section, there := sections[r.ID]
		if !there {
			return "", fmt.Errorf("rule %s has no SQL", r.ID)
		}
		note := "false"
		if strings.Contains(section, " AS note") {
			note = "x.note"
		}
		fmt.Fprintf(&b, "UNION ALL SELECT '%s', x.object, x.what, x.mend, %s FROM (\n%s) x\n", r.ID, note, section)
	}
	return b.String(), nil
}

// load reads the scripts: what all rules look at, and each rule's SELECT behind the line "-- Rnn".
func load() (base string, sections map[string]string, err error) {
	names, err := fs.Glob(scripts, "sql/*.sql")
	if err != nil {
		return "", nil, fmt.Errorf("scripts: %w", err)
	}
	heading := regexp.MustCompile(`(?m)^-- (R\d\d)\n`)
	sections = map[string]string{}
	for _, name := range names {
		b, err := scripts.ReadFile(name)
		if err != nil {
			return "", nil, fmt.Errorf("scripts: %w", err)
		}
		text := string(b)
		if name == "sql/base.sql" {
			base = text
			continue
		}
		at := heading.FindAllStringSubmatchIndex(text, -1)
		for i, m := range at {
			end := len(text)
			if i+1 < len(at) {
				end = at[i+1][0]
			}
			sections[text[m[2]:m[3]]] = text[m[1]:end]
		}
	}
	return base, sections, nil
}

// run sends the statement. It gives the transaction, or the savepoint, back as it was.
func (c Config) run(ctx context.Context, conn Conn, text string) (report Report, err error) {
	var shipped *string
	if c.Shipped != nil {
		b, err := json.Marshal(c.Shipped)
		if err != nil {
			return Report{}, fmt.Errorf("describe what was shipped: %w", err)
		}
		shipped = new(string(b))
	}
	var floors []int32
	for major, minor := range c.Floors {
		floors = append(floors, int32(major*10000+minor)) //nolint:gosec // releases are small numbers
	}
	t, err := conn.Begin(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("begin: %w", err)
	}
	defer func() {
		if end := t.Rollback(context.WithoutCancel(ctx)); err == nil && end != nil {
			err = fmt.Errorf("roll back: %w", end)
		}
	}()
	// Names mean PostgreSQL's own objects, and are shown with their schema; a plan this long is not worth compiling.
	set := "SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL jit = off; SET LOCAL work_mem = '64MB'"
	args := []any{c.AppRole, c.OwnerRole, c.SecurityRole, c.TenantColumn, c.Schemas,
		c.ContextFunctions, c.OwnSchema, c.Carriers, c.Definers, floors, c.Dedicated, c.Touched, shipped}
	if c.Touched {
		// Migrations run one after the other on a connection, and planning is most of what the audit of one costs.
		set += "; SET LOCAL plan_cache_mode = force_generic_plan"
	} else {
		// Unnamed: a pooler's connection keeps nothing of it.
		args = append([]any{pgx.QueryExecModeExec}, args...)
	}
	if _, err := t.Exec(ctx, set, pgx.QueryExecModeSimpleProtocol); err != nil {
		return Report{}, fmt.Errorf("prepare: %w", err)
	}
	rows, err := t.Query(ctx, text, args...)
	if err != nil {
		return Report{}, fmt.Errorf("read the catalogs: %w", err)
	}
	return c.collect(rows)
}

// collect makes the report of the rows.
func (c Config) collect(rows pgx.Rows) (report Report, err error) {
	revoked := false
	var f Finding
	var note bool
	_, err = pgx.ForEachRow(rows, []any{&f.Rule, &f.Object, &f.Message, &f.Mend, &note}, func() error {
		if f.Rule == "" {
			report.Database = f.Object
			var version, yes string
			if n, _ := fmt.Sscan(f.Message, &version, &yes, &report.Rung); n < 2 {
				return fmt.Errorf("facts %q are unreadable", f.Message)
			}
			report.Server, revoked = release(version), yes == "t"
			return nil
		}
		rule, known := RuleOf(f.Rule)
		if !known {
			return fmt.Errorf("rule %q is unknown", f.Rule)
		}
		f.Severity = rule.Severity
		if note {
			f.Severity = Note
		}
		report.Findings = append(report.Findings, f)
		return nil
	})
	if err != nil {
		return Report{}, fmt.Errorf("read the catalogs: %w", err)
	}
	for i := range report.Findings {
		c.accept(&report.Findings[i], report.Rung == "L2a" && !revoked)
	}
	slices.SortFunc(report.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), strings.Compare(a.Rule, b.Rule), strings.Compare(a.Object, b.Object),
			strings.Compare(a.Message, b.Message))
	})
	return report, nil
}

// accept marks a finding that is a risk somebody took. guest says that the server's own functions are not ours.
func (c Config) accept(f *Finding, guest bool) {
	switch {
	case slices.Contains(c.Accept, f.Rule):
		f.Accepted = "asked for"
	case guest && slices.Contains([]string{"R20", "R21", "R42"}, f.Rule):
		f.Accepted = "rung L2a without superuser: PostgreSQL's own rights are not ours to take"
	}
}

// release is a version number as people write it.
func release(number string) string {
	var n int
	if _, err := fmt.Sscan(number, &n); err != nil {
		return number
	}
	return fmt.Sprintf("%d.%d", n/10000, n%10000)
}
