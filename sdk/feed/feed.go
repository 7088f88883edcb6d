package feed

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
)

const (
	defaultSilence = 5 * time.Second
	defaultSave    = 2 * time.Second
	firstBackoff   = 100 * time.Millisecond
	lastBackoff    = 5 * time.Second
)

// Stream is an open watch stream; the client streams of our watch methods become one by unwrapping the response.
type Stream interface {
	// Recv returns the next frame. It must end with an error when the context that Open got ends.
	Recv() (*apiv1.FeedFrame, error)
}

// Recv is a [Stream] made of a function.
type Recv func() (*apiv1.FeedFrame, error)

// Recv calls r.
func (r Recv) Recv() (*apiv1.FeedFrame, error) { return r() }

// Entry is one keyed value of a feed.
type Entry struct {
	Key     string
	Value   []byte // as the publisher encoded it; shared, not to be changed
	Deleted bool
}

// Change is one revision, to be applied as a whole.
type Change struct {
	// Reset says that Entries are the whole state: what is not in them is gone.
	Reset bool
	// Revision is the revision that the state has after this change.
	Revision int64
	Entries  []Entry
}

// Bookmark is the publisher's word that a state was whole at a time.
type Bookmark struct {
	// Revision is the state's revision.
	Revision int64
	// ServerTime is the publisher's clock.
	ServerTime time.Time
	// Source is SourceLive for one that arrived just now, SourceDisk for one that was kept with the state.
	Source Source
}

// Config says what to follow and what to do with it. Its functions are called by one goroutine at a time.
type Config struct {
	// Name is the feed's name, which its signatures cover.
	Name string
	// Open opens the stream at the position of resumeToken, or from a snapshot when that is empty.
	Open func(ctx context.Context, resumeToken string) (Stream, error)
	// Check judges one entry before it is applied. An entry that it refuses, or that makes it panic, is quarantined:
	// its key keeps its last good value. Optional.
	Check func(key string, value []byte) error
	// Apply takes a whole revision. When it fails or panics on a delta the entries are offered one by one, and those
	// that fail are quarantined; on a reset the old state stays and the stream is opened again.
	Apply func(Change) error
	// Applied is told each revision once Status shows it. Optional.
	Applied func(revision int64)
	// Bookmark is told each time the publisher confirmed that nothing is missing, and after a load from disk when it
	// last had. Optional.
	Bookmark func(Bookmark)
	// Beside runs beside the feed until ctx ends, and Close waits for it. Optional.
	Beside func(ctx context.Context, f *Feed)
	// Keys are the public keys whose bookmarks are trusted.
	Keys []ed25519.PublicKey
	// Dir holds the last good state; empty keeps none. It is made if missing.
	Dir string
	// Hold, where there is a Dir, keeps a process from dying of the same changes again and again: when two processes ended
	// without [Feed.Close] within a minute of applying what came after a state, the next one begins with that state, and
	// with what came after it in quarantine, until its keys get other values or a process was closed in order.
	Hold bool
	// Held is told of each change that is held back, before Applied is. Optional.
	Held func(Entry)
	// Urgent names changes that are never held back. Optional.
	Urgent func(Entry) bool
	// Clock is used for Status and for the pace of writes to Dir. Default time.Now.
	Clock func() time.Time
	// Jitter picks a wait up to most. Default uniformly random.
	Jitter func(most time.Duration) time.Duration
	// Silence is after how long without a frame the stream counts as dead. Default 5 s.
	Silence time.Duration
	// SaveEvery is the least time between two writes to Dir. Default 2 s.
	SaveEvery time.Duration
	// Log gets what goes wrong. Default slog.Default().
	Log *slog.Logger
	// Metrics gets rowhouse.feed.age, rowhouse.feed.quarantined and rowhouse.feed.held, by the attribute "feed". Default: none.
	Metrics metric.MeterProvider
}

// Source is where the state that is in force came from.
type Source uint8

