package fair

import (
	"container/heap"
	"slices"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

const (
	// scale keeps the fractions of a cost that is divided by a weight.
	scale = 1000
	// smooth is by how much of the difference a mean follows each call.
	smooth = 8
	// farthest is the virtual time at which all tags are counted anew from 0, long before they overflow.
	farthest = int64(1) << 60
)

// flow is what is known of one tenant while it holds or waits, and afterwards as long as it is ahead of others.
type flow struct {
	uid    tenant.UID
	weight int64
	// tag is the start tag of the first call that waits, or of the next one to come.
	tag, turn int64
	at        int      // in its heap
	calls     []*Place // that wait, in their order
	held      int
	mean      int64
	active    bool // holds or waits
	own       ownBlame
}

// price is what a call is charged when it gets its place.
func (f *flow) price(p *Place) int64 {
	if p.cost > 0 {
		return p.cost
	}
	return f.mean
}

func (f *flow) remove(p *Place) {
	if i := slices.Index(f.calls, p); i >= 0 {
		f.calls = slices.Delete(f.calls, i, i+1)
	}
}

// flow finds a tenant's flow or begins one. What it had before it went idle counts while it is ahead of the others.
func (q *Queue) flow(c Call) *flow {
	weight := int64(min(max(c.Weight, 1), MostWeight))
	f := q.flows[c.Tenant]
	if f == nil {
		f = &flow{uid: c.Tenant, tag: q.virtual, mean: q.mean}
		q.flows[c.Tenant] = f
		heap.Push(&q.idle, f)
	}
	if !f.active {
		heap.Remove(&q.idle, f.at)
		f.active, f.weight = true, weight
		q.weights += weight
	}
	q.weights += weight - f.weight
	f.weight = weight
	return f
}

// line puts a call at the end of its tenant's queue.
func (q *Queue) line(f *flow, p *Place, now time.Time) {
	q.blame.move(now, q.waiting, q.held)
	f.own.move(&q.blame, len(f.calls))
	f.calls = append(f.calls, p)
	q.waiting++
	if len(f.calls) == 1 {
		f.tag = max(f.tag, q.virtual)
		q.turn++
		f.turn = q.turn
		heap.Push(&q.ready, f)
	}
}

// rest puts a flow aside that neither holds nor waits, and forgets it unless it is ahead of the others.
func (q *Queue) rest(f *flow) {
	if f.held > 0 || len(f.calls) > 0 || !f.active {
		return
	}
	f.active = false
	q.weights -= f.weight
	heap.Push(&q.idle, f)
	q.advance()
}

// advance forgets idle flows that the others have caught up with: a new one would begin where they are.
func (q *Queue) advance() {
	for q.idle.Len() > 0 && q.idle.flows[0].tag <= q.virtual {
		delete(q.flows, q.idle.take().uid)
	}
	if q.virtual < farthest {
		return
	}
	for _, f := range q.flows {
		f.tag -= q.virtual
	}
	q.virtual = 0
}

// reset forgets everything about shares: nobody holds or waits, so nobody is behind.
func (q *Queue) reset() {
	clear(q.flows)
	q.idle.flows, q.virtual, q.weights = nil, 0, 0
}

// byTag orders flows by their start tags, and those with the same by when it became their turn to be compared.
type byTag struct{ flows []*flow }

// Len implements heap.Interface.
func (h *byTag) Len() int { return len(h.flows) }

// Less implements heap.Interface.
func (h *byTag) Less(i, j int) bool {
	a, b := h.flows[i], h.flows[j]
	return a.tag < b.tag || a.tag == b.tag && a.turn < b.turn
}

// Swap implements heap.Interface.
func (h *byTag) Swap(i, j int) {
	h.flows[i], h.flows[j] = h.flows[j], h.flows[i]
	h.flows[i].at, h.flows[j].at = i, j
}

// Push implements heap.Interface.
func (h *byTag) Push(x any) {
	f, _ := x.(*flow)
	f.at = len(h.flows)
	h.flows = append(h.flows, f)
}

// Pop implements heap.Interface.
func (h *byTag) Pop() any {
	last := len(h.flows) - 1
	f := h.flows[last]
	h.flows[last] = nil
	h.flows = h.flows[:last]
	return f
}

func (h *byTag) take() *flow {
	f, _ := heap.Pop(h).(*flow)
	return f
}

// blame adds up, over time, how long calls wait for each call that holds a place. The queue's own counts all that wait;
// a flow's counts its own, in the queue's time per place, so that they can be left out.
type blame struct {
	at      time.Time
	perHeld float64 // seconds divided by the number of holders
	waited  float64 // seconds that calls waited, divided by the number of holders
}

// mark is where two of them stood when a call got its place.
type mark struct{ all, own float64 }

// move is called before the number of calls that wait or hold changes.
func (b *blame) move(now time.Time, waiting, held int) {
	if !b.at.IsZero() && held > 0 {
		if d := now.Sub(b.at).Seconds() / float64(held); d > 0 {
			b.perHeld += d
			b.waited += d * float64(waiting)
		}
	}
	b.at = now
}

// ownBlame is what the calls of one flow waited.
type ownBlame struct{ perHeld, waited float64 }

// move is the same for a flow, whose clock is the queue's time per place.
func (f *ownBlame) move(all *blame, waiting int) {
	f.waited += (all.perHeld - f.perHeld) * float64(waiting)
	f.perHeld = all.perHeld
}

func (f *ownBlame) mark(all *blame) mark { return mark{all.waited, f.waited} }

// since is what others waited for one place since the mark.
func (f *ownBlame) since(all *blame, m mark) time.Duration {
	others := (all.waited - m.all) - (f.waited - m.own)
	return time.Duration(max(others, 0) * float64(time.Second))
}
