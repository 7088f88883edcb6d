// Package tenancy is the service that knows who each tenant is, which domains lead to it, where its data lives, and which
// keys may sign tenant contexts.
//
// Gateways and services follow its feeds and go on without it; it follows nobody. Start at [Run]; the database is made
// ready before by [Migrate], in a step of its own and by another role.
package tenancy

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	"github.com/rowhouse-platform/rowhouse/internal/audit/auditrpc"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/feedserver"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/internal/seal"
	"github.com/rowhouse-platform/rowhouse/internal/serve"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/trust"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/cells"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/rpc"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/wire"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/worker"
)

// name is the service's name in telemetry and in audit events.
const name = "tenancy"

// defaultConnections bounds the pool unless the configuration says otherwise.
const defaultConnections = 20

// maxTrialTime leaves something of the longest call for what follows the trial.
const maxTrialTime = 50 * time.Second

// DatabaseName is the name of the service's database unless an installation chooses another.
const DatabaseName = "rowhouse_tenancy"

// Config is the service's configuration file.
type Config struct {
	// Process is what every service configures.
	Process serve.Config `yaml:",inline"`
	// Replica names this process in config's feed of hooks, unique while it runs. Default: the host's name.
	Replica string `yaml:"replica,omitempty"`
	// Database is a file with the connection string of the service's own database, as its service role.
	Database yamlfile.Path `yaml:"database"`
	// Connections bounds the pool of connections to it. Default 20.
	Connections int32 `yaml:"connections,omitempty"`
	// CellSecrets is the folder of the files that cells' credentials_ref name: connection strings of superusers, on
	// rung L2a of roles that own the cells' databases, or of less: docs/guides/operator.md.
	CellSecrets yamlfile.Path `yaml:"cell_secrets"`
	// TrialTime is how long the trial of an app's migrations may take before they are registered. Default 10 s, at most 50 s; the
	// call must be given more, which is 30 s where the caller says nothing.
	TrialTime time.Duration `yaml:"trial_time,omitempty"`
	// TrustRoot is the private key that signs the certificates of context keys.
	TrustRoot yamlfile.Path `yaml:"trust_root"`
	// FeedKey is the private key that signs bookmarks; replicas share it.
	FeedKey yamlfile.Path `yaml:"feed_key"`
	// KEK is the key-encryption key of the keys in the database; replicas share it.
	KEK yamlfile.Path `yaml:"kek"`
	// Zones are the platform's own: a domain below one serves without proof.
	Zones []string `yaml:"zones,omitempty"`
	// Minters says what the context keys of workloads may sign, for those that are not content with the default: every
	// class, for tenants of their own cell, under their own name.
	Minters []Minter `yaml:"minters,omitempty"`
	// Hooks is where config is, which asks operators' hooks before tenants are created, change their plan or get a domain.
	// Default: no hook is asked.
	Hooks *Hooks `yaml:"hooks,omitempty"`
}

// Minter is what the context keys of one workload may sign.
type Minter struct {
	// Identity is the workload.
	Identity identity.ID `yaml:"identity"`
	// Name is what its contexts name as their minter, at most 12 characters. Default: the last word of the identity.
	Name string `yaml:"name,omitempty"`
	// Cells are the cells whose tenants it speaks for; "*" alone is every one. Default: the cell of the identity.
	Cells []string `yaml:"cells,omitempty"`
}

// Validate says what is missing or contradictory.
func (c Config) Validate() error {
	for _, file := range []struct {
		key   string
		value yamlfile.Path
	}{
		{"database", c.Database}, {"cell_secrets", c.CellSecrets}, {"trust_root", c.TrustRoot}, {"feed_key", c.FeedKey},
		{"kek", c.KEK},
	} {
		if file.value == "" {
			return fmt.Errorf("%s: required", file.key)
		}
	}
	if c.Connections < 0 {
		return errors.New("connections: must not be negative")
	}
	if c.TrialTime < 0 || c.TrialTime > maxTrialTime {
		return fmt.Errorf("trial_time: must not be negative, nor above %s", maxTrialTime)
	}
	if _, err := registry.ParseZones(c.Zones); err != nil {
		return fmt.Errorf("zones: %w", err)
	}
	if _, err := c.minters(); err != nil {
		return err
	}
	if err := c.Hooks.validate(c.Replica); err != nil {
		return err
	}
	return c.Process.Validate()
}

