package fair

import (
	"math/bits"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// naive is start-time fair queueing word for word: each call has its tags from the moment that it comes.
type naive struct {
	virtual int64
	finish  map[tenant.UID]int64
	waiting []tagged
}

type tagged struct {
	uid   tenant.UID
	start int64
	cost  int64
}

func (n *naive) arrive(uid tenant.UID, cost int64, weight int64) {
	start := max(n.virtual, n.finish[uid])
	n.finish[uid] = start + cost*scale/weight
	n.waiting = append(n.waiting, tagged{uid, start, cost})
}

// next returns the lowest start tag and takes out the first call of the tenant, which must have it.
func (n *naive) next(uid tenant.UID) (lowest int64, its tagged) {
	lowest = n.waiting[0].start
	for _, w := range n.waiting {
		lowest = min(lowest, w.start)
	}
	i := slices.IndexFunc(n.waiting, func(w tagged) bool { return w.uid == uid })
	its = n.waiting[i]
	n.waiting = slices.Delete(n.waiting, i, i+1)
	n.virtual = its.start
	return lowest, its
}

// With known costs, the order is that of the tags, ties aside, whatever the width; and what idle tenants had is forgotten.
func TestOrderIsThatOfTheTags(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		width := rapid.IntRange(1, 9).Draw(t, "width")
		q, err := New(Config{Width: width, Spare: -1, Queue: 1000})
		if err != nil {
			t.Fatal(err)
		}
		m := &naive{finish: map[tenant.UID]int64{}}
		weights := rapid.SliceOfN(rapid.Int64Range(1, MostWeight), 4, 4).Draw(t, "weights")
		var held, waiting []*Place
		settle := func() {
			// Several may get places at once: by their tags, each with what the naive one gives next.
			var granted []*Place
			waiting = slices.DeleteFunc(waiting, func(p *Place) bool {
				if p.state == holds {
					granted = append(granted, p)
				}
				return p.state == holds
			})
			for len(granted) > 0 {
				best, start := 0, int64(-1)
				for i, p := range granted {
					j := slices.IndexFunc(m.waiting, func(w tagged) bool { return w.uid == p.flow.uid })
					if start < 0 || m.waiting[j].start < start {
						best, start = i, m.waiting[j].start
					}
				}
				lowest, its := m.next(granted[best].flow.uid)
				if its.start != lowest {
					t.Fatalf("a call with tag %d got its place before one with %d", its.start, lowest)
				}
				held = append(held, granted[best])
				granted = slices.Delete(granted, best, best+1)
			}
			if len(waiting) > 0 && len(held) != width || len(held) != q.held || len(waiting) != q.waiting {
				t.Fatalf("%d of %d held, %d wait; the queue says %d and %d", len(held), width, len(waiting), q.held, q.waiting)
			}
			if q.held == 0 && (len(q.flows) > 0 || q.virtual != 0) {
				t.Fatal("an idle queue remembers")
			}
			if q.held == 0 {
				*m = naive{finish: map[tenant.UID]int64{}}
			} else if q.virtual != m.virtual {
				t.Fatalf("the virtual time is %d, want %d", q.virtual, m.virtual)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { checkQueue(t, q) },
			"ask": func(t *rapid.T) {
				i, cost := rapid.IntRange(0, 3).Draw(t, "tenant"), rapid.Int64Range(1, mostCost).Draw(t, "cost")
				m.arrive(uid(i), cost, weights[i])
				p, err := q.ask(Call{Tenant: uid(i), Weight: int(weights[i]), Cost: cost})
				if err != nil {
					t.Fatal(err)
				}
				waiting = append(waiting, p)
				settle()
			},
			"leave": func(t *rapid.T) {
				if len(held) == 0 {
					t.Skip("nobody holds one")
				}
				i := rapid.IntRange(0, len(held)-1).Draw(t, "place")
				p := held[i]
				held = slices.Delete(held, i, i+1)
				p.Done()
				p.Drop() // more of it does nothing
				settle()
			},
		})
	})
}

