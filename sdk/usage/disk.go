package usage

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// disk is a spool of files. A file is written until it is taken, and removed when all in it is counted: until then a crash
// has all of it sent again, which counts nothing twice. So no note is kept of what is done, and no file ever changes.
type disk struct {
	dir  string
	most int64
	lock *os.File

	mu     sync.Mutex
	bytes  int64 // in all files
	number uint64
	closed []string // files that nobody writes any more, oldest first
	file   *os.File // the one that is written; nil until something is added
	path   string
	size   int64
	syncer *syncer
}

const (
	suffix = ".usage"
	// maxFile is when a file is full, and bounds the memory of one that is sent.
	maxFile = 4 << 20
	// A frame is length, checksum, tenant and event.
	headSize  = 8
	uidSize   = 16
	maxFrame  = maxEvent + uidSize
	onlyOwner = 0o600
)

// openDisk opens a folder, and says how many events are in it.
func openDisk(dir string, most int64) (d *disk, left int, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, 0, err
	}
	d = &disk{dir: dir, most: most}
	if d.lock, err = lockFolder(filepath.Join(dir, "lock")); err != nil {
		return nil, 0, fmt.Errorf("%s is used by another process: %w", dir, err)
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil {
		return nil, 0, errors.Join(err, d.lock.Close())
	}
	slices.Sort(paths)
	for _, path := range paths {
		n, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(path), suffix), 16, 64)
		if err != nil {
			continue // not ours
		}
		records, err := segment(path).load()
		if err != nil {
			return nil, 0, errors.Join(err, d.lock.Close())
		}
		info, err := os.Stat(path)
		if err != nil {
			return nil, 0, errors.Join(err, d.lock.Close())
		}
		left += len(records)
		d.bytes += info.Size()
		d.number = max(d.number, n)
		d.closed = append(d.closed, path)
	}
	return d, left, nil
}

// segment is a file of records.
type segment string

// load reads the records of a file. It ends at the first one that a crash left half written: those behind it were never
// promised to anybody.
func (s segment) load() ([]record, error) {
	f, err := os.Open(string(s))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var records []record
	in := bufio.NewReader(f)
	for {
		rec, err := readFrame(in)
		if errors.Is(err, errTorn) || errors.Is(err, io.EOF) {
			return records, nil
		}
		if err != nil {
			return nil, err
		}
		records = append(records, rec)
	}
}

var errTorn = errors.New("half written")

func readFrame(in io.Reader) (rec record, err error) {
	var head [headSize]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return rec, torn(err)
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n < uidSize || n > maxFrame {
		return rec, errTorn
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(in, body); err != nil {
		return rec, torn(err)
	}
	if crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(head[4:]) {
		return rec, errTorn
	}
	rec = record{tenant.UID(body[:uidSize]), new(quotav1.UsageEvent)}
	if proto.Unmarshal(body[uidSize:], rec.event) != nil {
		return rec, errTorn
	}
	return rec, nil
}

func torn(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errTorn
	}
	return err
}

func appendFrame(b []byte, rec record) ([]byte, error) {
	start := len(b)
	b = append(b, make([]byte, headSize)...)
	b = append(b, rec.tenant[:]...)
	b, err := proto.MarshalOptions{}.MarshalAppend(b, rec.event)
	if err != nil {
		return nil, err
	}
	body := b[start+headSize:]
	binary.BigEndian.PutUint32(b[start:], uint32(len(body))) //nolint:gosec // at most maxFrame
	binary.BigEndian.PutUint32(b[start+4:], crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	return b, nil
}

func framesOf(records []record) (b []byte, err error) {
	for _, rec := range records {
		if b, err = appendFrame(b, rec); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// add writes records and returns when they are on the disk.
func (d *disk) add(records []record) error {
	b, err := framesOf(records)
	if err != nil {
		return err
	}
	d.mu.Lock()
	if d.bytes+int64(len(b)) > d.most {
		d.mu.Unlock()
		return ErrFull
	}
	if err := d.writable(); err != nil {
		d.mu.Unlock()
		return err
	}
	n, err := d.file.Write(b)
	if err != nil {
		// What was written in part must not be followed by more: it would not be found.
		err = errors.Join(err, d.file.Truncate(d.size), d.rotate())
		d.mu.Unlock()
		return fmt.Errorf("keep usage: %w", err)
	}
	d.size, d.bytes = d.size+int64(n), d.bytes+int64(n)
	s, upTo := d.syncer, d.size
	d.mu.Unlock()
	if err := s.sync(upTo); err != nil {
		return fmt.Errorf("keep usage: %w", err)
	}
	return nil
}

// writable makes a file where there is none with room. The lock is held.
func (d *disk) writable() error {
	if d.file != nil && d.size < maxFile {
		return nil
	}
	if err := d.rotate(); err != nil {
		return err
	}
	d.number++
	path := filepath.Join(d.dir, fmt.Sprintf("%016x%s", d.number, suffix))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, onlyOwner)
	if err != nil {
		return err
	}
	if err := syncFolder(d.dir); err != nil {
		return errors.Join(err, f.Close())
	}
	d.file, d.path, d.size, d.syncer = f, path, 0, &syncer{file: f}
	return nil
}

// rotate ends the file that is written. The lock is held.
func (d *disk) rotate() error {
	if d.file == nil {
		return nil
	}
	err := d.syncer.close(d.size)
	d.closed = append(d.closed, d.path)
	d.file, d.syncer = nil, nil
	return err
}

func (d *disk) take() ([]batch, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.rotate(); err != nil {
		return nil, err
	}
	batches := make([]batch, 0, len(d.closed))
	for _, path := range d.closed {
		batches = append(batches, segment(path))
	}
	d.closed = nil
	return batches, nil
}

// done removes a file, after what is left of it was written to another one.
func (d *disk) done(b batch, n int, left []record) error {
	path := string(b.(segment)) //nolint:forcetypeassert // take made it
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(left) == n && n > 0 {
		d.closed = append(d.closed, path)
		return nil
	}
	info, err := os.Stat(path)
	if err == nil && len(left) > 0 {
		err = d.keep(left)
	}
	if err != nil {
		d.closed = append(d.closed, path)
		return fmt.Errorf("keep usage: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep usage: %w", err)
	}
	d.bytes -= info.Size()
	return nil
}

// keep writes what is left of a file to one of its own.
func (d *disk) keep(left []record) error {
	b, err := framesOf(left)
	if err != nil {
		return err
	}
	d.number++
	to := filepath.Join(d.dir, fmt.Sprintf("%016x%s", d.number, suffix))
	f, err := os.OpenFile(to+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, onlyOwner)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(to+".tmp", to)
	}
	if err = errors.Join(err, syncFolder(d.dir)); err != nil {
		return err
	}
	d.closed = append(d.closed, to)
	d.bytes += int64(len(b))
	return nil
}

func (d *disk) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return errors.Join(d.rotate(), d.lock.Close())
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// syncer has one wait for the disk serve all writers that came before it.
type syncer struct {
	mu     sync.Mutex
	file   *os.File
	synced int64
	err    error // of a sync that failed: nothing after it can be trusted
	closed bool
}

// sync returns when the first upTo bytes are on the disk.
func (s *syncer) sync(upTo int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.synced >= upTo || s.err != nil || s.closed {
		return s.err
	}
	info, err := s.file.Stat()
	if err == nil {
		err = s.file.Sync()
	}
	if s.err = err; err == nil {
		s.synced = info.Size()
	}
	return err
}

// close syncs all and closes the file.
func (s *syncer) close(size int64) error {
	err := s.sync(size)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return errors.Join(err, s.file.Close())
}