// Nothing was loaded yet; the state came from the disk; it is being kept up to date by the stream.
const (
	SourceNone Source = iota
	SourceDisk
	SourceLive
)

// String returns the source's name.
func (s Source) String() string { return [...]string{"NONE", "DISK", "LIVE"}[s] }

// Status is where a feed stands.
type Status struct {
	// Revision is the last one applied.
	Revision int64
	// LastBookmark is when the publisher last confirmed the state; zero before that.
	LastBookmark time.Time
	// Age is how long ago the state was whole: since LastBookmark, or, for a state from disk, since the bookmark that is
	// kept with it, by the publisher's clock. It is Never before there is a state.
	Age time.Duration
	// Source is where the state came from.
	Source Source
	// Held is the revision up to which changes are held back, because processes died soon after they applied them; 0 for
	// none. Those changes are among the quarantined.
	Held int64
	// Quarantined names the keys whose newest value was refused, and why.
	Quarantined map[string]string
	// Err is why the last stream or write to disk failed; empty while all is well.
	Err string
}

// Feed follows one stream. Its methods are safe for concurrent use.
type Feed struct {
	cfg    Config
	disk   *disk
	guard  *crashGuard
	cancel context.CancelFunc
	done   sync.WaitGroup
	ready  chan struct{}

	// Touched by the following goroutine only.
	state  state
	outage outage

	unmeasure func() error

	mu     sync.Mutex
	status Status
	whole  time.Time // when the state was; zero before there is one
}

// Start loads the last good state from disk, if there is a sound one, and begins to follow the stream. The feed is not
// ready before one of them gave a state. The goroutine ends with ctx or with [Feed.Close]. Start fails only when cfg
// cannot work or Dir cannot be made; a file that is not sound is passed over and logged.
func Start(ctx context.Context, cfg Config) (*Feed, error) {
	if cfg.Name == "" || cfg.Open == nil || cfg.Apply == nil || len(cfg.Keys) == 0 {
		return nil, errors.New("feed: a name, Open, Apply and trusted keys are needed")
	}
	cfg = cfg.withDefaults()
	f := &Feed{cfg: cfg, ready: make(chan struct{}), state: newState()}
	if cfg.Dir != "" {
		d, err := openDisk(cfg.Dir, cfg.Name)
		if err != nil {
			return nil, fmt.Errorf("feed %s: %w", cfg.Name, err)
		}
		f.disk = d
		if cfg.Hold {
			f.guard, err = openCrashGuard(cfg.Dir, cfg.Name, func(err error) {
				cfg.Log.WarnContext(ctx, "feed: cannot mark what is applied", "error", err)
			})
			if err != nil {
				return nil, fmt.Errorf("feed %s: %w", cfg.Name, err)
			}
			d.guard = f.guard
		}
		f.load(ctx)
	}
	var err error
	if f.unmeasure, err = f.measure(); err != nil {
		f.guard.end()
		return nil, fmt.Errorf("feed %s: %w", cfg.Name, err)
	}
	ctx, f.cancel = context.WithCancel(ctx)
	f.done.Go(func() { f.run(ctx) })
	if cfg.Beside != nil {
		f.done.Go(func() { cfg.Beside(ctx, f) })
	}
	return f, nil
}

func (c Config) withDefaults() Config {
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Jitter == nil {
		c.Jitter = func(most time.Duration) time.Duration { return rand.N(most + 1) } //nolint:gosec // spreads load, hides nothing
	}
	if c.Silence <= 0 {
		c.Silence = defaultSilence
	}
	if c.SaveEvery <= 0 {
		c.SaveEvery = defaultSave
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	c.Log = c.Log.With("feed", c.Name)
	return c
}

// Ready is closed once a state was applied, from disk or from the stream.
func (f *Feed) Ready() <-chan struct{} { return f.ready }

// Status returns where the feed stands.
func (f *Feed) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.status
	s.Quarantined = maps.Clone(s.Quarantined)
	s.Age = Never
	if !f.whole.IsZero() {
		s.Age = max(0, f.cfg.Clock().Sub(f.whole))
	}
	return s
}

