package apiattack

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	pageTokens = "page_token cursor continuation_token" //nolint:gosec // names of fields
	pageSizes  = "page_size limit max_results size"
)

// isID accepts the fields in which an id may stand: all text, and numbers that are named
// like ids.
func isID(fd protoreflect.FieldDescriptor) bool {
	return isText(fd) && !isToken(fd) || isNumber(fd) && idish(fd.Name())
}

// isToken accepts the fields that have attacks of their own.
func isToken(fd protoreflect.FieldDescriptor) bool {
	return oneOf(string(fd.Name()), pageTokens) || plain(fd.Name()) == "etag"
}

func isEtag(fd protoreflect.FieldDescriptor) bool { return isText(fd) && plain(fd.Name()) == "etag" }

func isMask(fd protoreflect.FieldDescriptor) bool {
	return fd.Message() != nil && fd.Message().FullName() == "google.protobuf.FieldMask" && !fd.IsList()
}

func isRequestID(fd protoreflect.FieldDescriptor) bool {
	return isText(fd) && oneOf(string(fd.Name()), requestIDs)
}

// plan returns all attacks on a method, those by which most is found first.
func (r *run) plan(m *method) (all []attempt) {
	all = append(all, r.usual(m)...)
	if m.safe() && !m.streams() {
		all = append(all, r.same(m))
	}
	fields := places(m.Input(), isID)
	for _, p := range fields {
		all = append(all, r.foreign(m, p)...)
	}
	all = append(all, r.masks(m, fields)...)
	if p, ok := first(places(m.Input(), func(fd protoreflect.FieldDescriptor) bool {
		return isText(fd) && oneOf(string(fd.Name()), pageTokens)
	})); ok && !m.streams() {
		all = append(all, r.pages(m, p)...)
	}
	for _, p := range places(m.Input(), isEtag) {
		all = append(all, r.etag(m, p))
	}
	if p, ok := first(places(m.Input(), isRequestID)); ok && !m.safe() {
		all = append(all, r.replay(m, p))
	}
	if m.IsStreamingServer() && m.safe() {
		all = append(all, attempt{Stream, "", func(ctx context.Context) outcome { return r.listen(ctx, m) }})
	}
	for _, intruder := range r.Intruders {
		all = append(all, attempt{Intrusion, intruder.Name, func(ctx context.Context) outcome { return r.intrude(ctx, m, intruder) }})
	}
	if r.Timing > 0 && m.safe() && !m.streams() {
		all = append(all, r.timing(m)...)
	}
	return all
}

func first(of []place) (place, bool) {
	if len(of) == 0 {
		return place{}, false
	}
	return of[0], true
}

// usual is the attacker's ordinary call, lean and with all that is optional.
func (r *run) usual(m *method) (all []attempt) {
	for _, s := range []style{{}, {full: true}} {
		s.member = r.style[m].member
		where := "lean"
		if s.full {
			where = "full"
		}
		all = append(all, attempt{OwnRequest, where, func(ctx context.Context) outcome {
			use, err := r.subject(ctx, r.attacker, m)
			if err != nil {
				return untested(err)
			}
			f := &filler{style: &s, r: r, s: r.attacker, m: m, use: use}
			request, err := f.request()
			if err != nil {
				return untested(err)
			}
			if m.safe() {
				return r.read(ctx, m, request)
			}
			reads := r.reads(nil)
			before := r.look(ctx, reads)
			o := r.read(ctx, m, request)
			if harm := changes(before.flat, r.look(ctx, reads).flat, r.noise); len(harm) > 0 && o.verdict == Held {
				o = outcome{Leaked, "the victim's data changed: " + sentence(harm), m.full + " " + asJSON(request)}
			}
			return o
		}})
	}
	return all
}

