// Package follower is what the services share that follow tenancy: config and quota.
//
// Each has a database of its own, publishes feeds, and learns from tenancy's feed
// which tenants there are and which keys sign their contexts. They differ in what they
// register. Start at [Run].
package follower

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	"github.com/rowhouse-platform/rowhouse/internal/audit/auditrpc"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/feedserver"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/internal/serve"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/trust"
)

// Config is the configuration file of such a service. All but Replica is required.
type Config struct {
	// Process is what every service configures.
	Process serve.Config `yaml:",inline"`
	// Replica names this process in feeds, unique while it runs. Default: the host's name.
	Replica string `yaml:"replica,omitempty"`
	// Database is a file with the connection string of the service's role.
	Database yamlfile.Path `yaml:"database"`
	// FeedKey is the private key that signs the service's feed; replicas share it.
	FeedKey yamlfile.Path `yaml:"feed_key"`
	// Tenancy tells which tenants there are.
	Tenancy Tenancy `yaml:"tenancy"`
	// TrustRoots holds the public keys that certify context keys.
	TrustRoots yamlfile.Path `yaml:"trust_roots"`
	// State is the folder of the copy of tenancy's feed.
	State yamlfile.Path `yaml:"state"`
}

// Tenancy is how to reach tenancy.
type Tenancy struct {
	// Address is a gRPC target, "127.0.0.1:7101".
	Address string `yaml:"address"`
	// Identity is the SPIFFE URI that it must show.
	Identity identity.ID `yaml:"identity"`
	// FeedKeys holds the public keys that sign its feeds.
	FeedKeys yamlfile.Path `yaml:"feed_keys"`
}

// Validate says what is missing.
func (c Config) Validate() error {
	if serve.Replica(c.Replica) == "" || c.Database == "" || c.FeedKey == "" || c.TrustRoots == "" || c.State == "" ||
		c.Tenancy.Address == "" || c.Tenancy.FeedKeys == "" {
		return errors.New("replica, database, feed_key, trust_roots, state and tenancy are required")
	}
	return c.Process.Validate()
}

// Check does all that a start does short of connecting and listening: it reads every file that c names.
func (c Config) Check(ctx context.Context) error {
	if err := c.Validate(); err != nil {
		return err
	}
	faults := []error{c.Process.Check(ctx)}
	look := func(key string, err error) {
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", key, err))
		}
	}
	look("database", pg.Config{DSNFile: string(c.Database)}.Validate())
	_, err := keyfile.Private(string(c.FeedKey))
	look("feed_key", err)
	_, err = keyfile.Public(string(c.TrustRoots))
	look("trust_roots", err)
	_, err = keyfile.Public(string(c.Tenancy.FeedKeys))
	look("tenancy.feed_keys", err)
	look("state", c.State.CheckFolder())
	return errors.Join(faults...)
}

// Option changes how [Run] works; for tests and for rowhouse dev.
type Option func(*serve.Options)

// WithListening tells the addresses of the gRPC port and the ops port once they are open.
func WithListening(fn func(grpc, ops net.Addr)) Option {
	return func(o *serve.Options) { o.Listening = fn }
}

// WithLog sends the log, a JSON object per line, elsewhere than to standard error.
func WithLog(w io.Writer) Option { return func(o *serve.Options) { o.LogTo = w } }

// Kind says which service it is.
type Kind struct {
	// Name is the service, "config".
	Name string
	// Database and Migrations are what its database must have.
	Database   string
	Migrations []fs.FS
	// Feeds are the feeds that it publishes.
	Feeds []string
	// Audience is its bit in tenant contexts.
	Audience tenant.Audience
	// Spare is how many of its connections no ordinary change may hold, so that urgent ones have some. Default: none.
	Spare int
}

// Base is what such a service is built on.
type Base struct {
	*serve.Process

	// Pool is the service's database.
	Pool *pgxpool.Pool
	// Kernel makes changes, with their audit records.
	Kernel *change.Kernel
	// FeedKey signs what Feeds publishes.
	FeedKey ed25519.PrivateKey
	// Feeds publishes the service's feed.
	Feeds *feedserver.Server
	// Trust knows the tenants and the keys of contexts.
	Trust *tenant.Trust
	// Catalog knows the plans and regions.
	Catalog *trust.Catalog
	// Tenancy is a connection to tenancy, as this service.
	Tenancy grpc.ClientConnInterface
	// Verifier checks tenant contexts.
	Verifier *tenant.Verifier
}

// Parts is what a service adds to its base.
type Parts struct {
	// Register registers its gRPC services.
	Register func(*grpc.Server)
	// MaxRequest is the most bytes that one of its methods takes; see [serve.Service].
	MaxRequest int
	// Background is its work beside serving; see [serve.Service].
	Background []func(context.Context) error
	// Loaded are closed when what it waits for before it serves is there, by name.
	Loaded map[string]<-chan struct{}
}

