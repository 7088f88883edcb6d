package feed_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
)

const name = "test"

// publisher is the other end of a stream, driven by hand.
type publisher struct {
	private ed25519.PrivateKey
	public  ed25519.PublicKey

	revision int64
	state    map[string]string
	digest   *feed.Digest
}

func newPublisher(tb testing.TB) *publisher {
	tb.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return &publisher{private: private, public: public, state: map[string]string{}, digest: feed.NewDigest()}
}

// delta makes a revision of key, value pairs; the value "-" deletes.
func (p *publisher) delta(pairs ...string) *apiv1.FeedFrame {
	d := &apiv1.FeedDelta{Revision: p.revision + 1, PrevRevision: p.revision}
	for i := 0; i < len(pairs); i += 2 {
		key, value := pairs[i], pairs[i+1]
		if value == "-" {
			delete(p.state, key)
			p.digest.Delete(key)
			d.Changes = append(d.Changes, &apiv1.FeedEntry{Key: key, Deleted: true})
			continue
		}
		p.state[key] = value
		p.digest.Set(key, []byte(value))
		d.Changes = append(d.Changes, &apiv1.FeedEntry{Key: key, Value: []byte(value)})
	}
	p.revision++
	return &apiv1.FeedFrame{Kind: &apiv1.FeedFrame_Delta{Delta: d}}
}

func (p *publisher) bookmark() *apiv1.FeedFrame {
	root := p.digest.Root()
	b := &apiv1.FeedBookmark{
		Revision: p.revision, Root: root[:], ServerTime: timestamppb.New(time.Unix(1_000_000+p.revision, 0)),
		ResumeToken: fmt.Sprintf("at-%d", p.revision),
	}
	feed.Sign(p.private, name, b)
	return &apiv1.FeedFrame{Kind: &apiv1.FeedFrame_Bookmark{Bookmark: b}}
}

// snapshot makes chunks of one entry each, and the bookmark.
func (p *publisher) snapshot() []*apiv1.FeedFrame {
	var frames []*apiv1.FeedFrame
	keys := slices.Sorted(maps.Keys(p.state))
	for i := range max(len(keys), 1) {
		c := &apiv1.FeedChunk{Revision: p.revision, Index: int32(i), Last: i >= len(keys)-1}
		if i < len(keys) {
			c.Entries = []*apiv1.FeedEntry{{Key: keys[i], Value: []byte(p.state[keys[i]])}}
		}
		frames = append(frames, &apiv1.FeedFrame{Kind: &apiv1.FeedFrame_Chunk{Chunk: c}})
	}
	return append(frames, p.bookmark())
}

// line is the network: each Open takes the next of what the test lays out.
type line struct {
	calls chan call
}

// call is one stream as the test sees it: the token that it was opened with, and where frames go in.
type call struct {
	token  string
	frames chan<- *apiv1.FeedFrame
	fail   chan<- error
	ctx    context.Context
}

func newLine() *line { return &line{calls: make(chan call)} }

func (l *line) open(ctx context.Context, token string) (feed.Stream, error) {
	frames, fail := make(chan *apiv1.FeedFrame), make(chan error)
	select {
	case l.calls <- call{token, frames, fail, ctx}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return feed.Recv(func() (*apiv1.FeedFrame, error) {
		select {
		case f := <-frames:
			return f, nil
		case err := <-fail:
			return nil, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}), nil
}

func (c call) send(frames ...*apiv1.FeedFrame) {
	for _, f := range frames {
		c.frames <- f
	}
}

// consumer is what the feed fills.
type consumer struct {
	mu     sync.Mutex
	state  map[string]string
	resets int
	poison string // a value that Apply refuses, with a panic
}

func (c *consumer) apply(change feed.Change) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range change.Entries {
		if c.poison != "" && string(e.Value) == c.poison {
			panic("poison")
		}
	}
	if change.Reset {
		c.state = map[string]string{}
		c.resets++
	}
	for _, e := range change.Entries {
		if e.Deleted {
			delete(c.state, e.Key)
		} else {
			c.state[e.Key] = string(e.Value)
		}
	}
	return nil
}

func (c *consumer) seen() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.state)
}

type rig struct {
	*testing.T
	pub  *publisher
	line *line
	con  *consumer
	feed *feed.Feed
	dir  string
	told
}

