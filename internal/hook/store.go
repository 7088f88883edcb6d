package hook

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
)

// FeedName is the name of config's feed of hooks.
const FeedName = "hooks"

// Known is what is known of a hook without asking config.
type Known struct {
	// Name is "hooks/{hook}".
	Name string
	// Closed says that its silence refuses a step.
	Closed bool
}

// Store holds which hooks there are. It is safe for concurrent use.
type Store struct {
	mu     sync.RWMutex
	hooks  map[string]*configv1.HookEntry
	loaded chan struct{}
	once   sync.Once
}

// NewStore returns a Store that waits for its first state.
func NewStore() *Store {
	return &Store{hooks: make(map[string]*configv1.HookEntry), loaded: make(chan struct{})}
}

// For returns the hooks of a step, by name.
func (s *Store) For(step configv1.HookStep) []Known {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found []Known
	for name, e := range s.hooks {
		if slices.Contains(e.GetSteps(), step) {
			// What a newer config says and is not known here counts as the strictest.
			found = append(found, Known{name, e.GetFailure() != configv1.HookFailure_HOOK_FAILURE_OPEN})
		}
	}
	slices.SortFunc(found, func(a, b Known) int { return cmp.Compare(a.Name, b.Name) })
	return found
}

// await waits for the first state.
func (s *Store) await(ctx context.Context, most time.Duration) bool {
	select {
	case <-s.loaded:
		return true
	default:
	}
	t := time.NewTimer(most)
	defer t.Stop()
	select {
	case <-s.loaded:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

// Loaded is closed with the first state, from disk or from config.
func (s *Store) Loaded() <-chan struct{} { return s.loaded }

// Apply takes a revision of the feed in, all of it or nothing.
func (s *Store) Apply(c feed.Change) error {
	edits := make(map[string]*configv1.HookEntry, len(c.Entries))
	for _, e := range c.Entries {
		edits[e.Key] = nil
		if e.Deleted {
			continue
		}
		entry, err := decode(e.Value)
		if err != nil {
			return fmt.Errorf("%s: %w", e.Key, err)
		}
		edits[e.Key] = entry
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Reset {
		clear(s.hooks)
	}
	for name, e := range edits {
		if delete(s.hooks, name); e != nil {
			s.hooks[name] = e
		}
	}
	s.once.Do(func() { close(s.loaded) })
	return nil
}

func decode(value []byte) (*configv1.HookEntry, error) {
	e := new(configv1.HookEntry)
	return e, proto.Unmarshal(value, e)
}

// FollowConfig makes a follower of config's feed of hooks.
type FollowConfig struct {
	// Config is a connection to the config service.
	Config grpc.ClientConnInterface
	// FeedKeys sign the feed's bookmarks.
	FeedKeys []ed25519.PublicKey
	// Replica names this process.
	Replica string
	// Store gets the hooks. Nobody else writes it.
	Store *Store
	// Dir keeps the last good state, so that a restart without config knows which hooks fail closed.
	Dir   string
	Clock func() time.Time
	Log   *slog.Logger
	// Metrics gets how old the hooks are, as [feed.Config] says. Default: none.
	Metrics metric.MeterProvider
}

// Follow keeps a store up to date, beginning with the last good state on disk. The caller closes the feed.
func Follow(ctx context.Context, c FollowConfig) (*feed.Feed, error) {
	service := configv1.NewHookServiceClient(c.Config)
	f, err := feed.Start(ctx, feed.Config{
		Name: FeedName, Apply: c.Store.Apply, Keys: c.FeedKeys, Dir: c.Dir, Clock: c.Clock, Log: c.Log,
		Metrics: c.Metrics,
		Open: func(ctx context.Context, token string) (feed.Stream, error) {
			stream, err := service.WatchHooks(ctx, &configv1.WatchHooksRequest{ResumeToken: []byte(token), Replica: c.Replica})
			if err != nil {
				return nil, fmt.Errorf("watch: %w", err)
			}
			return feed.Recv(func() (*apiv1.FeedFrame, error) {
				res, err := stream.Recv()
				return res.GetFrame(), err
			}), nil
		},
		Check: func(_ string, value []byte) error {
			_, err := decode(value)
			return err
		},
	})
	if err != nil {
		return nil, fmt.Errorf("follow the hooks: %w", err)
	}
	return f, nil
}
