package prove

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/catalog"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

// Database is a database that checks read. They change nothing in it and read no tenant's row.
type Database struct {
	// Name is how the report calls it; no connection string.
	Name string
	// Config is how to connect. Any login will do.
	Config *pgx.ConnConfig
	// Audit says what the audit of its catalogs looks at.
	Audit catalog.Config
	// Repeat is the command that makes the lines of a section again.
	Repeat func(section string) string

	once    sync.Once
	seen    survey
	blinded error
}

// survey is what was read of a database, in one read-only transaction.
type survey struct {
	audit         catalog.Report
	roles, tables [][]Cell
}

// Databases returns the databases to read. It is asked by each check that runs, and not at
// all when none does.
type Databases func(context.Context) ([]*Database, error)

// DatabaseChecks returns the checks that read catalogs: rung, catalog, grants, versions.
// Each database is read once, by the first that runs.
func DatabaseChecks(of Databases) []Check {
	check := func(about About, look func(context.Context, string, []*Database) Outcome) Check {
		return Check{About: about, Run: func(ctx context.Context) (Outcome, error) {
			databases, err := of(ctx)
			if err != nil {
				return Outcome{}, err
			}
			return look(ctx, about.ID, databases), nil
		}}
	}
	return []Check{check(aboutRung, rungs), check(aboutCatalog, cataloged), check(aboutGrants, granted), check(aboutVersions, versions)}
}

// look reads the database, once.
func (d *Database) look(ctx context.Context) (survey, error) {
	d.once.Do(func() { d.seen, d.blinded = d.read(ctx) })
	return d.seen, d.blinded
}

func (d *Database) read(ctx context.Context) (s survey, err error) {
	conn, err := pgx.ConnectConfig(ctx, d.Config.Copy())
	if err != nil {
		return s, fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(t pgx.Tx) (err error) {
		if s.audit, err = cell.Audit(ctx, t, d.Audit); err != nil {
			return err
		}
		if s.roles, err = cells(ctx, t, rolesSQL); err != nil {
			return fmt.Errorf("read the roles: %w", err)
		}
		if s.tables, err = cells(ctx, t, tablesSQL); err != nil {
			return fmt.Errorf("read the grants: %w", err)
		}
		return nil
	})
	return s, err
}

// rolesSQL lists the platform's roles that have to do with the database.
const rolesSQL = `
SELECT r.rolname::text,
	CASE WHEN r.rolcanlogin THEN 'logs in' ELSE 'nobody logs in' END,
	coalesce(nullif(concat_ws(', ',
		CASE WHEN r.rolsuper THEN 'SUPERUSER' END, CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END,
		CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END, CASE WHEN r.rolcreatedb THEN 'CREATEDB' END,
		CASE WHEN r.rolreplication THEN 'REPLICATION' END), ''), 'none'),
	coalesce((SELECT string_agg(g.rolname::text, ', ' ORDER BY g.rolname::text)
		FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid), 'none')
FROM pg_catalog.pg_roles r
WHERE r.rolname IN ('rowhouse_app', 'rowhouse_sec') OR r.rolname ~ '^rowhouse_(app|migrator|owner)_'
	AND (pg_catalog.has_database_privilege(r.oid, pg_catalog.current_database(), 'CONNECT')
		OR pg_catalog.has_database_privilege(r.oid, pg_catalog.current_database(), 'CREATE'))
ORDER BY r.rolname::text`

// tablesSQL lists the relations with what apps may do to them. Tenants' schemas hold the same,
// so their names are folded into one and counted.
const tablesSQL = `
SELECT concat(CASE WHEN n.nspname ~ '^t_[0-9a-f]{32}$' THEN 't_…' ELSE n.nspname::text END, '.', c.relname) AS relation,
	CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped)
		THEN 'tenants''' ELSE 'global' END,
	CASE WHEN c.relrowsecurity AND c.relforcerowsecurity THEN 'forced' WHEN c.relrowsecurity THEN 'enabled, not forced' ELSE 'none' END,
	coalesce((SELECT string_agg(DISTINCT a.privilege_type, ', ')
		FROM pg_catalog.aclexplode(c.relacl) a LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee
		WHERE a.grantee = 0 OR g.rolname ~ '^rowhouse_app(_|$)'), 'none') AS may,
	count(*)::text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'rowhouse')
GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4`

func cells(ctx context.Context, t pgx.Tx, sql string) ([][]Cell, error) {
	rows, err := t.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) ([]Cell, error) {
		values, err := row.Values()
		line := make([]Cell, len(values))
		for i, v := range values {
			line[i].Text = fmt.Sprint(v)
		}
		return line, err
	})
}

// each makes a line of every database.
func each(ctx context.Context, section string, databases []*Database, line func(*Database, survey) Line) (lines []Line) {
	for _, d := range databases {
		s, err := d.look(ctx)
		if err != nil {
			lines = append(lines, Line{Name: d.Name, Status: NotRun, Result: "could not look: " + err.Error(), Repeat: d.Repeat(section)})
			continue
		}
		l := line(d, s)
		l.Name, l.Repeat = d.Name, d.Repeat(section)
		lines = append(lines, l)
	}
	return lines
}

