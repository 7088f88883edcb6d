// Package alloc lends tokens of limits and keeps slots, over a [Driver] that stores them.
//
// An [Allocator] answers asks of cells that were resolved already: it knows no tenants
// and no wire, as package lease does not. It batches what many callers ask at once, puts
// one scope behind another so that none delays the rest, converts cells whose limit has
// changed, and counts the processes that hold leases. Any number of allocators share one
// store; they need not know of each other.
//
// Drivers are pgalloc and redisalloc; alloctest is the suite that holds them to the same
// decisions. In a process that has an allocator, [Local] is a lease.Granter without a
// wire. Start at [New] and [Allocator.Grant].
package alloc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
)

const (
	// defaultFlushes is how many batches are at the store at a time, and how many scopes
	// wait there for locks of others beside them.
	defaultFlushes = 4
	// maxScopes is how many scopes one batch has, maxPerScope how many asks of each.
	maxScopes   = 64
	maxPerScope = 16
	// patience is how long a scope that others have locked is waited for.
	patience = 500 * time.Millisecond
	// storeWait bounds one trip to the store.
	storeWait = 2 * time.Second
	// attempts is how often an ask is tried whose cells change under it.
	attempts = 8
	// maxQueue is how many asks of one scope may wait.
	maxQueue = 1000
)

// Config makes an [Allocator]. Driver is required.
type Config struct {
	Driver Driver
	// Flushes is how many batches are at the store at a time. Default 4.
	Flushes int
	// Log is told what could not be done in the background. Default slog.Default().
	Log *slog.Logger
}

// Allocator lends tokens and keeps slots. It is safe for concurrent use.
type Allocator struct {
	driver  Driver
	log     *slog.Logger
	holders presence
	queue   queue
}