// Close ends the stream, writes the state to disk if that is behind, and waits for both.
func (f *Feed) Close() {
	f.cancel()
	f.done.Wait()
	_ = f.unmeasure() // it fails for providers that are shut down
}

func (f *Feed) report(change func(*Status)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.status)
}

// load applies the newest sound file, or the one that changes are held back after.
func (f *Feed) load(ctx context.Context) {
	base, bounded := f.guard.upTo()
	for image, err := range f.disk.images(f.cfg.Keys) {
		if err == nil && bounded && image.bookmark.GetRevision() > base {
			continue
		}
		if err == nil {
			err = f.adoptFile(image)
		}
		if err == nil {
			held := f.guard.loaded(image.bookmark.GetRevision())
			f.report(func(s *Status) { s.Source, f.whole, s.Held = SourceDisk, image.bookmark.GetServerTime().AsTime(), held })
			f.disk.saved = image.bookmark
			f.guard.saved(image.bookmark.GetRevision())
			f.tell(image.bookmark, SourceDisk)
			if held > 0 {
				f.cfg.Log.ErrorContext(ctx, "feed: processes died of the newest changes; they are held back", "base", base, "held", held)
			}
			return
		}
		f.cfg.Log.WarnContext(ctx, "feed: passing over a file of the last good state", "error", err)
		f.report(func(s *Status) { s.Err = err.Error() })
	}
	f.guard.loaded(0)
}

// adoptFile is adopt for the first state: what was the last good value of a key is it still.
func (f *Feed) adoptFile(image *image) error {
	for key, value := range image.good {
		f.state.quarantined[key], f.state.good[key] = "in quarantine before the restart", value
	}
	err := f.adopt(image)
	if err != nil {
		f.state = newState()
	}
	return err
}

// run opens the stream again and again.
func (f *Feed) run(ctx context.Context) {
	backoff := firstBackoff
	for ctx.Err() == nil {
		confirmed, err := f.follow(ctx)
		if ctx.Err() != nil {
			break
		}
		f.outage.failed(ctx, f.cfg.Log, f.cfg.Clock(), err)
		f.report(func(s *Status) { s.Err = err.Error() })
		if confirmed {
			backoff = firstBackoff
		}
		if mustResync(err) {
			f.state.token = ""
		}
		select {
		case <-ctx.Done():
		case <-time.After(f.cfg.Jitter(backoff)):
		}
		backoff = min(2*backoff, lastBackoff)
	}
	if f.disk != nil {
		f.disk.writing.Wait()
		f.save()
		f.disk.writing.Wait()
	}
	f.guard.end()
}

var errSilent = errors.New("the stream fell silent")

// follow reads one stream to its end. confirmed says whether it gave at least one bookmark.
func (f *Feed) follow(ctx context.Context) (confirmed bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(f.cfg.Silence, func() { cancel(errSilent) })
	defer silence.Stop()
	stream, err := f.cfg.Open(ctx, f.state.token)
	if err != nil {
		return false, because(ctx, err)
	}
	var pending *snapshot
	for {
		frame, err := stream.Recv()
		if err != nil {
			return confirmed, because(ctx, err)
		}
		silence.Reset(f.cfg.Silence)
		switch kind := frame.GetKind().(type) {
		case *apiv1.FeedFrame_Chunk:
			pending, err = pending.add(kind.Chunk)
		case *apiv1.FeedFrame_Delta:
			err = f.delta(pending, kind.Delta)
		case *apiv1.FeedFrame_Bookmark:
			err = f.bookmark(pending, kind.Bookmark)
			pending = nil
			confirmed = confirmed || err == nil
		}
		if err != nil {
			return confirmed, err
		}
	}
}

