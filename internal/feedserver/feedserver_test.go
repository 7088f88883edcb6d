package feedserver_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/change/changetest"
	"github.com/rowhouse-platform/rowhouse/internal/feedserver"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
)

var cluster *changetest.Cluster

func TestMain(m *testing.M) { changetest.Main(m, &cluster) }

const (
	routes  = "routes"
	tenants = "tenants"
)

// rig is a service: a database, a kernel with its relay, and a feed server.
type rig struct {
	testing.TB
	db     *changetest.Database
	kernel *change.Kernel
	server *feedserver.Server
	cfg    feedserver.Config
	public ed25519.PublicKey
	stop   func()
}

func newRig(tb testing.TB, edit ...func(*feedserver.Config)) *rig {
	tb.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		tb.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	db := cluster.Database(tb)
	r := &rig{TB: tb, db: db, public: public, kernel: change.New(change.Config{Pool: db.Pool, Service: "test", Log: quiet})}
	r.cfg = feedserver.Config{
		Pool: db.Pool, Feeds: []string{routes, tenants}, Key: private, Every: 50 * time.Millisecond, Log: quiet,
	}
	for _, e := range edit {
		e(&r.cfg)
	}
	r.run(tb, r.kernel.Run)
	r.server, r.stop = r.replica()
	return r
}

// run starts a part of the service and has the test wait for its end.
func (r *rig) run(tb testing.TB, part func(context.Context) error) func() {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	var g errgroup.Group
	g.Go(func() error { return part(ctx) })
	stop := func() {
		cancel()
		if err := g.Wait(); err != nil {
			tb.Error(err)
		}
	}
	tb.Cleanup(stop)
	return stop
}

// replica starts another server of the same feeds and waits until it has loaded them.
func (r *rig) replica() (*feedserver.Server, func()) {
	r.Helper()
	s, err := feedserver.New(r.cfg)
	if err != nil {
		r.Fatal(err)
	}
	stop := r.run(r.TB, s.Run)
	<-s.Ready()
	return s, stop
}

// publish commits one change of key, value pairs; "-" deletes.
func (r *rig) publish(feed string, pairs ...string) error {
	_, err := r.kernel.Change(changetest.Call(r.Context(), nil, ""), func(_ context.Context, tx *change.Tx) (proto.Message, error) {
		for i := 0; i < len(pairs); i += 2 {
			var value proto.Message
			if pairs[i+1] != "-" {
				value = wrapperspb.String(pairs[i+1])
			}
			if err := tx.Publish(feed, pairs[i], value); err != nil {
				return nil, err
			}
		}
		return wrapperspb.String(""), nil
	})
	return err
}

func (r *rig) mustPublish(feed string, pairs ...string) {
	r.Helper()
	if err := r.publish(feed, pairs...); err != nil {
		r.Fatal(err)
	}
}

// stream is one watch, read frame by frame.
type stream struct {
	t      testing.TB
	frames chan *apiv1.FeedFrame
	err    chan error
	cancel context.CancelFunc
}

