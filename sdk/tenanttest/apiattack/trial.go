package apiattack

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// trial is an attack that is judged by comparison: the attacker's call with a value of the
// victim's, between two calls with values that never existed.
type trial struct {
	m *method
	// prepare returns the victim's value and the thing that it is of. It makes a new one
	// where the method changes something.
	prepare func(ctx context.Context) (value string, of *thing, err error)
	// request returns the attacker's call with a value in it, and what of it is its own.
	request func(ctx context.Context, value string) (call shot, err error)
	// absent returns a value that never existed.
	absent func(value string) string
	// alone says that there is nothing to compare with: only leaks and harm count.
	alone bool
	// warm has the victim make the call first: its answer may be in a cache then, and an
	// attack on what the victim does not reach itself shows nothing.
	warm func(ctx context.Context, value string, of *thing) error
}

// shot is one call and what it brings itself.
type shot struct {
	requests []proto.Message
	own      []string
}

// tries is how often a difference must show. What shows by chance, such as a second that
// ended between two calls, does not.
const tries = 3

// run makes the trial. What the attacker can read of the victim's is a leak at once;
// differences and harm must show each time.
func (t trial) run(ctx context.Context, r *run) outcome {
	var kept map[string]string
	repeat := ""
	for range tries {
		found, call, err := t.once(ctx, r)
		var leak *leakError
		switch {
		case errors.As(err, &leak):
			return outcome{Leaked, leak.Error(), call}
		case err != nil:
			return untested(err)
		}
		if kept == nil {
			kept = found
		} else {
			maps.DeleteFunc(kept, func(path, _ string) bool { return found[path] == "" })
		}
		if repeat = call; len(kept) == 0 {
			return held()
		}
	}
	return outcome{Leaked, sentence(kept), repeat}
}

// leakError says what the attacker could read.
type leakError struct{ what string }

// Error implements error.
func (e *leakError) Error() string { return e.what }

func (t trial) once(ctx context.Context, r *run) (found map[string]string, repeat string, err error) {
	value, of, err := t.prepare(ctx)
	if err != nil {
		return nil, "", err
	}
	var reads []read
	var before sight
	if !t.m.safe() {
		reads = r.reads(of)
		before = r.look(ctx, reads)
	}
	if t.warm != nil {
		if err := t.warm(ctx, value, of); err != nil {
			return nil, "", err
		}
	}
	values := []string{value}
	if !t.alone {
		values = []string{t.absent(value), value, t.absent(value)}
	}
	answers := make([]flat, len(values))
	for i, v := range values {
		call, err := t.request(ctx, v)
		if err != nil {
			return nil, "", fmt.Errorf("no request could be made: %w", err)
		}
		a, err := r.call(ctx, r.attacker.Party, t.m, call.requests...)
		if err != nil {
			return nil, "", err
		}
		if v == value {
			repeat = t.m.full + " " + asJSON(call.requests[len(call.requests)-1])
			r.taint(t.m, value, of)
		}
		if t.m.creates() && a.ok() {
			r.own(r.attacker, harvest(t.m, call.requests[0], a.messages, false))
		}
		if leak := r.leaks(t.m, a, append(slices.Clone(call.own), v)); leak != "" {
			return nil, t.m.full + " " + asJSON(call.requests[len(call.requests)-1]), &leakError{leak}
		}
		if c := a.status.Code(); !t.alone && (c == codes.Unavailable || c == codes.ResourceExhausted || c == codes.DeadlineExceeded) {
			return nil, "", fmt.Errorf("the service was overloaded: %s: %s", c, a.status.Message())
		}
		answers[i] = a.flatten(append(call.own, v))
	}
	found = map[string]string{}
	if !t.alone {
		found = differences(answers[1], answers[0], answers[2])
	}
	if !t.m.safe() {
		after := r.look(ctx, reads)
		if after.leak != "" && before.leak == "" {
			return nil, repeat, &leakError{"the victim reads what the attacker wrote: " + after.leak}
		}
		for path, text := range changes(before.flat, after.flat, r.noise) {
			found["the victim's "+path] = "the victim's data changed: " + text
		}
	}
	return found, repeat, nil
}

// taint makes a victim's id the attacker's, too, once a call that may make things has
// brought it: the service may rightly keep it for the attacker.
func (r *run) taint(m *method, value string, of *thing) {
	if m.safe() {
		return
	}
	both := func(value string) {
		r.Canary.ID(victim, value)
		r.Canary.ID(attacker, value)
	}
	both(value)
	if of == nil {
		return
	}
	for _, other := range of.ids {
		if strings.Contains(value, other.value) || strings.Contains(other.value, value) {
			both(other.value)
		}
	}
}

// leaks says what of the victim's an answer to the attacker shows. What the call brought
// itself may come back.
func (r *run) leaks(m *method, a answer, brought []string) string {
	for _, f := range r.Canary.Search(attacker, m.full, a.bytes()) {
		back := f.Value != "" && slices.ContainsFunc(brought, func(own string) bool {
			return strings.Contains(own, f.Value) || strings.Contains(f.Value, own) && len(own) >= frontLength
		})
		if !back {
			return "the answer shows " + f.String()
		}
	}
	return ""
}

// read is a question of the victim's about its own data.
type read struct {
	m       *method
	request proto.Message
}

// sight is what the victim's reads answered.
type sight struct {
	flat flat
	leak string // of the attacker's, in an answer to the victim
}

// reads returns the victim's reads: each method that changes nothing, asked about a thing
// where it takes one.
func (r *run) reads(of *thing) (all []read) {
	for _, m := range r.methods {
		known := r.style[m]
		if known == nil || !m.safe() || m.streams() {
			continue
		}
		f := &filler{style: known, r: r, s: r.victim, m: m, use: of, decoy: true}
		if request, err := f.request(); err == nil {
			all = append(all, read{m, request})
		}
	}
	return all
}

func (r *run) look(ctx context.Context, reads []read) sight {
	seen := sight{flat: flat{}}
	for _, q := range reads {
		a, err := r.call(ctx, r.victim.Party, q.m, q.request)
		if err != nil {
			seen.flat[q.m.full] = err.Error()
			continue
		}
		all := a.bytes()
		a.header, a.trailer = nil, nil // they are about the call, not about data
		for path, value := range a.flatten(nil) {
			seen.flat[q.m.full+" "+path] = value
		}
		for _, f := range r.Canary.Search(victim, q.m.full, all) {
			if f.Owner == attacker {
				seen.leak = f.String()
			}
		}
	}
	return seen
}
