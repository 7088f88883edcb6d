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
	"io/fs"
	"time"

	"google.golang.org/grpc"

	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/follower"
	"github.com/rowhouse-platform/rowhouse/sdk/limits"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/durable"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/rls"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/rpc"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/rules"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/store"
)

// Database is the name of quota's database and the prefix of its roles.
const Database = "rowhouse_quota"

// Migrations returns what makes the database, in order.
func Migrations() []fs.FS { return []fs.FS{change.Migrations(), store.Migrations()} }

// Config is quota's configuration file.
type Config struct {
	// Config is what every follower of tenancy configures.
	follower.Config `yaml:",inline"`

	// Allocator is where rates and slots are counted.
	Allocator Allocator `yaml:"allocator,omitempty"`
	// RateLimit is the listener for Envoys. Without it there is none.
	RateLimit *RateLimit `yaml:"rate_limit,omitempty"`
}

// Validate says what is missing or contradictory.
func (c Config) Validate() error { return errors.Join(c.Config.Validate(), c.RateLimit.validate()) }

// Check does all that a start does short of connecting and listening: it reads every file that c names.
func (c Config) Check(ctx context.Context) error {
	return errors.Join(c.Config.Check(ctx), c.Allocator.check(), c.RateLimit.validate())
}

// collectEvery is how often a part of what means nothing any more is removed.
const collectEvery = 20 * time.Second

// Run serves until ctx ends, then drains. It returns nil after an orderly end. A database
// that lacks migrations is an error: the service does not migrate.
func Run(ctx context.Context, c Config, options ...follower.Option) error {
	kind := follower.Kind{
		Name: "quota", Database: Database, Migrations: Migrations(), Feeds: []string{limits.FeedName, rls.FeedName, durable.FeedEvents},
		Audience: tenant.AudienceQuota,
	}
	if err := c.RateLimit.validate(); err != nil {
		return fmt.Errorf("quota configuration: %w", err)
	}
	driver, done, err := c.Allocator.open(ctx)
	if err != nil {
		return fmt.Errorf("quota configuration: %w", err)
	}
	defer done()
	return follower.Run(ctx, kind, c.Config, func(b *follower.Base) follower.Parts {
		cells := driver(b.Pool)
		api := rpc.Config{
			Kernel: b.Kernel, Pool: b.Pool, Trust: b.Trust, Catalog: b.Catalog, Verifier: b.Verifier, Feeds: b.Feeds, Clock: b.Clock, Log: b.Log,
			Allocator: alloc.New(alloc.Config{Driver: cells, Log: b.Log}), Rules: rules.New(b.Clock),
		}
		return follower.Parts{
			Register: func(server *grpc.Server) { rpc.Register(server, api) },
			Background: append([]func(context.Context) error{
				api.Allocator.Collect(collectEvery), rpc.Sweep(api), rpc.TendUsage(api), rpc.Forecasts(api), rpc.CollectNoise(api),
				func(ctx context.Context) error { return api.Rules.Follow(ctx, b.Feeds, b.Log) },
			}, c.RateLimit.background(b, envoyStore{cells, api.Allocator, c.Replica})...),
			Loaded: map[string]<-chan struct{}{"limits to lend": api.Rules.Loaded()},
		}
	}, options...)
}
