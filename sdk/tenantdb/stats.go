package tenantdb

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Stats is how the connections to one cell are used at a moment.
type Stats struct {
	// Cell is the cell's id.
	Cell string
	// Most is how many connections there may be, Open how many there are, with those that are
	// being opened or closed, Idle how many of them nobody uses, and Databases in how many
	// databases those are.
	Most, Open, Idle, Databases int
	// Tenants is how many tenants hold a connection or wait for one, Waiting how many calls wait.
	Tenants, Waiting int
	// Opened counts connections since Open, Evicted those that were closed to make room for one
	// to another database or schema, and Refused the calls that got none in time ([ErrAdmission]).
	Opened, Evicted, Refused uint64
	// FromReplica counts the transactions of [DB.ReadTx] that ended on a replica of the cell, and
	// FromPrimary, by the reason, the others. Both are empty without replicas.
	FromReplica int
	FromPrimary map[string]int
}

// Stats returns how the connections to each cell are used, by the cells' ids, and to each
// replica, as cell/replica-1 and so on.
func (db *DB) Stats() []Stats {
	all := make([]Stats, 0, len(db.pools))
	for _, p := range db.pools {
		all = append(all, p.stats())
		if r := p.readers; r != nil {
			r.stats(&all[len(all)-1])
			for _, c := range r.replicas {
				all = append(all, c.pool.stats())
			}
		}
	}
	slices.SortFunc(all, func(a, b Stats) int { return strings.Compare(a.Cell, b.Cell) })
	return all
}

func (p *pool) stats() Stats {
	st := Stats{Cell: p.cell}
	p.slots.stats(&st)
	p.conns.stats(&st)
	return st
}

func (r *readers) stats(st *Stats) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st.FromPrimary = maps.Clone(r.served)
	st.FromReplica = st.FromPrimary[""]
	delete(st.FromPrimary, "")
}

func (s *slots) stats(st *Stats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Tenants, st.Refused = len(s.claims), s.refused
	for _, c := range s.waiting {
		st.Waiting += len(c.calls)
	}
}

func (s *backends) stats(st *Stats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Most, st.Open, st.Idle, st.Opened, st.Evicted = s.most, s.live, len(s.idle), s.opened, s.evicted
	st.Refused += s.refused
	databases := map[string]struct{}{}
	for _, b := range s.idle {
		databases[b.database] = struct{}{}
	}
	st.Databases = len(databases)
}

// measure registers Stats with the provider under OpenTelemetry's names for the connection
// pools of database clients, where it has one.
func (db *DB) measure(provider metric.MeterProvider) error {
	if provider == nil {
		return nil
	}
	meter := provider.Meter("github.com/rowhouse-platform/rowhouse/sdk/tenantdb")
	var failed error
	up := func(name, what string) metric.Int64ObservableUpDownCounter {
		c, err := meter.Int64ObservableUpDownCounter(name, metric.WithDescription(what), metric.WithUnit("{connection}"))
		if err != nil {
			failed = err
		}
		return c
	}
	total := func(name, what, unit string) metric.Int64ObservableCounter {
		c, err := meter.Int64ObservableCounter(name, metric.WithDescription(what), metric.WithUnit(unit))
		if err != nil {
			failed = err
		}
		return c
	}
	count := up("db.client.connection.count", "Connections to a cell's databases, by state.")
	most := up("db.client.connection.max", "Connections that there may be.")
	pending := up("db.client.connection.pending_requests", "Calls that wait for a connection.")
	timeouts := total("db.client.connection.timeouts", "Calls that got no connection in time.", "{connection}")
	opened := total("rowhouse.db.connection.opened", "Connections that were opened.", "{connection}")
	evicted := total("rowhouse.db.connection.evicted", "Connections that were closed to make room for another.", "{connection}")
	reads := total("rowhouse.db.reads", "Read transactions of cells with replicas, by where they were served and why.", "{transaction}")
	if failed != nil {
		return fmt.Errorf("metrics: %w", failed)
	}
	var err error
	db.unmeasure, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, st := range db.Stats() {
			cell := attribute.String("db.client.connection.pool.name", st.Cell)
			at := metric.WithAttributes(cell)
			state := func(name string) metric.MeasurementOption {
				return metric.WithAttributes(cell, attribute.String("db.client.connection.state", name))
			}
			o.ObserveInt64(count, int64(st.Idle), state("idle"))
			o.ObserveInt64(count, int64(st.Open-st.Idle), state("used"))
			o.ObserveInt64(most, int64(st.Most), at)
			o.ObserveInt64(pending, int64(st.Waiting), at)
			o.ObserveInt64(timeouts, int64(st.Refused), at) //nolint:gosec // counts
			o.ObserveInt64(opened, int64(st.Opened), at)    //nolint:gosec // counts
			o.ObserveInt64(evicted, int64(st.Evicted), at)  //nolint:gosec // counts
			observeReads(o, reads, st)
		}
		return nil
	}, count, most, pending, timeouts, opened, evicted, reads)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}

func observeReads(o metric.Observer, reads metric.Int64Observable, st Stats) {
	if st.FromPrimary == nil {
		return
	}
	cell := attribute.String("rowhouse.cell", st.Cell)
	o.ObserveInt64(reads, int64(st.FromReplica), metric.WithAttributes(cell, attribute.String(keyReadFrom, "replica")))
	for why, n := range st.FromPrimary {
		o.ObserveInt64(reads, int64(n), metric.WithAttributes(cell,
			attribute.String(keyReadFrom, "primary"), attribute.String(keyReason, why)))
	}
}