func (r *rig) start(edit ...func(*feed.Config)) {
	r.Helper()
	cfg := feed.Config{
		Name: name, Open: r.line.open, Apply: r.con.apply, Keys: []ed25519.PublicKey{r.pub.public}, Dir: r.dir,
		Check: func(_ string, value []byte) error {
			switch {
			case strings.HasPrefix(string(value), "bad"):
				return errors.New("refused")
			case strings.HasPrefix(string(value), "panic"):
				panic("refused")
			}
			return nil
		},
		Jitter: func(time.Duration) time.Duration { return 0 },
		Log:    slog.New(slog.DiscardHandler),
	}
	for _, e := range edit {
		e(&cfg)
	}
	f, err := feed.Start(r.Context(), cfg)
	if err != nil {
		r.Fatal(err)
	}
	r.feed = f
}

func (r *rig) want(state map[string]string, revision int64) {
	r.Helper()
	synctest.Wait()
	if diff := cmp.Diff(state, r.con.seen()); diff != "" {
		r.Errorf("state (-want +got):\n%s", diff)
	}
	if got := r.feed.Status().Revision; got != revision {
		r.Errorf("revision %d, want %d", got, revision)
	}
}

// bubble runs a test in virtual time.
func bubble(t *testing.T, fn func(r *rig)) {
	t.Helper()
	t.Parallel()
	pub, dir := newPublisher(t), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{T: t, pub: pub, line: newLine(), con: &consumer{}, dir: dir}
		fn(r)
		if r.feed != nil {
			r.feed.Close()
		}
	})
}

func (r *rig) ready() bool {
	select {
	case <-r.feed.Ready():
		return true
	default:
		return false
	}
}

func TestSnapshotThenDeltas(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start()
		r.pub.delta("a", "1", "b", "2")
		c := <-r.line.calls
		frames := r.pub.snapshot()
		c.send(frames[:2]...)
		synctest.Wait()
		if c.token != "" || r.ready() || r.con.resets != 0 {
			t.Error("a snapshot counts before its bookmark")
		}
		c.send(frames[2])
		r.want(map[string]string{"a": "1", "b": "2"}, 1)
		if s := r.feed.Status(); !r.ready() || s.Source != feed.SourceLive || s.LastBookmark.IsZero() || s.Err != "" {
			t.Errorf("status %+v", s)
		}
		c.send(r.pub.delta("a", "-", "c", "3"))
		r.want(map[string]string{"b": "2", "c": "3"}, 2)
		c.send(r.pub.bookmark())
		r.want(map[string]string{"b": "2", "c": "3"}, 2)
	})
}

func TestResumesWhereItWas(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start()
		c := <-r.line.calls
		c.send(r.pub.snapshot()...)
		c.send(r.pub.delta("a", "1"), r.pub.bookmark())
		c.fail <- io.EOF
		c = <-r.line.calls
		if c.token != "at-1" {
			t.Errorf("opened at %q", c.token)
		}
		c.send(r.pub.delta("b", "2"), r.pub.bookmark())
		r.want(map[string]string{"a": "1", "b": "2"}, 2)
		if r.con.resets != 1 {
			t.Errorf("%d resets", r.con.resets)
		}
	})
}