func (r *rig) watch(s *feedserver.Server, feed, token string) *stream {
	ctx, cancel := context.WithCancel(r.Context())
	st := &stream{t: r.TB, frames: make(chan *apiv1.FeedFrame), err: make(chan error, 1), cancel: cancel}
	go func() {
		st.err <- s.Watch(ctx, feed, token, func(f *apiv1.FeedFrame) error {
			select {
			case st.frames <- f:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	r.Cleanup(cancel)
	return st
}

// next returns the next frame that is no bookmark, or why the stream ended.
func (s *stream) next() (*apiv1.FeedFrame, error) {
	for {
		select {
		case f := <-s.frames:
			if f.GetBookmark() == nil {
				return f, nil
			}
		case err := <-s.err:
			return nil, err
		}
	}
}

func (s *stream) bookmark() *apiv1.FeedBookmark {
	s.t.Helper()
	for {
		select {
		case f := <-s.frames:
			if b := f.GetBookmark(); b != nil {
				return b
			}
		case err := <-s.err:
			s.t.Fatal(err)
		}
	}
}

// reached waits for the bookmark of a revision.
func (s *stream) reached(revision int64) *apiv1.FeedBookmark {
	s.t.Helper()
	for {
		if b := s.bookmark(); b.GetRevision() >= revision {
			return b
		}
	}
}

func (s *stream) delta() *apiv1.FeedDelta {
	s.t.Helper()
	f, err := s.next()
	if err != nil || f.GetDelta() == nil {
		s.t.Fatalf("got %v, %v; want a delta", f, err)
	}
	return f.GetDelta()
}

func (s *stream) wantEnd(reason string) {
	s.t.Helper()
	for {
		f, err := s.next()
		if err == nil {
			_ = f
			continue
		}
		if fault.ReasonOf(err) != reason {
			s.t.Errorf("the stream ended with %v, want %s", err, reason)
		}
		return
	}
}

func value(tb testing.TB, e *apiv1.FeedEntry) string {
	tb.Helper()
	m := new(wrapperspb.StringValue)
	if err := proto.Unmarshal(e.GetValue(), m); err != nil {
		tb.Fatal(err)
	}
	return m.GetValue()
}

// history is what the database says was published: per feed and revision, the changes.
func (r *rig) history(feed string) map[int64]map[string]string {
	r.Helper()
	rows, err := r.db.Pool.Query(r.Context(),
		`SELECT revision, key, value FROM kernel.change_log WHERE feed = $1 ORDER BY revision`, feed)
	if err != nil {
		r.Fatal(err)
	}
	all := map[int64]map[string]string{}
	var revision int64
	var key string
	var b []byte
	_, err = pgx.ForEachRow(rows, []any{&revision, &key, &b}, func() error {
		if all[revision] == nil {
			all[revision] = map[string]string{}
		}
		all[revision][key] = "-"
		if b != nil {
			all[revision][key] = value(r.TB, &apiv1.FeedEntry{Value: b})
		}
		return nil
	})
	if err != nil {
		r.Fatal(err)
	}
	return all
}

// observer follows a feed through broken streams and writes down what it was told.
type observer struct {
	state     map[string]string
	raw       *feed.Digest
	revision  int64
	token     string
	snapshots map[int64]map[string]string
	deltas    map[int64]map[string]string
	order     []int64
	resumed   int
}

func newObserver() *observer {
	return &observer{snapshots: map[int64]map[string]string{}, deltas: map[int64]map[string]string{}}
}

// follow reads one stream for up to n frames, or until it has seen last.
func (o *observer) follow(r *rig, s *feedserver.Server, name string, n int, last int64) error {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	enough := errors.New("enough")
	var snapshot map[string]string
	if o.token != "" {
		o.resumed++
	}
	err := s.Watch(ctx, name, o.token, func(f *apiv1.FeedFrame) error {
		switch k := f.GetKind().(type) {
		case *apiv1.FeedFrame_Chunk:
			if k.Chunk.GetIndex() == 0 {
				snapshot, o.raw = map[string]string{}, feed.NewDigest()
			}
			for _, e := range k.Chunk.GetEntries() {
				snapshot[e.GetKey()] = value(r.TB, e)
				o.raw.Set(e.GetKey(), e.GetValue())
			}
			if k.Chunk.GetLast() {
				o.state, o.revision = snapshot, k.Chunk.GetRevision()
				o.snapshots[o.revision] = maps.Clone(snapshot)
			}
		case *apiv1.FeedFrame_Delta:
			d := k.Delta
			if d.GetPrevRevision() != o.revision || d.GetRevision() <= o.revision {
				return fmt.Errorf("a delta from %d to %d at %d", d.GetPrevRevision(), d.GetRevision(), o.revision)
			}
			o.revision = d.GetRevision()
			o.order = append(o.order, o.revision)
			changes := map[string]string{}
			for _, e := range d.GetChanges() {
				if e.GetDeleted() {
					changes[e.GetKey()] = "-"
					delete(o.state, e.GetKey())
					o.raw.Delete(e.GetKey())
					continue
				}
				changes[e.GetKey()] = value(r.TB, e)
				o.state[e.GetKey()] = changes[e.GetKey()]
				o.raw.Set(e.GetKey(), e.GetValue())
			}
			o.deltas[o.revision] = changes
		case *apiv1.FeedFrame_Bookmark:
			root := o.raw.Root()
			b := k.Bookmark
			if b.GetRevision() != o.revision || string(b.GetRoot()) != string(root[:]) {
				return fmt.Errorf("a bookmark of %d with another state at %d", b.GetRevision(), o.revision)
			}
			if err := feed.Verify([]ed25519.PublicKey{r.public}, name, b); err != nil {
				return err
			}
			o.token = b.GetResumeToken()
			// A stream is left at a bookmark only: the token that resumes it is of there.
			if n--; n <= 0 || o.revision == last {
				return enough
			}
		}
		return nil
	})
	if errors.Is(err, enough) {
		return nil
	}
	return err
}

// TestWatchProperties lets writers change two feeds while observers come, break off and resume at either of two
// replicas. Every observer is told each revision of its feed after its snapshot once, in order and whole, and its state
// is the one that the database has at that revision.
func TestWatchProperties(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *feedserver.Config) { c.ChunkBytes = 64; c.Every = 5 * time.Millisecond })
	other, _ := r.replica()
	servers := []*feedserver.Server{r.server, other}
	const writers, changes, observers = 6, 40, 8
	var g errgroup.Group
	for w := range writers {
		rnd := rand.New(rand.NewPCG(42, uint64(w)))
		g.Go(func() error {
			for i := range changes {
				name := []string{routes, tenants}[rnd.IntN(2)]
				var pairs []string
				for range 1 + rnd.IntN(4) {
					pairs = append(pairs, fmt.Sprintf("key%d", rnd.IntN(12)), fmt.Sprintf("%d.%d", w, i))
				}
				if rnd.IntN(4) == 0 {
					pairs[1] = "-"
				}
				if err := r.publish(name, pairs...); err != nil {
					return err
				}
			}
			return nil
		})
	}
	written := make(chan struct{})
	seen := make([]*observer, observers)
	var og errgroup.Group
	for i := range observers {
		seen[i] = newObserver()
		rnd := rand.New(rand.NewPCG(7, uint64(i)))
		og.Go(func() error {
			name := []string{routes, tenants}[i%2]
			for {
				if err := seen[i].follow(r, servers[rnd.IntN(2)], name, 1+rnd.IntN(6), -1); err != nil {
					return fmt.Errorf("observer %d: %w", i, err)
				}
				select {
				case <-written:
					return seen[i].follow(r, servers[0], name, 1<<30, r.head(name))
				default:
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	close(written)
	if err := og.Wait(); err != nil {
		t.Fatal(err)
	}
	for i, o := range seen {
		o.check(r, []string{routes, tenants}[i%2])
	}
}

// head is the last revision that touched a feed.
func (r *rig) head(name string) int64 {
	var head int64
	err := r.db.Pool.QueryRow(r.Context(), `SELECT coalesce(max(revision), 0) FROM kernel.feed_head WHERE feed = $1`, name).
		Scan(&head)
	if err != nil {
		r.Error(err)
	}
	return head
}

func (o *observer) check(r *rig, name string) {
	r.Helper()
	all := r.history(name)
	first := int64(1 << 60)
	for revision := range o.snapshots {
		first = min(first, revision)
		if diff := cmp.Diff(stateAt(all, revision), o.snapshots[revision]); diff != "" {
			r.Errorf("%s: snapshot of %d (-want +got):\n%s", name, revision, diff)
		}
	}
	for revision, changes := range all {
		if got, ok := o.deltas[revision]; revision > first && (!ok || !maps.Equal(got, changes)) {
			r.Errorf("%s: revision %d: told %v, was %v", name, revision, got, changes)
		}
	}
	for i, revision := range o.order {
		if i > 0 && revision <= o.order[i-1] {
			r.Errorf("%s: %d after %d", name, revision, o.order[i-1])
		}
	}
	if diff := cmp.Diff(stateAt(all, o.revision), o.state); diff != "" || o.resumed == 0 || len(o.snapshots) != 1 {
		r.Errorf("%s: %d resumed, %d snapshots, state (-want +got):\n%s", name, o.resumed, len(o.snapshots), diff)
	}
}

func stateAt(all map[int64]map[string]string, revision int64) map[string]string {
	state := map[string]string{}
	for at := int64(1); at <= revision; at++ {
		for k, v := range all[at] {
			if v == "-" {
				delete(state, k)
			} else {
				state[k] = v
			}
		}
	}
	return state
}

func TestSnapshotComesInBoundedChunks(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *feedserver.Config) { c.ChunkBytes = 1000 })
	for i := range 40 {
		r.mustPublish(routes, fmt.Sprintf("k%02d", i), strings.Repeat("x", 100))
	}
	r.mustPublish(routes, "big", strings.Repeat("x", 3000))
	server, _ := r.replica()
	w := r.watch(server, routes, "")
	var keys []string
	for index := int32(0); ; index++ {
		f, err := w.next()
		if err != nil {
			t.Fatal(err)
		}
		c := f.GetChunk()
		if c.GetIndex() != index || proto.Size(f) > 1000 && len(c.GetEntries()) != 1 {
			t.Errorf("chunk %d: index %d, %d bytes, %d entries", index, c.GetIndex(), proto.Size(f), len(c.GetEntries()))
		}
		for _, e := range c.GetEntries() {
			keys = append(keys, e.GetKey())
		}
		if c.GetLast() {
			break
		}
	}
	if len(keys) != 41 || keys[0] != "big" || keys[40] != "k39" {
		t.Errorf("keys %q", keys)
	}
}

// TestWakesUpWithoutPolling would wait an hour for the next poll.
func TestWakesUpWithoutPolling(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *feedserver.Config) { c.Every = time.Hour })
	w := r.watch(r.server, routes, "")
	w.bookmark()
	for i := range 20 {
		r.mustPublish(routes, "k", strconv.Itoa(i))
		if d := w.delta(); d.GetRevision() != int64(i+1) {
			t.Fatalf("revision %d", d.GetRevision())
		}
	}
}

// TestPollsWithoutAWakeUp has no relay: the kernel that publishes does not run.
func TestPollsWithoutAWakeUp(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.kernel = change.New(change.Config{Pool: r.db.Pool, Service: "test"})
	w := r.watch(r.server, routes, "")
	w.bookmark()
	r.mustPublish(routes, "k", "1")
	w.delta()
}

func TestResumesAtAnotherServer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.mustPublish(routes, "a", "1")
	w := r.watch(r.server, routes, "")
	token := w.reached(1).GetResumeToken()
	w.cancel()
	r.mustPublish(tenants, "other", "1")
	r.mustPublish(routes, "a", "2", "b", "1")
	r.mustPublish(routes, "a", "-")
	r.stop()
	again, _ := r.replica() // it knows the past from the database only
	w = r.watch(again, routes, token)
	for _, want := range [][2]int64{{1, 3}, {3, 4}} {
		if d := w.delta(); d.GetPrevRevision() != want[0] || d.GetRevision() != want[1] {
			t.Errorf("delta from %d to %d, want %v", d.GetPrevRevision(), d.GetRevision(), want)
		}
	}
	if b := w.bookmark(); b.GetRevision() != 4 {
		t.Errorf("bookmark of %d", b.GetRevision())
	}
	// Nothing new: straight to the bookmark.
	w = r.watch(again, routes, w.bookmark().GetResumeToken())
	if f := <-w.frames; f.GetBookmark().GetRevision() != 4 {
		t.Errorf("frame %v", f)
	}
}

func TestResync(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *feedserver.Config) { c.HistoryBytes = 2000 })
	r.mustPublish(routes, "a", "0")
	w := r.watch(r.server, routes, "")
	old := w.reached(1).GetResumeToken()
	w.cancel()
	for i := range 40 {
		r.mustPublish(routes, "a", strings.Repeat("x", 100)+strconv.Itoa(i))
	}
	recent := func() string {
		w := r.watch(r.server, routes, "")
		defer w.cancel()
		return w.reached(41).GetResumeToken()
	}()
	r.mustPublish(tenants, "t", "1")
	r.mustPublish(routes, "a", "last") // so that the other feed's position is within this one's history
	again, _ := r.replica()
	epoch := "A" + recent[1:]
	if epoch == recent {
		epoch = "B" + recent[1:]
	}
	flipped := []byte(recent)
	flipped[len(flipped)-5] ^= 1 // within the MAC
	for name, token := range map[string]string{
		"too old": old, "another feed's": tenantToken(r), "garbage": "x", "cut": recent[:20],
		"another epoch": epoch, "no MAC": recent[:32], "forged": string(flipped),
	} {
		for _, s := range []*feedserver.Server{r.server, again} {
			w := r.watch(s, routes, token)
			t.Logf("%s: %q", name, token)
			w.wantEnd(fault.ReasonResync)
		}
	}
	if d := r.watch(again, routes, recent).delta(); d.GetPrevRevision() != 41 || d.GetRevision() != 43 {
		t.Errorf("a recent token gives %v", d)
	}
}

