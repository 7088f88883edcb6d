// Package quota says how much each tenant may use.
//
// It keeps limits by layer and lends tokens of them to gateways, which decide by
// themselves as long as a lease lasts. Any number of replicas serve any tenant: all
// state is in the database, and a replica that dies loses nothing. Start at [Run].
package quota

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"slices"
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
	"github.com/rowhouse-platform/rowhouse/sdk/limits"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/trust"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/rpc"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/store"
)

// Database is the name of quota's database and the prefix of its roles.
const Database = "rowhouse_quota"

// Migrations returns what makes the database, in order.
func Migrations() []fs.FS { return []fs.FS{change.Migrations(), store.Migrations()} }

// Config is quota's configuration file.
type Config struct {
	// Process is what every service configures.
	Process serve.Config `yaml:",inline"`
	// Replica names this process in feeds, unique while it runs. Default: the host's name.
	Replica string `yaml:"replica,omitempty"`
	// Database is a file with the connection string of the service's role.
	Database yamlfile.Path `yaml:"database"`
	// FeedKey signs the feed of limits.
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
		return fmt.Errorf("quota configuration: %w", err)
	}
	c.Replica = serve.Replica(c.Replica)
	o := serve.Options{Name: "quota", Config: c.Process, Clock: time.Now}
	for _, option := range options {
		option(&o)
	}
	return serve.Run(ctx, o, func(ctx context.Context, p *serve.Process) (*serve.Service, error) { return build(ctx, c, p) })
}

// build makes the service; on failure what was opened is closed.
func build(ctx context.Context, c Config, p *serve.Process) (_ *serve.Service, err error) {
	s := &serve.Service{}
	defer func() {
		if err != nil {
			for _, done := range slices.Backward(s.Close) {
				done()
			}
		}
	}()
	pool, err := pg.Open(ctx, pg.Config{
		DSNFile: string(c.Database), Name: "quota", TracerProvider: p.Telemetry.TracerProvider(),
	})
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	s.Close = append(s.Close, pool.Close)
	key, err := keyfile.Private(string(c.FeedKey))
	if err != nil {
		return nil, fmt.Errorf("feed key: %w", err)
	}
	feeds, err := feedserver.New(feedserver.Config{Pool: pool, Feeds: []string{limits.FeedName}, Key: key, Clock: p.Clock, Log: p.Log})
	if err != nil {
		return nil, fmt.Errorf("feeds: %w", err)
	}
	known, client, err := c.follow(ctx, p, s)
	if err != nil {
		return nil, err
	}
	s.Verifier, err = tenant.NewVerifier(tenant.VerifierConfig{
		Trust: known, Audience: tenant.AudienceQuota, MayPresent: p.Callers.MayPresent,
	})
	if err != nil {
		return nil, fmt.Errorf("verifier: %w", err)
	}
	kernel := change.New(change.Config{Pool: pool, Service: "quota", Clock: p.Clock, Log: p.Log})
	api := rpc.Config{Kernel: kernel, Pool: pool, Trust: known, Verifier: s.Verifier, Feeds: feeds, Clock: p.Clock, Log: p.Log}
	s.Register = func(server *grpc.Server) {
		rpc.Register(server, api)
		auditv1.RegisterAuditServiceServer(server, auditrpc.New(kernel, pool))
	}
	s.Denied = kernel.Denied
	s.Background = append(s.Background, kernel.Run, feeds.Run, rpc.Collect(api))
	s.Ready = func() error { return ready(client.Ready(), feeds.Ready()) }
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
func ready(trusted, fed <-chan struct{}) error {
	select {
	case <-trusted:
	default:
		return fault.New(fault.Unavailable, fault.ReasonStarting, "the tenants are not loaded yet")
	}
	select {
	case <-fed:
	default:
		return fault.New(fault.Unavailable, fault.ReasonStarting, "the limits are not loaded yet")
	}
	return nil
}
