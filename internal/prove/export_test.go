package prove

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing/fstest"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/mint"
)

// Authenticated is authenticated.
func Authenticated(kind string, payload []byte) []byte { return authenticated(kind, payload) }

// Page is the template of the HTML report.
func Page() string { return page }

// Only is one database.
func Only(d *Database) Databases {
	return func(context.Context) ([]*Database, error) { return []*Database{d}, nil }
}

// Redirect is redirect.
func Redirect(dsn, user, password, database string) (string, error) {
	return redirect(dsn, user, password, database)
}

const markSQL = `CREATE TABLE app.mark (tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(), mark text NOT NULL, PRIMARY KEY (tenant_id, mark))`

var (
	readMark  = tenantdb.Stmt(`SELECT mark FROM app.mark`)
	writeMark = tenantdb.Stmt(`INSERT INTO app.mark (mark) VALUES ($1)`)
)

// TryScratch makes a scratch cell with a tenant in each model, lets the SDK write and read as
// each, and drops the cell. It returns the beginning of all names.
func (s Server) TryScratch(ctx context.Context, rung cell.Rung) (prefix string, err error) {
	c, err := s.newScratch(ctx, "try", rung, fstest.MapFS{"0001_mark.sql": {Data: []byte(markSQL)}})
	defer func() { err = errors.Join(err, c.drop(ctx)) }()
	if err != nil {
		return c.database(), err
	}
	login, err := c.login()
	if err != nil {
		return c.database(), err
	}
	db, err := tenantdb.Open(ctx, tenantdb.Config{App: c.app, Cells: map[string]tenantdb.Cell{mint.Cell: {DSN: login}}})
	if err != nil {
		return c.database(), err
	}
	defer db.Close()
	for _, model := range models() {
		r, err := c.settle(ctx, strings.ToLower(model.String()), model)
		if err != nil {
			return c.database(), err
		}
		within, err := c.in(ctx, r)
		if err != nil {
			return c.database(), err
		}
		if _, err := db.Exec(within, writeMark, "x"); err != nil {
			return c.database(), err
		}
		var mark string
		if err := db.QueryRow(within, readMark).Scan(&mark); err != nil || mark != "x" {
			return c.database(), fmt.Errorf("read %q: %w", mark, err)
		}
	}
	return c.database(), nil
}