func tenantToken(r *rig) string {
	w := r.watch(r.server, tenants, "")
	defer w.cancel()
	return w.reached(42).GetResumeToken()
}

func TestTrimmedHistoryResyncs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.mustPublish(routes, "a", "0")
	w := r.watch(r.server, routes, "")
	old := w.reached(1).GetResumeToken()
	w.cancel()
	r.mustPublish(routes, "a", "1")
	r.mustPublish(tenants, "t", "1")
	admin := r.db.Connect(t, "")
	if _, err := admin.Exec(t.Context(), `UPDATE kernel.change_log SET recorded_time = now() - interval '2 hours'
		WHERE revision <= 2`); err != nil {
		t.Fatal(err)
	}
	if err := r.kernel.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	again, _ := r.replica()
	r.watch(again, routes, old).wantEnd(fault.ReasonResync)
	// What the feed's last revision was survives its trimming.
	w = r.watch(again, routes, "")
	b := w.bookmark()
	if b.GetRevision() != 2 {
		t.Errorf("revision %d", b.GetRevision())
	}
	if f := <-r.watch(again, routes, b.GetResumeToken()).frames; f.GetBookmark() == nil {
		t.Errorf("frame %v", f)
	}
	r.mustPublish(routes, "a", "2")
	if d := w.delta(); d.GetPrevRevision() != 2 || d.GetRevision() != 4 {
		t.Errorf("delta %v", d)
	}
}