// New returns an allocator over a driver. Close ends it; the driver is the caller's.
func New(c Config) *Allocator {
	if c.Flushes == 0 {
		c.Flushes = defaultFlushes
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	a := &Allocator{driver: c.Driver, log: c.Log, holders: presence{driver: c.Driver, seen: make(map[string]time.Time)}}
	a.queue = queue{charge: c.Driver.Charge, lanes: make(map[lease.Scope]*lane), flushes: c.Flushes}
	return a
}

// Close waits for what is under way. Nobody may ask any more.
func (a *Allocator) Close() { a.queue.working.Wait() }

// Grant answers asks of one holder, each as a whole, those of one scope in their order. It
// returns how many processes hold leases. An error says that what became of the asks is
// not known; they count as charged. The end of ctx ends the wait and not the charge.
func (a *Allocator) Grant(ctx context.Context, holder string, asks []lease.Ask) ([]lease.Answer, int, error) {
	noted := a.holders.note(ctx, holder)
	jobs := make([]*job, len(asks))
	answers := make([]lease.Answer, len(asks))
	for i, ask := range asks {
		if reason := wrong(ask.Cells); reason != "" {
			answers[i] = lease.Answer{Reason: reason}
			continue
		}
		jobs[i] = newJob(ask)
	}
	a.queue.add(ctx, jobs)
	var failed error
	for i, j := range jobs {
		if j == nil {
			continue
		}
		select {
		case <-j.done:
			answers[i] = j.answer
			failed = errors.Join(failed, j.err)
		case <-ctx.Done():
			return nil, 0, fmt.Errorf("grant: %w", ctx.Err())
		}
	}
	if failed != nil {
		return nil, 0, fmt.Errorf("grant: %w", failed)
	}
	return answers, noted(ctx), nil
}

// wrong returns why cells cannot be charged together; "" when they can.
func wrong(cells []lease.CellAsk) string {
	if len(cells) == 0 || len(cells) > lease.MaxLevels {
		return fault.ReasonInvalidField
	}
	for i, c := range cells {
		if c.Policy == nil || c.Policy.Kind != lease.Rate || c.Need < 1 || c.Need > lease.MaxCost {
			return fault.ReasonInvalidField
		}
		for _, other := range cells[:i] {
			if other.Key == c.Key {
				return fault.ReasonInvalidField
			}
		}
	}
	return ""
}

// Return gives back what nobody has spent or will, and reports which gives were taken.
func (a *Allocator) Return(ctx context.Context, gives []lease.Give) ([]bool, error) {
	taken := make([]bool, len(gives))
	var ready []Give
	var at []int
	for i, g := range gives {
		if g.Policy == nil || g.Policy.Kind != lease.Rate || g.TAT <= 0 || g.Tokens < 1 {
			continue
		}
		if by := refund(g.Policy.Limit, min(g.Tokens, g.Policy.Limit.Burst())); by > 0 {
			ready = append(ready, Give{Ref: Ref{g.Scope, g.Key}, Mark: MarkOf(g.Policy.Limit), TAT: g.TAT, By: by})
			at = append(at, i)
		}
	}
	if len(ready) == 0 {
		return taken, nil
	}
	got, err := a.driver.Give(ctx, ready)
	if err != nil {
		return nil, fmt.Errorf("return: %w", err)
	}
	for n, i := range at {
		taken[i] = got[n]
	}
	return taken, nil
}

// Left is what is left of a cell.
type Left struct {
	Scope  lease.Scope
	Key    lease.Key
	Policy *lease.Policy
	// Remaining is how many tokens or slots could be granted at once.
	Remaining int64
}

// Left fills in what is left of cells.
func (a *Allocator) Left(ctx context.Context, cells []Left) error {
	var rates, slots []Ref
	for _, c := range cells {
		if c.Policy.Kind == lease.Concurrency {
			slots = append(slots, Ref{c.Scope, c.Key})
		} else {
			rates = append(rates, Ref{c.Scope, c.Key})
		}
	}
	states, now, err := a.driver.Read(ctx, rates)
	if err != nil {
		return fmt.Errorf("read cells: %w", err)
	}
	held, err := a.driver.Held(ctx, slots)
	if err != nil {
		return fmt.Errorf("read slots: %w", err)
	}
	for i := range cells {
		c := &cells[i]
		if c.Policy.Kind == lease.Concurrency {
			c.Remaining, held = max(c.Policy.Slots-held[0], 0), held[1:]
			continue
		}
		o, cell := offerOf(lease.CellAsk{Key: c.Key, Policy: c.Policy, Need: 1, Want: 1})
		got := cell.decide(states[0], now)
		if got.Rung == Stale {
			got = cell.convert(states[0], now).decide(states[0], now)
		}
		c.Remaining, states = o.answer(got, false, now).Remaining, states[1:]
	}
	return nil
}

// Collect removes what means nothing any more, until ctx ends.
func (a *Allocator) Collect(every time.Duration) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				if err := a.driver.Collect(ctx); err != nil && ctx.Err() == nil {
					a.log.WarnContext(ctx, "idle cells were not collected", "error", err) // the next tick comes
				}
			}
		}
	}
}

// presence counts the processes that hold leases.
type presence struct {
	driver Driver
	mu     sync.Mutex
	seen   map[string]time.Time
	live   int
}

const (
	// holderLife is how long a process counts as a holder after it was noted.
	holderLife = 15 * time.Second
	// holderNoted is how often a process that asks is noted.
	holderNoted = 5 * time.Second
)

// note notes a holder beside what the caller does, when it is time. The result waits for
// that and returns how many there are, at least 1.
func (p *presence) note(ctx context.Context, holder string) func(context.Context) int {
	if !p.due(holder, time.Now()) {
		return p.count
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeWait)
		defer cancel()
		n, err := p.driver.Present(ctx, []string{holder}, holderLife)
		p.mu.Lock()
		defer p.mu.Unlock()
		if err != nil {
			delete(p.seen, holder) // the next ask tries again
			return
		}
		p.live = n
	}()
	return func(ctx context.Context) int {
		select {
		case <-done:
		case <-ctx.Done():
		}
		return p.count(ctx)
	}
}

// due reports whether a holder is to be noted, and remembers that it is.
func (p *presence) due(holder string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last, ok := p.seen[holder]; ok && now.Sub(last) < holderNoted {
		return false
	}
	const most = 1000 // names that nobody has used for long go
	if len(p.seen) >= most {
		for name, last := range p.seen {
			if now.Sub(last) >= holderNoted {
				delete(p.seen, name)
			}
		}
	}
	p.seen[holder] = now
	return true
}

func (p *presence) count(context.Context) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(p.live, 1)
}
