package feedserver

import (
	"errors"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
)

// errAhead says that a watcher has seen a revision that this process has not.
var errAhead = errors.New("the watcher is ahead")

// feedState is one feed in memory and those who watch it.
type feedState struct {
	server *Server
	name   string

	mu       sync.Mutex
	epoch    [16]byte
	revision int64
	entries  map[string]*apiv1.FeedEntry
	digest   *feed.Digest
	floor    int64   // deltas above it are in history
	history  []delta // oldest first
	bytes    int
	watchers map[*watcher]struct{}
	phases   [phases]int   // how many watchers are in each
	polled   chan struct{} // closed and replaced by each successful poll
	ended    error         // why no more watchers are taken
}

// delta is one revision's frame, made once for all watchers.
type delta struct {
	revision int64
	frame    *apiv1.FeedFrame
	size     int
}

func newFeedState(s *Server, name string) *feedState {
	return &feedState{
		server: s, name: name,
		entries: make(map[string]*apiv1.FeedEntry), digest: feed.NewDigest(),
		watchers: make(map[*watcher]struct{}), polled: make(chan struct{}),
	}
}

// reset takes over an image of the database. Those who watch must start over, because what they have may not lead to
// it; before the first load there are none.
func (f *feedState) reset(im *image) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cutLocked(resync("the feed was loaded anew"))
	f.epoch, f.revision, f.floor = im.epoch, im.revision, im.floor
	f.entries = make(map[string]*apiv1.FeedEntry, len(im.entries))
	f.digest, f.history, f.bytes = feed.NewDigest(), nil, 0
	for _, e := range im.entries {
		f.entries[e.Key] = e
		f.digest.Set(e.Key, e.Value)
	}
	f.rememberAll(im.history)
	f.markPolledLocked()
}

func (f *feedState) rememberAll(newestFirst []logged) {
	rows := slices.Clone(newestFirst)
	slices.Reverse(rows)
	for len(rows) > 0 {
		r := rows[0].revision
		n := slices.IndexFunc(rows, func(c logged) bool { return c.revision != r })
		if n < 0 {
			n = len(rows)
		}
		prev := f.floor
		if len(f.history) > 0 {
			prev = f.history[len(f.history)-1].revision
		}
		entries := entriesOf(rows[:n])
		slices.Reverse(entries) // back to the order of keys
		f.remember(newDelta(r, prev, entries))
		rows = rows[n:]
	}
}

func newDelta(revision, prev int64, entries []*apiv1.FeedEntry) delta {
	frame := &apiv1.FeedFrame{Kind: &apiv1.FeedFrame_Delta{Delta: &apiv1.FeedDelta{
		Revision: revision, PrevRevision: prev, Changes: entries,
	}}}
	return delta{revision, frame, proto.Size(frame)}
}

// remember keeps d to resume from, and lets go of the oldest beyond the bound.
func (f *feedState) remember(d delta) {
	f.history = append(f.history, d)
	f.bytes += d.size
	for f.bytes > f.server.cfg.HistoryBytes && len(f.history) > 1 {
		f.floor = f.history[0].revision
		f.bytes -= f.history[0].size
		f.history[0] = delta{}
		f.history = f.history[1:]
	}
}

// advance applies one revision and passes it on.
func (f *feedState) advance(revision int64, entries []*apiv1.FeedEntry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range entries {
		if e.Deleted {
			delete(f.entries, e.Key)
			f.digest.Delete(e.Key)
			continue
		}
		f.entries[e.Key] = e
		f.digest.Set(e.Key, e.Value)
	}
	d := newDelta(revision, f.revision, entries)
	f.revision = revision
	f.remember(d)
	for w := range f.watchers {
		w.push(d.frame, d.size)
	}
}

func (f *feedState) markPolled() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.markPolledLocked()
}

func (f *feedState) markPolledLocked() {
	close(f.polled)
	f.polled = make(chan struct{})
}

// nextPoll is closed when the database was read once more.
func (f *feedState) nextPoll() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.polled
}

// bookmarkAll sends one signed bookmark to all watchers of some phases. Each has everything up to it in its queue.
func (f *feedState) bookmarkAll(due phaseSet, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.watchedLocked(due) {
		return
	}
	frame := f.bookmark(now)
	size := proto.Size(frame)
	for w := range f.watchers {
		if due.has(w.phase) {
			w.push(frame, size)
		}
	}
}

func (f *feedState) bookmark(now time.Time) *apiv1.FeedFrame {
	root := f.digest.Root()
	b := &apiv1.FeedBookmark{
		Revision: f.revision, ServerTime: timestamppb.New(now), Root: root[:],
		ResumeToken: f.server.token(f.name, f.epoch, f.revision),
	}
	feed.Sign(f.server.cfg.Key, f.name, b)
	return &apiv1.FeedFrame{Kind: &apiv1.FeedFrame_Bookmark{Bookmark: b}}
}

// open registers a watcher and fixes what it is sent first; every later revision goes through its queue.
func (f *feedState) open(token string) (*watcher, *opening, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended != nil {
		return nil, nil, f.ended
	}
	o := &opening{revision: f.revision}
	if token == "" {
		o.snapshot = make([]*apiv1.FeedEntry, 0, len(f.entries))
		for _, e := range f.entries {
			o.snapshot = append(o.snapshot, e)
		}
	} else if err := f.resume(token, o); err != nil {
		return nil, nil, err
	}
	o.whole = token == ""
	o.bookmark = f.bookmark(f.server.cfg.Clock())
	w := newWatcher(f.server.cfg.MaxLag)
	f.enter(w)
	return w, o, nil
}

func (f *feedState) resume(token string, o *opening) error {
	epoch, at, err := f.server.parseToken(f.name, token)
	switch {
	case err != nil:
		return err
	case epoch != f.epoch:
		return resync("the resume token is of another history")
	case at > f.revision:
		return errAhead
	case at < f.revision && at < f.floor:
		return resync("the resume token is too old")
	}
	i, _ := slices.BinarySearchFunc(f.history, at+1, func(d delta, r int64) int { return int(d.revision - r) })
	for _, d := range f.history[i:] {
		o.deltas = append(o.deltas, d.frame)
	}
	if len(o.deltas) > 0 {
		// The oldest kept delta does not know what came before it; the token does.
		first := o.deltas[0].GetDelta()
		o.deltas[0] = newDelta(first.Revision, at, first.Changes).frame
	}
	return nil
}

func (f *feedState) close(w *watcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leave(w)
}

// end cuts all watchers off and takes no more.
func (f *feedState) end(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = err
	f.cutLocked(err)
}

func (f *feedState) cutLocked(err error) {
	for w := range f.watchers {
		w.cut(err)
	}
}
