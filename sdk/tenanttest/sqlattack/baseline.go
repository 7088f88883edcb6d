package sqlattack

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// openBaseline makes the usual recipe beside the app's own tables, in schemas of its own, for a
// login of its own that has what everybody has in a new database.
func (a *arena) openBaseline(ctx context.Context) error {
	word := strings.ToLower(rand.Text()[:8])
	role, password := "attacked_"+word, rand.Text()
	a.own, a.their = "usual_"+word, "usual_"+word
	type place struct {
		conn   *pgx.Conn
		schema string
	}
	places := []place{{a.adminOwn, a.own}}
	switch a.model {
	case tenant.ModelSchema:
		a.own, a.their = a.own+"_a", a.own+"_b"
		places = []place{{a.adminOwn, a.own}, {a.adminTheir, a.their}}
	case tenant.ModelDatabase:
		places = append(places, place{a.adminTheir, a.own})
	}
	if _, err := a.admin.Exec(ctx, "CREATE ROLE "+role+" LOGIN PASSWORD '"+password+"'"); err != nil {
		return fmt.Errorf("make the baseline's role: %w", err)
	}
	a.atClose(func(ctx context.Context) error {
		_, err := a.admin.Exec(ctx, "DROP ROLE "+role)
		return err
	})
	for _, p := range places {
		if err := a.openUsual(ctx, p.conn, p.schema, role); err != nil {
			return err
		}
	}
	var err error
	if a.home, err = a.login(a.adminOwn); err != nil {
		return err
	}
	a.home.User, a.home.Password = role, password
	a.away = a.home.Copy()
	a.away.Database = a.adminTheir.Config().Database
	a.sets = []string{"app.tenant_id"}
	a.ship = func(ctx context.Context, sql string) error {
		_, err := a.adminTheir.PgConn().Exec(ctx, sql).ReadAll()
		return err
	}
	a.app, a.role, a.owner = a.their, role, pgx.Identifier{a.admin.Config().User}.Sanitize()
	a.carry = func(string) (string, error) { return a.victim.UID.String(), nil }
	a.enter = func(t tenant.TenantState) (string, error) {
		if a.level == L1 {
			return fmt.Sprintf("SELECT %s.enter('%s')", a.own, t.UID), nil
		}
		return fmt.Sprintf("SET LOCAL app.tenant_id = '%s'", t.UID), nil
	}
	a.forge = func(string) (string, error) {
		if a.level == L1 {
			return fmt.Sprintf("%s.enter('%s')", a.own, a.victim.UID), nil
		}
		return fmt.Sprintf("set_config('app.tenant_id', '%s', true)", a.victim.UID), nil
	}
	return a.openPool(ctx)
}

// openUsual runs the recipe in one database.
func (a *arena) openUsual(ctx context.Context, conn *pgx.Conn, schema, role string) error {
	text, err := scripts.ReadFile("sql/baseline.sql")
	if err != nil {
		return fmt.Errorf("baseline: %w", err)
	}
	sql := strings.NewReplacer("{{schema}}", schema, "{{role}}", role, "{{set_config}}", strconv.FormatBool(a.level == L0),
		"{{database}}", pgx.Identifier{conn.Config().Database}.Sanitize()).Replace(string(text))
	a.atClose(func(ctx context.Context) error {
		_, err := conn.PgConn().Exec(ctx, "DROP SCHEMA IF EXISTS "+schema+" CASCADE; DROP OWNED BY "+role).ReadAll()
		return err
	})
	if _, err := conn.PgConn().Exec(ctx, "BEGIN; "+sql+"; COMMIT").ReadAll(); err != nil {
		_, _ = conn.Exec(ctx, "ROLLBACK")
		return fmt.Errorf("make the baseline: %w", err)
	}
	return nil
}

// openPool opens the application's connections, one for each database, and sends statements on
// them.
func (a *arena) openPool(ctx context.Context) error {
	pool := map[string]*session{}
	for _, config := range []*pgx.ConnConfig{a.home, a.away} {
		if pool[config.Database] != nil {
			continue
		}
		s, err := connect(ctx, config)
		if err != nil {
			return errors.New("the baseline's login cannot connect")
		}
		a.atClose(func(ctx context.Context) error { s.close(ctx); return nil })
		pool[config.Database] = s
	}
	a.one = func(ctx context.Context, t tenant.TenantState, sql string) (string, error) {
		enter, err := a.enter(t)
		if err != nil {
			return "", err
		}
		s := pool[a.home.Database]
		if t.UID == a.victim.UID {
			s = pool[a.away.Database]
		}
		if err := s.send(ctx, "BEGIN; "+enter); err != nil {
			_ = s.send(ctx, "ROLLBACK")
			return s.heard.String(), err
		}
		s.heard.Reset()
		err = s.sendOne(ctx, sql)
		_ = s.send(ctx, "COMMIT") // or what a failed transaction makes of it
		return s.heard.String(), err
	}
	return nil
}
