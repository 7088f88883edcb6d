package apiattack

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// The names of the two parties, in canaries and evidence.
const (
	victim   = "the victim"
	attacker = "the attacker"
)

// side is a party and what it has.
type side struct {
	Party

	name   string
	secret string
	things []*thing
	ids    []*id           // of what was planted and of the first things of each kind
	values map[string]bool // of all ids
}

// thing is what a call made.
type thing struct {
	by       *method
	decoy    bool // its texts may be sent by the other side
	request  proto.Message
	response proto.Message
	ids      []*id
	etags    []string
}

// id is a value that names a thing of one side.
type id struct {
	value   string
	message protoreflect.FullName // of the field that held it
	field   protoreflect.Name
	noun    string // the message's name, or the method's where that says nothing
	text    bool   // a text of a decoy: no id, but what a search or a unique key finds
	of      *thing // nil where it was planted
	n       int    // among those of its field in its thing, to find its fellow in another
}

var uuidLike = regexp.MustCompile(`^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$`)

// idish reports whether a field is an id by its name.
func idish(name protoreflect.Name) bool {
	n := singular(string(name))
	if oneOf(n, "name id uid uuid guid key slug parent") {
		return true
	}
	for _, suffix := range []string{"_id", "_uid", "_uuid", "_name", "_key", "_ref"} {
		if strings.HasSuffix(n, suffix) && !oneOf(n, "display_name first_name last_name full_name user_name "+requestIDs) {
			return true
		}
	}
	return false
}

// harvest reads a thing's ids from what its making was answered, and from what the maker
// chose itself.
func harvest(by *method, request proto.Message, messages []proto.Message, decoy bool) *thing {
	t := &thing{by: by, request: request, decoy: decoy}
	seen, count := map[string]bool{}, map[string]int{}
	add := func(found id) {
		key := string(found.message) + "." + string(found.field) + "\x00" + found.value
		if found.value == "" || seen[key] {
			return
		}
		seen[key] = true
		like := fmt.Sprint(found.message, found.field, found.text)
		found.of, found.n = t, count[like]
		count[like]++
		t.ids = append(t.ids, &found)
	}
	leaves := func(m proto.Message, answered bool) {
		eachLeaf(m.ProtoReflect(), func(fd protoreflect.FieldDescriptor, v protoreflect.Value) {
			named := idish(fd.Name()) && !fd.ContainingMessage().IsMapEntry()
			in := fd.ContainingMessage()
			found := id{value: textOf(fd, v), message: in.FullName(), field: fd.Name(), noun: plain(in.Name())}
			if fd.ContainingMessage() == by.Input() || fd.ContainingMessage() == by.Output() {
				found.noun = by.noun
			}
			switch {
			case answered && plain(fd.Name()) == "etag":
				t.etags = append(t.etags, found.value)
			case oneOf(string(fd.Name()), requestIDs), isText(fd) && named, isNumber(fd) && named && found.value != "0",
				answered && uuidLike.MatchString(found.value):
				add(found)
				if at := strings.LastIndexByte(found.value, '/'); isText(fd) && at >= 0 {
					last := found
					last.value, last.field = found.value[at+1:], "id"
					add(last)
				}
			case decoy && !answered && isText(fd) && len(found.value) >= frontLength:
				found.text = true
				add(found)
			}
		})
	}
	for _, m := range messages {
		leaves(m, true)
	}
	leaves(request, false)
	if len(messages) > 0 {
		t.response = messages[0]
	}
	return t
}

// eachLeaf calls with each scalar that is set in a message, at any depth.
func eachLeaf(m protoreflect.Message, call func(protoreflect.FieldDescriptor, protoreflect.Value)) {
	for i := range m.Descriptor().Fields().Len() { // in order, so that a run can be repeated
		fd := m.Descriptor().Fields().Get(i)
		if !m.Has(fd) {
			continue
		}
		v := m.Get(fd)
		one := func(fd protoreflect.FieldDescriptor, v protoreflect.Value) {
			if fd.Message() != nil {
				if !opaque(fd.Message()) {
					eachLeaf(v.Message(), call)
				}
				return
			}
			call(fd, v)
		}
		switch {
		case fd.IsMap():
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				one(fd.MapKey(), k.Value())
				one(fd.MapValue(), v)
				return true
			})
		case fd.IsList():
			for i := range v.List().Len() {
				one(fd, v.List().Get(i))
			}
		default:
			one(fd, v)
		}
	}
}

// own adds a thing to a side and tells the canary whose its ids are.
func (r *run) own(s *side, t *thing) {
	alike := 0
	for _, old := range s.things {
		if old.by == t.by && old.decoy == t.decoy {
			alike++
		}
	}
	s.things = append(s.things, t)
	if alike < things { // those that come later serve one attack each
		s.ids = append(s.ids, t.ids...)
	}
	for _, found := range t.ids {
		s.values[found.value] = true
		if !found.text {
			r.Canary.ID(s.name, found.value)
		}
	}
}

