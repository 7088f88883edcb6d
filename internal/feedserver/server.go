package feedserver

import (
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

const (
	defaultEvery   = time.Second
	defaultMaxLag  = 4 << 20
	defaultChunk   = 1 << 20
	defaultHistory = 16 << 20
	relistenAfter  = time.Second
	reopenLimit    = 2 * time.Second
	// phases are the moments of each interval at which bookmarks are sent. A phase has phaseSize watchers before the next
	// one is used: a thousand bookmarks at once would keep everybody's changes waiting for as long as they take.
	phases    = 16
	phaseSize = 32
)

// Config is what a Server needs.
type Config struct {
	// Pool connects to the service's own database, as its service role.
	Pool *pgxpool.Pool
	// Feeds are the names of the feeds to serve.
	Feeds []string
	// Key signs bookmarks. Replicas share it, so that a stream may be resumed at any of them.
	Key ed25519.PrivateKey
	// Clock is what bookmarks tell as the server's time. Default time.Now.
	Clock func() time.Time
	// Log gets what watchers are not told. Default slog.Default().
	Log *slog.Logger
	// Every is the time between bookmarks, and between polls when no wake-up arrives. Default 1 s.
	Every time.Duration
	// MaxLag is how many bytes may wait for a watcher before it is cut off. Default 4 MiB.
	MaxLag int
	// ChunkBytes bounds one chunk of a snapshot. Default 1 MiB.
	ChunkBytes int
	// HistoryBytes bounds the deltas of one feed that are kept to resume from. Default 16 MiB.
	HistoryBytes int
}

// Server serves feeds. It is safe for concurrent use.
type Server struct {
	cfg      Config
	tokenKey []byte
	feeds    map[string]*feedState
	ready    chan struct{}
	wake     chan struct{}

	// Touched by the poller only.
	epoch  [16]byte
	polled int64
	loaded bool
}

// New returns a server of cfg.Feeds; it answers watches once [Server.Run] has loaded them.
func New(cfg Config) (*Server, error) {
	if cfg.Pool == nil || len(cfg.Feeds) == 0 || len(cfg.Key) != ed25519.PrivateKeySize {
		return nil, errors.New("feed server: a pool, feeds and a signing key are needed")
	}
	cfg = cfg.withDefaults()
	key, err := hkdf.Key(sha256.New, cfg.Key.Seed(), nil, "rowhouse-feed-token/v1", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("feed server: derive the token key: %w", err)
	}
	s := &Server{
		cfg: cfg, tokenKey: key,
		feeds: make(map[string]*feedState, len(cfg.Feeds)),
		ready: make(chan struct{}),
		wake:  make(chan struct{}, 1),
	}
	for _, name := range cfg.Feeds {
		s.feeds[name] = newFeedState(s, name)
	}
	return s, nil
}

func (c Config) withDefaults() Config {
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Every <= 0 {
		c.Every = defaultEvery
	}
	if c.MaxLag <= 0 {
		c.MaxLag = defaultMaxLag
	}
	if c.ChunkBytes <= 0 {
		c.ChunkBytes = defaultChunk
	}
	if c.HistoryBytes <= 0 {
		c.HistoryBytes = defaultHistory
	}
	return c
}

// Ready is closed once the feeds are loaded and watches are answered.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Run follows the change log until ctx ends; it then ends all watches. It survives the loss of the database: watchers
// get no bookmarks until it is back, which is how they know.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { s.listen(ctx); return nil })
	g.Go(func() error { s.poll(ctx); return nil })
	err := g.Wait()
	for _, f := range s.feeds {
		f.end(fault.New(fault.Unavailable, fault.ReasonStarting, "the server goes away; resume at another").
			WithRetry(time.Second))
	}
	return err
}

// listen turns notifications into wake-ups.
func (s *Server) listen(ctx context.Context) {
	for ctx.Err() == nil {
		err := s.listenOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		s.cfg.Log.WarnContext(ctx, "feed server: lost its wake-ups, polling goes on", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(relistenAfter):
		}
	}
}

