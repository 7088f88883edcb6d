// Package cells tells the databases of cells which tenants live there and which keys their seals are made with, and makes
// the schemas and databases that tenants have for themselves.
//
// A cell is known by the reference to a file with a connection string; the databases in it are named after the apps,
// with underscores for hyphens, and after apps and tenants. No error of this package holds a connection string.
package cells

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/worker"
)

const (
	refPrefix = "secret://file/"

	applicationName = "rowhouse-tenancy"

	maxDSN   = 8 << 10
	maxConns = 4
	idle     = time.Minute
	// callTimeout bounds a connect, and a call with all in it.
	callTimeout = 5 * time.Second
	// closeTimeout bounds the farewell of a session.
	closeTimeout = time.Second
	// callsPerCell and worksPerCell bound what is done in one cell at a time, in one process: short calls, with a connection
	// each, and work on homes, with at most two. Work that takes long keeps no call waiting.
	callsPerCell = 16
	worksPerCell = 8
	// trialsPerCell bounds the trials of migrations, which run what people send: however long that is, homes do not wait for it.
	trialsPerCell = 2
)

var errParse = errors.New("the cell's connection string cannot be parsed")

// Databases reaches the cells' databases. Of a cell it uses at most callsPerCell + 2 · worksPerCell + 2 · trialsPerCell connections
// at a time, and keeps maxConns of each app's shared database idle for a while. It is safe for concurrent use; Close it.
type Databases struct {
	// TrialTime bounds a trial of migrations with the wait for its turn. Set it, if at all, before first use.
	TrialTime time.Duration

	secrets *os.Root
	closing sync.WaitGroup

	mu     sync.Mutex
	pools  map[target]*pgxpool.Pool
	slots  map[string]slots // by credentials_ref
	closed bool
}

// slots are taken by what is done in a cell.
type slots struct{ calls, works, trials chan struct{} }

// target is one database; the sum of its connection string changes when the file does.
type target struct {
	ref, database string
	sum           [sha256.Size]byte
}

// TrialTime is how long a trial may take unless [Databases] says otherwise.
const TrialTime = 10 * time.Second

// Open returns access to cells whose connection strings are in the folder secrets.
func Open(secrets string) (*Databases, error) {
	root, err := os.OpenRoot(secrets)
	if err != nil {
		return nil, fmt.Errorf("open the folder of cell secrets: %w", err)
	}
	return &Databases{TrialTime: TrialTime, secrets: root, pools: map[target]*pgxpool.Pool{}, slots: map[string]slots{}}, nil
}

// Close ends all connections.
func (d *Databases) Close() {
	defer d.closing.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for _, pool := range d.pools {
		pool.Close()
	}
	_ = d.secrets.Close() // a folder that was only read
}

// slotsOf returns the slots of a cell.
func (d *Databases) slotsOf(ref string) slots {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, ok := d.slots[ref]
	if !ok {
		s = slots{make(chan struct{}, callsPerCell), make(chan struct{}, worksPerCell), make(chan struct{}, trialsPerCell)}
		d.slots[ref] = s
	}
	return s
}

// take runs fn in a slot, for which it waits as long as ctx lets it. Error: one that wraps worker.ErrBusy.
func take(ctx context.Context, slot chan struct{}, fn func() error) error {
	select {
	case slot <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", worker.ErrBusy, ctx.Err())
	}
	defer func() { <-slot }()
	return fn()
}

// Place writes what an app's database is owed about a tenant. A database that knows later already is no error.
func (d *Databases) Place(ctx context.Context, debt store.Debt) error {
	own := place{ref: debt.CredentialsRef, app: debt.App}
	if debt.Model == tenant.ModelDatabase {
		own.owner = debt.UID
	}
	return d.call(ctx, own, func(ctx context.Context, conn cell.Conn) error {
		err := cell.SetPlacement(ctx, conn, cell.Placement{
			UID:         debt.UID,
			State:       cell.State(registry.Tenant{State: debt.State}.CellState()),
			Generation:  uint64(debt.Generation), //nolint:gosec // the table allows positive ones
			Revision:    uint64(debt.Revision),   //nolint:gosec // the table allows positive ones
			StatementMS: debt.StatementMS, LockMS: debt.LockMS, IdleMS: debt.IdleMS,
		})
		if errors.Is(err, cell.ErrStale) {
			return nil
		}
		return err
	})
}

