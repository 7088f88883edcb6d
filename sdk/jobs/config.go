package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
)

// Class is a class of resources: its jobs share workers, and tenants have fair shares of those. Jobs of different classes do not
// wait for each other.
type Class struct {
	// Workers is how many slices this process runs at a time, each for another tenant. Default 1.
	Workers int
	// Share is the part of its time in which a worker works, above 0 and up to 1: between steps it pauses, so that the database
	// has room for requests. Default 1.
	Share float64
	// Slice is how long a slice lasts, at most 1 s. Default 500 ms.
	Slice time.Duration
}

// Minter makes contexts for jobs.
type Minter interface {
	// MintContext returns a fresh, verified context for a job of the kind whose origin is the signed context. Errors are faults
	// with the reasons of rowhouse.tenancy.v1.ContextService.MintContext.
	MintContext(ctx context.Context, origin, kind string) (tenant.Context, error)
}

// Config says what a queue runs.
type Config struct {
	// DB is where the tenants' rows are. Required.
	DB *tenantdb.DB
	// DSN is a connection string for the queue's own database, direct and not by a pooler; see [Migrate]. Read it from a file; it
	// may hold a password. Required.
	DSN string
	// Kinds are the kinds of jobs. Required.
	Kinds []Kind
	// Classes are the resource classes, by name. Required.
	Classes map[string]Class
	// Minter makes the contexts in which jobs work; see [Tenancy]. Processes that only ask for jobs need none.
	Minter Minter
	// Weight tells a tenant's share beside others', 1 to 1,000, for example by its plan. Nil is 1 for all.
	Weight func(tenant.Context) int
	// StepTime is how long one transaction should last. Default 50 ms.
	StepTime time.Duration
	// MaxFailures is how many tries may fail in a row until a job is DEAD. Default 10.
	MaxFailures int
	// Lease is how long a slice belongs to a worker that is not heard of, at least 1 s: after a crash the job goes on that much
	// later. A slice ends at two thirds of it, whatever a step does. Default 15 s.
	Lease time.Duration
	// OriginAge is how long after they were asked for jobs may run, as declared for their kinds. Default 7 days.
	OriginAge time.Duration
	// Clock tells how long steps take; nil is time.Now.
	Clock func() time.Time
	// Log is told what fails; nil is for nobody.
	Log *slog.Logger
}

var label = regexp.MustCompile(`^[a-z](-?[a-z0-9])*$`)

const maxLabel = 40

func (c *Config) check() error {
	if c.DB == nil || c.DSN == "" || len(c.Kinds) == 0 || len(c.Classes) == 0 {
		return errors.New("DB, DSN, Kinds and Classes are required")
	}
	for name, class := range c.Classes {
		if !label.MatchString(name) || len(name) > maxLabel {
			return fmt.Errorf("class %q: want a label", name)
		}
		if class.Workers < 0 || class.Share < 0 || class.Share > 1 || class.Slice < 0 || class.Slice > time.Second {
			return fmt.Errorf("class %q: want workers, a share up to 1 and slices up to 1 s", name)
		}
	}
	seen := map[string]bool{}
	for _, k := range c.Kinds {
		_, known := c.Classes[k.Class]
		if !label.MatchString(k.Name) || len(k.Name) > maxLabel || k.Step == nil || seen[k.Name] || !known {
			return fmt.Errorf("kind %q: want one label, a step and a class that is in Classes", k.Name)
		}
		seen[k.Name] = true
	}
	if c.Lease != 0 && c.Lease < time.Second || c.StepTime < 0 || c.MaxFailures < 0 || c.OriginAge < 0 {
		return errors.New("want a lease of 1 s or more, and nothing negative")
	}
	return nil
}

func (c *Config) complete() {
	c.StepTime = cmp.Or(c.StepTime, 50*time.Millisecond)
	c.MaxFailures = cmp.Or(c.MaxFailures, 10)
	c.Lease = cmp.Or(c.Lease, 15*time.Second)
	c.OriginAge = cmp.Or(c.OriginAge, 7*24*time.Hour)
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Weight == nil {
		c.Weight = func(tenant.Context) int { return 1 }
	}
	classes := make(map[string]Class, len(c.Classes))
	for name, class := range c.Classes {
		classes[name] = Class{
			Workers: cmp.Or(class.Workers, 1), Share: cmp.Or(class.Share, 1), Slice: cmp.Or(class.Slice, 500*time.Millisecond),
		}
	}
	c.Classes = classes
}

// Queue is an app's jobs. It is safe for concurrent use.
type Queue struct {
	c        Config
	kinds    map[string]Kind
	pool     *pgxpool.Pool
	river    *river.Client[pgx.Tx]
	contexts *contexts
	jitter   func() float64
	stopping chan struct{} // closed when Run ends
}

// Open checks the configuration and connects to the queue's database.
func Open(ctx context.Context, c Config) (*Queue, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("open jobs: %w", err)
	}
	c.complete()
	q := &Queue{
		c: c, kinds: map[string]Kind{}, jitter: rand.Float64, stopping: make(chan struct{}),
		contexts: &contexts{mint: c.Minter, known: map[contextKey]tenant.Context{}},
	}
	for _, k := range c.Kinds {
		q.kinds[k.Name] = k
	}
	var err error
	if q.pool, err = q.connect(ctx); err != nil {
		return nil, fmt.Errorf("open jobs: %w", err)
	}
	if q.river, err = q.dispatcher(); err == nil {
		err = q.addClasses(ctx)
	}
	if err != nil {
		q.pool.Close()
		return nil, fmt.Errorf("open jobs: %w", err)
	}
	return q, nil
}

// connect opens the pool, with a connection for each worker and some for the rest.
func (q *Queue) connect(ctx context.Context) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(q.c.DSN)
	if err != nil {
		return nil, errors.New("the DSN of the queue's database cannot be read") // its text may hold a password
	}
	config.MaxConns = 6
	for _, class := range q.c.Classes {
		config.MaxConns += int32(min(class.Workers, 100)) //nolint:gosec // at most 100
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to the queue's database: %w", err)
	}
	return pool, nil
}

// dispatcher is River, with a queue for each class. A job of River's is a permit for one slice and says nothing of whose: the
// worker takes whoever is next then.
func (q *Queue) dispatcher() (*river.Client[pgx.Tx], error) {
	workers, queues := river.NewWorkers(), map[string]river.QueueConfig{}
	if err := river.AddWorkerSafely(workers, &slicer{q: q}); err != nil {
		return nil, err
	}
	for name, class := range q.c.Classes {
		queues[name] = river.QueueConfig{MaxWorkers: class.Workers}
	}
	return river.NewClient(riverpgxv5.New(q.pool), &river.Config{
		Schema: schema, Queues: queues, Workers: workers, Logger: q.c.Log,
		FetchCooldown: 10 * time.Millisecond, FetchPollInterval: time.Second,
		// A permit that failed or was lost is made up for by the sweep, so none is tried again, and none is worth keeping.
		MaxAttempts: 1, JobTimeout: q.c.Lease, RescueStuckJobsAfter: 2 * q.c.Lease,
		CompletedJobRetentionPeriod: time.Minute, DiscardedJobRetentionPeriod: time.Hour, CancelledJobRetentionPeriod: time.Minute,
	})
}

// Close gives the connections back. Run must have ended.
func (q *Queue) Close() { q.pool.Close() }
