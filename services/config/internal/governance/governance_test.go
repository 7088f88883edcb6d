package governance_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/governance"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
)

// history is what happened to a change, told by events alone: the model asks it, and not what the change keeps.
type history []event

type event struct{ what, who, digest string }

// last is when something happened last, -1 for never.
func (h history) last(what ...string) int {
	for i, e := range slices.Backward(h) {
		if slices.Contains(what, e.what) {
			return i
		}
	}
	return -1
}

// wrote says whether somebody ever wrote the change.
func (h history) wrote(who string) bool {
	return slices.ContainsFunc(h, func(e event) bool { return e.what == "edit" && e.who == who })
}

// agreed counts those who approved what was written last, since then, and who never wrote.
func (h history) agreed() int {
	written := h.last("edit")
	seen := map[string]bool{}
	for _, e := range h[written+1:] {
		if e.what == "approve" && e.digest == h[written].digest && !h.wrote(e.who) {
			seen[e.who] = true
		}
	}
	return len(seen)
}

// Random histories: a change is never live with fewer approvals of its content than were required at that moment, nobody
// approves what they wrote, and what is final stays.
func TestRandomHistories(t *testing.T) {
	t.Parallel()
	people := []string{"ada", "bob", "cleo", "dan"}
	reached := map[governance.State]int{}
	for seed := range uint64(20_000) {
		d := rand.New(rand.NewPCG(seed, 11))
		c := &governance.Change{State: governance.Draft}
		var h history
		n := 0
		edit := func(who string) {
			digest := strconv.Itoa(n % 3) // what was there before may come back
			if n++; c.Edit(who, digest) == nil {
				h = append(h, event{"edit", who, digest})
			}
		}
		edit(people[0])
		for range 14 {
			who, required, before := people[d.IntN(len(people))], d.IntN(4), *c
			final := before.State == governance.Live || before.State == governance.Cancelled
			var err error
			switch step := d.IntN(8); step {
			case 0:
				edit(who)
				if !final && c.State != governance.Draft {
					t.Fatalf("seed %d: %s after an edit", seed, c.State)
				}
			case 1, 2:
				err = c.Submit(required)
				if err == nil && (c.State == governance.Approved) != (h.agreed() >= required) {
					t.Fatalf("seed %d: %s with %d of %d", seed, c.State, h.agreed(), required)
				}
			case 3, 4:
				digest := []string{c.Digest, c.Digest, "0"}[d.IntN(3)]
				added, err := c.Approve(who, digest, required)
				if err == nil && (h.wrote(who) || digest != h[h.last("edit")].digest) {
					t.Fatalf("seed %d: %s approved %s", seed, who, digest)
				}
				if err == nil && added {
					h = append(h, event{"approve", who, digest})
				}
			case 5:
				err = c.Publish(required)
				if err == nil && h.agreed() < required {
					t.Fatalf("seed %d: live with %d of %d", seed, h.agreed(), required)
				}
				if err != nil && fault.ReasonOf(err) == governance.ReasonApprovalRequired && h.agreed() >= required {
					t.Fatalf("seed %d: refused with %d of %d", seed, h.agreed(), required)
				}
			case 6:
				if err = c.Schedule(required); err == nil && h.agreed() < required {
					t.Fatalf("seed %d: scheduled with %d of %d", seed, h.agreed(), required)
				}
			case 7:
				err = []func() error{c.Reject, c.Halt, c.Cancel}[d.IntN(3)]()
			}
			if err != nil && c.State != before.State || final && c.State != before.State {
				t.Fatalf("seed %d: %s became %s: %v", seed, before.State, c.State, err)
			}
			reached[c.State]++
		}
	}
	for _, s := range []governance.State{
		governance.Draft, governance.Submitted, governance.Approved, governance.Scheduled, governance.Live,
		governance.Rejected, governance.Halted, governance.Cancelled,
	} {
		if reached[s] < 100 {
			t.Errorf("%s was reached %d times only", s, reached[s])
		}
	}
}

