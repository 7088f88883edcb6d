package rollout

import (
	"maps"
	"slices"
	"time"

	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
)

const (
	// MaxRequests bounds how many requests one process may say to have seen in a step. Sums of reports have room for
	// more of them than there can be.
	MaxRequests = 1 << 40
	// noise is a difference of latency that means nothing.
	noise = 5 * time.Millisecond
	// alone is how many times as many requests as of all it takes to judge one process by itself, which chance befalls
	// sooner.
	alone = 10
)

// Counts are requests of one side.
type Counts struct {
	Requests, Errors int64
	// Latency counts them as rowhouse.config.v1.RolloutTally does.
	Latency []int64
}

// Check says what is wrong with counts that a process reports, and in which field of rowhouse.config.v1.RolloutTally;
// "" if nothing is.
func (c Counts) Check() (field, what string) {
	if c.Requests < 0 || c.Requests > MaxRequests {
		return "requests", "must be between 0 and 2^40"
	}
	if c.Errors < 0 || c.Errors > c.Requests {
		return "errors", "must be between 0 and the number of requests"
	}
	rest := c.Requests
	for _, n := range c.Latency {
		if n < 0 || n > rest {
			return "latency", "must be counts of requests, no more than there were"
		}
		rest -= n
	}
	return "", ""
}

// Add adds up.
func (c *Counts) Add(more Counts) { c.add(more, 1) }

func (c *Counts) add(more Counts, times int64) {
	c.Requests += times * more.Requests
	c.Errors += times * more.Errors
	for len(c.Latency) < len(more.Latency) {
		c.Latency = append(c.Latency, 0)
	}
	for i, n := range more.Latency {
		c.Latency[i] += times * n
	}
}

// without are the counts less those of some of them.
func (c Counts) without(some Counts) Counts {
	c.Latency = slices.Clone(c.Latency)
	c.add(some, -1)
	return c
}

// P99 is the bound of the bucket that holds the 99th percentile, 0 without requests.
func (c Counts) P99() time.Duration {
	total := int64(0)
	for _, n := range c.Latency {
		total += n
	}
	const percent = 100
	rest := total / percent // this many may be slower
	for i, n := range slices.Backward(c.Latency) {
		if rest -= n; rest < 0 {
			return sdk.LatencyBound(i)
		}
	}
	return 0
}

// view is what some of the processes have seen of the step.
type view struct {
	// of says whose it is, empty for all.
	of                      string
	next, current, baseline Counts
}

func (v *view) add(more view) {
	v.next.Add(more.next)
	v.current.Add(more.current)
	v.baseline.Add(more.baseline)
}

func (v view) without(some view) view {
	return view{"all but " + some.of, v.next.without(some.next), v.current.without(some.current), v.baseline.without(some.baseline)}
}

// compare judges tenants with the new content by those without it, in the view of all processes, of each workload, of all
// but this workload, and of each process that has seen many requests. Counts are what a process says of itself, and so is
// its name: whoever reports too well of the new content, or too badly of the old one, hides what the views have seen
// that it is part of. There are views without it, and any that is bad is enough.
func (s State) compare() Decision {
	all, workloads := s.views()
	least := max(s.Plan.Requests, 1)
	if d := s.judge(all, least); d.Action == Halt {
		return d
	}
	for _, name := range slices.Sorted(maps.Keys(workloads)) {
		w := *workloads[name]
		for _, v := range []view{w, all.without(w)} {
			if d := s.judge(v, least); d.Action == Halt {
				return d
			}
		}
	}
	for _, r := range s.Reports {
		if r.Step == s.Step {
			v := view{r.Reporter, r.Next, r.Current, s.Baseline[r.Workload]}
			if d := s.judge(v, alone*least); d.Action == Halt {
				return d
			}
		}
	}
	return Decision{}
}

// views are what all processes and what those of each workload have seen of the step.
func (s State) views() (all view, workloads map[string]*view) {
	workloads = make(map[string]*view)
	for _, r := range s.Reports {
		if r.Step != s.Step {
			continue
		}
		w := workloads[r.Workload]
		if w == nil {
			w = &view{of: r.Workload}
			w.baseline.Add(s.Baseline[r.Workload])
			workloads[r.Workload] = w
		}
		w.next.Add(r.Next)
		w.current.Add(r.Current)
	}
	for _, w := range workloads {
		all.add(*w)
	}
	return all, workloads
}

// judge looks at one view, if it has at least so many requests of both sides.
func (s State) judge(v view, least int64) Decision {
	next, control := v.next, v.current
	if control.Requests < least {
		control = v.baseline
	}
	if next.Requests < least || control.Requests < least {
		return Decision{}
	}
	of := ""
	if v.of != "" {
		of = v.of + ": "
	}
	const permille, percent = 1000, 100
	worse := permille*float64(next.Errors)/float64(next.Requests) - permille*float64(control.Errors)/float64(control.Requests)
	if worse > float64(s.Plan.ErrorPermille) {
		return halt(Errors, "%s%d of %d requests failed with the new content, %d of %d without it",
			of, next.Errors, next.Requests, control.Errors, control.Requests)
	}
	p99, usual := next.P99(), control.P99()
	if p99-usual > noise && float64(p99)*percent > float64(usual)*float64(s.Plan.P99Percent) {
		return halt(Latency, "%sthe 99th percentile is %s with the new content, %s without it", of, p99.Round(time.Millisecond),
			usual.Round(time.Millisecond))
	}
	return Decision{}
}

// NextBaseline is the baseline of the next step.
func (s State) NextBaseline() map[string]Counts {
	_, workloads := s.views()
	next := make(map[string]Counts, len(workloads))
	for name, w := range workloads {
		if c := w.current; c.Requests >= max(s.Plan.Requests, 1) || c.Requests >= w.baseline.Requests {
			next[name] = c
		} else {
			next[name] = w.baseline
		}
	}
	return next
}