// TestAnotherHistory has the database say that it was restored.
func TestAnotherHistory(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.mustPublish(routes, "a", "1")
	w := r.watch(r.server, routes, "")
	token := w.reached(1).GetResumeToken()
	admin := r.db.Connect(t, "")
	for _, sql := range []string{
		`UPDATE kernel.revision_head SET epoch = gen_random_uuid()`,
		`UPDATE kernel.revision_head SET revision = 0; DELETE FROM kernel.feed_head; DELETE FROM kernel.feed_state;
			DELETE FROM kernel.change_log`,
	} {
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
		w.wantEnd(fault.ReasonResync)
		r.watch(r.server, routes, token).wantEnd(fault.ReasonResync)
		w = r.watch(r.server, routes, "")
		token = w.bookmark().GetResumeToken()
	}
	r.mustPublish(routes, "b", "1")
	if d := w.delta(); d.GetRevision() != 1 {
		t.Errorf("delta %v", d)
	}
}

// TestAWatcherAheadIsWaitedFor resumes at a replica that has not polled since the change.
func TestAWatcherAheadIsWaitedFor(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.kernel = change.New(change.Config{Pool: r.db.Pool, Service: "test"}) // nobody notifies
	r.cfg.Every = time.Hour
	late, _ := r.replica()
	r.mustPublish(routes, "a", "1")
	w := r.watch(r.server, routes, "")
	token := w.reached(1).GetResumeToken()
	if f := <-r.watch(late, routes, token).frames; f.GetBookmark().GetRevision() != 1 {
		t.Errorf("frame %v", f)
	}
}

