// Package plan is plan lint: it lets PostgreSQL plan each registered statement as the app
// would run it, on a database with the app's migrations and skewed tenants, and looks
// whether every scan of a tenant table is bounded by the tenant in its index. Start at [Run].
package plan

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhouse-platform/rowhouse/internal/lint"
	"github.com/rowhouse-platform/rowhouse/internal/lint/driver"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

// What the scratch database's cell is called.
const (
	app        = "rowlint"
	keyID      = 1
	cellNumber = 1
	generation = 1
	sealed     = time.Minute
)

// Run plans the statements and returns what is wrong with their plans. dsn logs a superuser
// in to a server on which it makes databases, one for each set of migrations, and drops them
// again; the roles that it makes stay. It is for a server of no other use.
func Run(ctx context.Context, dsn string, statements []driver.Statement) ([]lint.Finding, error) {
	var out []lint.Finding
	sets := map[string][]driver.Statement{}
	for _, s := range statements {
		if len(s.Migrations) == 0 {
			out = append(out, finding(s, "P3", "no migrations describe its tables; rowlint.yaml names their folder"))
			continue
		}
		key := strings.Join(s.Migrations, "\x00")
		sets[key] = append(sets[key], s)
	}
	for _, set := range sets {
		findings, err := planSet(ctx, dsn, set)
		if err != nil {
			return nil, err
		}
		out = append(out, findings...)
	}
	return lint.Sort(out), nil
}

func finding(s driver.Statement, rule, format string, args ...any) lint.Finding {
	return lint.Finding{Rule: rule, File: s.File, Line: s.Line, Column: 1,
		Message: cmp.Or(s.Name, "statement") + ": " + fmt.Sprintf(format, args...)}
}

// planSet plans the statements of one app.
func planSet(ctx context.Context, dsn string, set []driver.Statement) (out []lint.Finding, err error) {
	server, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, server.Close(context.WithoutCancel(ctx))) }()
	var word [8]byte
	if _, err := rand.Read(word[:]); err != nil {
		return nil, fmt.Errorf("random name: %w", err)
	}
	name := "rowlint_" + hex.EncodeToString(word[:])
	if _, err := server.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE template0"); err != nil {
		return nil, fmt.Errorf("make a database: %w", err)
	}
	defer func() {
		_, dropped := server.Exec(context.WithoutCancel(ctx), "DROP DATABASE "+name+" WITH (FORCE)")
		err = errors.Join(err, dropped)
	}()
	config := server.Config().Copy()
	config.Database = name
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	p := &planner{conn: conn}
	if err := p.prepare(ctx, set[0].Migrations); err != nil {
		return nil, err
	}
	for _, s := range set {
		findings, err := p.plan(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", cmp.Or(s.Name, s.File), err)
		}
		out = append(out, findings...)
	}
	return out, nil
}

// planner plans statements in one database, over a connection that is the superuser's
// outside of transactions and the app's inside of them.
type planner struct {
	conn   *pgx.Conn
	key    tenant.SealKey
	uid    tenant.UID
	tables map[string]bool // tenant tables, schema.name
}

// prepare makes the database what a cell's is, and fills it.
func (p *planner) prepare(ctx context.Context, migrations []string) error {
	if err := cell.Init(ctx, p.conn, cell.Config{App: app}); err != nil {
		return err
	}
	for _, folder := range migrations {
		if err := cell.Migrate(ctx, p.conn, os.DirFS(folder)); err != nil {
			return fmt.Errorf("%s: %w", folder, err)
		}
	}
	if _, err := rand.Read(p.key[:]); err != nil {
		return fmt.Errorf("random key: %w", err)
	}
	now := time.Now()
	var err error
	if p.uid, err = tenant.NewUID(now, rand.Reader); err != nil {
		return err
	}
	key := cell.Key{ID: keyID, Cell: cellNumber, Secret: p.key, NotAfter: now.Add(time.Hour)}
	if err := cell.InstallKey(ctx, p.conn, key); err != nil {
		return err
	}
	if err := cell.SetPlacement(ctx, p.conn, cell.Placement{UID: p.uid, State: cell.Active, Generation: generation}); err != nil {
		return err
	}
	return p.fill(ctx)
}

