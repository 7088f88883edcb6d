// Package fair shares the places of one busy resource among tenants.
//
// A [Queue] lets so many calls be under way at a time. Who comes on top of that waits,
// and of those that wait it is the turn of the tenant that has had the least, measured
// by the time that its calls held places and divided by its weight: start-time fair
// queueing. A tenant that comes with a hundred times the calls of others waits for
// itself; the others hardly notice.
//
// What a call costs is known only when it ends. So it is charged what the tenant's calls
// took so far, and that is put right at its end: slow calls are no way to more than a
// share. All of this is arithmetic of integers.
//
// It is for calls whose caller waits. Rates are package limits' matter, and work in the
// background sdk/jobs'. Start at [New] and [Queue.Enter].
package fair

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Weights are from 1 to MostWeight; DefaultWeight is that of a plan which sets none.
const (
	DefaultWeight = 100
	MostWeight    = 1000
)

// Config makes a [Queue]. The zero value of a field is its default.
type Config struct {
	// Width is how many calls are under way at a time, at most. Default 64.
	Width int
	// Least, when it is not 0, lets latency choose the width: never below Least, never above Width.
	Least int
	// Spare is how many places are kept from tenants who have more than their share already, for
	// those who come next. Default an eighth of Width; less than 0 for none.
	Spare int
	// Queue is how many calls of one tenant wait. Default 64.
	Queue int
	// Room is how many calls of all tenants wait. Default 8192.
	Room int
	// Wait is how long a call waits before the longest queue loses one. Default 1 s.
	Wait time.Duration
	// Hold is how long a call counts as under way; what takes longer goes on without a place.
	// Default 0: until it ends.
	Hold time.Duration
	// Clock is the time. Default time.Now.
	Clock func() time.Time
}

