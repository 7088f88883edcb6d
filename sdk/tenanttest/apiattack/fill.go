package apiattack

import (
	"fmt"
	"strings"

	"buf.build/go/protovalidate"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// style says how an ordinary request is filled. What works for one service is refused by
// another, so several are tried.
type style struct {
	full   bool // also what is optional
	names  bool // also the names of what is made
	member int  // which member of each oneof
}

// styles are tried in this order.
func styles(m *method) []style {
	lean := []style{{}, {full: true}}
	if !m.safe() {
		lean = []style{{full: true}, {}}
	}
	all := lean
	for member := range 4 {
		for _, s := range lean {
			s.member = member
			if member > 0 {
				all = append(all, s)
			}
			s.names = true
			if !m.safe() {
				all = append(all, s)
			}
		}
	}
	return all
}

// filler makes ordinary requests of one party for one method.
type filler struct {
	*style

	r     *run
	s     *side
	m     *method
	use   *thing   // whose ids are preferred
	decoy bool     // texts hold no secret
	texts []string // what was written, to be left out of comparisons
}

// request returns a request that the rules beside its fields allow, or says why there is none.
func (f *filler) request() (proto.Message, error) {
	request := newMessage(f.m.Input())
	if err := f.message(request.ProtoReflect(), nil); err != nil {
		return nil, err
	}
	if f.r.Fix != nil {
		f.r.Fix(f.m.full, request)
	}
	if err := protovalidate.Validate(request); err != nil {
		return nil, fmt.Errorf("no valid request was found: %w", err)
	}
	return request, nil
}

func (f *filler) message(m protoreflect.Message, above []protoreflect.FullName) error {
	d := m.Descriptor()
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		if oneof := fd.ContainingOneof(); oneof != nil && !oneof.IsSynthetic() && fd != oneof.Fields().Get(f.member%oneof.Fields().Len()) {
			continue
		}
		if err := f.field(m, fd, above); err != nil {
			return err
		}
	}
	return nil
}

func (f *filler) field(m protoreflect.Message, fd protoreflect.FieldDescriptor, above []protoreflect.FullName) error {
	if text, ok := f.r.Values[string(fd.FullName())]; ok {
		return setText(m, fd, text)
	}
	if behaves(fd, annotations.FieldBehavior_OUTPUT_ONLY) {
		return nil
	}
	inOneof := fd.ContainingOneof() != nil && !fd.ContainingOneof().IsSynthetic()
	need := demanded(fd) || inOneof
	switch {
	case fd.Cardinality() != protoreflect.Repeated && isText(fd) && oneOf(string(fd.Name()), requestIDs):
		return set(m, fd, f.fresh(fd))
	case fd.Message() != nil && !fd.IsMap() && !f.enter(fd, need, above):
		return nil
	case fd.Message() == nil && f.refers(fd):
		if id, ok := f.reference(fd); ok {
			return set(m, fd, id)
		}
	}
	if !need && (!f.full || oneOf(string(fd.Name()), controls)) && !f.wanted(fd) {
		return nil
	}
	if f.made(fd) && !need && !f.names && fd.ContainingMessage().FullName() != f.m.Input().FullName() {
		return nil // the service names what it makes
	}
	switch {
	case fd.IsMap():
		return f.pairs(m, fd, above)
	case fd.IsList():
		return f.list(m, fd, above)
	}
	v, err := f.value(fd, rulesOf(fd), above, func() protoreflect.Value { return m.NewField(fd) })
	if err != nil {
		return err
	}
	m.Set(fd, v)
	return nil
}

const (
	// requestIDs are the names of fields that make a call repeatable.
	requestIDs = "request_id idempotency_key idempotency_token client_token client_request_id"
	// controls change what a call does; an ordinary one leaves them alone.
	controls = "page_token page_size filter order_by etag validate_only allow_missing skip offset show_deleted force limit cursor " +
		"update_mask read_mask field_mask mask query dry_run"
)

// enter reports whether a message field is filled.
func (f *filler) enter(fd protoreflect.FieldDescriptor, need bool, above []protoreflect.FullName) bool {
	if fd.Message().FullName() == "google.protobuf.FieldMask" {
		return false
	}
	for _, name := range above {
		if name == fd.Message().FullName() {
			return false
		}
	}
	return need || len(above) < maxDepth && (f.full || f.wanted(fd))
}

