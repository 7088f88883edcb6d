package apiattack

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

// run is one attack on a target.
type run struct {
	Target

	random           *random
	calls            atomic.Int64
	methods          []*method
	victim, attacker *side
	style            map[*method]*style // what worked
	failed           map[*method]string // why the ordinary call did not
	shown            map[*method]bool   // whether the victim was answered with something of its own
	noise            map[string]bool    // what the victim's reads answer differently by themselves
	report           Report
}

// Attack attacks the target and reports what it tried and found. The error says that
// there could be no attack: a target that is not complete, services that are not there, a
// context that ended. What leaked is in the report, see [Report.Findings]; what could not
// be tried is, too, see [Report.Untested].
//
// Attack writes to both tenants and leaves what it wrote. It makes one call at a time,
// but for streams, which have writes beside them.
func Attack(ctx context.Context, target Target) (Report, error) {
	target, err := target.withDefaults()
	if err != nil {
		return Report{}, err
	}
	r := &run{Target: target, style: map[*method]*style{}, failed: map[*method]string{}, shown: map[*method]bool{}}
	r.noise = map[string]bool{}
	r.report.Seed = cmp.Or(target.Seed, rand.Uint64()) //nolint:gosec // the seed of what must be repeatable
	r.report.Start = time.Now()
	r.random = newRandom(r.report.Seed)
	if r.methods, err = target.methods(ctx); err != nil {
		return r.report, err
	}
	if err := r.known(); err != nil {
		return r.report, err
	}
	r.victim = &side{Party: target.Victim, name: victim, secret: target.Canary.Secret(victim), values: map[string]bool{}}
	r.attacker = &side{Party: target.Attacker, name: attacker, secret: target.Canary.Secret(attacker), values: map[string]bool{}}
	if err := r.plant(ctx); err != nil {
		return r.report, err
	}
	r.populate(ctx)
	byOrder := slices.Clone(r.methods)
	slices.SortStableFunc(byOrder, func(a, b *method) int { return a.order() - b.order() })
	results := map[string]Method{}
	for _, m := range byOrder {
		results[m.full] = r.attack(ctx, m)
		if err := ctx.Err(); err != nil {
			return r.report, err
		}
	}
	for _, m := range r.methods {
		r.report.Methods = append(r.report.Methods, results[m.full])
	}
	r.outputs(ctx)
	r.report.Calls, r.report.Duration = int(r.calls.Load()), time.Since(r.report.Start)
	return r.report, nil
}

// known refuses names of methods that are not there: an excuse for one would excuse nobody.
func (r *run) known() error {
	for _, name := range slices.Sorted(slices.Values(slices.Concat(slices.Collect(maps.Keys(r.Skip)), r.Only))) {
		if !slices.ContainsFunc(r.methods, func(m *method) bool { return m.full == name }) {
			return fmt.Errorf("apiattack: the services have no method %s", name)
		}
	}
	return nil
}

// excuse says why a method is left alone, or nothing.
func (r *run) excuse(m *method) string { return cmp.Or(r.Skip[m.full], m.outside()) }

// attempt is one attack that can be made.
type attempt struct {
	kind  Kind
	where string
	make  func(ctx context.Context) outcome
}

// outcome is how an attempt ended.
type outcome struct {
	verdict  Verdict
	evidence string
	repeat   string
}

func held() outcome { return outcome{verdict: Held} }

func untested(err error) outcome { return outcome{verdict: Untested, evidence: err.Error()} }

// enoughLeaks is after how many of a kind a method is known to be open to it; the rest would say the same.
const enoughLeaks = 10

