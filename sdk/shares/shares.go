// Package shares counts what tenants take of a process and of its databases, and tells
// quota, which makes the report on noisy neighbours of it.
//
// A [Meter] keeps the largest takers of each resource only, so its size does not grow
// with the number of tenants, and says how far off its counts may be. [Meter.Report] sends
// them every few seconds, with a signed context of each tenant: nobody can tell of one
// that it did not serve. What cannot be sent is lost; it is a report, not a bill: that is
// package usage's matter. Start at [New].
package shares

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
)

// Resource is what tenants take.
type Resource = quotav1.ShareResource

// The resources. Times are in microseconds.
const (
	Requests = quotav1.ShareResource_SHARE_RESOURCE_REQUESTS
	InFlight = quotav1.ShareResource_SHARE_RESOURCE_IN_FLIGHT
	Bytes    = quotav1.ShareResource_SHARE_RESOURCE_BYTES
	Refusals = quotav1.ShareResource_SHARE_RESOURCE_REFUSALS
	Delay    = quotav1.ShareResource_SHARE_RESOURCE_DELAY
	DBTime   = quotav1.ShareResource_SHARE_RESOURCE_DB_TIME
	DBRows   = quotav1.ShareResource_SHARE_RESOURCE_DB_ROWS

	resources = DBRows + 1
)

const (
	// largest is how many tenants are counted of each resource.
	largest = 256
	// every is how often a process reports.
	every = 5 * time.Second
	// patience is how long a report may take.
	patience = 3 * time.Second
)

// Meter counts. It is safe for concurrent use.
type Meter struct {
	mu   sync.Mutex
	tops [resources]*top
}

// New returns a Meter that has counted nothing.
func New() *Meter {
	m := &Meter{}
	m.tops = empty()
	return m
}

func empty() (tops [resources]*top) {
	for i := range tops {
		tops[i] = newTop(largest)
	}
	return tops
}

// Took is an amount of one resource.
type Took struct {
	Resource Resource
	Amount   int64
}

// Add counts what one call of the tenant took. It does not block on anything but other Adds.
func (m *Meter) Add(tc tenant.Context, took ...Took) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range took {
		if t.Resource > 0 && t.Resource < resources {
			m.tops[t.Resource].add(tc, t.Amount)
		}
	}
}

// Database counts what the use of a database took; it is a [tenantdb.Config]'s Used.
func (m *Meter) Database(tc tenant.Context, u tenantdb.Use) {
	m.Add(tc, Took{DBTime, u.Took.Microseconds()}, Took{DBRows, u.Rows}, Took{Delay, u.Delayed.Microseconds()})
}

// Config says whom to report to. Quota and Replica are required.
type Config struct {
	// Quota is a connection to the quota service, with this process's own mTLS identity.
	Quota grpc.ClientConnInterface
	// Replica names this process, unique while it runs.
	Replica string
	// Log is told what goes wrong. Default slog.Default().
	Log *slog.Logger
}

// Report sends what was counted every few seconds, until ctx ends; then it sends the rest and returns.
func (m *Meter) Report(ctx context.Context, c Config) error {
	if c.Quota == nil || c.Replica == "" {
		return errors.New("shares: a connection and a replica name are needed")
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	r := reporter{meter: m, service: quotav1.NewReportServiceClient(c.Quota), replica: c.Replica, run: uuid.NewString()}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for over := false; !over; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			over = true
		}
		if err := r.send(context.WithoutCancel(ctx)); err != nil {
			c.Log.DebugContext(ctx, "what tenants took was not reported", "error", err)
		}
	}
	return nil
}

// reporter sends the reports of one process.
type reporter struct {
	meter        *Meter
	service      quotav1.ReportServiceClient
	replica, run string
	sequence     int64
}

// send sends what was counted since the last time. What fails is not sent again: later it would be told of the wrong time.
func (r *reporter) send(ctx context.Context) error {
	in := r.meter.take()
	if in == nil {
		return nil
	}
	r.sequence++
	in.Replica, in.Run, in.Sequence = r.replica, r.run, r.sequence
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := r.service.ReportShares(ctx, in); err != nil {
		return fmt.Errorf("report shares: %w", err)
	}
	return nil
}

// take returns what was counted, nil for nothing, and begins anew.
func (m *Meter) take() *quotav1.ReportSharesRequest {
	m.mu.Lock()
	tops := m.tops
	m.tops = empty()
	m.mu.Unlock()
	in := &quotav1.ReportSharesRequest{}
	tenants := map[tenant.UID]*quotav1.TenantShare{}
	for i, t := range tops {
		if t.total == 0 {
			continue
		}
		in.Totals = append(in.Totals, amount(Resource(i), t.total, 0))
		for _, c := range t.heap {
			line := tenants[c.tc.UID()]
			if line == nil {
				line = &quotav1.TenantShare{TenantContext: []byte(c.tc.Token())}
				tenants[c.tc.UID()] = line
				in.Tenants = append(in.Tenants, line)
			}
			line.Amounts = append(line.Amounts, amount(Resource(i), c.amount, c.error))
		}
	}
	if len(in.GetTotals()) == 0 {
		return nil
	}
	return in
}

// mostAmount is what a report may say of one resource.
const mostAmount = 1 << 50

func amount(of Resource, n, off int64) *quotav1.ShareAmount {
	return &quotav1.ShareAmount{Resource: of, Amount: min(n, mostAmount), Error: min(off, mostAmount)}
}