// wanted reports whether a lean request has the field all the same: it holds what the
// method is about.
func (f *filler) wanted(fd protoreflect.FieldDescriptor) bool {
	if fd.Message() != nil && !fd.IsMap() && fd.Message().FullName().Parent() != "google.protobuf" {
		return plain(fd.Message().Name()) == f.m.noun || !f.m.safe() && fd.ContainingMessage().FullName() == f.m.Input().FullName()
	}
	return !f.m.safe() && !f.made(fd) && isText(fd) && fd.ContainingMessage().FullName() != f.m.Input().FullName()
}

// plain is a name without case and underscores: that of a message, a field and a method agree.
func plain[T ~string](name T) string {
	return strings.ToLower(strings.ReplaceAll(string(name), "_", ""))
}

// made reports whether the field is the id of what the method makes.
func (f *filler) made(fd protoreflect.FieldDescriptor) bool {
	if !f.m.creates() || !idish(fd.Name()) {
		return false
	}
	if behaves(fd, annotations.FieldBehavior_IDENTIFIER) {
		return true
	}
	name, own := plain(fd.Name()), plain(fd.ContainingMessage().Name())
	if own == f.m.noun || fd.ContainingMessage().FullName() == f.m.Input().FullName() {
		return name == "name" || name == "id" || name == "uid" || name == "uuid" || name == f.m.noun+"id" || name == f.m.noun+"uid"
	}
	return false
}

// refers reports whether a field may name something that exists.
func (f *filler) refers(fd protoreflect.FieldDescriptor) bool {
	_, ok := valueOf(fd, "1")
	return ok && !f.made(fd)
}

// reference returns an existing thing's id for the field.
func (f *filler) reference(fd protoreflect.FieldDescriptor) (protoreflect.Value, bool) {
	ids := f.s.fitting(f.m, fd, f.use)
	if len(ids) == 0 {
		return protoreflect.Value{}, false
	}
	return valueOf(fd, ids[0].value)
}

// set sets a field, or a list to one element.
func set(m protoreflect.Message, fd protoreflect.FieldDescriptor, v protoreflect.Value) error {
	if fd.IsList() {
		list := m.NewField(fd).List()
		list.Append(v)
		v = protoreflect.ValueOfList(list)
	}
	m.Set(fd, v)
	return nil
}

// setText sets a field to what a target's Values say.
func setText(m protoreflect.Message, fd protoreflect.FieldDescriptor, text string) error {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return set(m, fd, protoreflect.ValueOfBool(text == "true"))
	case protoreflect.EnumKind:
		value := fd.Enum().Values().ByName(protoreflect.Name(text))
		if value == nil {
			return fmt.Errorf("%s: %s is no value of %s", fd.FullName(), text, fd.Enum().FullName())
		}
		return set(m, fd, protoreflect.ValueOfEnum(value.Number()))
	default:
		v, ok := valueOf(fd, text)
		if !ok {
			return fmt.Errorf("%s cannot be set to %q by Values; use Fix", fd.FullName(), text)
		}
		return set(m, fd, v)
	}
}

func (f *filler) list(m protoreflect.Message, fd protoreflect.FieldDescriptor, above []protoreflect.FullName) error {
	rules := rulesOf(fd).GetRepeated()
	list := m.NewField(fd).List()
	for range max(1, rules.GetMinItems()) {
		v, err := f.value(fd, rules.GetItems(), above, list.NewElement)
		if err != nil {
			return err
		}
		list.Append(v)
	}
	m.Set(fd, protoreflect.ValueOfList(list))
	return nil
}

func (f *filler) pairs(m protoreflect.Message, fd protoreflect.FieldDescriptor, above []protoreflect.FullName) error {
	rules := rulesOf(fd).GetMap()
	pairs := m.NewField(fd).Map()
	for range max(1, rules.GetMinPairs()) {
		key, err := f.value(fd.MapKey(), rules.GetKeys(), above, nil)
		if err != nil {
			return err
		}
		value, err := f.value(fd.MapValue(), rules.GetValues(), above, pairs.NewValue)
		if err != nil {
			return err
		}
		pairs.Set(key.MapKey(), value)
	}
	m.Set(fd, protoreflect.ValueOfMap(pairs))
	return nil
}