// because prefers what cancelled the stream to what the transport made of it.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// bookmark checks the state against what the publisher signed, and takes over a snapshot that it ends.
func (f *Feed) bookmark(pending *snapshot, b *apiv1.FeedBookmark) error {
	if err := Verify(f.cfg.Keys, f.cfg.Name, b); err != nil {
		return err
	}
	if pending != nil {
		image, err := pending.image(b)
		if err != nil {
			return err
		}
		if err := f.adopt(image); err != nil {
			return err
		}
	} else if err := f.state.matches(b); err != nil {
		return err
	}
	f.state.bookmark, f.state.token = b, b.GetResumeToken()
	f.state.highest = max(f.state.highest, b.GetRevision())
	now := f.cfg.Clock()
	f.outage.over(f.cfg.Log, now)
	f.report(func(s *Status) { s.LastBookmark, s.Source, s.Err, f.whole = now, SourceLive, "", now })
	if f.guard.confirmed() {
		f.report(func(s *Status) { s.Held = 0 })
	}
	f.tell(b, SourceLive)
	if f.disk != nil && f.disk.due(now, f.cfg.SaveEvery, b) {
		f.save()
	}
	return nil
}

func (f *Feed) tell(b *apiv1.FeedBookmark, source Source) {
	if f.cfg.Bookmark != nil {
		f.cfg.Bookmark(Bookmark{b.GetRevision(), b.GetServerTime().AsTime(), source})
	}
}

// adopt replaces the state by a whole image whose root and signature were checked.
func (f *Feed) adopt(image *image) error {
	if r := image.bookmark.GetRevision(); r < f.state.highest {
		return fmt.Errorf("%w: revision %d after %d", errRollback, r, f.state.highest)
	}
	change := Change{Reset: true, Revision: image.bookmark.GetRevision(), Entries: image.entries}
	good, bad := f.sift(change)
	change.Entries = good
	f.guard.applying(change.Revision)
	if err := guard(func() error { return f.cfg.Apply(change) }); err != nil {
		return fmt.Errorf("apply the snapshot of revision %d: %w", change.Revision, err)
	}
	f.state.replace(image, bad)
	f.applied(change.Revision)
	return nil
}

// delta applies one revision.
func (f *Feed) delta(pending *snapshot, d *apiv1.FeedDelta) error {
	if pending != nil {
		return fmt.Errorf("%w: a delta inside a snapshot", errDiverged)
	}
	if d.GetPrevRevision() != f.state.revision || d.GetRevision() <= f.state.revision || f.state.bookmark == nil {
		return fmt.Errorf("%w: delta from %d to %d at %d", errDiverged, d.GetPrevRevision(), d.GetRevision(),
			f.state.revision)
	}
	entries := entriesOf(d.GetChanges())
	change := Change{Revision: d.GetRevision(), Entries: entries}
	good, bad := f.sift(change)
	change.Entries = good
	f.guard.applying(change.Revision)
	if err := guard(func() error { return f.cfg.Apply(change) }); err != nil {
		f.singly(change, bad)
	}
	f.state.advance(d.GetRevision(), entries, bad)
	f.applied(d.GetRevision())
	return nil
}

// singly offers the entries of a failed change one by one.
func (f *Feed) singly(change Change, bad map[string]string) {
	for _, e := range change.Entries {
		one := Change{Revision: change.Revision, Entries: []Entry{e}}
		if err := guard(func() error { return f.cfg.Apply(one) }); err != nil {
			bad[e.Key] = err.Error()
		}
	}
}

func (f *Feed) applied(revision int64) {
	quarantined := maps.Clone(f.state.quarantined)
	if before := f.Status().Quarantined; len(quarantined) > 0 && !maps.Equal(before, quarantined) {
		f.cfg.Log.Warn("feed: entries are in quarantine", "keys", slices.Sorted(maps.Keys(quarantined)))
	}
	f.report(func(s *Status) { s.Revision, s.Quarantined = revision, quarantined })
	select {
	case <-f.ready:
	default:
		close(f.ready)
	}
	if f.cfg.Applied != nil {
		f.cfg.Applied(revision)
	}
}

// guard turns a panic into an error, so that a poisonous entry costs itself only.
func guard(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return fn()
}