// Install lets a database accept seals under a key.
func (d *Databases) Install(ctx context.Context, i store.Install, key tenant.SealKey) error {
	return d.call(ctx, place{i.CredentialsRef, i.App, i.Tenant}, func(ctx context.Context, conn cell.Conn) error {
		return cell.InstallKey(ctx, conn, cell.Key{ID: i.Key.KID, Cell: i.CellNumber, Secret: key, NotAfter: i.Key.NotAfter})
	})
}

// place is a database of a cell.
type place struct {
	ref, app string
	owner    tenant.UID // zero for the one that the app's tenants share
}

func (p place) database() string {
	model := tenant.ModelDatabase
	if p.owner.IsZero() {
		model = tenant.ModelShared
	}
	name, _ := cell.Place(p.app, model, p.owner)
	return name
}

// call runs something short in a database: over a pool in the one that an app's tenants share, in a session of its own in a
// tenant's own.
func (d *Databases) call(ctx context.Context, p place, fn func(context.Context, cell.Conn) error) error {
	return take(ctx, d.slotsOf(p.ref).calls, func() error {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		if !p.owner.IsZero() {
			return d.session(ctx, p, func(conn *pgx.Conn) error { return fn(ctx, conn) })
		}
		pool, err := d.pool(ctx, p)
		if err != nil {
			return err
		}
		return absent(ctx, p, pool, fn(ctx, pool))
	})
}

// asker is a pool or a connection.
type asker interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// absent adds to an error of a database that it is not there, or in the case of the one that an app's tenants share was never
// prepared, if that is so. conn is nil when there is no connection.
func absent(ctx context.Context, p place, conn asker, err error) error {
	const noDatabase = "3D000"
	answer, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok:
	case answer.Code == noDatabase && !p.owner.IsZero():
		return errors.Join(worker.ErrNoHome, err)
	case answer.Code == noDatabase:
		return errors.Join(worker.ErrNoDatabase, err)
	case conn != nil && p.owner.IsZero():
		var prepared bool
		asked := conn.QueryRow(ctx, "SELECT pg_catalog.to_regclass('rowhouse.installed') IS NOT NULL").Scan(&prepared)
		if asked == nil && !prepared {
			return errors.Join(worker.ErrNoDatabase, err)
		}
	}
	return err
}

func (d *Databases) pool(ctx context.Context, p place) (*pgxpool.Pool, error) {
	dsn, err := d.secret(p.ref)
	if err != nil {
		return nil, err
	}
	key := target{p.ref, p.database(), sha256.Sum256([]byte(dsn))}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errors.New("the access to cells is closed")
	}
	if pool, ok := d.pools[key]; ok {
		return pool, nil
	}
	pool, err := newPool(ctx, dsn, key.database)
	if err != nil {
		return nil, err
	}
	for old, stale := range d.pools {
		if old.ref == key.ref && old.sum != key.sum {
			delete(d.pools, old)
			d.closing.Go(stale.Close) // it waits for its users, who end within callTimeout
		}
	}
	d.pools[key] = pool
	return pool, nil
}

func newPool(ctx context.Context, dsn, database string) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, errParse // its own error quotes it
	}
	cfg.ConnConfig.Database = database
	cfg.ConnConfig.RuntimeParams["application_name"] = applicationName
	cfg.MaxConns, cfg.MinConns, cfg.MaxConnIdleTime = maxConns, 0, idle
	return pgxpool.NewWithConfig(context.WithoutCancel(ctx), cfg)
}

// secret reads the file that ref names. It cannot leave the folder.
func (d *Databases) secret(ref string) (string, error) {
	name, ok := strings.CutPrefix(ref, refPrefix)
	if !ok || name == "" || strings.Contains(name, "/") {
		return "", fmt.Errorf("credentials_ref must be %s{name}", refPrefix)
	}
	f, err := d.secrets.Open(name)
	if err != nil {
		return "", fmt.Errorf("read the cell's credentials: %w", err)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxDSN))
	if err = errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("read the cell's credentials: %w", err)
	}
	return strings.TrimSpace(string(content)), nil
}
