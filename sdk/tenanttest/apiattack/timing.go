package apiattack

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// enoughSamples is below which times give no verdict.
const enoughSamples = 50

// timing compares how long the attacker waits for an answer about what is the victim's
// and about what never existed.
func (r *run) timing(m *method) (all []attempt) {
	for _, p := range places(m.Input(), isID) {
		best := r.victim.fitting(m, p.leaf(), nil)
		if len(best) == 0 || likeness(m, p.leaf(), best[0]) < sure || r.shared(best[0]) {
			continue
		}
		all = append(all, attempt{Timing, p.String(), func(ctx context.Context) outcome { return r.clock(ctx, m, p, best) }})
	}
	return all
}

// clock measures in turns, so that what slows the machine down slows both.
func (r *run) clock(ctx context.Context, m *method, p place, ids []*id) outcome {
	const each = 3 // ids of each kind, asked for again and again: a cache knows both alike
	kind := slices.DeleteFunc(slices.Clone(ids), func(i *id) bool { return i.field != ids[0].field || i.message != ids[0].message })
	kind = kind[:min(each, len(kind))]
	absent := make([]string, len(kind))
	for i := range kind {
		absent[i] = r.absent(kind[i].value)
	}
	ask := func(value string) (time.Duration, error) {
		call, err := r.shot(ctx, m, p, value, putAlone)
		if err != nil {
			return 0, err
		}
		a, err := r.call(ctx, r.attacker.Party, m, call.requests...)
		return a.took, err
	}
	var there, never []time.Duration
	for i := range r.Timing {
		values := []string{kind[i%len(kind)].value, absent[i%len(kind)]}
		order := []int{0, 1}
		if r.random.below(2) == 0 {
			order = []int{1, 0}
		}
		for _, which := range order {
			took, err := ask(values[which])
			if err != nil {
				return untested(err)
			}
			if which == 0 {
				there = append(there, took)
			} else {
				never = append(never, took)
			}
		}
	}
	o := r.apart(there, never)
	if o.verdict == Leaked {
		o.repeat = m.full + " with " + kind[0].value + " and with " + absent[0]
	}
	return o
}

// apart judges two lists of times, each as long as Timing, which it sorts.
func (t Target) apart(there, never []time.Duration) outcome {
	slices.Sort(there)
	slices.Sort(never)
	auc := longer(there, never)
	a, b := there[len(there)/2], never[len(never)/2]
	ratio := float64(a) / float64(max(b, 1))
	o := outcome{Noted, fmt.Sprintf("%d samples each: median %s for the victim's and %s for what never existed, ratio %.2f; "+
		"the victim's takes longer in %.0f %% of pairs (50 tells nothing)", t.Timing, a, b, ratio, 100*auc), ""}
	const apart = 0.8
	gross := ratio >= t.TimingRatio && auc >= apart || ratio <= 1/t.TimingRatio && auc <= 1-apart
	if gross && t.Timing >= enoughSamples {
		o.verdict = Leaked
	}
	return o
}

// longer is how often one of a is longer than one of b, 0 to 1: the area under the curve
// of who tells them apart by time (Mann and Whitney). Both are sorted.
func longer(a, b []time.Duration) float64 {
	sum := 0.0
	for _, x := range a {
		below, _ := slices.BinarySearch(b, x)
		within, _ := slices.BinarySearch(b, x+1)
		sum += float64(below+within) / 2
	}
	return sum / float64(len(a)*len(b))
}