func TestSlowWatcherIsCutOff(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *feedserver.Config) { c.MaxLag = 5000 })
	slow, quick := r.watch(r.server, routes, ""), r.watch(r.server, routes, "")
	slow.bookmark()
	quick.bookmark()
	for i := range 10 { // slow reads nothing meanwhile
		r.mustPublish(routes, "k", strings.Repeat("x", 1000)+strconv.Itoa(i))
		quick.delta()
	}
	slow.wantEnd(fault.ReasonWatchTooSlow)
	r.mustPublish(routes, "k", "last")
	if d := quick.delta(); d.GetRevision() != 11 {
		t.Errorf("the quick one got %v", d)
	}
}

// TestNoBookmarksWithoutTheDatabase: a bookmark is a promise that only a fresh read can keep.
func TestNoBookmarksWithoutTheDatabase(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *feedserver.Config) { c.Every = 10 * time.Millisecond })
	r.mustPublish(routes, "a", "1")
	w := r.watch(r.server, routes, "")
	w.reached(1)
	admin := r.db.Connect(t, "")
	login := func(option string) {
		t.Helper()
		if _, err := admin.Exec(t.Context(), `ALTER ROLE `+r.db.Name+`_service `+option); err != nil {
			t.Fatal(err)
		}
	}
	login("NOLOGIN")
	if _, err := admin.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid()`); err != nil {
		t.Fatal(err)
	}
	// Some are on their way until the last connection is gone; then there is silence, for as long as many would take.
	for late, silent := 0, false; !silent; late++ {
		select {
		case <-w.frames:
		case err := <-w.err:
			t.Fatal(err)
		case <-time.After(300 * time.Millisecond):
			silent = true
		}
		if late > 500 {
			t.Fatal("bookmarks without a database")
		}
	}
	login("LOGIN")
	w.bookmark()
	for r.publish(routes, "a", "2") != nil {
		if t.Context().Err() != nil {
			t.Fatal("gave up")
		}
	}
	if d := w.delta(); d.GetPrevRevision() != 1 {
		t.Errorf("delta %v", d)
	}
}

func TestEndOfRunEndsWatches(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.watch(r.server, routes, "")
	w.bookmark()
	r.stop()
	w.wantEnd(fault.ReasonStarting)
	r.watch(r.server, routes, "").wantEnd(fault.ReasonStarting)
	s, err := feedserver.New(r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.watch(s, routes, "").wantEnd(fault.ReasonStarting)
	if _, err := feedserver.New(feedserver.Config{}); err == nil {
		t.Error("made a server of nothing")
	}
}

// TestClientFollows joins both ends: sdk/feed over a stream of this server.
func TestClientFollows(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	states := make(chan map[string]string, 100)
	state := map[string]string{}
	f, err := feed.Start(t.Context(), feed.Config{
		Name: routes, Keys: []ed25519.PublicKey{r.public}, Dir: t.TempDir(), Log: r.cfg.Log,
		Open: func(ctx context.Context, token string) (feed.Stream, error) {
			return r.pipe(ctx, routes, token), nil
		},
		Apply: func(c feed.Change) error {
			if c.Reset {
				clear(state)
			}
			for _, e := range c.Entries {
				state[e.Key] = string(e.Value)
			}
			states <- maps.Clone(state)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	<-f.Ready()
	if got := <-states; len(got) != 0 {
		t.Errorf("state %v", got)
	}
	r.mustPublish(routes, "a", "1", "b", "1")
	if got := <-states; len(got) != 2 {
		t.Errorf("state %v", got)
	}
}

// pipe is a stream without a network.
func (r *rig) pipe(ctx context.Context, name, token string) feed.Stream {
	frames, ended := make(chan *apiv1.FeedFrame), make(chan error, 1)
	go func() {
		ended <- r.server.Watch(ctx, name, token, func(f *apiv1.FeedFrame) error {
			select {
			case frames <- f:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	return feed.Recv(func() (*apiv1.FeedFrame, error) {
		select {
		case f := <-frames:
			return f, nil
		case err := <-ended:
			return nil, err
		}
	})
}

// TestAChangeIsMadeOnce holds that all watchers get the very same frame: what a change costs to encode does not grow
// with them.
func TestAChangeIsMadeOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var watchers []*stream
	for range 10 {
		w := r.watch(r.server, routes, "")
		w.bookmark()
		watchers = append(watchers, w)
	}
	r.mustPublish(routes, "k", "v")
	var first *apiv1.FeedFrame
	for i, w := range watchers {
		f, err := w.next()
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = f
		}
		if f.GetDelta() == nil || f != first {
			t.Errorf("watcher %d gets a frame of its own: %v", i, f)
		}
	}
}
