package fair

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// sim runs calls through a queue in a time of its own: no goroutine, no waiting.
type sim struct {
	now    time.Time
	events timeline
	order  int
	random *rand.Rand
	under  scheduler
	line   map[tenant.UID][]*job // that wait, in their order
}

// scheduler is a queue or a control.
type scheduler interface {
	arrive(*job) bool // false for one that is refused
	holds(*job) bool
	finish(*job)
}

type job struct {
	from  *client
	came  time.Time
	place *Place
	has   bool
}

// client is a tenant with its load: by the clock, or one call after the other.
type client struct {
	uid     tenant.UID
	weight  int
	service time.Duration // mean
	every   time.Duration // mean between calls; 0 for one after the other
	clients int           // then of how many

	took    time.Duration
	served  int
	refused int
	latency []float64
}

type event struct {
	at    time.Time
	order int
	do    func()
}

type timeline []event

func (h timeline) Len() int { return len(h) }
func (h timeline) Less(i, j int) bool {
	return h[i].at.Before(h[j].at) || h[i].at.Equal(h[j].at) && h[i].order < h[j].order
}
func (h timeline) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *timeline) Push(x any)   { *h = append(*h, x.(event)) }
func (h *timeline) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	*h = (*h)[:last]
	return e
}

func newSim(seed uint64) *sim {
	return &sim{now: time.Unix(1e9, 0), random: rand.New(rand.NewPCG(seed, 1)), line: map[tenant.UID][]*job{}}
}

func (s *sim) clock() time.Time { return s.now }

func (s *sim) after(d time.Duration, do func()) {
	s.order++
	heap.Push(&s.events, event{s.now.Add(d), s.order, do})
}

func (s *sim) random64(mean time.Duration) time.Duration {
	return time.Duration(s.random.ExpFloat64() * float64(mean))
}

// run lets the clients call for a time, and counts from the moment when the first fifth of it is over.
func (s *sim) run(clients []*client, length time.Duration) {
	for _, c := range clients {
		for range max(c.clients, 1) {
			s.after(s.random64(max(c.every, time.Millisecond)), func() { s.call(c) })
		}
	}
	s.after(length/5, func() {
		for _, c := range clients {
			c.took, c.served, c.refused, c.latency = 0, 0, 0, nil
		}
	})
	for end := s.now.Add(length); len(s.events) > 0; {
		e, _ := heap.Pop(&s.events).(event)
		if e.at.After(end) {
			return
		}
		s.now = e.at
		e.do()
		s.start()
	}
}

// call makes one call of the client, and the next where that has its own time.
func (s *sim) call(c *client) {
	if c.every > 0 {
		s.after(s.random64(c.every), func() { s.call(c) })
	}
	j := &job{from: c, came: s.now}
	if !s.under.arrive(j) {
		c.refused++
		if c.every == 0 {
			s.after(10*time.Millisecond, func() { s.call(c) })
		}
		return
	}
	s.line[c.uid] = append(s.line[c.uid], j)
}

// start begins the calls that have places now.
func (s *sim) start() {
	for uid, line := range s.line {
		for len(line) > 0 && s.under.holds(line[0]) {
			j := line[0]
			line = line[1:]
			took := s.random64(j.from.service)
			s.after(took, func() { s.end(j, took) })
		}
		if s.line[uid] = line; len(line) == 0 {
			delete(s.line, uid)
		}
	}
}

func (s *sim) end(j *job, took time.Duration) {
	c := j.from
	c.took += took
	c.served++
	c.latency = append(c.latency, s.now.Sub(j.came).Seconds())
	s.under.finish(j)
	if c.every == 0 {
		s.call(c)
	}
}

// ours is the queue.
type ours struct{ q *Queue }

func (o ours) arrive(j *job) (ok bool) {
	p, err := o.q.ask(Call{Tenant: j.from.uid, Weight: j.from.weight})
	j.place = p
	return err == nil
}
func (o ours) holds(j *job) bool { return j.place.state == holds }
func (o ours) finish(j *job)     { j.place.Done() }

// fifo is the control: whoever came first, is first.
type fifo struct {
	width, held int
	line        []*job
}

func (f *fifo) arrive(j *job) bool {
	if len(f.line) == 4096 {
		return false
	}
	f.line = append(f.line, j)
	f.next()
	return true
}

func (f *fifo) next() {
	for f.held < f.width && len(f.line) > 0 {
		f.line[0].has = true
		f.line, f.held = f.line[1:], f.held+1
	}
}
func (f *fifo) holds(j *job) bool { return j.has }
func (f *fifo) finish(*job)       { f.held--; f.next() }

// jain is Jain's index of what each got by its weight: 1 when all got the same.
func jain(clients []*client) float64 {
	var sum, squares float64
	for _, c := range clients {
		x := c.took.Seconds() / float64(c.weight)
		sum += x
		squares += x * x
	}
	return sum * sum / (float64(len(clients)) * squares)
}

