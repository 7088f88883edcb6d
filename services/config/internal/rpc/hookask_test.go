package rpc

import (
	"testing"
	"time"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
)

// An answer is found again for as long as it stands, by the same hooks alone.
func TestAnswersAreForAMoment(t *testing.T) {
	t.Parallel()
	const request = "0198c5f0-7f4b-7cc1-8a5e-3f0f8f1e2d3c"
	hooks := []*configv1.Hook{{Uid: "a", Revision: 1}, {Uid: "b", Revision: 2}}
	start := time.Date(2026, 11, 22, 6, 0, 17, 0, time.UTC)
	kept := answerID(request, hooks, start)
	found := func(hooks []*configv1.Hook, at time.Time) bool {
		return answerID(request, hooks, at) == kept || answerID(request, hooks, at.Add(-remembered/2)) == kept
	}
	for _, d := range []time.Duration{0, remembered / 4, remembered / 2} {
		if !found(hooks, start.Add(d)) {
			t.Errorf("it is forgotten after %s", d)
		}
	}
	if found(hooks, start.Add(remembered)) {
		t.Errorf("it stands after %s", remembered)
	}
	for what, others := range map[string][]*configv1.Hook{
		"one was changed": {{Uid: "a", Revision: 3}, hooks[1]}, "one is gone": hooks[:1], "one is new": append(hooks[:2:2], &configv1.Hook{Uid: "c"}),
		"one was made anew": {{Uid: "d", Revision: 1}, hooks[1]},
	} {
		if found(others, start) {
			t.Errorf("it stands though %s", what)
		}
	}
	if answerID("0198c5f0-7f4b-7cc1-8a5e-3f0f8f1e2d3d", hooks, start) == kept {
		t.Error("it stands for another request")
	}
}
