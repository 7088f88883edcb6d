package tenantdb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/internal/home"
)

const (
	// admissionWait bounds how long a call waits for a connection.
	admissionWait = 2 * time.Second
	// commitWait bounds COMMIT, whose wait for a standby no timeout of the server ends.
	commitWait = 2 * time.Second
	// endWait bounds the end of a transaction whose caller is gone.
	endWait = 5 * time.Second
	// defaultConns is a cell's MaxConns when it sets none.
	defaultConns = 10
)

// pool is how the process reaches one cell under one role. Callers queue for its slots, of
// which there are as many as it may have connections, in all databases together. Whoever has
// a slot finds a connection, or room to open one.
type pool struct {
	cell  string
	slots *slots
	conns *backends
	// watch is a place for the one connection of the watch, which has no slot.
	watch chan struct{}
	// readers are nil without replicas.
	readers *readers
	// used is told how long others waited for a connection; may be nil.
	used func(tenant.Context, Use)
}

// newPool keeps some connections from callers, as spare.
func newPool(name string, cell Cell, config *Config, spare int) (*pool, error) {
	parsed, err := pgx.ParseConfig(cell.DSN)
	if err != nil {
		return nil, fmt.Errorf("cell %q: the DSN does not parse", name) // err may show parts of it
	}
	if cell.Dial != nil {
		parsed.DialFunc = cell.Dial
	}
	parsed.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
	if cell.Pooler == TransactionPooler {
		parsed.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	if _, named := parsed.RuntimeParams["application_name"]; !named {
		parsed.RuntimeParams["application_name"] = config.App
	}
	parsed.Tracer = newTracer(config.Tracer, config.Used)
	parsed.OnNotice = noteUnsafe
	most := int(cmp.Or(cell.MaxConns, defaultConns))
	return &pool{
		cell: name, slots: newSlots(most - spare), conns: newBackends(parsed, most), watch: make(chan struct{}, 1), used: config.Used,
	}, nil
}

// place is where the rows of a call's tenant are.
type place struct {
	pool     *pool
	tenant   tenant.Context
	database string // in which the tenant's schema is
	schema   string
}

// place finds the tenant's home in the cell.
func (p *pool) place(app string, tc tenant.Context) (place, error) {
	at := place{pool: p, tenant: tc, database: p.conns.config.Database, schema: home.SharedSchema}
	switch tc.Model() {
	case tenant.ModelShared:
	case tenant.ModelSchema:
		at.schema = home.Schema(tc.UID())
	case tenant.ModelDatabase:
		at.database = home.Database(app, tc.UID())
	default:
		return place{}, fault.New(fault.Unimplemented, fault.ReasonInternal, "placement model %s is not served", tc.Model())
	}
	return at, nil
}

// lease is a connection that one call holds.
type lease struct {
	*backend
	pool *pool
	uid  tenant.UID
	// of is the tenant, and since when the connection is its; only where somebody is told.
	of    tenant.Context
	since time.Time
}

// acquire waits for a slot of the tenant's, at most admissionWait, and takes a connection to
// its database.
func (at place) acquire(ctx context.Context) (lease, error) {
	uid := at.tenant.UID()
	if err := at.pool.slots.take(ctx, uid); err != nil {
		return lease{}, err
	}
	b, err := at.pool.conns.take(ctx, at.database, at.schema, func() { at.pool.slots.give(uid) })
	if err != nil {
		switch {
		case ctx.Err() != nil:
			return lease{}, explain(ctx.Err())
		case sqlState(err) == "3D000" && at.tenant.Model() == tenant.ModelDatabase:
			return lease{}, moved().WithCause(errors.Join(ErrMoved, err))
		}
		return lease{}, unreachable(err)
	}
	l := lease{backend: b, pool: at.pool, uid: uid}
	if at.pool.used != nil {
		l.of, l.since = at.tenant, time.Now()
	}
	return l, nil
}

// release gives the connection back; one that is in a transaction or in the middle of an
// answer is closed. What enter() set ended with the transaction.
func (l lease) release() {
	if !l.since.IsZero() {
		if others, held := l.pool.slots.others(l.uid); others > 0 {
			l.pool.used(l.of, Use{Delayed: time.Since(l.since) * time.Duration(others) / time.Duration(held)})
		}
	}
	l.pool.conns.give(l.backend, func() { l.pool.slots.give(l.uid) })
}

// destroy closes the connection instead.
func (l lease) destroy() {
	l.spoilt = true
	l.release()
}

// guard runs what calls functions of others: callers, tracers, encoders. When one of them panics
// or ends its goroutine, the connection goes, and with it the place.
func (l lease) guard(fn func()) {
	settled := false
	defer func() {
		if !settled {
			l.destroy()
		}
	}()
	fn()
	settled = true
}

// noCell is the refusal of a tenant whose cell the service has no DSN for.
func noCell(name string) error {
	return fault.New(fault.Unavailable, reasonCellUnreachable, "the tenant's cell is not served here").
		WithDomain(domainTenancy).WithMetadata("cell", name).WithCause(ErrUnreachable)
}

// ping connects to the database of the shared models, or finds that a connection lives.
func (p *pool) ping(ctx context.Context) error {
	nobody := tenant.UID{}
	if err := p.slots.take(ctx, nobody); err != nil {
		return err
	}
	free := func() { p.slots.give(nobody) }
	b, err := p.conns.take(withPing(ctx), p.conns.config.Database, home.SharedSchema, free)
	if err != nil {
		return err
	}
	lease{backend: b, pool: p, uid: nobody}.release()
	return nil
}
