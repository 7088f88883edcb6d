package rollout_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/services/config/internal/rollout"
)

var began = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

func plan() rollout.Plan {
	return rollout.Plan{Steps: []int32{1, 50, 100}, Bake: 10 * time.Minute, ErrorPermille: 10, P99Percent: 200, Requests: 100}
}

// requests are n requests in one bucket of latency, so many of which failed.
func requests(n, failed int64, bucket int) rollout.Counts {
	c := rollout.Counts{Requests: n, Errors: failed, Latency: make([]int64, 64)}
	c.Latency[bucket] = n
	return c
}

// good is a report of a process that is well, a moment ago.
func good(name string, step int, now time.Time) rollout.Report {
	return rollout.Report{
		Reporter: name, Workload: "app", Step: step, At: now.Add(-time.Second), Next: requests(1000, 1, 10), Current: requests(9000, 9, 10),
	}
}

func TestDecide(t *testing.T) {
	t.Parallel()
	const step = 1
	for name, c := range map[string]struct {
		after  time.Duration
		change func(*rollout.State, time.Time)
		want   rollout.Action
		cause  rollout.Cause
	}{
		"healthy, not baked": {9 * time.Minute, nil, rollout.Wait, ""},
		"healthy, baked":     {10 * time.Minute, nil, rollout.Advance, ""},
		"last step baked":    {10 * time.Minute, func(s *rollout.State, _ time.Time) { s.Step, s.Reports[0].Step, s.Reports[1].Step = 3, 3, 3 }, rollout.Complete, ""},
		"roll call over":     {time.Minute, func(s *rollout.State, _ time.Time) { s.Step, s.Reports[0].Step, s.Reports[1].Step = 0, 0, 0 }, rollout.Advance, ""},
		"quarantine":         {time.Second, func(s *rollout.State, _ time.Time) { s.Reports[1].Quarantined = "not an object" }, rollout.Halt, rollout.Quarantine},
		"crash":              {time.Second, func(s *rollout.State, _ time.Time) { s.Reports[1].Crashed = true }, rollout.Halt, rollout.Crash},
		"errors":             {time.Second, func(s *rollout.State, _ time.Time) { s.Reports[1].Next.Errors = 50 }, rollout.Halt, rollout.Errors},
		"errors of all":      {time.Second, func(s *rollout.State, _ time.Time) { s.Reports[1].Next.Errors, s.Reports[1].Current.Errors = 50, 450 }, rollout.Wait, ""},
		"few requests": {time.Second, func(s *rollout.State, _ time.Time) {
			s.Reports = s.Reports[:1]
			s.Reports[0].Next = requests(99, 99, 10)
		}, rollout.Wait, ""},
		"latency":            {time.Second, func(s *rollout.State, _ time.Time) { s.Reports[1].Next = requests(1000, 1, 40) }, rollout.Halt, rollout.Latency},
		"latency of the few": {time.Second, func(s *rollout.State, _ time.Time) { s.Reports[1].Next.Latency[40] = 9 }, rollout.Wait, ""},
		"latency of a moment": {time.Second, func(s *rollout.State, _ time.Time) {
			s.Reports[0].Next = requests(1000, 0, 14)
			s.Reports[1].Next = s.Reports[0].Next
		}, rollout.Wait, ""},
		"one falls silent":    {time.Minute, func(s *rollout.State, now time.Time) { s.Reports[1].At = now.Add(-21 * time.Second) }, rollout.Halt, rollout.Quiet},
		"nobody ever":         {10*time.Minute + time.Second, func(s *rollout.State, _ time.Time) { s.Reports = nil }, rollout.Halt, rollout.Quiet},
		"nobody yet":          {10 * time.Minute, func(s *rollout.State, _ time.Time) { s.Reports = nil }, rollout.Wait, ""},
		"nobody in roll call": {21 * time.Second, func(s *rollout.State, _ time.Time) { s.Step, s.Reports = 0, nil }, rollout.Halt, rollout.Quiet},
		"one is behind":       {10 * time.Minute, func(s *rollout.State, _ time.Time) { s.Reports[1].Step = 0 }, rollout.Wait, ""},
		"one stays behind":    {11 * time.Minute, func(s *rollout.State, _ time.Time) { s.Reports[1].Step = 0 }, rollout.Halt, rollout.Quiet},
		"config was away": {time.Hour, func(s *rollout.State, now time.Time) {
			s.Heard, s.Reports[0].At, s.Reports[1].At = now.Add(-time.Second), now.Add(-time.Hour), now.Add(-time.Hour)
		}, rollout.Advance, ""},
		"requests wanted": {time.Hour, func(s *rollout.State, _ time.Time) {
			s.Plan.RequireRequests, s.Reports[0].Next, s.Reports[1].Next = true, rollout.Counts{}, rollout.Counts{}
		}, rollout.Wait, ""},
		"judged by the last step": {time.Second, func(s *rollout.State, _ time.Time) {
			s.Baseline = map[string]rollout.Counts{"app": requests(1000, 1, 10)}
			for i := range s.Reports {
				s.Reports[i].Current, s.Reports[i].Next.Errors = rollout.Counts{}, 50
			}
		}, rollout.Halt, rollout.Errors},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := began.Add(c.after)
			s := rollout.State{Plan: plan(), Step: step, Since: began, Heard: began, Reports: []rollout.Report{good("a", step, now), good("b", step, now)}}
			if c.change != nil {
				c.change(&s, now)
			}
			if d := s.Decide(now); d.Action != c.want || d.Cause != c.cause || d.Action != rollout.Advance && d.Action != rollout.Complete && d.Detail == "" {
				t.Errorf("%+v, want %v %s", d, c.want, c.cause)
			}
		})
	}
}

