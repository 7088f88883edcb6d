package apiattack

import (
	"testing"
	"time"
)

// Times are judged on given ones: those of a busy machine show nothing of the judge.
func TestTimesAreJudged(t *testing.T) {
	t.Parallel()
	spread := func(n int, from, step time.Duration) []time.Duration {
		all := make([]time.Duration, n)
		for i := range all {
			all[n-1-i] = from + time.Duration(i)*step
		}
		return all
	}
	const us = time.Microsecond
	for name, test := range map[string]struct {
		there, never []time.Duration
		want         Verdict
	}{
		"the victim's take longer":     {spread(60, 3000*us, us), spread(60, 200*us, us), Leaked},
		"the victim's are faster":      {spread(60, 200*us, us), spread(60, 3000*us, us), Leaked},
		"alike":                        {spread(60, 200*us, us), spread(60, 201*us, us), Noted},
		"always longer, but by little": {spread(60, 500*us, us), spread(60, 300*us, us), Noted},
		"far apart, but not always":    {append(spread(42, 3000*us, us), spread(18, 0, us)...), spread(60, 200*us, us), Noted},
		"too few":                      {spread(enoughSamples-1, 3000*us, us), spread(enoughSamples-1, 200*us, us), Noted},
	} {
		if o := (Target{Timing: len(test.there), TimingRatio: 3}).apart(test.there, test.never); o.verdict != test.want {
			t.Errorf("%s: %s, want %s: %+v", name, o.verdict, test.want, o)
		}
	}
}
