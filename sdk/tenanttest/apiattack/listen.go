package apiattack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/canary"
)

// listen opens the attacker's stream and has both parties write until the attacker has
// seen something of its own: then the victim's writes would have come, too.
func (r *run) listen(ctx context.Context, m *method) outcome {
	use, err := r.subject(ctx, r.attacker, m)
	if err != nil {
		return untested(err)
	}
	f := &filler{style: r.style[m], r: r, s: r.attacker, m: m, use: use}
	request, err := f.request()
	if err != nil {
		return untested(err)
	}
	ctx, cancel := context.WithTimeout(ctx, r.Deadline)
	defer cancel()
	signed := ctx
	if r.attacker.In != nil {
		if signed, err = r.attacker.In(ctx, m.full, request); err != nil {
			return untested(err)
		}
	}
	var own marks
	r.calls.Add(1)
	heard := make(chan answer, 1)
	go func() { heard <- r.stream(signed, r.attacker.Party, m, []proto.Message{request}, own.in) }()
	err = r.write(ctx, &own, heard)
	a := <-heard
	if leak := r.leaks(m, a, f.texts); leak != "" {
		return outcome{Leaked, leak, m.full + " " + asJSON(request)}
	}
	switch {
	case err != nil:
		return untested(err)
	case !own.seen():
		return untested(errors.New("the stream showed nothing of what the attacker made itself"))
	}
	return held()
}

// write makes a thing of each kind as both parties, the attacker's last, again and again
// until the stream has ended.
func (r *run) write(ctx context.Context, own *marks, heard chan answer) error {
	tick := time.NewTicker(r.Quiet)
	defer tick.Stop()
	for {
		made := 0
		for _, s := range []*side{r.victim, r.attacker} {
			for _, m := range r.methods {
				if !m.creates() || r.style[m] == nil || r.failed[m] != "" {
					continue
				}
				t, err := r.make(ctx, s, m, false)
				if err != nil {
					continue // the deadline, or a limit: what was made before may be enough
				}
				made++
				if s == r.attacker {
					own.add(t)
				}
			}
		}
		select {
		case a := <-heard:
			heard <- a
			return nil
		case <-ctx.Done():
			return nil // the stream ends with it
		case <-tick.C:
		}
		if made == 0 {
			return errors.New("no method makes anything that the stream could show")
		}
	}
}

// marks are values that only a thing made since has.
type marks struct {
	mu     sync.Mutex
	values [][]byte // guarded by mu
	found  bool     // guarded by mu
}

func (k *marks) add(t *thing) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, value := range valuesOf(t.request) {
		if len(value) > 2*frontLength {
			k.values = append(k.values, []byte(value))
		}
	}
	for _, found := range t.ids {
		if len(found.value) > 2*frontLength {
			k.values = append(k.values, []byte(found.value))
		}
	}
}

func (k *marks) in(m proto.Message) bool {
	text := canary.AnswerBytes(nil, nil, nil, m)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.found = k.found || slices.ContainsFunc(k.values, func(value []byte) bool { return bytes.Contains(text, value) })
	return k.found
}

func (k *marks) seen() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.found
}

// intrude makes the victim's ordinary call as somebody who may not.
func (r *run) intrude(ctx context.Context, m *method, who Intruder) outcome {
	use, err := r.subject(ctx, r.victim, m)
	if err != nil {
		return untested(err)
	}
	f := &filler{style: r.style[m], r: r, s: r.victim, m: m, use: use, decoy: true}
	request, err := f.request()
	if err != nil {
		return untested(err)
	}
	reads := r.reads(use)
	before := r.look(ctx, reads)
	a, err := r.call(ctx, who.Party, m, request)
	if err != nil {
		return untested(fmt.Errorf("%s: %w", who.Name, err))
	}
	repeat := m.full + " " + asJSON(request) + " with " + who.Name
	if leak := r.leaks(m, a, valuesOf(request)); leak != "" {
		return outcome{Leaked, leak, repeat}
	}
	if c := a.status.Code(); c != codes.Unauthenticated && c != codes.PermissionDenied {
		return outcome{Leaked, fmt.Sprintf("the call was not refused: %s %s", c, a.status.Message()), repeat}
	}
	harm := changes(before.flat, r.look(ctx, reads).flat, r.noise)
	maps.DeleteFunc(harm, func(string, string) bool { return m.safe() }) // others may write meanwhile; the method's end looks
	if len(harm) > 0 {
		return outcome{Leaked, "the call was refused and the victim's data changed: " + sentence(harm), repeat}
	}
	return held()
}
