package prove

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/crossing"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/mint"
)

// The load of the pooler's check: enough that every connection is handed on hundreds of
// times, little enough for a minute's report.
const (
	poolBackends     = 2
	poolClients      = 24
	poolTransactions = 500
)

// poolTenants is how many tenants meet in a model: homes of their own take a moment to make,
// and each database of a tenant has its own connections.
func poolTenants(model tenant.Model) int {
	return map[tenant.Model]int{tenant.ModelShared: 40, tenant.ModelSchema: 6, tenant.ModelDatabase: 2}[model]
}

// PoolerCheck runs transactions of many tenants through PgBouncer over few connections, and
// beside them the recipe that keeps the tenant in the session.
func PoolerCheck(of Servers, missing string) Check {
	return Check{About: aboutPooler, Missing: missing, Run: func(ctx context.Context) (o Outcome, err error) {
		server, err := of(ctx)
		if err != nil {
			return o, err
		}
		err = server.inRungs(ctx, "pooler", crossing.Migrations(), func(c *scratch) error {
			b, err := c.bouncer(ctx)
			if err != nil {
				return err
			}
			o.Programs = []Program{{Name: "pgbouncer", Version: b.Version()}}
			lines, err := c.pooled(ctx, b, c.rung == server.Rungs[len(server.Rungs)-1])
			o.Lines = append(o.Lines, lines...)
			return errors.Join(err, b.Stop())
		})
		return o, err
	}}
}

// bouncer starts a PgBouncer in front of the shared database.
func (c *scratch) bouncer(ctx context.Context) (*pgserver.Bouncer, error) {
	login, err := c.login()
	if err != nil {
		return nil, err
	}
	return pgserver.StartBouncer(ctx, pgserver.BouncerOptions{Server: login, Backends: poolBackends})
}

// pooled runs all models through the pooler, and last, where asked, the other recipe.
func (c *scratch) pooled(ctx context.Context, b *pgserver.Bouncer, control bool) (lines []Line, err error) {
	login, err := c.login()
	if err != nil {
		return nil, err
	}
	through, err := b.DSN(login)
	if err != nil {
		return nil, err
	}
	for _, model := range models() {
		r, err := c.sealed(ctx, through, model)
		if err != nil {
			return lines, err
		}
		lines = append(lines, crossingLine(string(c.rung)+" "+strings.ToLower(model.String()), c.server.Repeat(aboutPooler.ID), r))
	}
	if control {
		r, err := c.sessions(ctx, through)
		if err != nil {
			return lines, err
		}
		r.Examples = nil // it has many
		l := Line{Name: "control: the tenant in the session", Status: Pass, Repeat: c.server.Repeat(aboutPooler.ID)}
		l.Result = r.String() + ": the search finds crossings"
		if r.Crossed == 0 {
			l.Status, l.Result = Fail, r.String()+": the search finds nothing where there is something"
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// sealed runs transactions of tenants of one model, through the SDK.
func (c *scratch) sealed(ctx context.Context, dsn string, model tenant.Model) (r crossing.Report, err error) {
	tenants := make([]resident, poolTenants(model))
	for i := range tenants {
		if tenants[i], err = c.settle(ctx, fmt.Sprintf("%s-%d", strings.ToLower(model.String()), i), model); err != nil {
			return r, err
		}
	}
	db, err := tenantdb.Open(ctx, tenantdb.Config{
		App: c.app, Cells: map[string]tenantdb.Cell{mint.Cell: {DSN: dsn, MaxConns: poolClients, Pooler: tenantdb.TransactionPooler}},
	})
	if err != nil {
		return r, fmt.Errorf("open the pooled database: %w", err)
	}
	defer db.Close() //nolint:contextcheck // it waits, whatever became of ctx
	return c.run(ctx, len(tenants), crossing.Sealed(db, func(ctx context.Context, number int) (context.Context, error) {
		return c.in(ctx, tenants[number])
	}))
}

// sessions runs the recipe that crosses, on a table of its own.
func (c *scratch) sessions(ctx context.Context, dsn string) (r crossing.Report, err error) {
	err = c.inside(ctx, c.database(), func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, crossing.SessionSQL(cell.AppRole(c.app)), pgx.QueryExecModeSimpleProtocol)
		return err
	})
	if err != nil {
		return r, fmt.Errorf("make the table of the other recipe: %w", err)
	}
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return r, errors.New("the pooler's connection string cannot be parsed")
	}
	config.MaxConns, config.ConnConfig.DefaultQueryExecMode = poolClients, pgx.QueryExecModeExec
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return r, fmt.Errorf("open the pooled database: %w", err)
	}
	defer pool.Close()
	return c.run(ctx, poolTenants(tenant.ModelShared), crossing.Session(pool))
}

func (c *scratch) run(ctx context.Context, tenants int, recipe crossing.Recipe) (crossing.Report, error) {
	r, err := crossing.Run(ctx, crossing.Options{Clients: poolClients, Transactions: poolTransactions, Tenants: tenants, Seed: 1}, recipe)
	if err != nil {
		return r, fmt.Errorf("run transactions through the pooler: %w", err)
	}
	return r, nil
}

// crossingLine judges a run of ours. A transaction that waited too long, or
// that did not begin, shows nothing.
func crossingLine(name, repeat string, r crossing.Report) Line {
	examples := r.Examples
	r.Examples = nil // they are findings
	l := Line{Name: name, Status: Pass, Result: r.String(), Repeat: repeat}
	switch {
	case r.Crossed > 0 || r.Poisoned > 0:
		l.Status = Fail
	case r.Seen == 0 || r.Overloaded > 0 || r.Unentered > 0 || r.Transactions < poolTransactions:
		l.Status = NotRun
	}
	for _, example := range examples {
		l.Findings = append(l.Findings, Finding{Rule: "crossing", Severity: "error", Object: name, Message: example})
	}
	return l
}
