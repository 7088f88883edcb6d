package feed

import (
	"bytes"
	"errors"
	"fmt"
	"maps"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

var (
	// errDiverged says that what we have and what the publisher has do not fit; only a snapshot helps.
	errDiverged = errors.New("the state does not fit the stream")
	// errRollback says that an older state was offered than one that was in force.
	errRollback = errors.New("refusing an older state")
)

// mustResync reports whether the next stream must begin with a snapshot.
func mustResync(err error) bool {
	return errors.Is(err, errDiverged) || errors.Is(err, errRollback) || fault.ReasonOf(err) == fault.ReasonResync ||
		status.Code(err) == codes.OutOfRange
}

// state is the feed as the publisher sent it, quarantined entries included, since the digest covers those too.
type state struct {
	revision    int64
	highest     int64 // of a bookmark that was verified; no state below it is taken
	token       string
	bookmark    *apiv1.FeedBookmark // the last good one; nil before the first state
	entries     map[string][]byte
	digest      *Digest
	quarantined map[string]string
	good        map[string][]byte // last good values of quarantined keys
}

func newState() state {
	return state{
		entries: make(map[string][]byte), digest: NewDigest(),
		quarantined: make(map[string]string), good: make(map[string][]byte),
	}
}

// lastGood returns the value of key that is in force.
func (s *state) lastGood(key string) ([]byte, bool) {
	if _, bad := s.quarantined[key]; bad {
		v, ok := s.good[key]
		return v, ok
	}
	v, ok := s.entries[key]
	return v, ok
}

func (s *state) matches(b *apiv1.FeedBookmark) error {
	root := s.digest.Root()
	if s.bookmark == nil || b.GetRevision() != s.revision || !bytes.Equal(root[:], b.GetRoot()) {
		return fmt.Errorf("%w: bookmark of revision %d at %d", errDiverged, b.GetRevision(), s.revision)
	}
	return nil
}

func (s *state) replace(image *image, bad map[string]string) {
	good := make(map[string][]byte)
	for key := range bad {
		if v, ok := s.lastGood(key); ok {
			good[key] = v
		}
	}
	s.entries = make(map[string][]byte, len(image.entries))
	for _, e := range image.entries {
		s.entries[e.Key] = e.Value
	}
	s.digest, s.quarantined, s.good = image.digest, bad, good
	s.bookmark, s.token = image.bookmark, image.bookmark.GetResumeToken()
	s.revision = image.bookmark.GetRevision()
	s.highest = s.revision
}

func (s *state) advance(revision int64, entries []Entry, bad map[string]string) {
	for _, e := range entries {
		if _, isBad := bad[e.Key]; isBad {
			if v, ok := s.lastGood(e.Key); ok {
				s.good[e.Key] = v
			}
		} else {
			delete(s.quarantined, e.Key)
			delete(s.good, e.Key)
		}
		if e.Deleted {
			delete(s.entries, e.Key)
			s.digest.Delete(e.Key)
			continue
		}
		s.entries[e.Key] = e.Value
		s.digest.Set(e.Key, e.Value)
	}
	maps.Copy(s.quarantined, bad)
	s.revision = revision
}

// image is a whole state whose bookmark was checked.
type image struct {
	bookmark *apiv1.FeedBookmark
	entries  []Entry
	digest   *Digest
	good     map[string][]byte // from disk: last good values of keys that were in quarantine
}

// newImage checks entries against the root of a bookmark whose signature was verified.
func newImage(b *apiv1.FeedBookmark, entries []Entry) (*image, error) {
	d := NewDigest()
	for _, e := range entries {
		d.Set(e.Key, e.Value)
	}
	root := d.Root()
	if d.Len() != len(entries) || !bytes.Equal(root[:], b.GetRoot()) {
		return nil, fmt.Errorf("%w: the root of revision %d", errDiverged, b.GetRevision())
	}
	return &image{bookmark: b, entries: entries, digest: d}, nil
}

// snapshot collects chunks until their bookmark.
type snapshot struct {
	revision int64
	chunks   int32
	whole    bool
	entries  []Entry
}

func (s *snapshot) add(c *apiv1.FeedChunk) (*snapshot, error) {
	if s == nil {
		s = &snapshot{revision: c.GetRevision()}
	}
	if s.whole || c.GetIndex() != s.chunks || c.GetRevision() != s.revision {
		return nil, fmt.Errorf("%w: chunk %d of revision %d is out of place", errDiverged, c.GetIndex(), c.GetRevision())
	}
	s.entries = append(s.entries, entriesOf(c.GetEntries())...)
	s.chunks++
	s.whole = c.GetLast()
	return s, nil
}

func (s *snapshot) image(b *apiv1.FeedBookmark) (*image, error) {
	if !s.whole || s.revision != b.GetRevision() {
		return nil, fmt.Errorf("%w: the snapshot of revision %d is cut off", errDiverged, s.revision)
	}
	return newImage(b, s.entries)
}

func entriesOf(from []*apiv1.FeedEntry) []Entry {
	to := make([]Entry, len(from))
	for i, e := range from {
		to[i] = Entry{Key: e.GetKey(), Value: e.GetValue(), Deleted: e.GetDeleted()}
	}
	return to
}
