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
	"io/fs"

	"google.golang.org/grpc"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/follower"
	"github.com/rowhouse-platform/rowhouse/internal/hook"
	"github.com/rowhouse-platform/rowhouse/internal/serve"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/clientkey"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/ask"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/rpc"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/secret"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/webhook"
)

// Database is the name of config's database and the prefix of its roles.
const Database = "rowhouse_config"

// spareConnections of those to the database are for kills, halts and reads: writes wait for the locks of namespaces and
// hold a connection each meanwhile.
const spareConnections = 4

// Migrations returns what makes the database, in order.
func Migrations() []fs.FS { return []fs.FS{change.Migrations(), store.Migrations()} }

// Config is config's configuration file.
type Config struct {
	// Config is what every follower of tenancy configures.
	follower.Config `yaml:",inline"`

	// KEK is a file of keys of 64 hex digits, one to a line, that replicas share: the first wraps the data keys of secrets and
	// seals the keys of webhooks and hooks, and all open. Without it there are none of these.
	KEK yamlfile.Path `yaml:"kek,omitempty"`
	// HTTPSPort is the port at which browsers reach the gateways by https; links of previews name it. Default 443.
	HTTPSPort int `yaml:"https_port,omitempty"`
	// Quota is where quota is, whose notices webhooks are told of. Default: they are told of none.
	Quota *follower.Tenancy `yaml:"quota,omitempty"`
	// Egress bounds where webhooks may be.
	Egress Egress `yaml:"egress,omitempty"`
	// Hooks is about hooks alone.
	Hooks Hooks `yaml:"hooks,omitempty"`

	// pace is for tests, which have clocks of their own.
	pace rpc.Pace
}

// Check does all that a start does short of connecting and listening: it reads every file that c names.
func (c Config) Check(ctx context.Context) error {
	_, err := c.webhooks()
	return errors.Join(c.Config.Check(ctx), c.checkPort(), c.checkQuota(), err)
}

func (c Config) checkQuota() error {
	if c.Quota == nil {
		return nil
	}
	if c.Quota.Address == "" || c.Quota.Identity.IsZero() || c.Quota.FeedKeys == "" {
		return errors.New("quota: address, identity and feed_keys are required")
	}
	if _, err := keyfile.Public(string(c.Quota.FeedKeys)); err != nil {
		return fmt.Errorf("quota: feed_keys: %w", err)
	}
	return nil
}

func (c Config) checkPort() error {
	const highest = 1<<16 - 1
	if c.HTTPSPort < 0 || c.HTTPSPort > highest {
		return fmt.Errorf("https_port: %d is no port", c.HTTPSPort)
	}
	return nil
}

// Run serves until ctx ends, then drains. It returns nil after an orderly end. A database
// that lacks migrations is an error: the service does not migrate.
func Run(ctx context.Context, c Config, options ...follower.Option) error {
	kind := follower.Kind{
		Name: "config", Database: Database, Migrations: Migrations(), Feeds: []string{sdk.FeedName, clientkey.FeedName, hook.FeedName},
		Audience: tenant.AudienceConfig, Spare: spareConnections,
	}
	webhooks, err := c.webhooks()
	if err = errors.Join(err, c.checkPort(), c.checkQuota()); err != nil {
		return fmt.Errorf("config configuration: %w", err)
	}
	return follower.Run(ctx, kind, c.Config, func(b *follower.Base) follower.Parts {
		api := rpc.Config{
			Kernel: b.Kernel, Pool: b.Pool, Trust: b.Trust, Catalog: b.Catalog, Environment: b.Callers.Environment,
			Feeds: b.Feeds, Clock: b.Clock, Log: b.Log, PreviewKey: b.FeedKey, HTTPSPort: c.HTTPSPort, Webhooks: webhooks,
			Meters: b.Telemetry.MeterProvider(), ReadsSecrets: b.Callers.ReadsSecrets, Caller: b.Callers.Named, Pace: c.pace,
			Domains: tenancyv1.NewDomainServiceClient(b.Tenancy),
			Harm:    make(chan struct{}, 1),
		}
		if webhooks.Box != nil {
			api.Secrets.KEK = secret.Local{Box: webhooks.Box}
		}
		api.Ask = ask.New(ask.Config{Poster: webhooks.Hooks, Clock: b.Clock, Log: b.Log, Meters: api.Meters})
		known := hook.NewStore()
		api = api.WithHooks(known)
		furnisher := rpc.NewFurnisher(api)
		background := []func(context.Context) error{
			furnisher.Run, rpc.NewScheduler(api).Run, rpc.NewRolloutWorker(api).Run,
			func(ctx context.Context) error { return followHooks(ctx, api, known) },
		}
		if tenancy := rpc.NewTenancy(api); tenancy != nil {
			background = append(background, tenancy.Run, func(ctx context.Context) error { return c.followTenancy(ctx, b, tenancy) })
		}
		if quota := rpc.NewQuota(api); quota != nil && c.Quota != nil {
			background = append(background, quota.Run, func(ctx context.Context) error { return c.followQuota(ctx, b, quota) })
		}
		if dispatcher := rpc.NewDispatcher(api); dispatcher != nil {
			background = append(background, dispatcher.Run)
		}
		return follower.Parts{
			MaxRequest: rpc.MaxRequest,
			Register:   func(server *grpc.Server) { rpc.Register(server, api) },
			Background: background,
			Loaded:     map[string]<-chan struct{}{"built-in namespaces": furnisher.Ready(), "hooks": known.Loaded()},
		}
	}, options...)
}