// checkQueue is what always holds.
func checkQueue(t *rapid.T, q *Queue) {
	held, waiting, weights := 0, 0, int64(0)
	for uid, f := range q.flows {
		held, waiting = held+f.held, waiting+len(f.calls)
		if f.active != (f.held > 0 || len(f.calls) > 0) {
			t.Fatalf("tenant %x: active %t with %d held and %d waiting", uid[:2], f.active, f.held, len(f.calls))
		}
		if f.active {
			weights += f.weight
		}
		if !f.active && f.tag <= q.virtual {
			t.Fatalf("tenant %x is idle, not ahead, and remembered", uid[:2])
		}
		if len(f.calls) > q.c.Queue {
			t.Fatalf("tenant %x waits with %d calls", uid[:2], len(f.calls))
		}
		for _, p := range f.calls {
			if p.state != waits {
				t.Fatalf("tenant %x: a call in its queue is in state %d", uid[:2], p.state)
			}
		}
	}
	if held != q.held || waiting != q.waiting || weights != q.weights || q.held > q.c.Width {
		t.Fatalf("%d, %d, %d; the queue says %d, %d, %d of %d", held, waiting, weights, q.held, q.waiting, q.weights, q.c.Width)
	}
	for _, h := range []*byTag{&q.ready, &q.idle} {
		for i, f := range h.flows {
			if f.at != i || i > 0 && h.Less(i, (i-1)/2) {
				t.Fatal("a heap is out of order")
			}
		}
	}
	if bits.Len64(uint64(max(q.virtual, -q.virtual))) > 62 {
		t.Fatalf("the virtual time is %d", q.virtual)
	}
}

// Whatever calls do, places and queues keep their bounds, nothing is lost, and nobody within a share is refused.
func TestQueueKeepsItsBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1e9, 0)
		c := Config{
			Width: rapid.IntRange(1, 20).Draw(t, "width"), Queue: rapid.IntRange(1, 5).Draw(t, "queue"),
			Room: rapid.IntRange(1, 30).Draw(t, "room"), Clock: func() time.Time { return now },
		}
		q, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		var all []*Place
		one := func(t *rapid.T, want state) *Place {
			those := slices.DeleteFunc(slices.Clone(all), func(p *Place) bool { return p.state != want })
			if len(those) == 0 {
				t.Skip("none")
			}
			return rapid.SampledFrom(those).Draw(t, "place")
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				checkQueue(t, q)
				if q.held == 0 && q.waiting > 0 {
					t.Fatal("all places are free and somebody waits")
				}
				if q.waiting > q.c.Room {
					t.Fatalf("%d wait", q.waiting)
				}
				all = slices.DeleteFunc(all, func(p *Place) bool { return p.state == left || p.state == shed })
			},
			"ask": func(t *rapid.T) {
				call := Call{Tenant: uid(rapid.IntRange(0, 5).Draw(t, "tenant")), Weight: rapid.IntRange(-1, 1002).Draw(t, "weight")}
				for range rapid.SampledFrom([]int{1, 1, 4, 40}).Draw(t, "calls") {
					if p, err := q.ask(call); err == nil {
						all = append(all, p)
					}
				}
			},
			"done":    func(t *rapid.T) { one(t, holds).Done() },
			"drop":    func(t *rapid.T) { one(t, holds).Drop() },
			"lapse":   func(t *rapid.T) { q.lapse(one(t, holds)) },
			"forsake": func(t *rapid.T) { q.forsake(one(t, waits)) },
			"time":    func(t *rapid.T) { now = now.Add(time.Duration(rapid.Int64Range(-1e6, 3e9).Draw(t, "passes"))) },
			"far":     func(*rapid.T) { shift(q, farthest-10) },
			"overdue": func(t *rapid.T) {
				p := one(t, waits)
				shares := map[*flow]bool{} // within
				for _, f := range q.flows {
					shares[f] = f.held+len(f.calls) <= q.share(f, c.Width)
				}
				before := q.counts.shed
				q.overdue(p)
				for _, other := range all {
					if other.state == shed && shares[other.flow] {
						t.Fatal("a tenant within its share lost a call")
					}
				}
				if q.counts.shed > before+1 {
					t.Fatal("more than one was shed")
				}
			},
		})
	})
}

// shift moves the virtual time and all that is measured by it.
func shift(q *Queue, to int64) {
	if len(q.flows) == 0 || q.virtual >= to {
		return
	}
	by := to - q.virtual
	q.virtual += by
	for _, f := range q.flows {
		f.tag += by
	}
}
