package settings

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
)

// FeedName is the name of config's feed.
const FeedName = "settings"

// FollowConfig makes a follower of config's feed. Config, FeedKeys, Replica and Store
// are required.
type FollowConfig struct {
	// Config is a connection to the config service.
	Config grpc.ClientConnInterface
	// FeedKeys sign the feed's bookmarks.
	FeedKeys []ed25519.PublicKey
	// Replica names this process.
	Replica string
	// Store gets the settings. Nobody else writes it.
	Store *Store
	// Dir keeps the last good state; empty keeps none.
	Dir   string
	Clock func() time.Time
	Log   *slog.Logger
	// Metrics gets how old the settings are, how many documents are in quarantine and whether changes are held back, as
	// [feed.Config] says. Default: none.
	Metrics metric.MeterProvider
}

// Follow keeps a store up to date from config's feed, beginning with the last good
// state on disk. An entry that cannot be read is quarantined: its key keeps its last
// good value, and all others go on. How old the settings are is the feed's
// [feed.Status]. While a rollout runs it reports every few seconds how this process
// fares with it; see [Store.Observe]. The caller closes the feed.
func Follow(ctx context.Context, c FollowConfig) (*feed.Feed, error) {
	service := configv1.NewSettingsServiceClient(c.Config)
	open := func(ctx context.Context, token string) (feed.Stream, error) {
		stream, err := service.WatchSettings(ctx, &configv1.WatchSettingsRequest{ResumeToken: []byte(token), Replica: c.Replica})
		if err != nil {
			return nil, fmt.Errorf("watch: %w", err)
		}
		return feed.Recv(func() (*apiv1.FeedFrame, error) {
			res, err := stream.Recv()
			return res.GetFrame(), err
		}), nil
	}
	r := newReporter(c)
	f, err := feed.Start(ctx, feed.Config{
		Name: FeedName, Open: open, Check: r.check, Apply: c.Store.Apply, Applied: r.applied, Beside: r.run,
		Keys: c.FeedKeys, Dir: c.Dir, Clock: c.Clock, Log: c.Log, Metrics: c.Metrics, Hold: true, Held: r.held, Urgent: urgent,
	})
	if err != nil {
		return nil, fmt.Errorf("follow the settings: %w", err)
	}
	return f, nil
}