// followHooks keeps what config itself knows of hooks up to date until ctx ends.
func followHooks(ctx context.Context, api rpc.Config, known *hook.Store) error {
	f, err := rpc.FollowHooks(ctx, api, known)
	if err != nil {
		return fmt.Errorf("follow the hooks: %w", err)
	}
	<-ctx.Done()
	f.Close()
	return nil
}

// followTenancy follows what happens to tenants until ctx ends.
func (c Config) followTenancy(ctx context.Context, b *follower.Base, to *webhook.Intake) error {
	open := func(ctx context.Context, conn *grpc.ClientConn, token []byte) (feed.Stream, error) {
		stream, err := tenancyv1.NewRoutingServiceClient(conn).WatchEvents(ctx, &tenancyv1.WatchEventsRequest{
			ResumeToken: token, Replica: serve.Replica(c.Replica),
		})
		if err != nil {
			return nil, err
		}
		return feed.Recv(func() (*apiv1.FeedFrame, error) {
			res, err := stream.Recv()
			return res.GetFrame(), err
		}), nil
	}
	return follow(ctx, b, c.Tenancy, webhook.TenancyFeed, to, open)
}

// followQuota follows the notices of quota until ctx ends.
func (c Config) followQuota(ctx context.Context, b *follower.Base, to *webhook.Intake) error {
	open := func(ctx context.Context, conn *grpc.ClientConn, token []byte) (feed.Stream, error) {
		stream, err := quotav1.NewQuotaServiceClient(conn).WatchQuotaEvents(ctx, &quotav1.WatchQuotaEventsRequest{
			ResumeToken: token, Replica: serve.Replica(c.Replica),
		})
		if err != nil {
			return nil, err
		}
		return feed.Recv(func() (*apiv1.FeedFrame, error) {
			res, err := stream.Recv()
			return res.GetFrame(), err
		}), nil
	}
	return follow(ctx, b, *c.Quota, webhook.QuotaFeed, to, open)
}

// watch opens a stream of a feed.
type watch func(ctx context.Context, conn *grpc.ClientConn, token []byte) (feed.Stream, error)

// follow follows another service's events until ctx ends. No state is kept on disk: what is known is in the database.
func follow(ctx context.Context, b *follower.Base, at follower.Tenancy, name string, to *webhook.Intake, open watch) error {
	keys, err := keyfile.Public(string(at.FeedKeys))
	if err != nil {
		return fmt.Errorf("the keys of the feed %s: %w", name, err)
	}
	conn, err := b.Dial(at.Address, at.Identity)
	if err != nil {
		return fmt.Errorf("dial %s: %w", at.Address, err)
	}
	defer func() { _ = conn.Close() }()
	f, err := feed.Start(ctx, feed.Config{
		Name: name, Apply: to.Apply, Keys: keys, Clock: b.Clock, Log: b.Log, Metrics: b.Telemetry.MeterProvider(),
		Open: func(ctx context.Context, token string) (feed.Stream, error) { return open(ctx, conn, []byte(token)) },
	})
	if err != nil {
		return fmt.Errorf("follow the feed %s: %w", name, err)
	}
	<-ctx.Done()
	f.Close()
	return nil
}
