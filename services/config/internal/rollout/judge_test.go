package rollout_test

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/services/config/internal/rollout"
)

// says is a report of a process of a workload.
func says(workload, replica string, next, current rollout.Counts) rollout.Report {
	return rollout.Report{
		Reporter: workload + "/" + replica, Workload: workload, Step: 2, At: began.Add(time.Minute), Next: next, Current: current,
	}
}

// lies are what a process reports that wants a bad content to look good: as much as it may, of both sides.
func lies() map[string][2]rollout.Counts {
	const most = rollout.MaxRequests
	return map[string][2]rollout.Counts{
		"all is well":          {requests(most, 0, 0), requests(most, 0, 0)},
		"the old is as bad":    {requests(most, 0, 0), requests(most, most, 63)},
		"the old alone is bad": {{}, requests(most, most, 63)},
		"the new is well":      {requests(most, 0, 0), {}},
	}
}

// TestNobodyHidesTheOthersTrouble: whatever one workload says, under as many names as it may, what processes of others see
// halts the rollout, and so does what a process of its own sees that has many requests.
func TestNobodyHidesTheOthersTrouble(t *testing.T) {
	t.Parallel()
	failing, slow := requests(100, 5, 10), requests(100, 0, 30)
	well := requests(900, 1, 10)
	for name, c := range map[string]struct {
		honest []rollout.Report
		want   rollout.Cause
	}{
		"another workload":         {[]rollout.Report{says("app", "1", failing, well)}, rollout.Errors},
		"its latency":              {[]rollout.Report{says("app", "1", slow, well)}, rollout.Latency},
		"several small ones":       {[]rollout.Report{says("app", "1", requests(60, 3, 10), well), says("other", "1", requests(60, 3, 10), well)}, rollout.Errors},
		"processes of another":     {[]rollout.Report{says("app", "1", requests(60, 3, 10), well), says("app", "2", requests(60, 3, 10), well)}, rollout.Errors},
		"one beside it, with many": {[]rollout.Report{says("liar", "honest", requests(1000, 20, 10), requests(9000, 9, 10))}, rollout.Errors},
		"nothing is wrong":         {[]rollout.Report{says("app", "1", well, well)}, ""},
	} {
		for _, lie := range slices.Sorted(maps.Keys(lies())) {
			t.Run(name+", "+lie, func(t *testing.T) {
				t.Parallel()
				s := rollout.State{Plan: plan(), Step: 2, Since: began, Heard: began, Reports: c.honest}
				for i := range rollout.MaxReporters {
					s.Reports = append(s.Reports, says("liar", strconv.Itoa(i), lies()[lie][0], lies()[lie][1]))
				}
				if d := s.Decide(began.Add(time.Minute)); d.Cause != c.want {
					t.Errorf("%+v, want %q", d, c.want)
				}
			})
		}
	}
}

// TestNobodySpoilsTheOthersBaseline: what a workload says of one step hides nothing of the others in the next one, where nobody is
// without the new content.
func TestNobodySpoilsTheOthersBaseline(t *testing.T) {
	t.Parallel()
	for lie, counts := range lies() {
		s := rollout.State{Plan: plan(), Step: 2, Since: began, Heard: began, Reports: []rollout.Report{
			says("app", "1", requests(900, 1, 10), requests(900, 1, 10)), says("liar", "1", counts[0], counts[1]),
		}}
		s.Baseline = s.NextBaseline()
		s.Reports[0].Next, s.Reports[0].Current = requests(900, 50, 10), rollout.Counts{}
		s.Reports[1].Current = rollout.Counts{}
		if d := s.Decide(began.Add(time.Minute)); d.Cause != rollout.Errors {
			t.Errorf("%s: %+v", lie, d)
		}
		few := s
		few.Reports = []rollout.Report{says("app", "1", requests(900, 50, 10), requests(3, 0, 10))}
		few.Baseline = few.NextBaseline() // which three requests do not replace
		few.Reports[0].Current = rollout.Counts{}
		if d := few.Decide(began.Add(time.Minute)); d.Cause != rollout.Errors {
			t.Errorf("%s, after few: %+v", lie, d)
		}
	}
}

// TestOneProcessIsNotJudgedByChance: two failures of its first hundred requests are no trouble of everybody's.
func TestOneProcessIsNotJudgedByChance(t *testing.T) {
	t.Parallel()
	s := rollout.State{Plan: plan(), Step: 2, Since: began, Heard: began, Reports: []rollout.Report{
		says("app", "1", requests(100, 2, 10), requests(900, 0, 10)), says("app", "2", requests(900, 1, 10), requests(900, 0, 10)),
	}}
	if d := s.Decide(began.Add(time.Minute)); d.Action != rollout.Wait {
		t.Errorf("%+v", d)
	}
}

// TestSumsDoNotOverflow: as many reports as there may be, of as much as each may say.
func TestSumsDoNotOverflow(t *testing.T) {
	t.Parallel()
	var sum rollout.Counts
	for range rollout.MaxReports {
		sum.Add(requests(rollout.MaxRequests, rollout.MaxRequests, 63))
	}
	if want := int64(rollout.MaxReports) * rollout.MaxRequests; sum.Requests != want || sum.Errors != want || sum.Latency[63] != want {
		t.Errorf("%+v", sum)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		counts rollout.Counts
		want   string
	}{
		"none":                  {rollout.Counts{}, ""},
		"good":                  {requests(rollout.MaxRequests, rollout.MaxRequests, 63), ""},
		"less latency":          {rollout.Counts{Requests: 5, Latency: []int64{1, 2}}, ""},
		"less than none":        {rollout.Counts{Requests: -1}, "requests"},
		"too many":              {rollout.Counts{Requests: rollout.MaxRequests + 1}, "requests"},
		"more errors":           {rollout.Counts{Requests: 5, Errors: 6}, "errors"},
		"less than no error":    {rollout.Counts{Requests: 5, Errors: -1}, "errors"},
		"less than no latency":  {rollout.Counts{Requests: 5, Latency: []int64{-1, 3}}, "latency"},
		"more latency":          {rollout.Counts{Requests: 5, Latency: []int64{3, 3}}, "latency"},
		"latency that overflow": {rollout.Counts{Requests: 5, Latency: []int64{math.MaxInt64, math.MaxInt64, 2}}, "latency"},
	} {
		if field, what := c.counts.Check(); field != c.want || (what == "") != (c.want == "") {
			t.Errorf("%s: %q %q, want %q", name, field, what, c.want)
		}
	}
}