// fitting returns the ids of the side and of use that may stand in a field of the method, the
// likeliest first, and among equals those of use and then the newest.
func (s *side) fitting(m *method, fd protoreflect.FieldDescriptor, use *thing) []*id {
	type scored struct {
		*id

		score int
	}
	var some []scored
	known := s.ids
	if use != nil {
		known = slices.Concat(known, use.ids)
	}
	for _, candidate := range slices.Backward(known) {
		if candidate.text || candidate.of != nil && candidate.of.decoy && candidate.of != use {
			continue
		}
		if score := likeness(m, fd, candidate); score > 0 && fits(fd, candidate.value) {
			if use != nil && candidate.of == use {
				score++
			}
			some = append(some, scored{candidate, score})
		}
	}
	slices.SortStableFunc(some, func(a, b scored) int { return b.score - a.score })
	ids := make([]*id, 0, len(some))
	for _, candidate := range some {
		ids = append(ids, candidate.id)
	}
	return ids
}

// sure is the likeness from which on a field is taken to name what the id names.
const sure = 60

// likeness scores whether the field names what the id names.
func likeness(m *method, fd protoreflect.FieldDescriptor, candidate *id) int {
	name := protoreflect.Name(singular(string(fd.Name())))
	own := fd.ContainingMessage().FullName()
	top := own == m.Input().FullName()
	short := candidate.field
	if oneOf(string(name), requestIDs) || oneOf(string(short), requestIDs) {
		return 0
	}
	switch {
	case own == candidate.message && fd.Name() == candidate.field:
		return 100
	case !isText(fd) && !idish(fd.Name()):
		return 0
	case top && name == short && candidate.noun == m.noun:
		return 90
	case oneOf(string(name), "name id uid uuid guid key slug") && top && candidate.noun == m.noun:
		return 60
	case plain(name) == candidate.noun:
		if short == "name" {
			return 80
		}
		return 50
	case strings.HasPrefix(plain(name), candidate.noun) && idish(fd.Name()):
		if plain(name) == candidate.noun+plain(short) {
			return 90
		}
		return 70
	case idish(fd.Name()) && name == short && name != "name" && name != "id":
		return 65
	case name == "parent" && short == "name" && candidate.noun != m.noun:
		return 40
	case top && name == short && strings.HasPrefix(m.noun, candidate.noun):
		return 30
	}
	return 0
}

// make has a side call one of its creators and keeps what came of it.
func (r *run) make(ctx context.Context, s *side, m *method, decoy bool) (*thing, error) {
	before := len(s.things)
	_, err := r.ordinary(ctx, s, m, nil, decoy)
	if err != nil {
		return nil, err
	}
	return s.things[before], nil
}

// another returns a new thing of the kind that an id is of, and the id's fellow in it.
func (r *run) another(ctx context.Context, s *side, old *id) (*id, error) {
	if old.of == nil {
		return old, nil
	}
	t, err := r.make(ctx, s, old.of.by, old.of.decoy)
	if err != nil {
		return nil, fmt.Errorf("%s could not make another one by %s: %w", s.name, old.of.by.full, err)
	}
	for _, found := range t.ids {
		if found.n == old.n && found.field == old.field && found.message == old.message && found.text == old.text {
			return found, nil
		}
	}
	return nil, fmt.Errorf("another call of %s gave no %s", old.of.by.full, old.field)
}

// things is how many each side has of each kind: enough for a second page.
const things = 3

// populate gives both sides things by all methods that make some. What one method makes
// may be what another needs, so it goes round; why the last round failed is kept.
func (r *run) populate(ctx context.Context) {
	for _, s := range []*side{r.victim, r.attacker} {
		for range things {
			for _, m := range r.methods {
				if !m.creates() || r.excuse(m) != "" {
					continue
				}
				_, err := r.make(ctx, s, m, false)
				r.fails(s, m, err)
			}
		}
	}
	for _, m := range r.methods { // last: what they refer to exists
		if m.creates() && r.excuse(m) == "" && r.failed[m] == "" {
			_, err := r.make(ctx, r.victim, m, true)
			r.fails(r.victim, m, err)
		}
	}
}

// fails keeps why a side's ordinary call of a method did not work; nil forgets it.
func (r *run) fails(s *side, m *method, err error) {
	switch {
	case err == nil && strings.HasPrefix(r.failed[m], s.name):
		delete(r.failed, m)
	case err != nil:
		r.failed[m] = fmt.Sprintf("%s's ordinary call failed: %v", s.name, err)
	}
}

// plant has both sides write what no method writes.
func (r *run) plant(ctx context.Context) error {
	for _, s := range []*side{r.victim, r.attacker} {
		if s.Plant == nil {
			continue
		}
		ids, err := s.Plant(ctx, s.secret)
		if err != nil {
			return fmt.Errorf("apiattack: plant for %s: %w", s.name, err)
		}
		for _, value := range ids {
			s.ids, s.values[value] = append(s.ids, &id{value: value}), true
			r.Canary.ID(s.name, value)
		}
	}
	return nil
}
