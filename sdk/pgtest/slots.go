package pgtest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// slotPatience ends the wait for a place. A test that holds one database while it
	// waits for a second could otherwise wait for ever for others that do the same.
	slotPatience = 30 * time.Second
	slotRetry    = 20 * time.Millisecond

	noSlot = -1
)

// slots are the places for databases that a server has for all test processes. A place
// is an advisory lock of one session per process, so a killed process gives its own back.
type slots struct {
	pool     *pgxpool.Pool
	class    int // of the locks: one for each thing to share
	total    int
	patience time.Duration

	mu   sync.Mutex
	conn *pgxpool.Conn // the session; nil until the first place is taken
	mine map[int]bool
}

func newSlots(pool *pgxpool.Pool, class, total int) *slots {
	return &slots{pool: pool, class: class, total: total, patience: slotPatience, mine: map[int]bool{}}
}

// take waits for a place. When its patience ends the test goes on without one.
func (s *slots) take(ctx context.Context) (int, error) {
	patience, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	retry := time.NewTicker(slotRetry)
	defer retry.Stop()
	for {
		slot, err := s.try(ctx)
		if err != nil || slot != noSlot {
			return slot, err
		}
		select {
		case <-patience.Done():
			return noSlot, ctx.Err()
		case <-retry.C:
		}
	}
}

// try takes a free place, or returns noSlot.
func (s *slots) try(ctx context.Context) (int, error) {
	// A cancelled query would cost the session, and with it the places of other tests.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), slotPatience)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		conn, err := s.pool.Acquire(ctx)
		if err != nil {
			return noSlot, fmt.Errorf("connect: %w", err)
		}
		s.conn = conn
	}
	for slot := range s.total {
		if s.mine[slot] {
			continue // a session gets a lock that it holds once more
		}
		var free bool
		err := s.conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, $2)", s.class, slot).Scan(&free)
		if err != nil {
			return noSlot, err
		}
		if free {
			s.mine[slot] = true
			return slot, nil
		}
	}
	return noSlot, nil
}

func (s *slots) giveBack(slot int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slot == noSlot || s.conn == nil {
		return
	}
	delete(s.mine, slot)
	// Where this fails the session is gone, and the lock with it.
	_, _ = s.conn.Exec(context.Background(), "SELECT pg_advisory_unlock($1, $2)", s.class, slot)
}

// close gives the session back.
func (s *slots) close(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return
	}
	// The locks end with the session, which therefore is not one for others.
	conn := s.conn.Hijack()
	s.conn = nil
	_ = conn.Close(ctx)
}