// rungs says on which rung each database stands.
func rungs(ctx context.Context, section string, databases []*Database) Outcome {
	lines := each(ctx, section, databases, func(_ *Database, s survey) Line {
		switch cell.Rung(s.audit.Rung) {
		case cell.L2b:
			return Line{Status: Pass, Result: "L2b: the seal is checked once a transaction; then the tenant is kept where the app cannot write"}
		case cell.L2a:
			return Line{Status: Pass, Result: "L2a: the seal is kept in a setting and checked by each policy"}
		default:
			return Line{Status: Fail, Result: "none: the database does not verify the tenant; rowhouse cells init makes it"}
		}
	})
	held, bound := Cell{"holds", Held}, Cell{"holds for callers through the SDK", ""}
	return Outcome{Lines: lines, Tables: []Table{{
		Title: "What a rung holds against whom",
		Head:  []string{"attacker", "usual recipe (a plain setting)", "L2a", "L2b"},
		Rows: [][]Cell{
			{{Text: "A0 forgets a filter or the tenant"}, {"silence or all rows", Leaked}, held, held},
			{{Text: "A1 injects into one statement"}, {"another tenant's rows", Leaked}, held, held},
			{{Text: "A2 has the app's password"}, {"all tenants' rows", Leaked}, held, held},
			{{Text: "read-only flag, fence of a move"}, {"there are none", Leaked}, bound, held},
		},
	}}}
}

// cataloged judges what migrations made.
func cataloged(ctx context.Context, section string, databases []*Database) Outcome {
	return audited(ctx, section, databases, catalog.Tables)
}

// audited judges by the rules of one area.
func audited(ctx context.Context, section string, databases []*Database, area catalog.Area) Outcome {
	return Outcome{Lines: each(ctx, section, databases, func(_ *Database, s survey) Line { return judged(s.audit, area) })}
}

func judged(r catalog.Report, area catalog.Area) Line {
	rules := 0
	for _, rule := range r.Rules {
		if rule.Area == area {
			rules++
		}
	}
	l := Line{Status: Pass}
	n := map[string]int{}
	for _, f := range r.Findings {
		if rule, _ := catalog.RuleOf(f.Rule); rule.Area != area {
			continue
		}
		found := Finding{Rule: f.Rule, Severity: string(f.Severity), Object: f.Object, Message: f.Message, Mend: f.Mend}
		if f.Accepted != "" {
			found.Severity, found.Message, found.Mend = "accepted", f.Message+" ("+f.Accepted+")", ""
		}
		n[found.Severity]++
		l.Findings = append(l.Findings, found)
	}
	if n["error"] > 0 {
		l.Status = Fail
	}
	l.Result = fmt.Sprintf("%d errors, %d warnings, %d notes, %d accepted, by %d rules",
		n["error"], n["warning"], n["note"], n["accepted"], rules)
	if rules == 0 {
		l.Status, l.Result = NotRun, "no rule was looked for"
	}
	return l
}

// granted judges the roles and lists what they may do.
func granted(ctx context.Context, section string, databases []*Database) Outcome {
	o := audited(ctx, section, databases, catalog.Platform)
	for _, d := range databases {
		s, err := d.look(ctx)
		if err != nil {
			continue // its line says so
		}
		roles, rights := []string{"role", "login", "attributes of power", "member of"},
			[]string{"table or view", "rows", "row security", "rights of the app and of everybody", "number"}
		o.Tables = append(o.Tables, Table{d.Name + ": roles", roles, s.roles}, Table{d.Name + ": what the app may do", rights, s.tables})
	}
	return o
}

// versions judges the server and lists the holes that its release closes.
func versions(ctx context.Context, section string, databases []*Database) Outcome {
	o := audited(ctx, section, databases, catalog.Server)
	table := Table{Title: "Known holes in or around row security", Head: []string{"advisory", "what was wrong", "fixed in"}}
	for _, a := range catalog.Advisories() {
		table.Rows = append(table.Rows, Cells(a.CVE, a.Title, releases(a.Fixed)))
	}
	for i, d := range databases {
		s, err := d.look(ctx)
		if err != nil {
			continue
		}
		o.Lines[i].Result = "PostgreSQL " + s.audit.Server + ": " + o.Lines[i].Result
		table.Head = append(table.Head, d.Name)
		for j, a := range catalog.Advisories() {
			table.Rows[j] = append(table.Rows[j], exposed(s.audit.Server, a))
		}
	}
	o.Tables = append(o.Tables, table)
	return o
}

// releases writes releases by major.
func releases(by map[int]int) string {
	var all []string
	for _, major := range slices.Sorted(maps.Keys(by)) {
		all = append(all, fmt.Sprintf("%d.%d", major, by[major]))
	}
	return strings.Join(all, ", ")
}

// exposed says whether a release has a hole. Of majors that the advisories are not about, nothing is known.
func exposed(server string, a catalog.Advisory) Cell {
	release, _, _ := strings.Cut(server, " ")
	first, second, _ := strings.Cut(release, ".")
	major, bad := strconv.Atoi(first)
	minor, worse := strconv.Atoi(second)
	if bad != nil || worse != nil {
		return Cell{Text: "unknown release"}
	}
	_, known := catalog.Floors()[major]
	switch fixed, had := a.Fixed[major]; {
	case !known:
		return Cell{Text: "unknown for this major"}
	case !had:
		return Cell{"never had it", Held}
	case minor < fixed:
		return Cell{"open", Broken}
	default:
		return Cell{"closed", Held}
	}
}
