// Package config keeps what is set for tenants, layer by layer, and tells what holds.
//
// It checks every write against the schema of its namespace and publishes it to
// readers, which merge for themselves; a reader needs this service only to learn of
// changes. Any number of replicas serve: all state is in the database. Start at [Run].
package config

import (
	"context"
	"io/fs"

	"google.golang.org/grpc"

	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/follower"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/clientkey"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/rpc"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// Database is the name of config's database and the prefix of its roles.
const Database = "rowhouse_config"

// Migrations returns what makes the database, in order.
func Migrations() []fs.FS { return []fs.FS{change.Migrations(), store.Migrations()} }

// Config is config's configuration file.
type Config = follower.Config

// Run serves until ctx ends, then drains. It returns nil after an orderly end. A database
// that lacks migrations is an error: the service does not migrate.
func Run(ctx context.Context, c Config, options ...follower.Option) error {
	kind := follower.Kind{
		Name: "config", Database: Database, Migrations: Migrations(), Feeds: []string{sdk.FeedName, clientkey.FeedName}, Audience: tenant.AudienceConfig,
	}
	return follower.Run(ctx, kind, c, func(b *follower.Base) follower.Parts {
		api := rpc.Config{
			Kernel: b.Kernel, Pool: b.Pool, Trust: b.Trust, Environment: b.Callers.Environment, Feeds: b.Feeds, Clock: b.Clock, Log: b.Log,
			PreviewKey: b.FeedKey,
		}
		furnisher := rpc.NewFurnisher(api)
		return follower.Parts{
			MaxRequest: rpc.MaxRequest,
			Register:   func(server *grpc.Server) { rpc.Register(server, api) },
			Background: []func(context.Context) error{furnisher.Run},
			Loaded:     map[string]<-chan struct{}{"built-in namespaces": furnisher.Ready()},
		}
	}, options...)
}