// TestStartsOverWhenItMust lists what makes the consumer ask for a snapshot; its state stands until that has come.
func TestStartsOverWhenItMust(t *testing.T) {
	t.Parallel()
	foreign := newPublisher(t)
	for name, breakIt := range map[string]func(r *rig, c call){
		"resync": func(r *rig, c call) {
			c.fail <- fault.New(fault.OutOfRange, fault.ReasonResync, "too old")
		},
		"a gap":        func(r *rig, c call) { r.pub.delta("x", "lost"); c.send(r.pub.delta("y", "1")) },
		"a repetition": func(r *rig, c call) { d := r.pub.delta("x", "1"); c.send(d, d) },
		"another root": func(r *rig, c call) { r.pub.digest.Set("z", nil); c.send(r.pub.bookmark()); r.pub.digest.Delete("z") },
		"a delta in a snapshot": func(r *rig, c call) {
			c.send(r.pub.snapshot()[0], r.pub.delta("x", "1"))
		},
		"a chunk out of place": func(r *rig, c call) { f := r.pub.snapshot()[0]; f.GetChunk().Index = 5; c.send(f) },
		"a snapshot with another entry": func(r *rig, c call) {
			c.fail <- fault.New(fault.OutOfRange, fault.ReasonResync, "too old")
			f := r.pub.snapshot()
			f[0].GetChunk().Entries[0].Value = []byte("evil")
			(<-r.line.calls).send(f...)
		},
		"a snapshot cut off": func(r *rig, c call) {
			f := r.pub.snapshot()
			f[0].GetChunk().Last = false
			c.send(f...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.start()
				c := <-r.line.calls
				r.pub.delta("a", "1")
				c.send(r.pub.snapshot()...)
				synctest.Wait()
				breakIt(r, c)
				c = <-r.line.calls
				if c.token != "" || r.con.seen()["a"] != "1" {
					t.Errorf("token %q, state %v", c.token, r.con.seen())
				}
				c.send(r.pub.snapshot()...)
				r.want(r.pub.state, r.pub.revision)
			})
		})
	}
	t.Run("a foreign signature", func(t *testing.T) {
		bubble(t, func(r *rig) {
			r.start()
			c := <-r.line.calls
			foreign.delta("evil", "1")
			c.send(foreign.snapshot()...)
			<-r.line.calls
			if r.ready() || len(r.con.seen()) != 0 {
				t.Error("a foreign state was taken over")
			}
		})
	})
}

func TestSilenceReconnects(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(func(cfg *feed.Config) { cfg.Jitter = func(most time.Duration) time.Duration { return most } })
		c := <-r.line.calls
		c.send(r.pub.snapshot()...)
		start := time.Now()
		for range 4 { // any frame is a sign of life
			<-time.After(4 * time.Second)
			c.send(r.pub.bookmark())
		}
		again := <-r.line.calls
		if got := time.Since(start); got < 21*time.Second || got > 22*time.Second {
			t.Errorf("opened again after %v", got)
		}
		if again.token != "at-0" || c.ctx.Err() == nil {
			t.Errorf("token %q, old stream %v", again.token, c.ctx.Err())
		}
		again.send(r.pub.bookmark())
		synctest.Wait()
		if s := r.feed.Status(); s.Err != "" {
			t.Errorf("status %+v", s)
		}
	})
}

func TestBackoffGrowsAndIsForgiven(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(func(cfg *feed.Config) { cfg.Jitter = func(most time.Duration) time.Duration { return most } })
		var waits []time.Duration
		last := time.Now()
		for i := range 9 {
			c := <-r.line.calls
			waits = append(waits, time.Since(last))
			if i == 7 {
				c.send(r.pub.snapshot()...)
				synctest.Wait()
			}
			last = time.Now()
			c.fail <- io.EOF
		}
		var got []int64
		for _, w := range waits {
			got = append(got, w.Milliseconds())
		}
		if diff := cmp.Diff([]int64{0, 100, 200, 400, 800, 1600, 3200, 5000, 100}, got); diff != "" {
			t.Errorf("waits (-want +got):\n%s", diff)
		}
	})
}

func TestQuarantine(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start()
		c := <-r.line.calls
		r.pub.delta("a", "1", "b", "bad from the start")
		c.send(r.pub.snapshot()...)
		r.want(map[string]string{"a": "1"}, 1)
		c.send(r.pub.delta("a", "panic", "c", "3"), r.pub.bookmark())
		r.want(map[string]string{"a": "1", "c": "3"}, 2)
		if q := r.feed.Status().Quarantined; len(q) != 2 || q["a"] != "panic: refused" || q["b"] != "refused" {
			t.Errorf("quarantined %v", q)
		}
		// A snapshot keeps the last good value as well.
		c.fail <- fault.New(fault.OutOfRange, fault.ReasonResync, "too old")
		c = <-r.line.calls
		c.send(r.pub.snapshot()...)
		r.want(map[string]string{"a": "1", "c": "3"}, 2)
		c.send(r.pub.delta("a", "2", "b", "-"), r.pub.bookmark())
		r.want(map[string]string{"a": "2", "c": "3"}, 3)
		if q := r.feed.Status().Quarantined; len(q) != 0 {
			t.Errorf("quarantined %v", q)
		}
		r.con.poison = "boom"
		c.send(r.pub.delta("a", "boom", "d", "4"), r.pub.bookmark())
		r.want(map[string]string{"a": "2", "c": "3", "d": "4"}, 4)
		if q := r.feed.Status().Quarantined; len(q) != 1 || q["a"] != "panic: poison" {
			t.Errorf("quarantined %v", q)
		}
		c.send(r.pub.delta("a", "-"), r.pub.bookmark())
		r.want(map[string]string{"c": "3", "d": "4"}, 5)
	})
}