func (c Config) minters() (rpc.Minters, error) {
	minters := rpc.Minters{}
	for i, m := range c.Minters {
		if m.Identity.IsZero() {
			return nil, fmt.Errorf("minters[%d].identity: required", i)
		}
		if _, twice := minters[m.Identity]; twice {
			return nil, fmt.Errorf("minters[%d]: %s is named twice", i, m.Identity)
		}
		minter := minters.Of(m.Identity)
		if m.Name != "" {
			minter.Name = m.Name
		}
		if len(m.Cells) > 0 {
			minter.Cells = m.Cells
		}
		if minter.Name == worker.Minter {
			return nil, fmt.Errorf("minters[%d].name: %q is tenancy's own", i, minter.Name)
		}
		minters[m.Identity] = minter
	}
	return minters, nil
}

// Database returns the service's database with its migrations, for whoever provisions it: [pg.Provision] in development,
// [Migrate] in production.
func Database(databaseName string) pg.Database {
	db := pg.Database{Name: databaseName}
	db.Migrations = append(db.Migrations, change.Migrations(), store.Migrations())
	return db
}

// Migrate applies the migrations that the database lacks. conn is a connection as the role <databaseName>_migrate, which
// the service itself never has.
func Migrate(ctx context.Context, conn *pgx.Conn, databaseName string) error {
	return pg.Migrate(ctx, conn, Database(databaseName))
}

// keys are the secrets that the service reads from files.
type keys struct {
	root, feed ed25519.PrivateKey
	box        *seal.Box
}

func (c Config) keys() (keys, error) {
	root, err := keyfile.Private(string(c.TrustRoot))
	if err != nil {
		return keys{}, fmt.Errorf("trust_root: %w", err)
	}
	feed, err := keyfile.Private(string(c.FeedKey))
	if err != nil {
		return keys{}, fmt.Errorf("feed_key: %w", err)
	}
	kek, err := keyfile.Secret(string(c.KEK))
	if err != nil {
		return keys{}, fmt.Errorf("kek: %w", err)
	}
	box, err := seal.New(kek)
	return keys{root, feed, box}, err
}

// Option changes how [Run] works; for tests and for rowhouse dev.
type Option func(*house)

// WithListening tells the addresses of the gRPC port and the ops port once they are open.
func WithListening(fn func(grpc, ops net.Addr)) Option { return func(h *house) { h.listening = fn } }

// WithLog sends the log, a JSON object per line, elsewhere than to standard error.
func WithLog(w io.Writer) Option { return func(h *house) { h.log = w } }

// WithClock sets the time; default time.Now.
func WithClock(clock func() time.Time) Option { return func(h *house) { h.clock = clock } }

// Run serves until ctx ends, then drains. It returns nil after an orderly end. A database that lacks migrations is an
// error: the service does not migrate.
func Run(ctx context.Context, c Config, options ...Option) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("tenancy configuration: %w", err)
	}
	h := &house{c: c, clock: time.Now}
	for _, o := range options {
		o(h)
	}
	return serve.Run(ctx, serve.Options{
		Name: name, Config: c.Process, Clock: h.clock, LogTo: h.log, Listening: h.listening,
	}, h.build)
}

// house is the service while it is being built.
type house struct {
	c         Config
	listening func(grpc, ops net.Addr)
	log       io.Writer
	clock     func() time.Time
}

