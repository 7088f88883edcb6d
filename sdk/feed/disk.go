package feed

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protodelim"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
)

const (
	fileMagic  = "rowhouse-feed-file/2\n"
	fileSuffix = ".feed"
	floorMagic = "rowhouse-feed-floor/1 "
	tmpPrefix  = ".tmp-"
	keptFiles  = 3
)

// disk keeps the last good states of one feed: files of entries and the bookmark that signs them, the newest three. A
// floor beside them is the revision of the oldest; what is older is refused. The floor is a plain file: it tells of an
// old backup that was put back, and stops nobody who may write the folder. Files also hold the last good values of keys
// in quarantine, which no signature covers; they are taken only where the signed value is refused.
type disk struct {
	dir     string
	name    string
	saved   *apiv1.FeedBookmark // what the newest file holds, or the one that is being written
	savedAt time.Time
	guard   *crashGuard

	writing sync.WaitGroup
	busy    atomic.Bool // a file is being written
	failed  atomic.Bool // the last one was not
}

func openDisk(dir, name string) (*disk, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	// What a crash left half written.
	leftovers, err := filepath.Glob(filepath.Join(dir, tmpPrefix+name+"-*"))
	if err != nil {
		return nil, err
	}
	for _, path := range leftovers {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	return &disk{dir: dir, name: name}, nil
}

// due reports whether b should be written: it says something new and the last write is long enough ago.
func (d *disk) due(now time.Time, every time.Duration, b *apiv1.FeedBookmark) bool {
	if d.failed.Swap(false) {
		d.saved = nil
	}
	if d.saved.GetRevision() == b.GetRevision() && bytes.Equal(d.saved.GetKeyId(), b.GetKeyId()) {
		return false
	}
	return d.savedAt.IsZero() || now.Sub(d.savedAt) >= every
}

// save has the state at its last bookmark written, beside the stream: a slow disk must hold up no change. A state that
// deltas have moved on from it, or that comes while another is being written, is written at the next one.
func (f *Feed) save() {
	s, d := &f.state, f.disk
	if f.guard.holdsBack() {
		return // the next process is to begin where this one did
	}
	if s.bookmark == nil || s.bookmark.GetRevision() != s.revision || s.matches(s.bookmark) != nil ||
		d.saved.GetRevision() == s.revision && bytes.Equal(d.saved.GetKeyId(), s.bookmark.GetKeyId()) || !d.busy.CompareAndSwap(false, true) {
		return
	}
	file := kept{bookmark: s.bookmark, entries: maps.Clone(s.entries), good: maps.Clone(s.good)}
	d.saved, d.savedAt = s.bookmark, f.cfg.Clock()
	d.writing.Go(func() {
		defer d.busy.Store(false)
		if err := d.write(file); err != nil {
			d.failed.Store(true)
			f.cfg.Log.Warn("feed: cannot keep the last good state", "error", err)
			f.report(func(st *Status) { st.Err = err.Error() })
		}
	})
}

// kept is what a file holds.
type kept struct {
	bookmark      *apiv1.FeedBookmark
	entries, good map[string][]byte
}

// write writes a file. Last good values of keys in quarantine are marked as deleted.
func (d *disk) write(k kept) error {
	err := d.replace(d.file(k.bookmark.GetRevision()), func(w io.Writer) error {
		sum := sha256.New()
		out := io.MultiWriter(w, sum)
		if _, err := io.WriteString(out, fileMagic); err != nil {
			return err
		}
		if _, err := protodelim.MarshalTo(out, k.bookmark); err != nil {
			return err
		}
		for _, key := range slices.Sorted(maps.Keys(k.entries)) {
			if _, err := protodelim.MarshalTo(out, &apiv1.FeedEntry{Key: key, Value: k.entries[key]}); err != nil {
				return err
			}
		}
		for _, key := range slices.Sorted(maps.Keys(k.good)) {
			if _, err := protodelim.MarshalTo(out, &apiv1.FeedEntry{Key: key, Value: k.good[key], Deleted: true}); err != nil {
				return err
			}
		}
		_, err := w.Write(sum.Sum(nil))
		return err
	})
	if err != nil {
		return err
	}
	d.guard.saved(k.bookmark.GetRevision())
	return d.prune()
}

// prune raises the floor and removes what is below it, and what nobody needs above it.
func (d *disk) prune() error {
	revisions, err := d.revisions()
	if err != nil || len(revisions) == 0 {
		return err
	}
	var floor int64
	var old []int64
	for i, r := range revisions {
		if i < keptFiles || d.guard.pinned(r) {
			floor = r
		} else {
			old = append(old, r)
		}
	}
	err = d.replace(d.floorFile(), func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s%d\n", floorMagic, floor)
		return err
	})
	if err != nil {
		return err
	}
	for _, r := range old {
		if err := os.Remove(d.file(r)); err != nil {
			return err
		}
	}
	return nil
}