// fill makes the disk hold revisions 1 to n.
func (r *rig) fill(n int) {
	r.start(func(cfg *feed.Config) { cfg.SaveEvery = time.Nanosecond })
	c := <-r.line.calls
	c.send(r.pub.snapshot()...)
	for i := range n {
		<-time.After(time.Second)
		c.send(r.pub.delta("k", strconv.Itoa(i+1)), r.pub.bookmark())
	}
	synctest.Wait()
	r.feed.Close()
	r.con = &consumer{}
}

func (r *rig) files() []string {
	r.Helper()
	paths, err := filepath.Glob(filepath.Join(r.dir, "*.feed"))
	if err != nil {
		r.Fatal(err)
	}
	slices.Sort(paths)
	return paths
}

// levels keeps the level of each record about the stream.
type levels struct {
	mu   sync.Mutex
	said []slog.Level
}

func (l *levels) Enabled(context.Context, slog.Level) bool { return true }
func (l *levels) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *levels) WithGroup(string) slog.Handler            { return l }

func (l *levels) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.Level > slog.LevelDebug {
		l.said = append(l.said, r.Level)
	}
	return nil
}

// take returns what was said since the last call.
func (l *levels) take() []slog.Level {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	said := l.said
	l.said = nil
	return said
}

// Who reads the log of a healthy start finds no warning, and of an outage one, however long it is.
func TestOutageIsOneWarning(t *testing.T) {
	bubble(t, func(r *rig) {
		log := new(levels)
		r.start(func(cfg *feed.Config) {
			cfg.Log, cfg.Silence = slog.New(log), time.Hour
			cfg.Jitter = func(most time.Duration) time.Duration { return most }
		})
		refuse := func(times int) call {
			for range times {
				c := <-r.line.calls
				c.fail <- errors.New("refused")
			}
			return <-r.line.calls
		}
		want := func(what string, levels ...slog.Level) {
			r.Helper()
			if got := log.take(); !slices.Equal(got, levels) {
				r.Errorf("%s: %v, want %v", what, got, levels)
			}
		}
		c := refuse(5) // 3.1 s
		want("while others start", slog.LevelInfo)
		c.send(r.pub.snapshot()...)
		want("the first state", slog.LevelInfo)
		c.fail <- errors.New("the connection is lost")
		c = refuse(20)
		want("an outage", slog.LevelWarn)
		c.send(r.pub.bookmark())
		want("its end", slog.LevelInfo)
		c.send(r.pub.bookmark())
		want("all is well")
		c.fail <- errors.New("the connection is lost")
		c = refuse(20)
		want("the next outage", slog.LevelWarn)
		c.send(r.pub.bookmark())
	})
}

// A start that stays without a state is no healthy one.
func TestStartWithoutAStateIsAWarning(t *testing.T) {
	bubble(t, func(r *rig) {
		log := new(levels)
		r.start(func(cfg *feed.Config) {
			cfg.Log, cfg.Jitter = slog.New(log), func(most time.Duration) time.Duration { return most }
		})
		for range 20 {
			c := <-r.line.calls
			c.fail <- errors.New("refused")
		}
		if got := log.take(); !slices.Equal(got, []slog.Level{slog.LevelInfo, slog.LevelWarn}) {
			r.Errorf("said %v", got)
		}
	})
}

func TestStartsFromDisk(t *testing.T) {
	bubble(t, func(r *rig) {
		r.fill(6)
		if n := len(r.files()); n != 3 {
			t.Errorf("%d files are kept", n)
		}
		var marks []feed.Bookmark
		r.start(func(cfg *feed.Config) { cfg.Bookmark = func(b feed.Bookmark) { marks = append(marks, b) } })
		if s := r.feed.Status(); !r.ready() || s.Source != feed.SourceDisk || !s.LastBookmark.IsZero() {
			t.Errorf("status %+v", s)
		}
		r.want(map[string]string{"k": "6"}, 6)
		if len(marks) != 1 || marks[0].Source != feed.SourceDisk || marks[0].ServerTime.Unix() != 1_000_006 {
			t.Errorf("bookmarks %v", marks)
		}
		c := <-r.line.calls
		if c.token != "at-6" {
			t.Errorf("opened at %q", c.token)
		}
		c.send(r.pub.delta("k", "7"), r.pub.bookmark())
		r.want(map[string]string{"k": "7"}, 7)
	})
}