func quantile(of []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[int(q*float64(len(sorted)-1))]
}

func uid(n int) tenant.UID { return tenant.UID{byte(n >> 8), byte(n), 1} }

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// greedy are tenants with weights 1:2:5 who always want more; some of them have slower calls.
func greedy(width int) (all []*client) {
	for i := range 12 {
		c := &client{uid: uid(i), weight: []int{1, 2, 5}[i%3], service: 5 * time.Millisecond, clients: min(2*width, 60)}
		if i%2 == 1 {
			c.service *= 4
		}
		all = append(all, c)
	}
	return all
}

var widths = []int{1, 2, 3, 5, 8, 16, 33, 64}

// What tenants get who all want more is by their weights, whatever the width and however long their calls take; who comes first
// is first gives to slow calls.
func TestSharesAreByWeight(t *testing.T) {
	t.Parallel()
	for _, width := range widths {
		s, all := newSim(uint64(width)), greedy(width)
		q, err := New(Config{Width: width, Clock: s.clock})
		must(t, err)
		s.under = ours{q}
		s.run(all, greedyFor)
		got := jain(all)
		s, control := newSim(uint64(width)), greedy(width)
		s.under = &fifo{width: width}
		s.run(control, greedyFor)
		t.Logf("width %d: Jain's index %.4f, FIFO %.4f", width, got, jain(control))
		if got < 0.99 {
			t.Errorf("width %d: Jain's index by weight is %.4f", width, got)
		}
		if jain(control) > 0.9 {
			t.Errorf("width %d: the control is fair, so this tells nothing: %.4f", width, jain(control))
		}
	}
}

// greedyFor is how long they are watched.
const greedyFor = 15 * time.Second

// crowd are fifty victims that take half of what there is, and perhaps one tenant with a hundred times the calls of one.
func crowd(width int, aggressor bool) (all []*client) {
	const victims, rate = 50, 10
	service := time.Duration(float64(width) / (2 * victims * rate) * float64(time.Second))
	for i := range victims {
		all = append(all, &client{uid: uid(i), weight: 100, service: service, every: time.Second / rate})
	}
	if aggressor {
		all = append(all, &client{uid: uid(victims), weight: 100, service: service, every: time.Second / rate / 100})
	}
	return all
}

// crowdFor is how long they are watched.
const crowdFor = 25 * time.Second

// victims returns the p99 of those who did nothing, and how many of their calls were refused.
func victims(all []*client) (p99 float64, refused int) {
	var latency []float64
	for _, c := range all[:50] {
		latency = append(latency, c.latency...)
		refused += c.refused
	}
	return quantile(latency, 0.99), refused
}

// A tenant with a hundred times the calls of others, who ask for half of what there is, takes the other half and is refused the
// rest. The others notice little: next to nothing where there are many places, and the end of the call that has the only one where
// there is one. Who comes first is first stops them all.
func TestOneAggressor(t *testing.T) {
	t.Parallel()
	for _, width := range widths {
		round := func(aggressor, control bool) (float64, int, []*client) {
			s, all := newSim(7), crowd(width, aggressor)
			if control {
				s.under = &fifo{width: width}
			} else {
				q, err := New(Config{Width: width, Clock: s.clock})
				must(t, err)
				s.under = ours{q}
			}
			s.run(all, crowdFor)
			p99, refused := victims(all)
			return p99, refused, all
		}
		alone, _, _ := round(false, false)
		beside, refused, all := round(true, false)
		fifoAlone, _, _ := round(false, true)
		fifoBeside, _, _ := round(true, true)
		busy := time.Duration(0)
		for _, c := range all {
			busy += c.took
		}
		used := busy.Seconds() / (0.8 * crowdFor.Seconds() * float64(width))
		t.Logf("width %d: p99 %.1f ms alone, %.1f ms beside, ratio %.3f; FIFO %.1f and %.1f, ratio %.1f; %.0f %% used",
			width, 1000*alone, 1000*beside, beside/alone, 1000*fifoAlone, 1000*fifoBeside, fifoBeside/fifoAlone, 100*used)
		most := 1.10
		if width < 8 {
			most = 1.6 // a call that has begun is not stopped, and there is no place to spare
		}
		if beside/alone > most || refused > 0 {
			t.Errorf("width %d: the victims' p99 is %.3f times what it was, %d of their calls were refused", width, beside/alone, refused)
		}
		if fifoBeside/fifoAlone < 2 {
			t.Errorf("width %d: the control holds too, so this tells nothing: %.3f", width, fifoBeside/fifoAlone)
		}
		if used < 0.8 || math.IsNaN(used) {
			t.Errorf("width %d: only %.0f %% of the places were used", width, 100*used)
		}
	}
}
