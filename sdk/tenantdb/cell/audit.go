package cell

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/catalog"
)

// Audit is [catalog.Audit] with what this release installs in schema rowhouse to compare
// with, unless config says otherwise. conn may be any login, and a transaction.
func Audit(ctx context.Context, conn catalog.Conn, config catalog.Config) (catalog.Report, error) {
	if config.Shipped == nil {
		app, err := appOf(ctx, conn)
		if err != nil {
			return catalog.Report{}, fmt.Errorf("audit: %w", err)
		}
		if config.Shipped, err = shipped(app); err != nil {
			return catalog.Report{}, fmt.Errorf("audit: %w", err)
		}
	}
	return catalog.Audit(ctx, conn, config)
}

// appOf returns for which app the database was made, by the name of the role that owns its
// tables; any login may look. It is empty where there is no such role.
func appOf(ctx context.Context, conn catalog.Conn) (app string, err error) {
	err = tx(ctx, conn, func(t pgx.Tx) error {
		return t.QueryRow(ctx, `SELECT coalesce(max(substring(r.rolname FROM '^rowhouse_owner_(.*)$')), '')
FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner WHERE n.nspname = 'app'`).Scan(&app)
	})
	if err != nil {
		return "", fmt.Errorf("look for the app: %w", err)
	}
	return app, nil
}

// auditPlatform looks for what Init sets up and something else undid, or never let be done.
func auditPlatform(ctx context.Context, conn Conn) error {
	var rules []string
	for _, r := range catalog.Rules() {
		if r.Area == catalog.Platform {
			rules = append(rules, r.ID)
		}
	}
	report, err := Audit(ctx, conn, catalog.Config{Rules: rules})
	if err != nil {
		return err
	}
	return unsafeIf(report)
}

// auditTouched looks for what the transaction made of the app's schemas whose name matches
// a regular expression.
func auditTouched(ctx context.Context, t pgx.Tx, schemas string) error {
	report, err := catalog.Audit(ctx, t, catalog.Config{Touched: true, Schemas: schemas})
	if err != nil {
		return err
	}
	return unsafeIf(report)
}

// unsafeIf is ErrUnsafe when the report holds errors.
func unsafeIf(report catalog.Report) error {
	found := report.Errors()
	if len(found) == 0 {
		return nil
	}
	var all []string
	for _, f := range found {
		all = append(all, f.String())
	}
	return fmt.Errorf("%w: %s", ErrUnsafe, strings.Join(all, "; "))
}

// shipped reads from our own scripts what schema rowhouse must hold in a database of app.
func shipped(app string) (*catalog.Shipped, error) {
	roles := []string{"{{owner}}", OwnerRole(app), "{{migrator}}", MigratorRole(app)}
	b, err := scripts.ReadFile("sql/schema.sql")
	if err != nil {
		return nil, fmt.Errorf("script: %w", err)
	}
	schema := strings.NewReplacer(roles...).Replace(string(b))
	s := &catalog.Shipped{Schema: grants(schema, `SCHEMA rowhouse`)}
	for _, m := range regexp.MustCompile(`CREATE TABLE IF NOT EXISTS rowhouse\.(\w+)`).FindAllStringSubmatch(schema, -1) {
		s.Tables = append(s.Tables, catalog.ShippedTable{Name: m[1], Grants: grants(schema, `rowhouse\.`+m[1])})
	}
	for _, rung := range []Rung{L2a, L2b} {
		var all strings.Builder
		for _, name := range rung.scripts() {
			b, err := scripts.ReadFile("sql/" + name)
			if err != nil {
				return nil, fmt.Errorf("script: %w", err)
			}
			all.Write(b)
		}
		s.Functions = append(s.Functions, functions(rung, strings.NewReplacer(append(rung.carriers(), roles...)...).Replace(all.String()))...)
	}
	return s, nil
}

// functions finds those that scripts make.
func functions(rung Rung, text string) []catalog.ShippedFunction {
	made := regexp.MustCompile(`(?s)CREATE OR REPLACE FUNCTION rowhouse\.(\w+)\(([^)]*)\) RETURNS (.*?)` +
		`(?:\nAS \$body\$(.*?)\$body\$;|\n(RETURN .*?);\n)`)
	var all []catalog.ShippedFunction
	for _, m := range made.FindAllStringSubmatch(text, -1) {
		f := catalog.ShippedFunction{
			Name: m[1], Rung: string(rung), Definer: strings.Contains(m[3], "SECURITY DEFINER"), Body: m[4],
			Grants: grants(text, `FUNCTION rowhouse\.`+m[1]+`\([^)]*\)`),
		}
		if strings.TrimSpace(m[2]) != "" {
			f.Args = 1 + strings.Count(m[2], ",")
		}
		if m[5] != "" {
			f.Body = catalog.CanonicalBody(m[5])
		}
		all = append(all, f)
	}
	return all
}

// grants are those on an object in a script, as an audit compares them.
func grants(text, object string) []string {
	all := []string{}
	for _, m := range regexp.MustCompile(`(?m)^GRANT ([A-Z, ]+) ON `+object+` TO ([a-z0-9_, ]+);`).FindAllStringSubmatch(text, -1) {
		for role := range strings.SplitSeq(m[2], ",") {
			for privilege := range strings.SplitSeq(m[1], ",") {
				all = append(all, strings.TrimSpace(role)+" "+strings.TrimSpace(privilege))
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
