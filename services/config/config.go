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

	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/follower"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
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
type Config struct {
	// Config is what every follower of tenancy configures.
	follower.Config `yaml:",inline"`

	// KEK is a key of 64 hex digits that seals the secrets of webhooks; replicas share it. Without it there are no webhooks.
	KEK yamlfile.Path `yaml:"kek,omitempty"`
	// Egress bounds where webhooks may be.
	Egress Egress `yaml:"egress,omitempty"`
}

// Check does all that a start does short of connecting and listening: it reads every file that c names.
func (c Config) Check(ctx context.Context) error {
	_, err := c.webhooks()
	return errors.Join(c.Config.Check(ctx), err)
}

// Run serves until ctx ends, then drains. It returns nil after an orderly end. A database
// that lacks migrations is an error: the service does not migrate.
func Run(ctx context.Context, c Config, options ...follower.Option) error {
	kind := follower.Kind{
		Name: "config", Database: Database, Migrations: Migrations(), Feeds: []string{sdk.FeedName, clientkey.FeedName},
		Audience: tenant.AudienceConfig,
	}
	webhooks, err := c.webhooks()
	if err != nil {
		return fmt.Errorf("config configuration: %w", err)
	}
	return follower.Run(ctx, kind, c.Config, func(b *follower.Base) follower.Parts {
		api := rpc.Config{
			Kernel: b.Kernel, Pool: b.Pool, Trust: b.Trust, Environment: b.Callers.Environment, Feeds: b.Feeds, Clock: b.Clock, Log: b.Log,
			PreviewKey: b.FeedKey, Webhooks: webhooks,
		}
		furnisher := rpc.NewFurnisher(api)
		background := []func(context.Context) error{furnisher.Run}
		if dispatcher := rpc.NewDispatcher(api); dispatcher != nil {
			background = append(background, dispatcher.Run)
		}
		return follower.Parts{
			MaxRequest: rpc.MaxRequest,
			Register:   func(server *grpc.Server) { rpc.Register(server, api) },
			Background: background,
			Loaded:     map[string]<-chan struct{}{"built-in namespaces": furnisher.Ready()},
		}
	}, options...)
}
