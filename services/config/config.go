// Package config keeps what is set for tenants, layer by layer, and tells what holds.
//
// It checks every write against the schema of its namespace and publishes it to
// readers, which merge for themselves; a reader needs this service only to learn of
// changes. Any number of replicas serve: all state is in the database. Start at [Run].
package config

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"time"

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
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/trust"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/rpc"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// Database is the name of config's database and the prefix of its roles.
const Database = "rowhouse_config"

// Migrations returns what makes the database, in order.
func Migrations() []fs.FS { return []fs.FS{change.Migrations(), store.Migrations()} }

// Config is config's configuration file.
type Config struct {
	// Process is what every service configures.
	Process serve.Config `yaml:",inline"`
	// Replica names this process in feeds, unique while it runs. Default: the host's name.
	Replica string `yaml:"replica,omitempty"`
	// Database is a file with the connection string of the service's role.
	Database yamlfile.Path `yaml:"database"`
	// FeedKey signs the feed of settings.
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

// Option changes how [Run] works; for tests and for rowhouse dev.
type Option func(*serve.Options)

// WithListening tells the addresses of the gRPC port and the ops port once they are open.
func WithListening(fn func(grpc, ops net.Addr)) Option {
	return func(o *serve.Options) { o.Listening = fn }
}

// WithLog sends the log, a JSON object per line, elsewhere than to standard error.
func WithLog(w io.Writer) Option { return func(o *serve.Options) { o.LogTo = w } }

// Run serves until ctx ends, then drains. It returns nil after an orderly end.
func Run(ctx context.Context, c Config, options ...Option) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("configuration of config: %w", err)
	}
	c.Replica = serve.Replica(c.Replica)
	opts := serve.Options{Name: "config", Config: c.Process, Clock: time.Now}
	for _, o := range options {
		o(&opts)
	}
	return serve.Run(ctx, opts, func(ctx context.Context, p *serve.Process) (*serve.Service, error) { return build(ctx, c, p) })
}

// build makes the service; on failure what was opened is closed.
func build(ctx context.Context, c Config, p *serve.Process) (_ *serve.Service, err error) {
	s := &serve.Service{}
	defer func() {
		if err != nil {
			for i := range s.Close {
				s.Close[len(s.Close)-1-i]()
			}
		}
	}()
	pool, err := pg.Open(ctx, pg.Config{
		DSNFile: string(c.Database), Name: "config", TracerProvider: p.Telemetry.TracerProvider(),
	})
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	s.Close = append(s.Close, pool.Close)
	key, err := keyfile.Private(string(c.FeedKey))
	if err != nil {
		return nil, fmt.Errorf("feed key: %w", err)
	}
	feeds, err := feedserver.New(feedserver.Config{Pool: pool, Feeds: []string{sdk.FeedName}, Key: key, Clock: p.Clock, Log: p.Log})
	if err != nil {
		return nil, fmt.Errorf("feeds: %w", err)
	}
	known, client, err := c.follow(ctx, p, s)
	if err != nil {
		return nil, err
	}
	s.Verifier, err = tenant.NewVerifier(tenant.VerifierConfig{
		Trust: known, Audience: tenant.AudienceConfig, MayPresent: p.Callers.MayPresent,
	})
	if err != nil {
		return nil, fmt.Errorf("verifier: %w", err)
	}
	kernel := change.New(change.Config{Pool: pool, Service: "config", Clock: p.Clock, Log: p.Log})
	api := rpc.Config{Kernel: kernel, Pool: pool, Trust: known, Feeds: feeds, Clock: p.Clock}
	furnisher := rpc.NewFurnisher(api)
	s.Register = func(server *grpc.Server) {
		rpc.Register(server, api)
		auditv1.RegisterAuditServiceServer(server, auditrpc.New(kernel, pool))
	}
	s.Denied = kernel.Denied
	s.Background = append(s.Background, kernel.Run, feeds.Run, furnisher.Run)
	s.Ready = func() error { return ready(client.Ready(), feeds.Ready(), furnisher.Ready()) }
	return s, nil
}

// follow opens tenancy's feed of tenants and keys.
func (c Config) follow(ctx context.Context, p *serve.Process, s *serve.Service) (*tenant.Trust, *trust.Client, error) {
	roots, err := keyfile.Public(string(c.TrustRoots))
	if err != nil {
		return nil, nil, fmt.Errorf("trust roots: %w", err)
	}
	keys, err := keyfile.Public(string(c.Tenancy.FeedKeys))
	if err != nil {
		return nil, nil, fmt.Errorf("tenancy's feed keys: %w", err)
	}
	conn, err := p.Dial(c.Tenancy.Address, c.Tenancy.Identity)
	if err != nil {
		return nil, nil, fmt.Errorf("dial tenancy: %w", err)
	}
	s.Close = append(s.Close, func() { _ = conn.Close() })
	known := tenant.NewTrust(p.Clock)
	client, err := trust.Open(ctx, trust.Config{
		Tenancy: conn, Trust: known, Roots: roots, FeedKeys: keys, Replica: c.Replica, Dir: string(c.State), Clock: p.Clock, Log: p.Log,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("follow tenancy: %w", err)
	}
	s.Close = append(s.Close, client.Close)
	return known, client, nil
}

// ready says what has not been loaded yet.
func ready(trusted, fed, furnished <-chan struct{}) error {
	for _, part := range []struct {
		what string
		done <-chan struct{}
	}{{"the tenants", trusted}, {"the settings", fed}, {"the built-in namespaces", furnished}} {
		select {
		case <-part.done:
		default:
			return fault.New(fault.Unavailable, fault.ReasonStarting, "%s are not loaded yet", part.what)
		}
	}
	return nil
}