// images yields the files, newest first, each as a checked image or as the reason why it is passed over.
func (d *disk) images(keys []ed25519.PublicKey) iter.Seq2[*image, error] {
	return func(yield func(*image, error) bool) {
		floor, err := d.floor()
		if err != nil {
			yield(nil, err)
			return
		}
		revisions, err := d.revisions()
		if err != nil {
			yield(nil, err)
			return
		}
		for _, r := range revisions {
			var im *image
			err := fmt.Errorf("%w: the file of revision %d is below the floor %d", errRollback, r, floor)
			if r >= floor {
				im, err = d.read(r, keys)
			}
			if !yield(im, err) {
				return
			}
		}
	}
}

func (d *disk) read(revision int64, keys []ed25519.PublicKey) (*image, error) {
	b, err := os.ReadFile(d.file(revision))
	if err != nil {
		return nil, err
	}
	im, err := decodeFile(b, d.name, keys)
	if err == nil && im.bookmark.GetRevision() != revision {
		err = errors.New("it holds another revision than its name says")
	}
	if err != nil {
		return nil, fmt.Errorf("file of revision %d: %w", revision, err)
	}
	return im, nil
}

func decodeFile(b []byte, name string, keys []ed25519.PublicKey) (*image, error) {
	if len(b) < len(fileMagic)+sha256.Size || string(b[:len(fileMagic)]) != fileMagic {
		return nil, errors.New("not a file of ours")
	}
	body, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], sum) {
		return nil, errors.New("damaged")
	}
	r := bufio.NewReader(bytes.NewReader(body[len(fileMagic):]))
	bookmark := new(apiv1.FeedBookmark)
	if err := protodelim.UnmarshalFrom(r, bookmark); err != nil {
		return nil, err
	}
	if err := Verify(keys, name, bookmark); err != nil {
		return nil, err
	}
	var entries []Entry
	good := make(map[string][]byte)
	for {
		e := new(apiv1.FeedEntry)
		err := protodelim.UnmarshalFrom(r, e)
		switch {
		case errors.Is(err, io.EOF):
			im, err := newImage(bookmark, entries)
			if err == nil {
				im.good = good
			}
			return im, err
		case err != nil:
			return nil, err
		case e.GetDeleted():
			good[e.GetKey()] = e.GetValue()
		default:
			entries = append(entries, Entry{Key: e.GetKey(), Value: e.GetValue()})
		}
	}
}

// revisions returns those that there are files of, newest first.
func (d *disk) revisions() ([]int64, error) {
	files, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, err
	}
	var revisions []int64
	for _, file := range files {
		digits, ours := strings.CutPrefix(file.Name(), d.name+"-")
		digits, whole := strings.CutSuffix(digits, fileSuffix)
		if r, err := strconv.ParseInt(digits, 10, 64); ours && whole && err == nil && file.Name() == filepath.Base(d.file(r)) {
			revisions = append(revisions, r)
		}
	}
	slices.Sort(revisions)
	slices.Reverse(revisions)
	return revisions, nil
}

// floor returns 0 before the first write. A floor that cannot be read refuses all files: it is written whole or not at
// all, so something else changed it.
func (d *disk) floor() (int64, error) {
	b, err := os.ReadFile(d.floorFile())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	digits, ok := strings.CutPrefix(string(b), floorMagic)
	digits, whole := strings.CutSuffix(digits, "\n")
	r, err := strconv.ParseInt(digits, 10, 64)
	if !ok || !whole || err != nil {
		return 0, fmt.Errorf("%s is damaged; remove the folder to start from the stream", d.floorFile())
	}
	return r, nil
}

func (d *disk) file(revision int64) string {
	return filepath.Join(d.dir, fmt.Sprintf("%s-%020d%s", d.name, revision, fileSuffix))
}

func (d *disk) floorFile() string { return filepath.Join(d.dir, d.name+".floor") }

// replace writes path so that a crash leaves the old file or the new one.
func (d *disk) replace(path string, write func(io.Writer) error) (err error) {
	tmp, err := os.CreateTemp(d.dir, tmpPrefix+d.name+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, tmp.Close(), os.Remove(tmp.Name()))
		}
	}()
	buffered := bufio.NewWriter(tmp)
	if err := write(buffered); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return errors.Join(tmp.Close(), syncDir(d.dir))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
