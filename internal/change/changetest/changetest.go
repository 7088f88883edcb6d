// Package changetest gives a test a service database with the kernel's tables on a real PostgreSQL, and contexts that
// carry a call.
package changetest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
)

// Cluster is a PostgreSQL for the tests of one package.
type Cluster struct{ server *pgserver.Server }

// Start starts a cluster; call it from TestMain and stop it at the end.
func Start(ctx context.Context) (*Cluster, error) {
	server, err := pgserver.Start(ctx, pgserver.Options{})
	if err != nil {
		return nil, err
	}
	return &Cluster{server}, nil
}

// Stop stops the cluster.
func (c *Cluster) Stop(ctx context.Context) error { return c.server.Stop(ctx) }

// Main runs the tests of a package beside a cluster, which it stores in *c first.
func Main(m *testing.M, c **Cluster) {
	ctx := context.Background() //nolint:forbidigo // a test binary's main has no caller
	cluster, err := Start(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	*c = cluster
	code := m.Run()
	if err := cluster.Stop(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// Database is a fresh service database.
type Database struct {
	// Pool connects as the service's role.
	Pool *pgxpool.Pool
	// Name is the database's name; its roles are named after it.
	Name    string
	cluster *Cluster
}

// Database makes a database with the kernel's tables and those of more.
func (c *Cluster) Database(tb testing.TB, more ...fs.FS) *Database {
	tb.Helper()
	var random [6]byte
	if _, err := rand.Read(random[:]); err != nil {
		tb.Fatal(err)
	}
	db := pg.Database{
		Name:       "t_" + hex.EncodeToString(random[:]),
		Migrations: append([]fs.FS{change.Migrations()}, more...),
	}
	if err := pg.Provision(tb.Context(), c.server.DSN(pgserver.Login{}), db); err != nil {
		tb.Fatal(err)
	}
	d := &Database{Name: db.Name, cluster: c}
	d.Pool = d.Connect(tb, db.Service())
	return d
}

// Connect returns a pool of its own as role; "" is the superuser. It is closed when the test ends.
func (d *Database) Connect(tb testing.TB, role string) *pgxpool.Pool {
	tb.Helper()
	dsn := d.cluster.server.DSN(pgserver.Login{User: role, Database: d.Name})
	pool, err := pg.Open(tb.Context(), pg.Config{DSN: dsn, MaxConns: 20})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(pool.Close)
	return pool
}

// Call returns a context that serves an audited change on the admin plane by the operator "ada".
func Call(ctx context.Context, request proto.Message, requestID string) context.Context {
	return rule.NewContext(ctx, rule.Call{
		Method:    "/rowhouse.test.v1.TestService/Change",
		Principal: operator.NewPrincipal(operator.KindOperator, "operator:ada@test"),
		Rule: &apiv1.MethodRule{
			Plane:       apiv1.Plane_PLANE_ADMIN,
			Audit:       apiv1.AuditClass_AUDIT_CLASS_CHANGE,
			Idempotency: apiv1.Idempotency_IDEMPOTENCY_REQUEST_ID,
		},
		Request:   request,
		RequestID: requestID,
	})
}