func (c Config) withDefaults() Config {
	set := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	set(&c.Width, 64)
	set(&c.Spare, c.Width/8)
	set(&c.Queue, 64)
	set(&c.Room, 8192)
	if c.Wait == 0 {
		c.Wait = time.Second
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	return c
}

// Validate says which field cannot work.
func (c Config) Validate() error {
	switch {
	case c.Width < 0 || c.Queue < 0 || c.Room < 0:
		return errors.New("fair: width, queue and room are counts")
	case c.Least < 0 || c.Width > 0 && c.Least > c.Width:
		return errors.New("fair: least is from 0 to width")
	case c.Wait < 0 || c.Hold < 0:
		return errors.New("fair: wait and hold are durations")
	}
	return nil
}

// Call is what wants a place.
type Call struct {
	// Tenant is whose call it is.
	Tenant tenant.UID
	// Weight is the tenant's part; what is not from 1 to [MostWeight] counts as the nearest.
	Weight int
	// Cost is what the call costs, where that is known, from 1 to 2^40, in a unit of the caller's; all
	// calls of a queue have one or none has. Default 0: the time that it holds its place.
	Cost int64
}

// Queue shares places. It is safe for concurrent use.
type Queue struct {
	c     Config
	width width

	mu      sync.Mutex
	virtual int64 // start tag of the last call that got a place
	mean    int64 // cost of calls lately
	turn    int64 // counts heads of queues, so that equal tags keep their order
	held    int
	waiting int
	weights int64 // of tenants that hold or wait
	flows   map[tenant.UID]*flow
	ready   byTag // with calls that wait
	idle    byTag // neither hold nor wait, and are ahead of the others
	last    tenant.UID
	mixed   time.Time // when two tenants last took turns
	blame   blame
	counts  counts
}

type counts struct{ shed, full, lapsed uint64 }

// New returns a Queue of free places.
func New(c Config) (*Queue, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	return &Queue{c: c, width: newWidth(c), flows: map[tenant.UID]*flow{}, mean: firstMean}, nil
}

// firstMean is what calls cost before one has ended.
const firstMean = 1000

// Place is where a call is under way. It is left once, with Done or Drop; more of it does nothing.
type Place struct {
	q    *Queue
	flow *flow
	// settled is closed when the wait is over, one way or the other; nil without a wait.
	settled chan struct{}
	state   state
	cost    int64 // given by the caller
	charged int64
	began   time.Time
	since   mark
	permit  permit
	lapse   *time.Timer
	use     Use
}

type state uint8

const (
	waits state = iota
	holds
	shed
	left
)

// Use is what a call took of others.
type Use struct {
	// Held is how long it had a place.
	Held time.Duration
	// Delayed is what other tenants' calls waited because of it: at each moment they wait for all calls
	// that hold places alike.
	Delayed time.Duration
}

// Enter waits for the call's turn. The place must be left. Errors are the fault
// CAPACITY_REDUCED, UNAVAILABLE with a time to retry after, for a tenant that has more than its
// share, and why ctx ended.
func (q *Queue) Enter(ctx context.Context, c Call) (*Place, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("wait for a place: %w", err)
	}
	p, err := q.ask(c)
	if err != nil || p.settled == nil {
		return p, err
	}
	if err := p.await(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// await waits until the call has its place or must go without.
func (p *Place) await(ctx context.Context) error {
	timer := time.NewTimer(p.q.c.Wait)
	defer timer.Stop()
	for {
		select {
		case <-p.settled:
			return p.q.outcome(p)
		case <-timer.C:
			p.q.overdue(p)
			timer.Reset(p.q.c.Wait)
		case <-ctx.Done():
			p.q.forsake(p)
			return fmt.Errorf("wait for a place: %w", ctx.Err())
		}
	}
}

// ask puts the call at the end of its tenant's queue, from where it may get its place at once.
func (q *Queue) ask(c Call) (*Place, error) {
	now := q.c.Clock()
	q.mu.Lock()
	defer q.mu.Unlock()
	f := q.flow(c)
	if len(f.calls) >= q.c.Queue || q.waiting >= q.c.Room && !q.makeRoom(f) {
		q.counts.full++
		err := q.refusal(f)
		q.rest(f)
		return nil, err
	}
	p := &Place{q: q, flow: f, cost: min(max(c.Cost, 0), mostCost)}
	q.line(f, p, now)
	q.dispatch(now)
	if p.state == waits {
		p.settled = make(chan struct{})
	}
	return p, nil
}

const mostCost = 1 << 40

// makeRoom sheds a call of the longest queue, unless that is the tenant's own.
func (q *Queue) makeRoom(f *flow) bool {
	longest := q.longest()
	if longest == nil || longest == f {
		return false
	}
	q.shed(longest)
	return true
}

// dispatch gives free places to those whose turn it is.
func (q *Queue) dispatch(now time.Time) {
	var passed []*flow // over their share, while what is free is spare
	for q.ready.Len() > 0 {
		limit := q.width.limit()
		if q.held >= limit {
			break
		}
		f := q.ready.take()
		if !q.mayTake(f, limit, now) {
			passed = append(passed, f)
			continue
		}
		granted, ok := q.width.take()
		if !ok {
			passed = append(passed, f)
			break
		}
		q.grant(f, granted, now)
	}
	for _, f := range passed {
		heap.Push(&q.ready, f)
	}
}

// mayTake reports whether the tenant may have one more of the places: the spare ones are for those within their share.
// A tenant that is alone has all.
func (q *Queue) mayTake(f *flow, limit int, now time.Time) bool {
	if limit-q.held > limit*q.c.Spare/q.c.Width {
		return true
	}
	if q.weights == f.weight {
		return f.held <= limit/2 || now.Sub(q.mixed) > alone
	}
	return f.held <= q.share(f, limit)
}

// alone is how long a tenant must have been the only one to have the spare places too.
const alone = time.Second

// share is how many places are the tenant's part now, rounded up.
func (q *Queue) share(f *flow, limit int) int {
	weights := max(q.weights, 1)
	return int((int64(limit)*f.weight + weights - 1) / weights)
}

// grant gives the first call of the flow, which is out of the heap, a place.
func (q *Queue) grant(f *flow, granted permit, now time.Time) {
	q.blame.move(now, q.waiting, q.held)
	f.own.move(&q.blame, len(f.calls))
	p := f.calls[0]
	f.calls = f.calls[1:]
	q.waiting--
	q.held++
	f.held++
	if q.virtual < f.tag {
		q.virtual = f.tag
	}
	p.state, p.permit, p.began, p.since = holds, granted, now, f.own.mark(&q.blame)
	p.charged = f.price(p)
	f.tag += p.charged * scale / f.weight
	if f.uid != q.last {
		if q.last != (tenant.UID{}) {
			q.mixed = now
		}
		q.last = f.uid
	}
	if len(f.calls) > 0 {
		q.turn++
		f.turn = q.turn
		heap.Push(&q.ready, f)
	}
	if p.settled != nil {
		close(p.settled)
	}
	if q.c.Hold > 0 {
		p.lapse = time.AfterFunc(q.c.Hold, func() { q.lapse(p) })
	}
	q.advance()
}

// outcome says what became of a call whose wait is over.
func (q *Queue) outcome(p *Place) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if p.state == shed {
		return q.refusal(p.flow)
	}
	return nil
}

// overdue makes the longest queue lose a call, because this one has waited too long. Where that is its own, it is this
// one that goes; nobody does while all are within their shares.
func (q *Queue) overdue(p *Place) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if p.state != waits {
		return
	}
	switch longest := q.longest(); longest {
	case nil:
	case p.flow:
		q.drop(p, shed)
	default:
		q.shed(longest)
	}
}