func TestWithoutAFileIsNotReady(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start()
		<-r.line.calls
		synctest.Wait()
		if r.ready() || r.feed.Status().Source != feed.SourceNone {
			t.Error("ready without a state")
		}
	})
}

// TestEveryFlippedByteIsRefused flips each byte of the newest file: the file before it is used.
func TestEveryFlippedByteIsRefused(t *testing.T) {
	bubble(t, func(r *rig) {
		r.fill(2)
		files := r.files()
		newest := files[len(files)-1]
		good, err := os.ReadFile(newest)
		if err != nil {
			t.Fatal(err)
		}
		for i := range good {
			bad := slices.Clone(good)
			bad[i] ^= 0x10
			if err := os.WriteFile(newest, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			r.start()
			r.want(map[string]string{"k": "1"}, 1)
			r.feed.Close()
		}
		for _, length := range []int{0, 10, len(good) - 1} {
			if err := os.WriteFile(newest, good[:length], 0o600); err != nil {
				t.Fatal(err)
			}
			r.start()
			r.want(map[string]string{"k": "1"}, 1)
			r.feed.Close()
		}
		r.feed = nil
	})
}

// TestEditedFileIsRefused changes an entry and makes the checksum fit; only the signed root tells.
func TestEditedFileIsRefused(t *testing.T) {
	bubble(t, func(r *rig) {
		r.fill(2)
		newest := r.files()[len(r.files())-1]
		b, err := os.ReadFile(newest)
		if err != nil {
			t.Fatal(err)
		}
		body := b[:len(b)-sha256.Size]
		body[len(body)-1] = '9' // the value of the only entry
		sum := sha256.Sum256(body)
		if err := os.WriteFile(newest, append(body, sum[:]...), 0o600); err != nil {
			t.Fatal(err)
		}
		r.start()
		r.want(map[string]string{"k": "1"}, 1)
	})
}

// TestForgedFileIsRefused lets an attacker write a whole file, checksum and all, without the publisher's key.
func TestForgedFileIsRefused(t *testing.T) {
	evil := newPublisher(t)
	bubble(t, func(r *rig) {
		own, dir := r.pub, r.dir
		r.pub = evil
		r.fill(3)
		r.pub = own
		r.start()
		synctest.Wait()
		if r.ready() || len(r.con.seen()) != 0 {
			t.Error("a file of another signer was loaded")
		}
		_ = dir
	})
}

func TestRollbackOnDiskIsRefused(t *testing.T) {
	bubble(t, func(r *rig) {
		r.fill(1)
		old, err := os.ReadFile(r.files()[1])
		if err != nil {
			t.Fatal(err)
		}
		r.pub.revision, r.pub.state, r.pub.digest = 0, map[string]string{}, feed.NewDigest()
		for _, path := range r.files() {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Remove(filepath.Join(r.dir, name+".floor")); err != nil {
			t.Fatal(err)
		}
		r.fill(6)
		for _, path := range r.files() {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(r.dir, fmt.Sprintf("%s-%020d.feed", name, 1)), old, 0o600); err != nil {
			t.Fatal(err)
		}
		r.start()
		synctest.Wait()
		if r.ready() {
			t.Error("a file below the floor was loaded")
		}
		r.feed.Close()
		if err := os.WriteFile(filepath.Join(r.dir, name+".floor"), []byte("garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
		r.start()
		synctest.Wait()
		if r.ready() {
			t.Error("a file was loaded beside a floor that someone changed")
		}
	})
}

func TestRollbackOnTheStreamIsRefused(t *testing.T) {
	bubble(t, func(r *rig) {
		r.fill(5)
		old := newPublisher(t)
		old.private, old.public = r.pub.private, r.pub.public
		old.delta("k", "old")
		r.start()
		c := <-r.line.calls
		c.send(old.snapshot()...)
		c = <-r.line.calls
		r.want(map[string]string{"k": "5"}, 5)
		if s := r.feed.Status(); !strings.Contains(s.Err, "older") || s.Source != feed.SourceDisk {
			t.Errorf("status %+v", s)
		}
		c.send(r.pub.snapshot()...)
		r.want(map[string]string{"k": "5"}, 5)
	})
}

// TestUnsignedDeltaRaisesNoFloor sends one that only a broken or hijacked server sends; what the publisher signs is
// taken afterwards all the same.
func TestUnsignedDeltaRaisesNoFloor(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start()
		c := <-r.line.calls
		r.pub.delta("k", "1")
		c.send(r.pub.snapshot()...)
		c.send(&apiv1.FeedFrame{Kind: &apiv1.FeedFrame_Delta{Delta: &apiv1.FeedDelta{PrevRevision: 1, Revision: 1 << 60}}})
		synctest.Wait()
		c.send(r.pub.bookmark()) // does not fit
		c = <-r.line.calls
		r.pub.delta("k", "2")
		c.send(r.pub.snapshot()...)
		r.want(map[string]string{"k": "2"}, 2)
	})
}

func TestBookmarkSignsItsTime(t *testing.T) {
	t.Parallel()
	p := newPublisher(t)
	b := p.bookmark().GetBookmark()
	keys := []ed25519.PublicKey{p.public}
	if err := feed.Verify(keys, name, b); err != nil {
		t.Fatal(err)
	}
	b.ServerTime = timestamppb.New(b.GetServerTime().AsTime().Add(time.Second))
	if err := feed.Verify(keys, name, b); !errors.Is(err, feed.ErrBookmark) {
		t.Errorf("with another time: %v", err)
	}
}

// TestQuarantineOutlivesARestart holds that a key goes on with its last good value, not with none.
func TestQuarantineOutlivesARestart(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start()
		c := <-r.line.calls
		r.pub.delta("k", "good", "other", "1")
		c.send(r.pub.snapshot()...)
		c.send(r.pub.delta("k", "bad"), r.pub.bookmark())
		synctest.Wait()
		r.feed.Close()
		for range 2 { // what was loaded is saved again
			r.con = &consumer{}
			r.start(func(cfg *feed.Config) { cfg.SaveEvery = time.Nanosecond })
			r.want(map[string]string{"k": "good", "other": "1"}, r.pub.revision)
			if q := r.feed.Status().Quarantined; len(q) != 1 || q["k"] == "" {
				t.Errorf("quarantined %v", q)
			}
			c = <-r.line.calls
			c.send(r.pub.delta("other", strconv.Itoa(int(r.pub.revision))), r.pub.delta("other", "1"), r.pub.bookmark())
			synctest.Wait()
			r.feed.Close()
		}
		r.con = &consumer{}
		r.start()
		c = <-r.line.calls
		c.send(r.pub.delta("k", "better"), r.pub.bookmark())
		r.want(map[string]string{"k": "better", "other": "1"}, r.pub.revision)
	})
}