// Run serves until ctx ends, then drains. It returns nil after an orderly end. parts is
// called once, when the base is there. A database that lacks migrations is an error, one
// that is away is not.
func Run(ctx context.Context, k Kind, c Config, parts func(*Base) Parts, options ...Option) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("%s configuration: %w", k.Name, err)
	}
	c.Replica = serve.Replica(c.Replica)
	o := serve.Options{Name: k.Name, Config: c.Process, Clock: time.Now}
	for _, option := range options {
		option(&o)
	}
	return serve.Run(ctx, o, func(ctx context.Context, p *serve.Process) (*serve.Service, error) {
		s := new(serve.Service)
		return s, build(ctx, k, c, p, s, parts)
	})
}

// build fills s in; what was opened is in s.Close also when it fails.
func build(ctx context.Context, k Kind, c Config, p *serve.Process, s *serve.Service, parts func(*Base) Parts) error {
	pool, err := pg.Open(ctx, pg.Config{DSNFile: string(c.Database), Name: k.Name, TracerProvider: p.Telemetry.TracerProvider()})
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	s.Close = append(s.Close, pool.Close)
	if err := pg.VerifyReachable(ctx, pool, pg.Database{Name: k.Database, Migrations: k.Migrations}); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	key, err := keyfile.Private(string(c.FeedKey))
	if err != nil {
		return fmt.Errorf("feed key: %w", err)
	}
	feeds, err := feedserver.New(feedserver.Config{Pool: pool, Feeds: k.Feeds, Key: key, Clock: p.Clock, Log: p.Log})
	if err != nil {
		return fmt.Errorf("feeds: %w", err)
	}
	ordinary := 0
	if k.Spare > 0 {
		ordinary = max(1, int(pool.Config().MaxConns)-k.Spare)
	}
	b := &Base{
		Process: p, Pool: pool, FeedKey: key, Feeds: feeds, Trust: tenant.NewTrust(p.Clock), Catalog: new(trust.Catalog),
		Kernel: change.New(change.Config{
			Pool: pool, Ordinary: ordinary, Service: k.Name, Meters: p.Telemetry.MeterProvider(), Clock: p.Clock, Log: p.Log,
		}),
	}
	tenants, err := b.follow(ctx, c, s)
	if err != nil {
		return err
	}
	b.Verifier, err = tenant.NewVerifier(tenant.VerifierConfig{Trust: b.Trust, Audience: k.Audience, MayPresent: p.Callers.MayPresent})
	if err != nil {
		return fmt.Errorf("verifier: %w", err)
	}
	added := parts(b)
	s.Verifier, s.Denied, s.MaxRequest = b.Verifier, b.Kernel.Denied, added.MaxRequest
	s.Register = func(server *grpc.Server) {
		added.Register(server)
		auditv1.RegisterAuditServiceServer(server, auditrpc.New(b.Kernel, pool))
	}
	s.Background = append([]func(context.Context) error{b.Kernel.Run, feeds.Run}, added.Background...)
	s.Ready = func() error {
		return errors.Join(loaded("tenants", tenants.Ready()), loaded(strings.Join(k.Feeds, " and "), feeds.Ready()), allLoaded(added.Loaded))
	}
	return nil
}

// follow opens tenancy's feed of tenants and keys.
func (b *Base) follow(ctx context.Context, c Config, s *serve.Service) (*trust.Client, error) {
	roots, err := keyfile.Public(string(c.TrustRoots))
	if err != nil {
		return nil, fmt.Errorf("trust roots: %w", err)
	}
	keys, err := keyfile.Public(string(c.Tenancy.FeedKeys))
	if err != nil {
		return nil, fmt.Errorf("tenancy's feed keys: %w", err)
	}
	conn, err := b.Dial(c.Tenancy.Address, c.Tenancy.Identity)
	if err != nil {
		return nil, fmt.Errorf("dial tenancy: %w", err)
	}
	b.Tenancy = conn
	s.Close = append(s.Close, func() { _ = conn.Close() })
	// Calls are served on while the process drains, so the feed is not to end before: Close ends it.
	client, err := trust.Open(context.WithoutCancel(ctx), trust.Config{
		Tenancy: conn, Trust: b.Trust, Catalog: b.Catalog, Roots: roots, FeedKeys: keys, Replica: c.Replica, Dir: string(c.State),
		Clock: b.Clock, Log: b.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("follow tenancy: %w", err)
	}
	s.Close = append(s.Close, client.Close)
	return client, nil
}

func allLoaded(parts map[string]<-chan struct{}) error {
	for what, done := range parts {
		if err := loaded(what, done); err != nil {
			return err
		}
	}
	return nil
}

// loaded is the fault STARTING until done is closed.
func loaded(what string, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	default:
		return fault.New(fault.Unavailable, fault.ReasonStarting, "the %s are not loaded yet", what)
	}
}
