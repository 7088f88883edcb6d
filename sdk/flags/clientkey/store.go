package clientkey

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// FeedName is the name of the feed.
const FeedName = "clientkeys"

// Store holds all keys in memory. It is safe for concurrent use; the zero Store is empty and waits for its first state.
type Store struct {
	mu      sync.RWMutex
	loaded  bool
	keys    map[Digest]*Key
	byID    map[place]*Key
	origins map[tenant.UID]map[string]int // how many browser keys of a tenant list an origin: each request of a page asks
	changed chan struct{}
}

// place is a key's name.
type place struct {
	tenant tenant.UID
	id     string
}

// Find returns the key with a digest that is good at now; nil if there is none.
func (s *Store) Find(d Digest, now time.Time) *Key {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return good(s.keys[d], now)
}

// Named is [Store.Find] by the key's tenant and id.
func (s *Store) Named(uid tenant.UID, id string, now time.Time) *Key {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return good(s.byID[place{uid, id}], now)
}

func good(k *Key, now time.Time) *Key {
	if k == nil || !k.Expires.IsZero() && !now.Before(k.Expires) {
		return nil
	}
	return k
}

// Listed reports whether any browser key of a tenant allows an origin.
func (s *Store) Listed(uid tenant.UID, origin string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.origins[uid][origin] > 0
}

// list counts the origins of a key that comes, or with -1 of one that goes.
func (s *Store) list(k *Key, by int) {
	if k.Kind != Browser || len(k.Origins) == 0 {
		return
	}
	listed := s.origins[k.Tenant]
	if listed == nil {
		listed = make(map[string]int)
		s.origins[k.Tenant] = listed
	}
	for _, origin := range k.Origins {
		if listed[origin] += by; listed[origin] == 0 {
			delete(listed, origin)
		}
	}
	if len(listed) == 0 {
		delete(s.origins, k.Tenant)
	}
}

// Loaded reports whether there is a state at all: without one, that a key is not found says nothing.
func (s *Store) Loaded() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.loaded
}

// Changed is closed at the next change of any key.
func (s *Store) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// Apply takes a revision of the feed in, all of it or nothing.
func (s *Store) Apply(change feed.Change) error {
	type edit struct {
		digest Digest
		key    *Key
	}
	edits := make([]edit, 0, len(change.Entries))
	for _, e := range change.Entries {
		digest, err := digestOf(e.Key)
		var k *Key
		if err == nil && !e.Deleted {
			k, err = decode(e.Key, e.Value)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", e.Key, err)
		}
		edits = append(edits, edit{digest, k})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if change.Reset || s.keys == nil {
		s.keys, s.byID = make(map[Digest]*Key), make(map[place]*Key)
		s.origins = make(map[tenant.UID]map[string]int)
	}
	for _, e := range edits {
		if old := s.keys[e.digest]; old != nil {
			delete(s.byID, place{old.Tenant, old.ID})
			s.list(old, -1)
		}
		delete(s.keys, e.digest)
		if e.key != nil {
			s.keys[e.digest], s.byID[place{e.key.Tenant, e.key.ID}] = e.key, e.key
			s.list(e.key, 1)
		}
	}
	s.loaded = true
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
	return nil
}

// FollowConfig makes a follower of config's feed of keys. Config, FeedKeys, Replica and Store are required.
type FollowConfig struct {
	// Config is a connection to the config service.
	Config grpc.ClientConnInterface
	// FeedKeys sign the feed's bookmarks.
	FeedKeys []ed25519.PublicKey
	// Replica names this process.
	Replica string
	// Store gets the keys. Nobody else writes it.
	Store *Store
	// Dir keeps the last good state; empty keeps none.
	Dir   string
	Clock func() time.Time
	Log   *slog.Logger
	// Metrics gets how old the keys are, as [feed.Config] says. Default: none.
	Metrics metric.MeterProvider
}

// Follow keeps a store up to date, beginning with the last good state on disk. An entry that cannot be read is
// quarantined: its key keeps its last good value. The caller closes the feed.
func Follow(ctx context.Context, c FollowConfig) (*feed.Feed, error) {
	service := configv1.NewClientKeyServiceClient(c.Config)
	open := func(ctx context.Context, token string) (feed.Stream, error) {
		stream, err := service.WatchClientKeys(ctx, &configv1.WatchClientKeysRequest{ResumeToken: []byte(token), Replica: c.Replica})
		if err != nil {
			return nil, fmt.Errorf("watch: %w", err)
		}
		return feed.Recv(func() (*apiv1.FeedFrame, error) {
			res, err := stream.Recv()
			return res.GetFrame(), err
		}), nil
	}
	f, err := feed.Start(ctx, feed.Config{
		Name: FeedName, Open: open, Apply: c.Store.Apply, Keys: c.FeedKeys, Dir: c.Dir, Clock: c.Clock, Log: c.Log,
		Metrics: c.Metrics,
		Check: func(key string, value []byte) error {
			_, err := decode(key, value)
			return err
		},
	})
	if err != nil {
		return nil, fmt.Errorf("follow the client keys: %w", err)
	}
	return f, nil
}
