package pgtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
)

const (
	// The first keys of our advisory locks; the second is a number.
	templateLock = 0x70677401
	slotLock     = 0x70677402

	// connections is the max_connections of a server for tests.
	connections = 400
	// connectionsPerDB is what one database may need: three pools.
	connectionsPerDB = 3 * maxConns
	// connectionsForAdmin is what is left to us and to superusers.
	connectionsForAdmin = 20
	// adminConns is what one process uses to make and drop databases.
	adminConns = 4
)

// cluster is the server that tests use, as one process sees it.
type cluster struct {
	dsn       string // of the superuser, database postgres
	admin     *pgxpool.Pool
	strategy  string // of CREATE DATABASE
	slots     *slots
	templates sync.Map // name of the database to the func that makes it
}

// process is the cluster of this test process, and the server if it is its own.
type process struct {
	once    sync.Once
	cluster *cluster
	server  *pgserver.Server
	err     error
}

// connect returns the cluster, and starts its server if need be. All tests of the
// process share the result, and the failure.
func connect(tb testing.TB) *cluster {
	tb.Helper()
	own.once.Do(func() { own.err = own.start(context.WithoutCancel(tb.Context())) })
	if own.err != nil {
		tb.Fatalf("pgtest: %v", own.err)
	}
	return own.cluster
}

func (p *process) start(ctx context.Context) (err error) {
	dsn := os.Getenv(EnvServer)
	if dsn == "" {
		if p.server, err = Start(ctx); err != nil {
			return err
		}
		dsn = p.server.DSN(pgserver.Login{})
	}
	p.cluster, err = openCluster(ctx, dsn)
	return err
}

// Start starts a server as tests share one, for a program that hands its URL down in
// ROWHOUSE_TEST_PG. The caller stops it.
func Start(ctx context.Context) (*pgserver.Server, error) {
	return pgserver.Start(ctx, pgserver.Options{MaxConnections: connections})
}

func (p *process) stop(ctx context.Context) error {
	if p.cluster != nil {
		p.cluster.slots.close(ctx)
		p.cluster.admin.Close()
	}
	if p.server == nil {
		return nil
	}
	return p.server.Stop(ctx)
}

func openCluster(ctx context.Context, dsn string) (*cluster, error) {
	u, err := url.Parse(dsn)
	if err != nil || !strings.HasPrefix(u.Scheme, "postgres") || u.User.Username() == "" {
		// The value may hold a password, so it is not repeated.
		return nil, fmt.Errorf("%s must be a URL such as postgres://postgres@/postgres?host=/run/postgresql", EnvServer)
	}
	c := &cluster{dsn: dsnFor(dsn, u.User.Username(), "postgres")}
	cfg, err := pgxpool.ParseConfig(c.dsn)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", EnvServer, err)
	}
	cfg.MaxConns = adminConns
	if c.admin, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	var most int
	// Copying files is three times as fast as logging them, but checkpoints, which a
	// durable server pays for with its disk.
	const look = `SELECT current_setting('max_connections')::int,
		CASE current_setting('fsync') WHEN 'off' THEN 'file_copy' ELSE 'wal_log' END`
	if err := c.admin.QueryRow(ctx, look).Scan(&most, &c.strategy); err != nil {
		c.admin.Close()
		return nil, fmt.Errorf("look at the server: %w", err)
	}
	c.slots = newSlots(c.admin, slotLock, max(1, (most-connectionsForAdmin)/connectionsPerDB))
	return c, nil
}

func (c *cluster) superuser() string {
	u, err := url.Parse(c.dsn)
	if err != nil {
		return pgserver.Superuser
	}
	return u.User.Username()
}

// dsnFor returns the server's URL for another role and database.
func dsnFor(server, role, database string) string {
	u, err := url.Parse(server)
	if err != nil {
		return server
	}
	if role != u.User.Username() {
		u.User = url.User(role)
	}
	u.Path = "/" + database
	return u.String()
}

// word returns a random word for names.
func word() string { return strings.ToLower(rand.Text()[:10]) }