// attack makes all attacks on one method.
func (r *run) attack(ctx context.Context, m *method) Method {
	result := Method{Name: m.full, Verdict: Untested, Attacks: map[Kind]int{}}
	if result.Why = r.excuse(m); result.Why != "" {
		result.Excused = true
		return result
	}
	if result.Why = r.works(ctx, m); result.Why != "" {
		return result
	}
	if len(r.Only) > 0 && !slices.Contains(r.Only, m.full) {
		result.Why, result.Excused = "not asked for", true
		return result
	}
	attempts := r.plan(m)
	if extra := len(attempts) - r.MaxPerMethod; extra > 0 {
		result.Dropped, attempts = extra, attempts[:r.MaxPerMethod]
	}
	reads := r.reads(nil)
	before := r.look(ctx, reads)
	leaks := map[Kind]int{}
	for _, a := range attempts {
		if leaks[a.kind] == enoughLeaks {
			result.Dropped++
			continue
		}
		o := a.make(ctx)
		if a.kind == Stream { // the victim wrote meanwhile
			reads = r.reads(nil)
			before = r.look(ctx, reads)
		}
		r.report.Results = append(r.report.Results, Result{
			Method: m.full, Attack: a.kind, Where: a.where, Verdict: o.verdict, Evidence: o.evidence, Repeat: o.repeat,
		})
		if o.verdict == Untested {
			continue
		}
		result.Attacks[a.kind]++
		switch {
		case o.verdict == Leaked:
			result.Verdict = Leaked
			leaks[a.kind]++
		case result.Verdict == Untested:
			result.Verdict = Held
		}
	}
	atFirst := func(f Result) bool { return f.Method == m.full && f.Verdict == Leaked }
	if result.Verdict == Held && slices.ContainsFunc(r.report.Results, atFirst) {
		result.Verdict = Leaked
	}
	switch {
	case result.Verdict == Untested:
		result.Why = "no attack on it could be made"
	case result.Verdict == Held && m.safe() && !r.shown[m] && result.Attacks[Stream] == 0 && r.named(r.victim, m) == nil:
		result.Verdict, result.Why = Untested, "the victim is answered with nothing of its own, so none of it could be missed: "+
			"have the party plant something"
	}
	if !m.safe() {
		return result // each attack has looked
	}
	after := r.look(ctx, reads)
	harm := changes(before.flat, after.flat, r.noise)
	if len(harm) > 0 { // what goes on changing now does so by itself
		for path := range unlike(after.flat, r.look(ctx, reads).flat) {
			r.noise[path] = true
		}
		harm = changes(before.flat, after.flat, r.noise)
	}
	if len(harm) > 0 {
		result.Verdict = Leaked
		r.report.Results = append(r.report.Results, Result{
			Method: m.full, Attack: OwnRequest, Verdict: Leaked,
			Evidence: "after the attacks on a method that is said to change nothing, the victim's data changed: " + sentence(harm),
		})
	}
	return result
}

// works makes the ordinary call of a method as both parties and says why one fails.
func (r *run) works(ctx context.Context, m *method) string {
	if m.creates() {
		return r.failed[m] // populate has called it
	}
	for _, s := range []*side{r.victim, r.attacker} {
		var reads []read
		if s == r.attacker && !m.safe() {
			reads = r.reads(nil)
		}
		before := r.look(ctx, reads)
		use, err := r.subject(ctx, s, m)
		if err == nil {
			_, err = r.ordinary(ctx, s, m, use, false)
		}
		if r.fails(s, m, err); err != nil {
			return r.failed[m]
		}
		if harm := changes(before.flat, r.look(ctx, reads).flat, r.noise); len(harm) > 0 {
			r.report.Results = append(r.report.Results, Result{
				Method: m.full, Attack: OwnRequest, Verdict: Leaked,
				Evidence: "after the attacker's first ordinary call the victim's data changed: " + sentence(harm),
			})
		}
	}
	if m.safe() && !m.streams() { // what it answers differently by itself
		reads := r.reads(nil)
		first := r.look(ctx, reads)
		for path := range unlike(first.flat, r.look(ctx, reads).flat) {
			r.noise[path] = true
		}
	}
	return ""
}

// subject returns the thing that a call of the method is about: a new one where the call
// changes or ends it, nil where it is about none.
func (r *run) subject(ctx context.Context, s *side, m *method) (*thing, error) {
	best := r.named(s, m)
	if best == nil || best.of == nil {
		return nil, nil //nolint:nilnil // about nothing
	}
	if m.safe() || m.creates() {
		return best.of, nil
	}
	fresh, err := r.another(ctx, s, best)
	if err != nil {
		return nil, err
	}
	return fresh.of, nil
}

// named returns the side's id that fits the method's fields best.
func (r *run) named(s *side, m *method) (best *id) {
	most := 0
	for _, p := range places(m.Input(), isID) {
		for _, candidate := range s.fitting(m, p.leaf(), nil)[:min(1, len(s.fitting(m, p.leaf(), nil)))] {
			if score := likeness(m, p.leaf(), candidate); score > most {
				best, most = candidate, score
			}
		}
	}
	return best
}

// outputs looks into what the canary saw beside the answers.
func (r *run) outputs(ctx context.Context) {
	finds, err := r.Canary.Finds(ctx)
	if err != nil {
		r.report.Results = append(r.report.Results, Result{Attack: Output, Verdict: Untested, Evidence: err.Error()})
	}
	for _, f := range finds {
		r.report.Results = append(r.report.Results, Result{Attack: Output, Where: f.Where, Verdict: Leaked, Evidence: f.String()})
	}
	if err == nil && len(finds) == 0 {
		r.report.Results = append(r.report.Results, Result{Attack: Output, Verdict: Held})
	}
}
