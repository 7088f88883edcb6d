package rls

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/rls/ruleset"
)

// FeedName is the feed of imported domains. No other service watches it: it is how the replicas of quota, which all
// read one change log, hear of imports within a second.
const FeedName = "ratelimits"

// Watcher serves feeds of this process; *feedserver.Server is one.
type Watcher interface {
	Watch(ctx context.Context, feed, token string, send func(*apiv1.FeedFrame) error) error
}

// Follower keeps [Domains] as the feed has them.
type Follower struct {
	feeds   Watcher
	domains *Domains
	log     *slog.Logger

	once   sync.Once
	loaded chan struct{}
}

// Follow returns a Follower; [Follower.Run] does the work.
func Follow(feeds Watcher, domains *Domains, log *slog.Logger) *Follower {
	return &Follower{feeds: feeds, domains: domains, log: log, loaded: make(chan struct{})}
}

// Loaded is closed once the domains are there.
func (f *Follower) Loaded() <-chan struct{} { return f.loaded }

// Ready is the fault STARTING until the domains are there.
func (f *Follower) Ready() error {
	select {
	case <-f.loaded:
		return nil
	default:
		return fault.New(fault.Unavailable, fault.ReasonStarting, "the rate limit domains are not loaded yet")
	}
}

// pause is how long a broken watch rests.
const pause = 100 * time.Millisecond

// Run follows until ctx ends. What holds goes on to hold while the feed is away.
func (f *Follower) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		w := watch{follower: f}
		err := f.feeds.Watch(ctx, FeedName, "", w.take)
		if err != nil && ctx.Err() == nil && fault.ReasonOf(err) != fault.ReasonStarting {
			f.log.WarnContext(ctx, "the feed of rate limit domains broke off", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

// watch is one stream, which begins with a snapshot.
type watch struct {
	follower *Follower
	snapshot []Import
	whole    bool // the snapshot is complete
}

// take applies one frame.
func (w *watch) take(frame *apiv1.FeedFrame) error {
	switch {
	case frame.GetChunk() != nil:
		w.snapshot = append(w.snapshot, w.imports(frame.GetChunk().GetEntries())...)
		if !frame.GetChunk().GetLast() {
			return nil
		}
		w.whole = true
		return w.apply(w.snapshot, true)
	case frame.GetDelta() != nil && w.whole:
		return w.apply(w.imports(frame.GetDelta().GetChanges()), false)
	}
	return nil
}

func (w *watch) apply(imports []Import, whole bool) error {
	if err := w.follower.domains.Apply(imports, whole); err != nil {
		return err
	}
	w.follower.once.Do(func() { close(w.follower.loaded) })
	return nil
}

// imports reads entries. Of one that cannot be read, what held before holds: it was read when it was imported, by this
// release or another.
func (w *watch) imports(entries []*apiv1.FeedEntry) []Import {
	out := make([]Import, 0, len(entries))
	for _, e := range entries {
		i, err := importOf(e)
		if err != nil {
			w.follower.log.Error("a rate limit domain cannot be read", "domain", e.GetKey(), "error", err)
			i = Import{Domain: e.GetKey(), Keep: true}
		}
		out = append(out, i)
	}
	return out
}

func importOf(e *apiv1.FeedEntry) (Import, error) {
	i := Import{Domain: e.GetKey()}
	if e.GetDeleted() {
		return i, nil
	}
	m := new(quotav1.RateLimitDomainEntry)
	if err := proto.Unmarshal(e.GetValue(), m); err != nil {
		return i, fmt.Errorf("decode: %w", err)
	}
	var err error
	if i.Set, err = ruleset.Parse(m.GetDomain().GetFile(), []byte(m.GetDomain().GetYaml())); err != nil {
		return i, err
	}
	if i.Set.Domain != i.Domain || len(m.GetSalt()) != saltSize {
		return i, errors.New("the file is of another domain, or the salt is missing")
	}
	i.Salt, i.Revision = m.GetSalt(), m.GetDomain().GetRevision()
	return i, nil
}
