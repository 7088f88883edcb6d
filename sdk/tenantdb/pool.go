package tenantdb

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

const (
	// admissionWait bounds how long a call waits for a connection.
	admissionWait = 2 * time.Second
	// freshFor is how long after its last use a connection is believed to be alive. A
	// ping costs a round trip.
	freshFor = 30 * time.Second
	// commitWait bounds COMMIT, whose wait for a standby no timeout of the server ends.
	commitWait = 2 * time.Second
	// endWait bounds the end of a transaction whose caller is gone.
	endWait = 5 * time.Second
)

// pool holds the connections to one database of one cell under one role. Tenants of the
// SHARED model share it.
type pool struct {
	cell  string
	conns *pgxpool.Pool
	// slots are as many as there are connections, so callers queue here, for at most
	// admissionWait, and not in conns. What conns still takes time for is a new connection.
	slots *slots
}

func newPool(ctx context.Context, name string, cell Cell, config *Config) (*pool, error) {
	parsed, err := pgxpool.ParseConfig(cell.DSN)
	if err != nil {
		return nil, fmt.Errorf("cell %q: the DSN does not parse", name) // err may show parts of it
	}
	parsed.MaxConns = cell.MaxConns
	if parsed.MaxConns == 0 {
		parsed.MaxConns = 10
	}
	parsed.MinConns, parsed.MinIdleConns = 0, 0
	parsed.ShouldPing = func(ctx context.Context, p pgxpool.ShouldPingParams) bool {
		return p.IdleDuration > freshFor || wantsPing(ctx)
	}
	conn := parsed.ConnConfig
	if cell.Dial != nil {
		conn.DialFunc = cell.Dial
	}
	conn.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
	if cell.Pooler == TransactionPooler {
		conn.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	if _, named := conn.RuntimeParams["application_name"]; !named {
		conn.RuntimeParams["application_name"] = config.App
	}
	conn.Tracer = newTracer(config.Tracer)
	conn.OnNotice = noteUnsafe
	conns, err := pgxpool.NewWithConfig(ctx, parsed)
	if err != nil {
		return nil, fmt.Errorf("cell %q: %w", name, err)
	}
	return &pool{cell: name, conns: conns, slots: newSlots(int(parsed.MaxConns))}, nil
}

// lease is a connection that one call holds.
type lease struct {
	*pgxpool.Conn
	pool *pool
	uid  tenant.UID
}

// acquire waits for a slot of the tenant's, at most admissionWait, and takes a connection.
func (p *pool) acquire(ctx context.Context, uid tenant.UID) (lease, error) {
	if err := p.slots.take(ctx, uid); err != nil {
		return lease{}, err
	}
	conn, err := p.conns.Acquire(ctx)
	if err != nil {
		p.slots.give(uid)
		if ctx.Err() != nil {
			return lease{}, explain(ctx.Err())
		}
		return lease{}, unreachable(err)
	}
	return lease{conn, p, uid}, nil
}

// release gives the connection back. pgxpool destroys one that is in a transaction or in
// the middle of an answer; what enter() set ended with the transaction.
func (l lease) release() {
	l.Release()
	l.pool.slots.give(l.uid)
}

// destroy closes the connection instead.
func (l lease) destroy(ctx context.Context) {
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endWait)
	defer cancel()
	_ = l.Conn.Conn().Close(end) // it is gone either way
	l.release()
}

// Pooler says what stands between the service and PostgreSQL.
type Pooler uint8

// The poolers.
const (
	// Direct connections keep prepared statements.
	Direct Pooler = iota
	// TransactionPooler is PgBouncer, or another, in transaction mode: statements stay
	// unnamed, their descriptions are kept here.
	TransactionPooler
)

// Cell is how this service reaches its database in one cell.
type Cell struct {
	// DSN is a connection string or URL for the role rowhouse_app_<app>. Read it from a
	// file; it may hold a password.
	DSN string
	// MaxConns bounds the connections; 0 means 10. One tenant holds at most half of them at a
	// time, rounded up; its further calls wait for its own, for at most two seconds.
	MaxConns int32
	// Pooler says what the DSN leads to.
	Pooler Pooler
	// Dial replaces the dialer, for tests.
	Dial pgconn.DialFunc
}

// Config says how to open a DB.
type Config struct {
	// App is the name of the product service.
	App string
	// Cells maps the ids of the cells that hold this service's tenants to its databases there.
	Cells map[string]Cell
	// Clock is the time by which contexts are refused before they are sent; nil is
	// time.Now. The database has its own.
	Clock func() time.Time
	// Tracer sees queries and batches, such as *otelpgx.Tracer. It never sees arguments or
	// seals. It may implement any of pgx's tracer interfaces for queries, batches,
	// prepares and connections.
	Tracer pgx.QueryTracer
	// Alarm, when set, is told of what should never happen: a seal that the database
	// refused ([ErrSeal]) and SQL that ran without a tenant ([ErrNoContext]). It must
	// not block and may be called by many goroutines.
	Alarm func(ctx context.Context, err error)
}

func (c *Config) check() error {
	if c.App == "" {
		return errors.New("no app")
	}
	if len(c.Cells) == 0 {
		return errors.New("no cells")
	}
	for name, cell := range c.Cells {
		if cell.DSN == "" || cell.MaxConns < 0 {
			return fmt.Errorf("cell %q: want a DSN and no negative MaxConns", name)
		}
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	return nil
}

// noCell is the refusal of a tenant whose cell the service has no DSN for.
func noCell(name string) error {
	return fault.New(fault.Unavailable, reasonCellUnreachable, "the tenant's cell is not served here").
		WithDomain(domainTenancy).WithMetadata("cell", name).WithCause(ErrUnreachable)
}
