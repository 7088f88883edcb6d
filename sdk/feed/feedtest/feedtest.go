// Package feedtest publishes feeds in memory, for tests of what follows them. Its
// streams are those of our services: a snapshot, a signed bookmark, then deltas in
// order with a bookmark after each and once a second. It resumes nothing: every
// stream begins with a snapshot.
package feedtest

import (
	"context"
	"crypto/ed25519"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
)

const bookmarkEvery = time.Second

// Publisher is one feed. It is safe for concurrent use.
type Publisher struct {
	name string
	key  ed25519.PrivateKey

	mu      sync.Mutex
	state   map[string][]byte
	digest  *feed.Digest
	deltas  []*apiv1.FeedDelta // that of revision i+1 at i
	changed chan struct{}      // closed at the next change
}

// New returns the empty feed with this name, whose bookmarks key signs.
func New(name string, key ed25519.PrivateKey) *Publisher {
	return &Publisher{name: name, key: key, state: map[string][]byte{}, digest: feed.NewDigest(), changed: make(chan struct{})}
}

// Set publishes a message under a key and returns the revision; nil removes the key.
func (p *Publisher) Set(tb testing.TB, key string, m proto.Message) int64 {
	tb.Helper()
	if m == nil || !m.ProtoReflect().IsValid() {
		return p.put(&apiv1.FeedEntry{Key: key, Deleted: true})
	}
	b, err := proto.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	return p.SetBytes(key, b)
}

// SetBytes publishes any bytes under a key and returns the revision.
func (p *Publisher) SetBytes(key string, value []byte) int64 {
	return p.put(&apiv1.FeedEntry{Key: key, Value: value})
}

func (p *Publisher) put(e *apiv1.FeedEntry) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.GetDeleted() {
		delete(p.state, e.GetKey())
		p.digest.Delete(e.GetKey())
	} else {
		p.state[e.GetKey()] = e.GetValue()
		p.digest.Set(e.GetKey(), e.GetValue())
	}
	last := int64(len(p.deltas))
	p.deltas = append(p.deltas, &apiv1.FeedDelta{Revision: last + 1, PrevRevision: last, Changes: []*apiv1.FeedEntry{e}})
	close(p.changed)
	p.changed = make(chan struct{})
	return last + 1
}

// Watch sends the feed until ctx ends or send fails; it is the body of a watch method.
func (p *Publisher) Watch(ctx context.Context, send func(*apiv1.FeedFrame) error) error {
	tick := time.NewTicker(bookmarkEvery)
	defer tick.Stop()
	frames, at, changed := p.snapshot()
	for {
		for _, f := range frames {
			if err := send(f); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-tick.C:
		}
		frames, at, changed = p.since(at)
	}
}

func (p *Publisher) snapshot() (frames []*apiv1.FeedFrame, at int64, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at = int64(len(p.deltas))
	chunk := &apiv1.FeedChunk{Revision: at, Last: true}
	for _, key := range slices.Sorted(maps.Keys(p.state)) {
		chunk.Entries = append(chunk.Entries, &apiv1.FeedEntry{Key: key, Value: p.state[key]})
	}
	return []*apiv1.FeedFrame{{Kind: &apiv1.FeedFrame_Chunk{Chunk: chunk}}, p.bookmark()}, at, p.changed
}

func (p *Publisher) since(at int64) (frames []*apiv1.FeedFrame, now int64, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.deltas[at:] {
		frames = append(frames, &apiv1.FeedFrame{Kind: &apiv1.FeedFrame_Delta{Delta: d}})
	}
	return append(frames, p.bookmark()), int64(len(p.deltas)), p.changed
}

func (p *Publisher) bookmark() *apiv1.FeedFrame {
	root := p.digest.Root()
	b := &apiv1.FeedBookmark{Revision: int64(len(p.deltas)), Root: root[:], ServerTime: timestamppb.Now(), ResumeToken: "x"}
	feed.Sign(p.key, p.name, b)
	return &apiv1.FeedFrame{Kind: &apiv1.FeedFrame_Bookmark{Bookmark: b}}
}