// read makes one call as the attacker and looks for what is the victim's.
func (r *run) read(ctx context.Context, m *method, request proto.Message, brought ...string) outcome {
	a, err := r.call(ctx, r.attacker.Party, m, request)
	if err != nil {
		return untested(err)
	}
	if m.creates() && a.ok() {
		r.own(r.attacker, harvest(m, request, a.messages, false))
	}
	if leak := r.leaks(m, a, brought); leak != "" {
		return outcome{Leaked, leak, m.full + " " + asJSON(request)}
	}
	return held()
}

// same has the attacker send what the victim sent a moment before.
func (r *run) same(m *method) attempt {
	return attempt{SameRequest, "", func(ctx context.Context) outcome {
		use, err := r.subject(ctx, r.victim, m)
		if err != nil {
			return untested(err)
		}
		f := &filler{style: r.style[m], r: r, s: r.victim, m: m, use: use, decoy: true}
		request, err := f.request()
		if err != nil {
			return untested(err)
		}
		if _, err := r.call(ctx, r.victim.Party, m, request); err != nil {
			return untested(err)
		}
		return r.read(ctx, m, proto.Clone(request), valuesOf(request)...)
	}}
}

// valuesOf returns all texts of a request.
func valuesOf(request proto.Message) (all []string) {
	eachLeaf(request.ProtoReflect(), func(fd protoreflect.FieldDescriptor, v protoreflect.Value) { all = append(all, textOf(fd, v)) })
	return all
}

// candidates returns the victim's values to put into a field: what fits it best, the text
// of a decoy, and of each other kind of id one.
func (r *run) candidates(m *method, p place) (some []*id) {
	kinds := map[string]bool{}
	add := func(candidate *id, most int) {
		kind := fmt.Sprint(candidate.message, candidate.field, candidate.text)
		if !kinds[kind] && !kinds[candidate.value] && len(some) < most && fits(p.leaf(), candidate.value) && !r.shared(candidate) {
			kinds[kind], kinds[candidate.value] = true, true
			some = append(some, candidate)
		}
	}
	const likely, all = 2, 6
	for _, candidate := range r.victim.fitting(m, p.leaf(), nil) {
		add(candidate, likely)
	}
	for _, candidate := range slices.Backward(r.victim.ids) { // the same field's text, as a unique key has it
		if candidate.text && candidate.field == p.leaf().Name() {
			add(candidate, likely+1)
		}
	}
	for _, text := range []bool{false, true} {
		for _, candidate := range slices.Backward(r.victim.ids) {
			repeats := oneOf(string(p.leaf().Name()), requestIDs) && !oneOf(string(candidate.field), requestIDs+" id")
			if candidate.text == text && !repeats {
				add(candidate, all)
			}
		}
	}
	return some
}

// shared reports whether the attacker has a thing of the same id: nothing shows whose was meant.
func (r *run) shared(candidate *id) bool { return r.attacker.values[candidate.value] }

// foreign puts the victim's values into one field.
func (r *run) foreign(m *method, p place) (all []attempt) {
	for _, candidate := range r.candidates(m, p) {
		where := fmt.Sprintf("%s = %s.%s", p, cmpName(candidate), candidate.field)
		all = append(all, attempt{ForeignID, where, r.trial(m, p, candidate, putAlone).attempt(r)})
		if p.many() {
			all = append(all, attempt{ForeignBatch, where, r.trial(m, p, candidate, putBeside).attempt(r)})
		}
		if mask, path, ok := maskFor(m, p); ok {
			put := func(request proto.Message, p place, value string) bool {
				return putAlone(request, p, value) && setMask(request, mask, path)
			}
			all = append(all, attempt{ForeignMask, where + ", masked", r.trial(m, p, candidate, put).attempt(r)})
		}
	}
	return all
}

func cmpName(candidate *id) string {
	if candidate.message == "" {
		return "planted"
	}
	return string(candidate.message.Name())
}

func (t trial) attempt(r *run) func(context.Context) outcome {
	return func(ctx context.Context) outcome { return t.run(ctx, r) }
}

