package usage

import (
	"slices"
	"sync"
)

// spool keeps records until they are counted.
type spool interface {
	// add keeps records, all or none.
	add(records []record) error
	// take returns all that was added, in batches; nobody else adds to those any more. Only one goroutine takes.
	take() ([]batch, error)
	// done ends a batch, of which so many were loaded: what is left of it is kept for the next take.
	done(b batch, n int, left []record) error
	close() error
}

// batch is a part of what waits.
type batch interface {
	load() ([]record, error)
}

// memory is a spool that ends with the process.
type memory struct {
	most int

	mu      sync.Mutex
	records []record
	held    int // taken, and not done
}

type loaded []record

func (l loaded) load() ([]record, error) { return l, nil }

func (m *memory) add(records []record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.records)+m.held+len(records) > m.most {
		return ErrFull
	}
	m.records = append(m.records, records...)
	return nil
}

func (m *memory) take() ([]batch, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.records) == 0 {
		return nil, nil
	}
	b := loaded(m.records)
	m.held, m.records = len(b), nil
	return []batch{b}, nil
}

func (m *memory) done(_ batch, n int, left []record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held -= n
	m.records = append(slices.Clip(left), m.records...)
	return nil
}

func (m *memory) close() error { return nil }
