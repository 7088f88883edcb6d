// Package worker brings about what the registry has decided: it makes and migrates the homes that tenants have for
// themselves, tells cells' databases where tenants live, activates new tenants, waits until gateways and verifiers have
// applied a suspension, and turns keys over.
//
// Every step is look, act, record, so that it may be repeated; what is owed is in the database, so that whoever crashes
// is replaced. Several workers, in one process or many, share the work: an operation is held by a lease, and a worker
// that slept past its lease is refused by the fence. A cell that does not answer holds up nothing of other cells. Start
// at Worker.Run.
package worker

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/seal"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
)

const (
	// pollEvery is how often work that another replica left is looked for.
	pollEvery = time.Second
	// LiveFor is how long a consumer counts as live after its last report.
	LiveFor = 5 * time.Second
	// KnownFor is how long a silent consumer is still named.
	KnownFor = time.Minute
	// AwaitFor is how long an operation waits for live consumers that have not applied its change; then they are only named.
	AwaitFor = 30 * time.Second
	// maxLaggards bounds the consumers that an operation names.
	maxLaggards = 100
	// awaitWait is the rest between two looks at the consumers; their reports wake the worker of their own replica.
	awaitWait = 200 * time.Millisecond
	// attention is the number of failed tries after which a person should look; the work goes on all the same.
	attention = 10
	// operationsPerCell bounds the operations of one cell that run at a time in one process; it has as many connections
	// to each database.
	operationsPerCell = 4
	// homesPerCell bounds the homes of one cell that are made, migrated or dropped at a time beside operations.
	homesPerCell = 4
	// debtsPerCell bounds the databases of one cell that are told at a time beside operations, and as many again of those
	// that could not be told before.
	debtsPerCell = 4
	keepEnded    = 30 * 24 * time.Hour
	keepKeys     = 8 * 24 * time.Hour // after their end: what they signed may be the origin of a job, for seven days
	upkeepEvery  = 10 * time.Second
)

var (
	// ErrNoDatabase is what [Cells] and [Homes] return for an app whose database in the cell is not made or not prepared yet.
	ErrNoDatabase = errors.New("the app has no prepared database in the cell")
	// ErrNoHome is what they return for a tenant's own schema or database that is not there, in an app that has a database.
	ErrNoHome = errors.New("the home is not there")
	// ErrBusy is what they return when all that may be done in a cell at a time was being done: nothing was tried.
	ErrBusy = errors.New("the cell is busy")
)

// Cells tells the databases of cells about tenants and keys. An app's tenants share one, or have their own. Errors:
// ErrNoDatabase, ErrNoHome.
type Cells interface {
	Place(ctx context.Context, debt store.Debt) error
	Install(ctx context.Context, i store.Install, key tenant.SealKey) error
}

// Homes makes the schemas and databases that tenants have for themselves. Everything may be repeated, and goes on where an
// earlier try ended.
type Homes interface {
	// Make makes an empty home, for which nobody has a key. wanted is asked, while nobody else can make or drop the home,
	// whether it is to be there still. Error: ErrNoDatabase.
	Make(ctx context.Context, h store.Home, wanted func(context.Context) error) error
	// Migrate runs those migrations that did not run there yet, each in a transaction that ends with an audit of what it
	// touched. An error that is a fault may be told. Errors: ErrNoDatabase, ErrNoHome.
	Migrate(ctx context.Context, h store.Home, migrations []registry.Migration) error
	// Drop drops a home with all that is in it; sessions in it end.
	Drop(ctx context.Context, h store.Home) error
}

// Config is what a Worker needs.
type Config struct {
	Pool   *pgxpool.Pool
	Kernel *change.Kernel
	Cells  Cells
	Homes  Homes
	// Box opens and seals stored keys.
	Box *seal.Box
	// Root signs the certificates of tenancy's own keys, which Holder holds.
	Root   ed25519.PrivateKey
	Holder identity.ID
	Clock  func() time.Time
	Random io.Reader
	Log    *slog.Logger
}