// A putter puts a value into an ordinary request; false says that it cannot.
type putter func(request proto.Message, p place, value string) bool

func putAlone(request proto.Message, p place, value string) bool {
	v, ok := valueOf(p.leaf(), value)
	if ok {
		p.set(request, v, false)
	}
	return ok
}

func putBeside(request proto.Message, p place, value string) bool {
	v, ok := valueOf(p.leaf(), value)
	if ok {
		p.set(request, v, true)
	}
	return ok
}

var errDoesNotFit = errors.New("the value does not fit the field")

// trial returns the comparison of a victim's id in one field with ids that never existed.
func (r *run) trial(m *method, p place, candidate *id, put putter) trial {
	return trial{
		m: m,
		prepare: func(ctx context.Context) (string, *thing, error) {
			if m.safe() {
				return candidate.value, candidate.of, nil
			}
			fresh, err := r.another(ctx, r.victim, candidate)
			if err != nil {
				return "", nil, err
			}
			return fresh.value, fresh.of, nil
		},
		request: func(ctx context.Context, value string) (shot, error) { return r.shot(ctx, m, p, value, put) },
		absent:  r.absent,
		warm:    r.warm(m, p, put, candidate),
	}
}

// absent is a value of the same form that never existed.
func (r *run) absent(value string) string {
	if r.Absent != nil {
		return r.Absent(value)
	}
	return r.random.alike(value)
}

// shot is the attacker's ordinary call with a value put in.
func (r *run) shot(ctx context.Context, m *method, p place, value string, put putter) (shot, error) {
	use, err := r.subject(ctx, r.attacker, m)
	if err != nil {
		return shot{}, err
	}
	f := &filler{style: r.style[m], r: r, s: r.attacker, m: m, use: use}
	request, err := f.request()
	if err != nil {
		return shot{}, err
	}
	s := shot{requests: []proto.Message{request}, own: f.texts}
	if use != nil {
		for _, own := range use.ids {
			s.own = append(s.own, own.value)
		}
	}
	if m.IsStreamingClient() { // after a good one, so that the stream is under way
		s.requests = []proto.Message{proto.Clone(request), request}
	}
	if !put(request, p, value) {
		return shot{}, errDoesNotFit
	}
	return s, nil
}

// warm has the victim ask for its own. Where the field names it, the victim must get it.
func (r *run) warm(m *method, p place, put putter, candidate *id) func(context.Context, string, *thing) error {
	if !m.safe() || m.streams() {
		return nil
	}
	return func(ctx context.Context, value string, of *thing) error {
		f := &filler{style: r.style[m], r: r, s: r.victim, m: m, use: of, decoy: true}
		request, err := f.request()
		if err != nil || !put(request, p, value) {
			return err
		}
		a, err := r.call(ctx, r.victim.Party, m, request)
		if err == nil && !a.ok() && !isMask(p.leaf()) && likeness(m, p.leaf(), candidate) >= sure {
			return fmt.Errorf("the victim's own call with it fails: %s: %s", a.status.Code(), a.status.Message())
		}
		return err
	}
}

// maskFor returns the mask beside a resource of which the place is a field, and the
// place's path in it.
func maskFor(m *method, p place) (mask place, path string, ok bool) {
	if len(p.path) < 2 || p.many() || m.safe() {
		return place{}, "", false
	}
	mask, ok = first(places(m.Input(), isMask))
	_, path, _ = strings.Cut(p.String(), ".")
	return mask, path, ok
}

func setMask(request proto.Message, mask place, paths ...string) bool {
	d := mask.leaf().Message()
	m := newMessage(d).ProtoReflect()
	list := m.Mutable(d.Fields().ByName("paths")).List()
	for _, path := range paths {
		list.Append(protoreflect.ValueOfString(path))
	}
	mask.set(request, protoreflect.ValueOfMessage(m), false)
	return true
}