// build makes all parts; serve.Run closes what was opened also when it fails.
func (h *house) build(ctx context.Context, p *serve.Process) (*serve.Service, error) {
	s := &serve.Service{Table: rpc.Table()}
	k, err := h.c.keys()
	if err != nil {
		return s, err
	}
	pool, err := pg.Open(ctx, pg.Config{
		DSNFile: string(h.c.Database), MaxConns: cmp.Or(h.c.Connections, defaultConnections), Name: "rowhouse-tenancy", TracerProvider: p.Tracer,
	})
	if err != nil {
		return s, err
	}
	s.Close = append(s.Close, pool.Close)
	if err := pg.VerifyReachable(ctx, pool, Database(DatabaseName)); err != nil {
		return s, fmt.Errorf("database: %w", err)
	}
	databases, err := cells.Open(string(h.c.CellSecrets))
	if err != nil {
		return s, fmt.Errorf("cell_secrets: %w", err)
	}
	databases.TrialTime = cmp.Or(h.c.TrialTime, cells.TrialTime)
	s.Close = append(s.Close, databases.Close)
	kernel := change.New(change.Config{Pool: pool, Service: name, Meters: p.Telemetry.MeterProvider(), Clock: p.Clock, Log: p.Log})
	work := worker.Config{
		Pool: pool, Kernel: kernel, Cells: databases, Homes: databases, Box: k.box, Root: k.root, Holder: p.Identity.ID(), Clock: p.Clock,
		Random: rand.Reader, Log: p.Log,
	}
	s.Denied = kernel.Denied
	return s, h.serve(ctx, s, p, k, work, databases)
}

// serve puts the handlers, the feeds and the workers into s.
func (h *house) serve(
	ctx context.Context, s *serve.Service, p *serve.Process, k keys, work worker.Config, trials rpc.Trials,
) error {
	feeds, err := feedserver.New(feedserver.Config{
		Pool: work.Pool, Feeds: []string{wire.FeedRoutes, wire.FeedTenants, wire.FeedEvents}, Key: k.feed, Clock: p.Clock, Log: p.Log,
	})
	if err != nil {
		return err
	}
	zones, err := registry.ParseZones(h.c.Zones)
	if err != nil {
		return err
	}
	minters, err := h.c.minters()
	if err != nil {
		return err
	}
	own, roots := tenant.NewTrust(p.Clock), []ed25519.PublicKey{public(k.root)}
	follower, err := trust.Open(context.WithoutCancel(ctx), trust.Config{
		Tenancy: rpc.Loopback{Feeds: feeds}, Trust: own, Roots: roots, FeedKeys: []ed25519.PublicKey{public(k.feed)},
		Replica: name, Clock: p.Clock, Log: p.Log,
	})
	if err != nil {
		return err
	}
	s.Close = append(s.Close, follower.Close)
	hooks, err := h.hooks(ctx, s, p, work.Kernel)
	if err != nil {
		return err
	}
	w := worker.New(work)
	handlers, err := rpc.New(rpc.Config{
		Kernel: work.Kernel, Pool: work.Pool, Worker: w, Work: work, Feeds: feeds, Trust: own, Zones: zones, Minters: minters,
		MayPresent: p.Callers.MayPresent, Trials: trials, Hooks: hooks,
	})
	if err != nil {
		return err
	}
	s.Register = func(server *grpc.Server) {
		handlers.Register(server)
		auditv1.RegisterAuditServiceServer(server, auditrpc.New(work.Kernel, work.Pool))
	}
	s.Ready = func() error { return ready(feeds.Ready(), follower.Ready()) }
	s.Background = append(s.Background, work.Kernel.Run, feeds.Run, w.Run)
	return nil
}

func public(key ed25519.PrivateKey) ed25519.PublicKey {
	return ed25519.PublicKey(key[ed25519.PrivateKeySize-ed25519.PublicKeySize:])
}

// ready says that the service has not started until all caches are loaded.
func ready(caches ...<-chan struct{}) error {
	for _, c := range caches {
		select {
		case <-c:
		default:
			return fault.New(fault.Unavailable, fault.ReasonStarting, "the feeds are not loaded yet")
		}
	}
	return nil
}
