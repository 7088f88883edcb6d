package crossing_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/crossing"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const (
	clients  = 50
	backends = 2
)

// transactions is how many a test runs: a sample or, as a long test, all.
func transactions(sample, all int) int {
	if os.Getenv("ROWHOUSE_TEST_LONG") != "" {
		return all
	}
	return sample
}

func TestSealedTenantsDoNotCross(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		rung    cell.Rung
		model   tenant.Model
		tenants int
		sample  int
		all     int
	}{
		{cell.L2b, tenant.ModelShared, 100, 1_000, 100_000},
		{cell.L2a, tenant.ModelShared, 100, 300, 10_000},
		{cell.L2b, tenant.ModelSchema, 20, 300, 10_000},
		{cell.L2b, tenant.ModelDatabase, 4, 300, 10_000},
	} {
		t.Run(fmt.Sprintf("%s/%s", test.model, test.rung), func(t *testing.T) {
			t.Parallel()
			d := dbtest.New(t, dbtest.Rung(test.rung), dbtest.Model(test.model), dbtest.Migrations(crossing.Migrations()))
			report, err := crossing.Run(t.Context(), crossing.Options{
				Clients: clients, Transactions: transactions(test.sample, test.all), Tenants: test.tenants, Seed: 1,
			}, crossing.Sealed(through(t, d, pgserver.BouncerOptions{}), enter(t, d, test.tenants)))
			if err != nil {
				t.Fatal(err)
			}
			t.Log(report)
			if report.Crossed+report.Poisoned+report.Overloaded != 0 || report.Seen == 0 {
				t.Error(report)
			}
		})
	}
}

// Where PgBouncer keeps named statements, tenantdb may name its own.
func TestSealedTenantsDoNotCrossWithNamedStatements(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t, dbtest.Migrations(crossing.Migrations()))
	const tenants = 50
	report, err := crossing.Run(t.Context(), crossing.Options{
		Clients: clients, Transactions: transactions(500, 10_000), Tenants: tenants, Seed: 2,
	}, crossing.Sealed(through(t, d, pgserver.BouncerOptions{Statements: 100}), enter(t, d, tenants)))
	if err != nil || report.Crossed+report.Poisoned+report.Overloaded != 0 || report.Seen == 0 {
		t.Error(report, err)
	}
}

// The search finds the crossings of the recipe that has them.
func TestSessionsCross(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t)
	direct := d.Config.Cells[tenanttest.Cell].DSN
	if _, err := d.Admin.Exec(t.Context(), crossing.SessionSQL("rowhouse_app"), pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	config, err := pgxpool.ParseConfig(pgtest.Bouncer(t, direct, backends))
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns, config.ConnConfig.DefaultQueryExecMode = clients, pgx.QueryExecModeExec
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	report, err := crossing.Run(t.Context(), crossing.Options{Clients: clients, Transactions: 500, Tenants: 100, Seed: 1}, crossing.Session(pool))
	if err != nil {
		t.Fatal(err)
	}
	t.Log(report)
	if report.Crossed == 0 {
		t.Error("the naive recipe did not cross: the search finds nothing")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	if _, err := crossing.Run(t.Context(), crossing.Options{Clients: 1, Transactions: 1, Tenants: 1}, nil); err == nil {
		t.Error("one tenant cannot cross, and it ran")
	}
}

// A panic that is not the visit's own is a bug, and is not hidden.
func TestForeignPanicsPass(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("the panic was swallowed")
		}
	}()
	crossing.Guarded(t.Context(), func(context.Context, *crossing.Visit) error { panic(errors.New("bug")) }, &crossing.Visit{})
}

// through opens the database through a PgBouncer with few backends.
func through(t *testing.T, d *dbtest.Database, o pgserver.BouncerOptions) *tenantdb.DB {
	t.Helper()
	config := d.Config
	to := config.Cells[tenanttest.Cell]
	o.Server, o.Backends = to.DSN, backends
	to.DSN, to.MaxConns = pgtest.BouncerOf(t, o), clients
	if o.Statements == 0 {
		to.Pooler = tenantdb.TransactionPooler
	}
	config.Cells = map[string]tenantdb.Cell{tenanttest.Cell: to}
	return d.Open(t, config)
}

// enter places the tenants and returns how to enter one.
func enter(t *testing.T, d *dbtest.Database, tenants int) func(context.Context, int) (context.Context, error) {
	t.Helper()
	name := func(number int) string { return fmt.Sprintf("tenant-%d", number) }
	for number := range tenants {
		d.Home(t, name(number))
	}
	return func(ctx context.Context, number int) (context.Context, error) {
		return d.Issuer.In(ctx, t, name(number)), nil
	}
}