// seal returns a fresh seal of the tenant.
func (p *planner) seal() (seal tenant.Seal) {
	claims := tenant.Claims{
		TenantUID: p.uid, CellNumber: cellNumber, PlacementGeneration: generation, ExpireTime: time.Now().Add(sealed),
	}.WithSeal(&p.key, keyID)
	body := claims.SealBody()
	copy(seal[:], body[:])
	copy(seal[len(body):], claims.DBSeal[1:])
	return seal
}

// modes are the two ways in which PostgreSQL plans a prepared statement.
func modes() []string { return []string{"generic", "custom"} }

// plan plans one statement both ways, in a transaction of the app in its tenant.
func (p *planner) plan(ctx context.Context, s driver.Statement) ([]lint.Finding, error) {
	tx, err := p.conn.Begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := tx.Exec(ctx, "SET LOCAL SESSION AUTHORIZATION "+pgx.Identifier{cell.AppRole(app)}.Sanitize()); err != nil {
		return nil, fmt.Errorf("become the app: %w", err)
	}
	seal := p.seal()
	if _, err := tx.Exec(ctx, "SELECT rowhouse.enter($1)", seal[:]); err != nil {
		return nil, fmt.Errorf("enter the tenant: %w", err)
	}
	const name = "rowlint_statement"
	described, err := p.conn.Prepare(ctx, name, s.SQL)
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		return []lint.Finding{finding(s, "P3", "PostgreSQL does not plan it: %s (%s)", refused.Message, refused.Code)}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	defer func() { _ = p.conn.Deallocate(context.WithoutCancel(ctx), name) }()
	call := name
	if len(described.ParamOIDs) > 0 {
		samples, err := p.samples(ctx, described.ParamOIDs)
		if err != nil {
			return nil, err
		}
		call += "(" + strings.Join(samples, ", ") + ")"
	}
	type told struct {
		problem
		in []string // modes
	}
	var all []told
	for _, mode := range modes() {
		problems, refused, err := p.explain(ctx, tx, mode, call)
		if refused != nil {
			return []lint.Finding{finding(s, "P3", "PostgreSQL does not plan it: %s (%s)", refused.Message, refused.Code)}, nil
		}
		if err != nil {
			return nil, err
		}
		for _, found := range problems {
			i := slices.IndexFunc(all, func(t told) bool { return t.same(found) })
			if i < 0 {
				i = len(all)
				all = append(all, told{problem: found})
			}
			all[i].in = append(all[i].in, mode)
		}
	}
	var out []lint.Finding
	for _, t := range all {
		text := t.text
		if t.filter != "" {
			text += ", filtered by " + t.filter
		}
		out = append(out, finding(s, t.rule, "%s (%s plan)", text, strings.Join(slices.Compact(t.in), " and ")))
	}
	return out, nil
}

// explain returns what is wrong with one plan.
func (p *planner) explain(ctx context.Context, tx pgx.Tx, mode, call string) ([]problem, *pgconn.PgError, error) {
	if _, err := tx.Exec(ctx, "SET LOCAL plan_cache_mode = force_"+mode+"_plan"); err != nil {
		return nil, nil, fmt.Errorf("ask for a %s plan: %w", mode, err)
	}
	var text []byte
	err := tx.QueryRow(ctx, "EXPLAIN (FORMAT JSON, VERBOSE) EXECUTE "+call, pgx.QueryExecModeSimpleProtocol).Scan(&text)
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		return nil, refused, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("explain: %w", err)
	}
	problems, err := judge(text, p.tables)
	return problems, nil, err
}