// TestModel runs rollouts over minutes of virtual time with processes that suffer at random, and workers that die between
// any two looks: the share never shrinks but to 0, each step had its time, and none goes on past a process that suffers.
func TestModel(t *testing.T) {
	t.Parallel()
	ends := make(map[string]int)
	for seed := range uint64(500) {
		g := rand.New(rand.NewPCG(seed, 44))
		s := rollout.State{Plan: plan(), Since: began, Heard: began}
		bad := time.Duration(1+g.IntN(60)) * time.Minute
		heals := g.IntN(3) == 0
		share, now, end := int32(0), began, ""
		for end == "" {
			now = now.Add(time.Duration(1+g.IntN(20)) * time.Second) // the worker that looks now may be another one
			suffers := !heals && now.Sub(began) > bad
			s.Reports = s.Reports[:0]
			for i := range 3 {
				r := good(strconv.Itoa(i), s.Step, now)
				if suffers && i == 0 {
					switch seed % 4 {
					case 0:
						r.Quarantined = "it panics"
					case 1:
						r.Crashed = true
					case 2:
						r.Next = requests(1000, 500, 10)
					default:
						r.At = now.Add(-rollout.Silence - time.Second)
					}
				}
				s.Reports = append(s.Reports, r)
			}
			d := s.Decide(now)
			if suffers != (d.Action == rollout.Halt) {
				t.Fatalf("seed %d at %s: %+v, suffers: %t", seed, now.Sub(began), d, suffers)
			}
			if took := now.Sub(s.Since); s.Step > 0 && d.Action != rollout.Wait && d.Action != rollout.Halt && took < s.Plan.Bake {
				t.Fatalf("seed %d: step %d had %s", seed, s.Step, took)
			}
			switch d.Action {
			case rollout.Halt:
				end = string(d.Cause)
			case rollout.Complete:
				if end = "complete"; share != 100 {
					t.Fatalf("seed %d: complete at %d %%", seed, share)
				}
			case rollout.Advance:
				s.Baseline = s.NextBaseline()
				s.Step++
				s.Since = now
				if s.Plan.Share(s.Step) <= share {
					t.Fatalf("seed %d: from %d to %d %%", seed, share, s.Plan.Share(s.Step))
				}
				share = s.Plan.Share(s.Step)
			case rollout.Wait:
			}
		}
		ends[end]++
	}
	for _, end := range []string{"complete", "QUARANTINE", "CRASH", "ERRORS", "SILENCE"} {
		if ends[end] == 0 {
			t.Errorf("none ended with %s: %v", end, ends)
		}
	}
}

func TestSteps(t *testing.T) {
	t.Parallel()
	for steps, want := range map[string]string{"1 5 100": "", "0 100": "", "100": "", "5 5 100": "grow", "50 20 100": "grow", "1 50": "100", "": "100"} {
		var parsed []int32
		for text := range strings.FieldsSeq(steps) {
			var n int32
			_, _ = fmt.Sscan(text, &n)
			parsed = append(parsed, n)
		}
		if got := rollout.CheckSteps(parsed); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", steps, got, want)
		}
	}
	if p := plan(); p.Share(0) != 0 || p.Share(1) != 1 || p.Share(3) != 100 {
		t.Error("shares")
	}
}

func TestP99(t *testing.T) {
	t.Parallel()
	c := requests(99, 0, 4)
	c.Add(requests(1, 0, 30))
	if got := c.P99(); got != time.Millisecond {
		t.Errorf("one of a hundred is slow: %s, want 1ms", got)
	}
	c.Add(requests(1, 0, 30))
	if got := c.P99(); got < 80*time.Millisecond {
		t.Errorf("two of a hundred are: %s", got)
	}
	if (rollout.Counts{}).P99() != 0 {
		t.Error("of none")
	}
}
