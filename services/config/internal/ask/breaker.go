package ask

import (
	"sync"
	"time"
)

const (
	// inARow failures open a breaker, and so does half of atLeast or more calls within window.
	inARow  = 5
	atLeast = 10
	window  = 30 * time.Second
	// rest is how long an open breaker lets nobody through before one may try.
	rest = 30 * time.Second
	// most bounds what is remembered of a window.
	most = 1000
)

// State is where a breaker stands; its numbers are what the metric shows.
type State int64

// The states.
const (
	Closed State = iota
	HalfOpen
	Open
)

// outcome is how a call went.
type outcome uint8

const (
	failed outcome = iota
	answered
	// neither: the caller went away, which says nothing about the hook.
	neither
)

// breaker keeps steps from waiting for a hook that does not answer. It is our own because those of libraries take the time
// from the system, and ours has to be tested, and explained after an incident, by the service's clock.
type breaker struct {
	clock func() time.Time

	mu      sync.Mutex
	row     int
	calls   []call
	since   time.Time // when it opened; zero while it is closed
	probing bool
}

type call struct {
	at     time.Time
	failed bool
}

// enter reports whether a call may be made. Who may has to call leave.
func (b *breaker) enter() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch b.stateLocked() {
	case Open:
		return false
	case HalfOpen:
		if b.probing {
			return false
		}
		b.probing = true
	case Closed:
	}
	return true
}

// leave says how a call went.
func (b *breaker) leave(o outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, probe := b.clock(), b.probing && b.stateLocked() == HalfOpen
	b.probing = b.probing && !probe
	switch {
	case o == neither:
	case o == answered && probe:
		b.since, b.row, b.calls = time.Time{}, 0, nil
	case probe:
		b.since = now
	case !b.since.IsZero(): // it was under way when the breaker opened
	default:
		b.countLocked(now, o == failed)
	}
}

func (b *breaker) countLocked(now time.Time, bad bool) {
	keep := 0
	for keep < len(b.calls) && (now.Sub(b.calls[keep].at) > window || len(b.calls)-keep >= most) {
		keep++
	}
	b.calls = append(b.calls[keep:], call{now, bad})
	b.row++
	if !bad {
		b.row = 0
	}
	failures := 0
	for _, c := range b.calls {
		if c.failed {
			failures++
		}
	}
	if b.row >= inARow || len(b.calls) >= atLeast && 2*failures >= len(b.calls) {
		b.since = now
	}
}

// state is where the breaker stands.
func (b *breaker) state() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stateLocked()
}

func (b *breaker) stateLocked() State {
	switch {
	case b.since.IsZero():
		return Closed
	case b.clock().Sub(b.since) < rest:
		return Open
	default:
		return HalfOpen
	}
}