// Worker does the work. It is safe for concurrent use.
type Worker struct {
	cfg Config

	operations, homes, debts, failedDebts, installs *lanes
	// One bell per loop.
	operationDue, homeDue, debtDue, feedDue, keyDue, installDue bell

	mu       sync.Mutex
	moved    chan struct{}       // closed when an operation has made progress here
	setbacks map[string]setbacks // by cell
}

// New returns a worker; nothing happens by itself before Run.
func New(cfg Config) *Worker {
	return &Worker{
		cfg: cfg, moved: make(chan struct{}),
		operations: newLanes(operationsPerCell), homes: newLanes(homesPerCell), debts: newLanes(debtsPerCell),
		failedDebts: newLanes(debtsPerCell), installs: newLanes(1), setbacks: map[string]setbacks{},
		operationDue: make(bell, 1), homeDue: make(bell, 1), debtDue: make(bell, 1), feedDue: make(bell, 1), keyDue: make(bell, 1),
		installDue: make(bell, 1),
	}
}

// bell wakes a loop.
type bell chan struct{}

func (b bell) ring() {
	select {
	case b <- struct{}{}:
	default: // it has rung and stands for this time too
	}
}

// Kick says that there may be operations, or that cells or feeds are owed something, for example after a commit.
func (w *Worker) Kick() {
	w.operationDue.ring()
	w.homeDue.ring()
	w.debtDue.ring()
	w.feedDue.ring()
}

// KickKeys says that keys may be missing, for example for a new cell or in a new app's databases.
func (w *Worker) KickKeys() {
	w.keyDue.ring()
	w.installDue.ring()
}

// Moved returns a channel that is closed when an operation makes progress in this process.
func (w *Worker) Moved() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.moved
}

func (w *Worker) progressed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.moved)
	w.moved = make(chan struct{})
}

// Run works until ctx ends. Failures are logged and tried again.
//
// Each kind of work has a loop of its own, and within it each cell its lane: neither many debts nor a cell that is silent
// hold up what is not theirs.
func (w *Worker) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.loop(ctx, pollEvery, w.operationDue, w.startOperations) })
	g.Go(func() error { return w.loop(ctx, pollEvery, w.homeDue, w.startHomes) })
	g.Go(func() error { return w.loop(ctx, pollEvery, w.debtDue, w.startDebts) })
	g.Go(func() error { return w.loop(ctx, pollEvery, w.feedDue, w.tellFeeds) })
	g.Go(func() error { return w.loop(ctx, upkeepEvery, w.keyDue, w.turnKeys) })
	g.Go(func() error { return w.loop(ctx, upkeepEvery, w.installDue, w.startInstalls) })
	err := g.Wait()
	for _, l := range []*lanes{w.operations, w.homes, w.debts, w.failedDebts, w.installs} {
		l.wait()
	}
	return err
}

func (w *Worker) loop(ctx context.Context, every time.Duration, due bell, work func(context.Context) error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		w.logged(ctx, work(ctx))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-due:
		}
	}
}

// logged is for errors whose cause is tried again by itself.
func (w *Worker) logged(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		w.cfg.Log.WarnContext(ctx, "worker: will try again", "error", err)
	}
}

// startOperations begins all operations that are due, up to what one cell may have at a time.
func (w *Worker) startOperations(ctx context.Context) error {
	for ctx.Err() == nil {
		o, ok, err := store.ClaimOperation(ctx, w.cfg.Pool, lease, w.operations.full())
		if err != nil || !ok {
			return err
		}
		w.operations.start(o.Cell, func() {
			if err := w.advance(ctx, o); !errors.Is(err, store.ErrFenced) {
				w.logged(ctx, err)
			}
		}, w.operationDue.ring)
	}
	return nil
}

// Inline works on one operation until it has ended, it must rest, or ctx ends. What is left a later round does.
func (w *Worker) Inline(ctx context.Context, id string) error {
	o, ok, err := store.ClaimOperationByID(ctx, w.cfg.Pool, id, lease)
	if err != nil || !ok {
		return err
	}
	err = w.advance(ctx, o)
	if errors.Is(err, store.ErrFenced) {
		return nil
	}
	return err
}
