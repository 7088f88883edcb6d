package feed_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
)

// What a child process is told: where its last good state is, and what to do.
const (
	childDir  = "ROWHOUSE_TEST_FEED_CHILD"
	childDeed = "ROWHOUSE_TEST_FEED_DEED"
)

// What a child does once it has all there is.
const (
	deedBegin  = "begin"  // it hears of the first state alone, and ends in order
	deedFall   = "fall"   // it exits without a word to the feed
	deedEnd    = "end"    // it ends in order
	deedRepair = "repair" // it can read everything, and ends in order
)

// report is what a child saw when it had all there is.
type report struct {
	State       map[string]string
	Held        int64
	Quarantined []string
	Token       string // that it opened the stream with
}

// tape is a stream that plays the same to each process: a state of three keys, a change with one value that the program
// cannot bear beside another, and a harmless change.
type tape struct {
	keys   []ed25519.PublicKey
	frames []*apiv1.FeedFrame
	first  int // frames up to the first bookmark
}

func newTape() tape {
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	p := &publisher{private: private, public: private.Public().(ed25519.PublicKey), state: map[string]string{}, digest: feed.NewDigest()}
	p.delta("acme", "1", "globex", "1", "hooli", "1")
	t := tape{keys: []ed25519.PublicKey{p.public}, frames: p.snapshot()}
	t.first = len(t.frames)
	t.frames = append(t.frames, p.delta("acme", "deadly", "globex", "2"), p.bookmark(), p.delta("hooli", "3"), p.bookmark())
	return t
}

// open plays from a token on, for a process that begins or for one that hears of everything.
func (t tape) open(ctx context.Context, token string, whole bool) feed.Stream {
	frames := t.frames
	if !whole {
		frames = frames[:t.first]
	}
	if token == "at-1" {
		frames = frames[t.first:]
	}
	return feed.Recv(func() (*apiv1.FeedFrame, error) {
		if len(frames) == 0 {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		next := frames[0]
		frames = frames[1:]
		return next, nil
	})
}

// TestCrashChild is a process of TestACrashLoopEnds, and nothing by itself.
func TestCrashChild(t *testing.T) {
	t.Parallel()
	dir, deed := os.Getenv(childDir), os.Getenv(childDeed)
	if dir == "" {
		return
	}
	tape, con := newTape(), &consumer{}
	last := map[bool]int64{true: 1, false: 3}[deed == deedBegin]
	var r report
	done := make(chan struct{})
	f, err := feed.Start(t.Context(), feed.Config{
		Name: name, Keys: tape.keys, Dir: dir, Hold: true, Log: slog.New(slog.DiscardHandler),
		Open: func(ctx context.Context, token string) (feed.Stream, error) {
			r.Token = token
			return tape.open(ctx, token, deed != deedBegin), nil
		},
		Apply: func(c feed.Change) error {
			if deed != deedRepair && slices.ContainsFunc(c.Entries, func(e feed.Entry) bool { return string(e.Value) == "deadly" }) {
				go panic("a defect where nobody recovers")
				select {}
			}
			return con.apply(c)
		},
		Bookmark: func(b feed.Bookmark) {
			if b.Source == feed.SourceLive && b.Revision == last {
				close(done)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	<-done
	s := f.Status()
	r.State, r.Held, r.Quarantined = con.seen(), s.Held, slices.Sorted(maps.Keys(s.Quarantined))
	line, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = os.Stdout.Write(append(line, '\n'))
	if deed == deedFall {
		os.Exit(3)
	}
	f.Close()
}

// child runs a process to its end and returns what it saw, nil for one that died before.
func child(t *testing.T, dir, deed string) *report {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrashChild$", "-test.count=1")
	cmd.Env = append(os.Environ(), childDir+"="+dir, childDeed+"="+deed)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	for line := range strings.Lines(stdout.String()) {
		var r report
		if strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), &r) == nil {
			return &r
		}
	}
	if !strings.Contains(stderr.String(), "panic: a defect where nobody recovers") {
		t.Fatalf("the process died of something else: %v\n%s\n%s", err, &stdout, &stderr)
	}
	return nil
}

// TestACrashLoopEnds has real processes die of a value, each started again on the same disk. The third start holds the
// change back that two died of and serves on; so does the next, though that one was killed; and a repaired program
// takes everything in.
func TestACrashLoopEnds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if r := child(t, dir, deedBegin); r == nil || r.State["acme"] != "1" {
		t.Fatalf("the first state: %+v", r)
	}
	starts := 1
	for ; child(t, dir, deedFall) == nil; starts++ {
		if starts == 5 {
			t.Fatal("processes die of it for ever")
		}
	}
	if starts != 3 {
		t.Errorf("the value was held back at the start number %d", starts)
	}
	held := &report{
		State: map[string]string{"acme": "1", "globex": "1", "hooli": "3"}, Held: 2, Quarantined: []string{"acme", "globex"}, Token: "at-1",
	}
	if diff := cmp.Diff(held, child(t, dir, deedEnd)); diff != "" {
		t.Errorf("after another death (-want +got)\n%s", diff)
	}
	whole := map[string]string{"acme": "deadly", "globex": "2", "hooli": "3"}
	if r := child(t, dir, deedRepair); r == nil || r.Held != 0 || cmp.Diff(whole, r.State) != "" {
		t.Errorf("a repaired program: %+v", r)
	}
}
