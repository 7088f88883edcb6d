package feed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	guardFormat = "rowhouse-feed-guard/1 base %d applying %d held %d deaths %d running %t\n"
	// guardSize is more than a marker has, so that one write replaces all of the last one.
	guardSize = 192
	// settled is how long a process lives with a state before that counts as harmless.
	settled = time.Minute
	// fatal is of how many processes the same changes are the end before they are held back.
	fatal   = 2
	heldFor = "held back: two processes ended soon after they had applied it"
)

// marker says what a process is about to apply, for the next one if this one dies of it. It is for the death of a
// process, not of the machine: it is not synced, so that a change costs one write to memory.
type marker struct {
	base     int64 // a state with which a process lived long enough, of which there is a file
	applying int64 // the newest revision that a process began to apply
	held     int64 // changes after base, up to this one, are held back; 0 for none
	deaths   int   // of processes one after the other, with changes that are newer than base
	running  bool  // its process has not come to an orderly end
}

func (m marker) encode() []byte {
	text := fmt.Appendf(nil, guardFormat, m.base, m.applying, m.held, m.deaths, m.running)
	return append(text, bytes.Repeat([]byte{' '}, guardSize-len(text))...)
}

func decodeMarker(b []byte) (m marker, err error) {
	_, err = fmt.Sscanf(string(b), guardFormat, &m.base, &m.applying, &m.held, &m.deaths, &m.running)
	return m, err
}

// next is the marker of the process after the one that left m.
func (m marker) next() marker {
	switch {
	case !m.running:
		m.deaths, m.held = 0, 0 // an orderly end: perhaps a repaired program comes after it
	case m.applying > m.base:
		m.deaths++
	}
	if m.deaths >= fatal {
		m.deaths = 0
		if m.base > 0 { // else there is nothing to go back to
			m.held = m.applying
		}
	}
	m.running = true
	return m
}

// crashGuard keeps a process from dying of the same changes again and again. A nil one does nothing.
type crashGuard struct {
	file   *os.File
	failed func(error)
	clean  bool // the last process came to an orderly end

	mu        sync.Mutex
	marker    marker
	newest    int64 // that there is a file of
	candidate int64 // becomes the base
	settle    *time.Timer

	// Touched by the following goroutine only.
	holding bool
	synced  bool // a stream has confirmed a state
	refused map[string]Entry
}

// openCrashGuard begins a process.
func openCrashGuard(dir, name string, failed func(error)) (*crashGuard, error) {
	path := filepath.Join(dir, name+".guard")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	g := &crashGuard{file: file, failed: failed, refused: make(map[string]Entry)}
	b := make([]byte, guardSize)
	if _, err := file.ReadAt(b, 0); err == nil {
		if m, err := decodeMarker(b); err == nil { // a damaged one says nothing
			g.marker = m
		}
	} else if !errors.Is(err, io.EOF) && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, file.Close())
	}
	g.clean = !g.marker.running
	g.marker = g.marker.next()
	g.writeLocked()
	return g, nil
}

// writeLocked is for holders of the lock, and for who alone has the guard.
func (g *crashGuard) writeLocked() {
	if _, err := g.file.WriteAt(g.marker.encode(), 0); err != nil {
		g.failed(err)
	}
}

// upTo is the newest revision that may be loaded from disk; false for any.
func (g *crashGuard) upTo() (int64, bool) {
	if g == nil {
		return 0, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.marker.base, g.marker.held > 0
}

// loaded says which state came from disk, 0 for none. Only from one can changes be held back: nobody is to start with
// nothing. After an orderly end the first such state is the base.
func (g *crashGuard) loaded(revision int64) (held int64) {
	if g == nil {
		return 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case revision == 0:
		g.marker.held = 0
	case g.marker.base == 0 && g.clean:
		g.marker.base = revision
	}
	g.writeLocked()
	g.holding = g.marker.held > 0
	return g.marker.held
}

// applying comes before a revision is applied.
func (g *crashGuard) applying(revision int64) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if revision > g.marker.applying {
		g.marker.applying = revision
		g.writeLocked()
	}
}

// saved says that there is a file of a state that is in force, and has it become the base in time.
func (g *crashGuard) saved(revision int64) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.newest = max(g.newest, revision)
	g.awaitLocked()
}

func (g *crashGuard) awaitLocked() {
	if g.candidate > 0 || g.newest <= g.marker.base || !g.marker.running {
		return
	}
	g.candidate = g.newest
	g.settle = time.AfterFunc(settled, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if !g.marker.running {
			return
		}
		g.marker.base, g.candidate, g.marker.deaths = g.candidate, 0, 0
		g.writeLocked()
		g.awaitLocked()
	})
}

// pinned reports whether the file of a revision is needed whatever its age.
func (g *crashGuard) pinned(revision int64) bool {
	if g == nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return revision == g.marker.base || revision == g.candidate
}

// end is an orderly end of the process.
func (g *crashGuard) end() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.marker.running = false
	g.writeLocked()
	if g.settle != nil {
		g.settle.Stop()
	}
	_ = g.file.Close() // nothing is buffered
}

// holds reports whether an entry is held back: it may be what two processes died of. last is what is in force of it.
func (g *crashGuard) holds(e Entry, last Entry, c Change) bool {
	if !g.holdsBack() {
		return false
	}
	same := func(with Entry) bool { return e.Deleted == with.Deleted && bytes.Equal(e.Value, with.Value) }
	if refused, ok := g.refused[e.Key]; ok && same(refused) {
		return true
	}
	suspect := c.Revision <= g.marker.held // only this goroutine changes that, once it runs
	if c.Reset {
		suspect = !g.synced // a snapshot does not tell when its entries were made
	}
	if suspect && !same(last) {
		g.refused[e.Key] = e
		return true
	}
	delete(g.refused, e.Key)
	return false
}

// holdsBack reports whether anything may be held back.
func (g *crashGuard) holdsBack() bool { return g != nil && g.holding }

// confirmed comes with each bookmark of a stream. It is true when nothing is held back any more.
func (g *crashGuard) confirmed() (over bool) {
	if !g.holdsBack() {
		return false
	}
	g.synced = true
	if len(g.refused) > 0 {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holding, g.marker.held = false, 0
	g.writeLocked()
	return true
}
