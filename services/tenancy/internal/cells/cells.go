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
	"slices"
	"strings"
	"sync"
	"time"

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

	maxDSN      = 8 << 10
	maxConns    = 4
	idle        = time.Minute
	callTimeout = 5 * time.Second
)

var errParse = errors.New("the cell's connection string cannot be parsed")

// Databases reaches the cells' databases. It keeps few connections to each and is safe for concurrent use; Close it.
type Databases struct {
	secrets *os.Root
	closing sync.WaitGroup

	mu     sync.Mutex
	pools  map[target]*pgxpool.Pool
	closed bool
}

// target is one database; the sum of its connection string changes when the file does.
type target struct {
	ref, database string
	sum           [sha256.Size]byte
}

// Open returns access to cells whose connection strings are in the folder secrets.
func Open(secrets string) (*Databases, error) {
	root, err := os.OpenRoot(secrets)
	if err != nil {
		return nil, fmt.Errorf("open the folder of cell secrets: %w", err)
	}
	return &Databases{secrets: root, pools: map[target]*pgxpool.Pool{}}, nil
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

// DatabaseName returns the name of an app's database in a cell.
func DatabaseName(app string) string { return strings.ReplaceAll(app, "-", "_") }

// Place writes what an app's database is owed about a tenant. A database that knows later already is no error.
func (d *Databases) Place(ctx context.Context, debt store.Debt) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return d.within(ctx, debt.CredentialsRef, debt.App, debt.Model, debt.UID, func(conn cell.Conn) error {
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
		return prepared(err)
	})
}

// within runs fn on the database that holds a tenant's rows: over a pool for the one that an app's tenants share, in a
// session of its own for a tenant's own.
func (d *Databases) within(
	ctx context.Context, ref, app string, model tenant.Model, uid tenant.UID, fn func(cell.Conn) error,
) (err error) {
	if model != tenant.ModelDatabase {
		pool, err := d.pool(ctx, ref, app)
		if err != nil {
			return err
		}
		return fn(pool)
	}
	conn, err := d.connect(ctx, ref, cell.DatabaseName(app, uid))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	return fn(conn)
}

// prepared adds ErrNoDatabase to an error that says that the app has no database in the cell, or an empty one.
func prepared(err error) error {
	const noDatabase, noSchema, noTable, noRole = "3D000", "3F000", "42P01", "22023"
	answer, ok := errors.AsType[*pgconn.PgError](err)
	if ok && slices.Contains([]string{noDatabase, noSchema, noTable, noRole}, answer.Code) {
		return errors.Join(worker.ErrNoDatabase, err)
	}
	return err
}

// Install lets a database accept seals under a key.
func (d *Databases) Install(ctx context.Context, i store.Install, key tenant.SealKey) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	model := tenant.ModelShared
	if !i.Tenant.IsZero() {
		model = tenant.ModelDatabase
	}
	return d.within(ctx, i.CredentialsRef, i.App, model, i.Tenant, func(conn cell.Conn) error {
		return cell.InstallKey(ctx, conn, cell.Key{ID: i.Key.KID, Cell: i.CellNumber, Secret: key, NotAfter: i.Key.NotAfter})
	})
}

func (d *Databases) pool(ctx context.Context, ref, app string) (*pgxpool.Pool, error) {
	dsn, err := d.secret(ref)
	if err != nil {
		return nil, err
	}
	key := target{ref, DatabaseName(app), sha256.Sum256([]byte(dsn))}
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
