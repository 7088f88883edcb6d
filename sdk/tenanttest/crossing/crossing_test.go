package crossing_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

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
		reset   bool
	}{
		{cell.L2b, tenant.ModelShared, 100, 1_000, 100_000, false},
		{cell.L2a, tenant.ModelShared, 100, 300, 10_000, false},
		{cell.L2b, tenant.ModelSchema, 20, 300, 10_000, false},
		{cell.L2b, tenant.ModelDatabase, 4, 300, 10_000, false},
		{cell.L2b, tenant.ModelShared, 100, 300, 10_000, true},
	} {
		t.Run(fmt.Sprintf("%s/%s/reset=%t", test.model, test.rung, test.reset), func(t *testing.T) {
			t.Parallel()
			d := dbtest.New(t, dbtest.Rung(test.rung), dbtest.Model(test.model), dbtest.Migrations(crossing.Migrations()))
			report, err := crossing.Run(t.Context(), crossing.Options{
				Clients: clients, Transactions: transactions(test.sample, test.all), Tenants: test.tenants, Seed: 1,
			}, crossing.Sealed(through(t, d, pgserver.BouncerOptions{Reset: test.reset}), enter(t, d, test.tenants)))
			if err != nil {
				t.Fatal(err)
			}
			t.Log(report)
			sound(t, report, transactions(test.sample, test.all)+test.tenants)
		})
	}
}

// Where PgBouncer keeps named statements, tenantdb may name its own.
func TestSealedTenantsDoNotCrossWithNamedStatements(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t, dbtest.Migrations(crossing.Migrations()))
	const tenants = 50
	all := transactions(500, 10_000)
	report, err := crossing.Run(t.Context(), crossing.Options{
		Clients: clients, Transactions: all, Tenants: tenants, Seed: 2,
	}, crossing.Sealed(through(t, d, pgserver.BouncerOptions{Statements: 100}), enter(t, d, tenants)))
	if err != nil {
		t.Fatal(err)
	}
	sound(t, report, all+tenants)
}

// sound wants a report of so many transactions, all of which ran and none of which crossed.
func sound(t *testing.T, r crossing.Report, transactions int) {
	t.Helper()
	if r.Crossed+r.Poisoned+r.Overloaded+r.Unentered != 0 || r.Seen == 0 || r.Transactions != transactions {
		t.Errorf("want %d sound transactions: %s", transactions, r)
	}
}

// Who gets no context was not poisoned by anybody, and did not run.
func TestUnenteredIsNotPoisoned(t *testing.T) {
	t.Parallel()
	recipe := crossing.Sealed(nil, func(ctx context.Context, _ int) (context.Context, error) { return ctx, errors.New("too many") })
	report, err := crossing.Run(t.Context(), crossing.Options{Clients: 1, Transactions: 1, Tenants: 2}, recipe)
	if err != nil || report.Poisoned != 0 || report.Unentered < 2 {
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
	const fresh = 20 * time.Second // of the 45 that a context lives
	name := func(number int) string { return fmt.Sprintf("tenant-%d", number) }
	for number := range tenants {
		d.Home(t, name(number))
	}
	type entry struct {
		of    tenant.Context
		until time.Time
	}
	var mu sync.Mutex // one at a time: a verifier with too much to do sheds load, which is not what is tested
	known := map[int]entry{}
	return func(ctx context.Context, number int) (context.Context, error) {
		mu.Lock()
		defer mu.Unlock()
		e := known[number]
		if time.Now().After(e.until) {
			of, err := tenant.FromContext(d.Issuer.In(ctx, t, name(number)))
			if err != nil {
				return ctx, err
			}
			e = entry{of, time.Now().Add(fresh)}
			known[number] = e
		}
		return tenant.NewContext(ctx, e.of), nil
	}
}
