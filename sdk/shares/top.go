package shares

import (
	"container/heap"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// top counts the largest takers of one resource: Metwally, Agrawal and El Abbadi's Space-Saving. With room for n tenants it has
// every one that took more than total/n, no count is too low, and none is above the truth by more than its error, which
// is at most total/n.
type top struct {
	most  int
	total int64
	known map[tenant.UID]*count
	heap  least
}

// count is what one tenant took, of which error may be others'.
type count struct {
	tc            tenant.Context // the newest, with which it can be reported
	amount, error int64
	at            int
}

func newTop(most int) *top { return &top{most: most, known: map[tenant.UID]*count{}} }

// add counts an amount. A tenant that is new takes the place of the smallest, and its count as an error.
func (t *top) add(tc tenant.Context, amount int64) {
	if amount <= 0 {
		return
	}
	t.total += amount
	uid := tc.UID()
	if c := t.known[uid]; c != nil {
		c.amount += amount
		c.tc = tc
		heap.Fix(&t.heap, c.at)
		return
	}
	if len(t.heap) < t.most {
		c := &count{tc: tc, amount: amount}
		t.known[uid] = c
		heap.Push(&t.heap, c)
		return
	}
	c := t.heap[0]
	delete(t.known, c.tc.UID())
	t.known[uid] = c
	c.tc, c.error = tc, c.amount
	c.amount += amount
	heap.Fix(&t.heap, 0)
}

// least is a heap of counts with the smallest first.
type least []*count

// Len implements heap.Interface.
func (h least) Len() int { return len(h) }

// Less implements heap.Interface.
func (h least) Less(i, j int) bool { return h[i].amount < h[j].amount }

// Swap implements heap.Interface.
func (h least) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

// Push implements heap.Interface.
func (h *least) Push(x any) {
	c, _ := x.(*count)
	c.at = len(*h)
	*h = append(*h, c)
}

// Pop implements heap.Interface; nothing is ever taken out.
func (h *least) Pop() any { panic("shares: counts stay") }