// longest is the tenant with the most calls that wait by its weight, of those who have more than their share; nil
// without one.
func (q *Queue) longest() *flow {
	limit := q.width.limit()
	var longest *flow
	for _, f := range q.ready.flows {
		if f.held+len(f.calls) <= q.share(f, limit) {
			continue
		}
		if longest == nil || int64(len(f.calls))*longest.weight > int64(len(longest.calls))*f.weight {
			longest = f
		}
	}
	return longest
}

// shed refuses the call of the flow that came last.
func (q *Queue) shed(f *flow) { q.drop(f.calls[len(f.calls)-1], shed) }

// drop takes a call that waits out of its queue.
func (q *Queue) drop(p *Place, why state) {
	f, now := p.flow, q.c.Clock()
	q.blame.move(now, q.waiting, q.held)
	f.own.move(&q.blame, len(f.calls))
	f.remove(p)
	q.waiting--
	p.state = why
	if why == shed {
		q.counts.shed++
		close(p.settled)
	}
	if len(f.calls) == 0 {
		heap.Remove(&q.ready, f.at)
		q.rest(f)
	}
}

// forsake ends the wait of a call whose caller has gone, or gives back what it got meanwhile.
func (q *Queue) forsake(p *Place) {
	q.mu.Lock()
	if p.state == waits {
		q.drop(p, left)
	}
	q.mu.Unlock()
	p.Drop()
}

// Done ends the call and gives the place to the next. What it took tells how wide the queue may be.
func (p *Place) Done() Use { return p.leave(permit.Record) }

// Drop is Done for a call whose time tells nothing: it failed, or its caller went away.
func (p *Place) Drop() Use { return p.leave(permit.Drop) }

func (p *Place) leave(settle func(permit)) Use {
	q, now := p.q, p.q.c.Clock()
	q.mu.Lock()
	defer q.mu.Unlock()
	if p.state == holds {
		if p.lapse != nil {
			p.lapse.Stop()
		}
		q.end(p, now, settle)
	}
	return p.use
}

// lapse takes the place from a call that has had it for too long, which goes on without.
func (q *Queue) lapse(p *Place) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if p.state == holds {
		q.counts.lapsed++
		q.end(p, q.c.Clock(), permit.Drop) // it may be meant to take long
	}
}

// end settles what the call cost and gives its place to the next.
func (q *Queue) end(p *Place, now time.Time, settle func(permit)) {
	f := p.flow
	q.blame.move(now, q.waiting, q.held)
	f.own.move(&q.blame, len(f.calls))
	p.use = Use{Held: max(now.Sub(p.began), 0), Delayed: f.own.since(&q.blame, p.since)}
	p.state = left
	q.held--
	f.held--
	settle(p.permit)
	if p.cost == 0 {
		q.correct(f, p)
	}
	q.rest(f)
	q.dispatch(now)
	if q.held == 0 && q.waiting == 0 {
		q.reset()
	}
}

// correct charges the flow what the call took instead of what was expected.
func (q *Queue) correct(f *flow, p *Place) {
	took := min(max(p.use.Held.Microseconds(), 1), mostCost)
	f.tag += (took - p.charged) * scale / f.weight
	f.mean += (took - f.mean) / smooth
	q.mean += (took - q.mean) / smooth
	f.mean, q.mean = max(f.mean, 1), max(q.mean, 1)
	if len(f.calls) > 0 {
		heap.Fix(&q.ready, f.at)
	}
}

// refusal is what a tenant with more than its share is told: when its calls that wait now will have had their turn.
func (q *Queue) refusal(f *flow) error {
	places := max(q.share(f, q.width.limit()), 1)
	retry := time.Duration(int64(len(f.calls))*f.mean/int64(places)) * time.Microsecond
	return fault.New(fault.Unavailable, fault.ReasonCapacityReduced,
		"there is more to do than can be done now, and this account wants more than its share of it").
		WithRetry(min(max(retry, time.Second), mostRetry))
}

const mostRetry = 30 * time.Second

// Stats is how a queue is used at a moment.
type Stats struct {
	// Width is how many calls may be under way, Held how many are, and Waiting how many wait.
	Width, Held, Waiting int
	// Tenants is how many tenants the queue knows of.
	Tenants int
	// Shed counts calls that were refused after they had waited, Full those that were not let in, and
	// Lapsed those that went on without their place.
	Shed, Full, Lapsed uint64
}

// Stats returns how the queue is used.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	return Stats{
		Width: q.width.limit(), Held: q.held, Waiting: q.waiting, Tenants: len(q.flows),
		Shed: q.counts.shed, Full: q.counts.full, Lapsed: q.counts.lapsed,
	}
}
