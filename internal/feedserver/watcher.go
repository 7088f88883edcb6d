package feedserver

import (
	"context"
	"iter"
	"slices"
	"strings"
	"sync"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// watcher is the queue of one stream. A watcher that does not read costs at most its bound: then the queue is dropped
// and the stream ends with WATCH_TOO_SLOW as soon as its send returns.
type watcher struct {
	maxLag int
	phase  int // when it gets its bookmarks
	signal chan struct{}

	mu     sync.Mutex
	frames []*apiv1.FeedFrame
	bytes  int
	err    error
}

func newWatcher(maxLag int) *watcher {
	return &watcher{maxLag: maxLag, signal: make(chan struct{}, 1)}
}

func (w *watcher) push(frame *apiv1.FeedFrame, size int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return
	}
	if w.bytes += size; w.bytes > w.maxLag {
		w.cutLocked(fault.New(fault.ResourceExhausted, fault.ReasonWatchTooSlow,
			"the watcher is more than %d bytes behind", w.maxLag))
		return
	}
	w.frames = append(w.frames, frame)
	w.raise()
}

func (w *watcher) cut(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.cutLocked(err)
	}
}

func (w *watcher) cutLocked(err error) {
	w.err, w.frames, w.bytes = err, nil, 0
	w.raise()
}

func (w *watcher) raise() {
	select {
	case w.signal <- struct{}{}:
	default:
	}
}

// take returns all that waits, or why the stream ends.
func (w *watcher) take() ([]*apiv1.FeedFrame, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	frames := w.frames
	w.frames, w.bytes = nil, 0
	return frames, w.err
}

func (w *watcher) drain(ctx context.Context, send func(*apiv1.FeedFrame) error) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.signal:
		}
		frames, err := w.take()
		if err != nil {
			return err
		}
		for _, frame := range frames {
			if err := send(frame); err != nil {
				return err
			}
		}
	}
}

// opening is what a stream begins with.
type opening struct {
	whole    bool // a snapshot, not a resumption
	revision int64
	snapshot []*apiv1.FeedEntry
	deltas   []*apiv1.FeedFrame
	bookmark *apiv1.FeedFrame
}

// frames yields the snapshot in chunks or the missed deltas, and then the bookmark.
func (o *opening) frames(chunkBytes int) iter.Seq[*apiv1.FeedFrame] {
	return func(yield func(*apiv1.FeedFrame) bool) {
		if o.whole {
			for frame := range o.chunks(chunkBytes) {
				if !yield(frame) {
					return
				}
			}
		}
		for _, frame := range o.deltas {
			if !yield(frame) {
				return
			}
		}
		yield(o.bookmark)
	}
}

func (o *opening) chunks(bound int) iter.Seq[*apiv1.FeedFrame] {
	slices.SortFunc(o.snapshot, func(a, b *apiv1.FeedEntry) int { return strings.Compare(a.Key, b.Key) })
	return func(yield func(*apiv1.FeedFrame) bool) {
		rest := o.snapshot
		for index := int32(0); ; index++ {
			n, size := 0, 0
			for n < len(rest) {
				size += len(rest[n].Key) + len(rest[n].Value) + entryOverhead
				if n > 0 && size > bound {
					break
				}
				n++
			}
			chunk := &apiv1.FeedChunk{Revision: o.revision, Index: index, Last: n == len(rest), Entries: rest[:n]}
			if !yield(&apiv1.FeedFrame{Kind: &apiv1.FeedFrame_Chunk{Chunk: chunk}}) || chunk.Last {
				return
			}
			rest = rest[n:]
		}
	}
}

// entryOverhead is more than the tags and lengths of one entry take.
const entryOverhead = 16