func (s *Server) listenOnce(ctx context.Context) error {
	conn, err := pgx.ConnectConfig(ctx, s.cfg.Pool.Config().ConnConfig.Copy())
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second) // the server may be silent
		defer cancel()
		_ = conn.Close(ctx)
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+change.Channel); err != nil {
		return err
	}
	s.signal() // what was notified before LISTEN is not lost
	for {
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return err
		}
		s.signal()
	}
}

func (s *Server) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Server) poll(ctx context.Context) {
	slot := max(s.cfg.Every/phases, 1)
	tick := time.NewTicker(slot)
	defer tick.Stop()
	s.step(ctx, allPhases)
	for start, told := time.Now(), 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
			s.step(ctx, 0)
		case <-tick.C:
			// By the clock, since a step that takes long costs ticks.
			now := int(time.Since(start) / slot)
			due := phasesBetween(told, now)
			told = now
			if due.has(0) || s.watched(due) {
				s.step(ctx, due)
			}
		}
	}
}

// watched reports whether a watcher of any feed is in one of the phases.
func (s *Server) watched(due phaseSet) bool {
	for _, f := range s.feeds {
		if f.watched(due) {
			return true
		}
	}
	return false
}

// step brings the feeds up to date and tells the watchers of the phases that are due where they are. A bookmark
// promises that nothing older is missing, so there is none when the database could not be asked.
func (s *Server) step(ctx context.Context, due phaseSet) {
	ctx, cancel := context.WithTimeout(ctx, 5*s.cfg.Every+time.Second)
	defer cancel()
	if err := s.refresh(ctx); err != nil {
		if !errors.Is(err, context.Canceled) {
			s.cfg.Log.WarnContext(ctx, "feed server: cannot read the change log", "error", err)
		}
		return
	}
	if due == 0 {
		return
	}
	for _, f := range s.feeds {
		f.bookmarkAll(due, s.cfg.Clock())
	}
}

// Watch serves one stream of feed: from the position of token, or from a snapshot when it is empty. It calls send from
// this goroutine only, with frames that are shared and must not be changed, and returns when ctx ends, send fails or
// the stream has to end. Errors: RESYNC when the token is too old or of another history; WATCH_TOO_SLOW; STARTING
// before the first load and at the end of Run.
func (s *Server) Watch(ctx context.Context, feed, token string, send func(*apiv1.FeedFrame) error) error {
	f, ok := s.feeds[feed]
	if !ok {
		return fault.New(fault.Internal, "INTERNAL", "feed %q is not served here", feed)
	}
	select {
	case <-s.ready:
	default:
		return fault.New(fault.Unavailable, fault.ReasonStarting, "the feed is being loaded").WithRetry(time.Second)
	}
	w, opening, err := f.open(token)
	if errors.Is(err, errAhead) {
		w, opening, err = s.reopen(ctx, f, token)
	}
	if err != nil {
		return err
	}
	defer f.close(w)
	for frame := range opening.frames(s.cfg.ChunkBytes) {
		if err := send(frame); err != nil {
			return err
		}
	}
	return w.drain(ctx, send)
}

// reopen polls: another replica may have shown the watcher a revision that this one has not read yet. The first poll
// may have begun too early to help, the second has not.
func (s *Server) reopen(ctx context.Context, f *feedState, token string) (*watcher, *opening, error) {
	ctx, cancel := context.WithTimeout(ctx, reopenLimit)
	defer cancel()
	for range 2 {
		next := f.nextPoll()
		s.signal()
		select {
		case <-ctx.Done():
			return nil, nil, resync("the resume token is of a later history")
		case <-next:
		}
		if w, o, err := f.open(token); !errors.Is(err, errAhead) {
			return w, o, err
		}
	}
	return nil, nil, resync("the resume token is of a later history")
}

func resync(why string) error { return fault.New(fault.OutOfRange, fault.ReasonResync, "%s", why) }
