package tenantdb

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.opentelemetry.io/otel/metric"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Pooler says what stands between the service and PostgreSQL.
type Pooler uint8

// The poolers.
const (
	// Direct connections keep prepared statements. Behind a pooler it is not safe: PgBouncer 1.21
	// and later let it work, but keep the statements under names that any client with the app's
	// password can DEALLOCATE and PREPARE anew, and other tenants' calls then run its text. Also,
	// statements whose result a migration changed (SELECT *) fail there until RECONNECT.
	Direct Pooler = iota
	// TransactionPooler is PgBouncer, or another, in transaction mode, and the only way that is
	// safe behind one: statements stay unnamed, their descriptions are kept here. In the SCHEMA model
	// its backends grow with each tenant that they meet, by some 0.7 MB for twenty tables, until its
	// server_lifetime ends them: the SDK, which bounds that for direct connections, does not reach them.
	TransactionPooler
)

// Cell is how this service reaches its databases in one cell.
type Cell struct {
	// DSN is a connection string or URL for the role rowhouse_app_<app> and the database of
	// the SHARED and SCHEMA models. Tenants with databases of their own are reached by the
	// same, with their database's name. Read it from a file; it may hold a password.
	DSN string
	// MaxConns bounds the connections to all databases of the cell together; 0 means 10. One
	// tenant holds at most half of them at a time, rounded up; its further calls wait for its
	// own, for at most two seconds. With Replicas, one of the connections is the watch's, here and
	// to each of them, so that callers have one less.
	MaxConns int32
	// Pooler says what the DSN leads to.
	Pooler Pooler
	// Dial replaces the dialer, for tests.
	Dial pgconn.DialFunc
	// Replicas are servers that follow the cell's by streaming replication. [DB.ReadTx] reads
	// from them, in turn, when they have what the caller has to see.
	Replicas []Replica
	// MaxLag is how old the state of a replica may be that serves a read; 0 means 1 s. A
	// suspension, a fence and a move hold on replicas after that time. While there are reads,
	// primary and replicas are asked four times in it how far they are.
	MaxLag time.Duration
}

// Replica is how this service reaches a server that follows a cell's. It has the same
// databases and roles.
type Replica struct {
	// DSN is as in [Cell]. It may lead to several servers in turn.
	DSN string
	// MaxConns bounds the connections as in [Cell], and does not count there.
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
	// Metrics, when set, takes the measures of [Stats] by OpenTelemetry's conventions for
	// database clients (db.client.connection.*), by cell.
	Metrics metric.MeterProvider
	// Used, when set, is told of the work of databases for each tenant, statement by statement, and of how long others waited for
	// its connections; see package shares. It must not block and may be called by many goroutines.
	Used func(tc tenant.Context, u Use)
	// TokenKey seals the tokens of package readtoken: 32 random bytes that all processes of the
	// app share and no others know. Nil makes a new key, so that a token is read by this process
	// only. A new key costs no more than reads from the primary for the tokens of the old one.
	TokenKey []byte
	// SoleWriter says that no other process writes for the tenants that this one serves. Then
	// [DB.ReadTx] needs no token to know what the caller has to see.
	SoleWriter bool
	// Alarm, when set, is told of what should never happen: a seal that the database
	// refused ([ErrSeal]) and SQL that ran without a tenant ([ErrNoContext]). It must
	// not block and may be called by many goroutines.
	Alarm func(ctx context.Context, err error)
}

// Use is what a statement, or the use of a connection, took.
type Use struct {
	// Took is the time from sending a statement, or several together, to the end of the answer.
	Took time.Duration
	// Rows is how many rows it returned or changed.
	Rows int64
	// Delayed is how long other tenants' calls waited because of a connection: the time that it was held for each that waited
	// when it was given back, in equal parts for all who held one.
	Delayed time.Duration
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
		if err := cell.checkReplicas(); err != nil {
			return fmt.Errorf("cell %q: %w", name, err)
		}
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	return nil
}

// checkReplicas sees that a connection is left for callers: one is for the watch.
func (c *Cell) checkReplicas() error {
	for _, r := range c.Replicas {
		if r.DSN == "" || r.MaxConns < 0 {
			return errors.New("want a DSN and no negative MaxConns of each replica")
		}
		if r.MaxConns == 1 || c.MaxConns == 1 {
			return errors.New("want two connections or more to a server with replicas, and to each of them")
		}
	}
	if c.MaxLag < 0 {
		return errors.New("MaxLag is negative")
	}
	return nil
}
