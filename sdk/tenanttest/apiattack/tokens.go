package apiattack

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// masks names the victim's things in a mask, and asks for all fields of them.
func (r *run) masks(m *method, fields []place) (all []attempt) {
	for _, mask := range places(m.Input(), isMask) {
		byPath := func(request proto.Message, _ place, value string) bool { return setMask(request, mask, value) }
		for _, candidate := range r.candidates(m, place{path: []protoreflect.FieldDescriptor{anyText}}) {
			where := fmt.Sprintf("%s = [%s.%s]", mask, cmpName(candidate), candidate.field)
			all = append(all, attempt{ForeignMask, where, r.trial(m, mask, candidate, byPath).attempt(r)})
		}
		for _, p := range fields {
			best := r.victim.fitting(m, p.leaf(), nil)
			if len(best) == 0 {
				continue
			}
			for _, path := range maskPaths(m) {
				put := func(request proto.Message, p place, value string) bool {
					return putAlone(request, p, value) && setMask(request, mask, path)
				}
				where := fmt.Sprintf("%s, %s = [%s]", p, mask, path)
				all = append(all, attempt{ForeignMask, where, r.trial(m, p, best[0], put).attempt(r)})
			}
		}
	}
	return all
}

// anyText is a field without rules.
//
//nolint:gochecknoglobals // a constant in all but syntax
var anyText = new(fieldmaskpb.FieldMask).ProtoReflect().Descriptor().Fields().ByName("paths")

// maskPaths returns what a mask may name: everything, and each field of what is answered.
func maskPaths(m *method) []string {
	paths := []string{"*"}
	d := m.Output()
	for i := range d.Fields().Len() { // the resource in its own message
		if fd := d.Fields().Get(i); fd.Message() != nil && !fd.IsMap() && plain(fd.Message().Name()) == m.noun {
			d = fd.Message()
			break
		}
	}
	const most = 20
	for i := range min(most, d.Fields().Len()) {
		paths = append(paths, string(d.Fields().Get(i).Name()))
	}
	return paths
}

// pages goes on with the victim's list.
func (r *run) pages(m *method, token place) (all []attempt) {
	size, sized := first(places(m.Input(), func(fd protoreflect.FieldDescriptor) bool {
		return isNumber(fd) && oneOf(string(fd.Name()), pageSizes)
	}))
	list := func(s *side, n string, after string) (proto.Message, error) {
		f := &filler{style: r.style[m], r: r, s: s, m: m, decoy: true}
		request, err := f.request()
		if err != nil {
			return nil, err
		}
		if sized {
			putAlone(request, size, n)
		}
		if after != "" && !putAlone(request, token, after) {
			return nil, errDoesNotFit
		}
		return request, nil
	}
	for _, n := range []string{"1", "100"} {
		all = append(all, attempt{ForeignPageToken, token.String() + ", pages of " + n, func(ctx context.Context) outcome {
			request, err := list(r.victim, "1", "")
			if err != nil {
				return untested(err)
			}
			a, err := r.call(ctx, r.victim.Party, m, request)
			if err != nil {
				return untested(err)
			}
			next := nextToken(a)
			if next == "" {
				return untested(errors.New("the victim's list has no second page"))
			}
			if request, err = list(r.attacker, n, next); err != nil {
				return untested(err)
			}
			return r.read(ctx, m, request, next)
		}})
	}
	return all
}

// nextToken is the token of the next page in a list's answer.
func nextToken(a answer) (token string) {
	for _, m := range a.messages {
		for i := range m.ProtoReflect().Descriptor().Fields().Len() {
			fd := m.ProtoReflect().Descriptor().Fields().Get(i)
			name := string(fd.Name())
			if isText(fd) && !fd.IsList() && (oneOf(name, pageTokens) || len(name) > 5 && name[:5] == "next_") {
				token = textOf(fd, m.ProtoReflect().Get(fd))
			}
		}
	}
	return token
}

// etag uses the victim's etag on what is the attacker's.
func (r *run) etag(m *method, p place) attempt {
	put := putAlone
	return attempt{ForeignEtag, p.String(), trial{
		m: m,
		prepare: func(ctx context.Context) (string, *thing, error) {
			for _, old := range slices.Backward(r.victim.things) {
				if len(old.etags) == 0 || old.decoy {
					continue
				}
				t := old
				if !m.safe() {
					var err error
					if t, err = r.make(ctx, r.victim, old.by, false); err != nil {
						return "", nil, err
					}
				}
				same := func(own *thing) bool { return slices.Contains(own.etags, t.etags[0]) }
				if len(t.etags) == 0 || slices.ContainsFunc(r.attacker.things, same) {
					return "", nil, errors.New("the attacker has things of the same etag, which tells nothing")
				}
				return t.etags[0], t, nil
			}
			return "", nil, errors.New("nothing of the victim's has an etag")
		},
		request: func(ctx context.Context, value string) (shot, error) { return r.shot(ctx, m, p, value, put) },
		absent:  r.absent,
	}.attempt(r)}
}

// replay sends the request that the victim sent, under its request id and under ids that
// nobody used. What it makes has another name each time, where the caller chooses it: a
// name may be taken, whoever asks.
func (r *run) replay(m *method, p place) attempt {
	var sent proto.Message
	return attempt{Replay, p.String(), trial{
		m: m,
		prepare: func(ctx context.Context) (string, *thing, error) {
			use, err := r.subject(ctx, r.victim, m)
			if err != nil {
				return "", nil, err
			}
			if sent, err = r.ordinary(ctx, r.victim, m, use, true); err != nil {
				return "", nil, err
			}
			value := ""
			eachLeaf(sent.ProtoReflect(), func(fd protoreflect.FieldDescriptor, v protoreflect.Value) {
				if isRequestID(fd) {
					value = textOf(fd, v)
				}
			})
			if value == "" {
				return "", nil, errors.New("the ordinary request has no request id")
			}
			if m.creates() {
				use = r.victim.things[len(r.victim.things)-1]
			}
			return value, use, nil
		},
		request: func(_ context.Context, value string) (shot, error) {
			request := proto.Clone(sent)
			if !putAlone(request, p, value) {
				return shot{}, errDoesNotFit
			}
			r.rename(m, request)
			return shot{requests: []proto.Message{request}, own: valuesOf(request)}, nil
		},
		absent: func(string) string { return r.random.uuid() },
	}.attempt(r)}
}

// rename gives what a request makes another name, where the request names it.
func (r *run) rename(m *method, request proto.Message) {
	f := &filler{r: r, s: r.attacker, m: m}
	for _, p := range places(m.Input(), f.made) {
		if p.many() || !p.in(request) {
			continue
		}
		putAlone(request, p, textOf(p.leaf(), f.fresh(p.leaf())))
	}
}
