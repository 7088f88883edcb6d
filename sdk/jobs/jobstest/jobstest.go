// Package jobstest gives a test what a queue of jobs needs beside the tenants' own database: one for the queue, and contexts.
//
// Start at [Open], with a database of package dbtest whose migrations have [jobs.Migration].
package jobstest

import (
	"context"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/jobs"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// owner owns the queue's database, and is nothing else.
const owner = "jobs_owner"

// Database returns the connection string of a new queue's database, which goes away with the test.
func Database(tb testing.TB) string {
	tb.Helper()
	db := pgtest.New(tb, pgtest.Template{Name: "jobs", Owner: owner, App: "jobs_app", Setup: func(ctx context.Context, dsn string) error {
		return jobs.Migrate(ctx, dsn+"&options=-c%20role%3D"+owner)
	}})
	return db.DSN(owner)
}

// Files are migrations with the tenants' table of jobs, and with one more.
func Files(more string) fstest.MapFS {
	return fstest.MapFS{"0001_job.sql": {Data: []byte(jobs.Migration())}, "0002_more.sql": {Data: []byte(more)}}
}

// Minter makes contexts as tenancy does, for the tenants that issuer knows.
func Minter(issuer *tenanttest.Issuer, tb testing.TB) jobs.Minter {
	tb.Helper()
	return minter{issuer, issuer.Verifier(tb), tb}
}

type minter struct {
	issuer   *tenanttest.Issuer
	verifier *tenant.Verifier
	tb       testing.TB
}

// MintContext implements jobs.Minter.
func (m minter) MintContext(_ context.Context, origin, _ string) (tenant.Context, error) {
	token, err := Mint(m.issuer, m.tb, origin)
	if err != nil {
		return tenant.Context{}, err
	}
	return m.verifier.Verify(token, m.issuer.Gateway())
}

// Mint makes a job's token out of its origin.
func Mint(issuer *tenanttest.Issuer, tb testing.TB, origin string) (string, error) {
	old, err := tenant.Evidence(origin, issuer.Certificate())
	if err != nil {
		return "", err
	}
	switch state, known := issuer.Trust().Tenant(old.TenantUID); {
	case !known, state.State == tenant.StateDeleted:
		return "", fault.New(fault.PermissionDenied, fault.ReasonTenantDeleted, "the tenant is deleted")
	case state.State == tenant.StateSuspended:
		return "", fault.New(fault.PermissionDenied, fault.ReasonTenantSuspended, "the tenant is suspended")
	}
	return issuer.Token(tb, old.TenantID.String(), func(c *tenant.Claims) {
		c.PrincipalKind, c.PrincipalDigest = tenant.PrincipalJob, tenant.PrincipalDigest("jobstest", old.TenantID.String())
	}), nil
}

// Open opens a queue over the database. The configuration needs kinds and classes; what else it lacks is given to it.
func Open(tb testing.TB, db *dbtest.Database, c jobs.Config) *jobs.Queue {
	tb.Helper()
	if c.DB == nil {
		c.DB = db.DB
	}
	if c.DSN == "" {
		c.DSN = Database(tb)
	}
	if c.Minter == nil {
		c.Minter = Minter(db.Issuer, tb)
	}
	q, err := jobs.Open(tb.Context(), c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(q.Close)
	return q
}

// Run runs the queue until the test ends, or the returned function is called.
func Run(tb testing.TB, q *jobs.Queue) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("run jobs: %v", err)
		}
	})
	tb.Cleanup(stop)
	return stop
}