// TestApplyThatFailsOnASnapshot keeps what is in force.
func TestApplyThatFailsOnASnapshot(t *testing.T) {
	bubble(t, func(r *rig) {
		r.fill(2)
		r.start()
		r.con.mu.Lock()
		r.con.poison = "3"
		r.con.mu.Unlock()
		c := <-r.line.calls
		r.pub.delta("k", "3")
		c.send(r.pub.snapshot()...)
		<-r.line.calls
		r.want(map[string]string{"k": "2"}, 2)
	})
}

func TestRefusesConfigThatCannotWork(t *testing.T) {
	t.Parallel()
	if _, err := feed.Start(t.Context(), feed.Config{Name: "x"}); err == nil {
		t.Error("started without Open, Apply and keys")
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := newPublisher(t)
	_, err := feed.Start(t.Context(), feed.Config{
		Name: "x", Open: newLine().open, Apply: (&consumer{}).apply, Keys: []ed25519.PublicKey{p.public}, Dir: file,
	})
	if err == nil {
		t.Error("started with a file for a folder")
	}
}

func TestFramesOfANewerPublisherAreIgnored(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start()
		c := <-r.line.calls
		c.send(r.pub.snapshot()...)
		unknown := new(apiv1.FeedFrame)
		if err := proto.Unmarshal([]byte{0x7a, 0}, unknown); err != nil { // field 15, empty
			t.Fatal(err)
		}
		c.send(unknown, r.pub.delta("a", "1"))
		r.want(map[string]string{"a": "1"}, 1)
	})
}