func TestFourEyes(t *testing.T) {
	t.Parallel()
	c := &governance.Change{State: governance.Draft}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	approve := func(who, digest string) string {
		_, err := c.Approve(who, digest, 2)
		return fault.ReasonOf(err)
	}
	must(c.Edit("ada", "1"))
	must(c.Edit("bob", "2"))
	if got := approve("cleo", "2"); got != fault.ReasonWrongState {
		t.Errorf("a draft was approved: %q", got)
	}
	must(c.Submit(2))
	for who, want := range map[string]string{"ada": "SELF_APPROVAL", "bob": "SELF_APPROVAL"} {
		if got := approve(who, "2"); got != want {
			t.Errorf("%s: %q, want %s", who, got, want)
		}
	}
	if got := approve("cleo", "1"); got != fault.ReasonEtagMismatch {
		t.Errorf("what was before: %q", got)
	}
	for range 2 { // once, however often
		if got := approve("cleo", "2"); got != "" {
			t.Errorf("cleo: %q", got)
		}
	}
	if err := c.Publish(2); fault.ReasonOf(err) != "APPROVAL_REQUIRED" || c.State != governance.Submitted {
		t.Errorf("one of two: %v, %s", err, c.State)
	}
	if got := approve("dan", "2"); got != "" || c.State != governance.Approved {
		t.Errorf("dan: %q, %s", got, c.State)
	}
	// Whoever approved and then writes has neither approved nor may again.
	must(c.Edit("cleo", "2"))
	must(c.Submit(1))
	if got := approve("cleo", "2"); got != "SELF_APPROVAL" {
		t.Errorf("cleo, who wrote: %q", got)
	}
	if err := c.Publish(1); fault.ReasonOf(err) != "APPROVAL_REQUIRED" {
		t.Errorf("what came back has its approvals back: %v", err)
	}
}

func TestRule(t *testing.T) {
	t.Parallel()
	rule := func(count int, layers ...string) governance.Rule {
		r, err := governance.NewRule(layers, count)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := rule(2, "plan", "platform", "environments/live", "plan")
	for name, want := range map[string]int{
		"platform": 2, "plans/free": 2, "regions/eu": 0, "tenants/acme": 0, "tenants/acme/environments/live": 2,
		"tenants/acme/environments/staging": 0,
	} {
		o, err := settings.ParseOwner(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Needs(o); got != want {
			t.Errorf("%s needs %d, want %d", name, got, want)
		}
	}
	for _, tt := range []struct {
		now, then governance.Rule
		weaker    bool
	}{
		{rule(1, "plan"), rule(0), false},
		{rule(0), rule(1, "plan"), true},
		{rule(1, "plan"), rule(2, "plan"), true},
		{rule(2, "plan"), rule(1, "plan"), false},
		{rule(3, "platform"), rule(1, "plan"), true},
		{rule(1, "platform", "plan"), rule(1, "plan"), false},
		{rule(1, "environment"), rule(1, "environments/live"), false},
		{rule(1, "environments/live"), rule(1, "environment"), true},
		{r, r, false},
	} {
		if got := tt.now.Weaker(tt.then); got != tt.weaker {
			t.Errorf("%v is weaker than %v: %t", tt.now, tt.then, got)
		}
	}
	back, err := governance.RuleOf(r.Object())
	if err != nil || fmt.Sprint(back) != fmt.Sprint(r) {
		t.Errorf("%v came back as %v, %v", r, back, err)
	}
	for _, bad := range []any{
		nil, "x", map[string]any{"layers": "plan"}, map[string]any{"layers": []any{"planet"}}, map[string]any{"layers": []any{"plan"}, "count": 4.0},
		map[string]any{"layers": []any{"plan"}, "count": 1.5}, map[string]any{"layer": []any{}}, map[string]any{"layers": []any{"environments/"}},
		map[string]any{"layers": []any{"environments/A b"}}, map[string]any{"layers": []any{7.0}}, map[string]any{"layers": []any{"plan"}, "count": -1.0},
	} {
		if r, err := governance.RuleOf(bad); err == nil {
			t.Errorf("%v was read as %v", bad, r)
		}
	}
}
