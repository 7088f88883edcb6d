package apiattack

import (
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// place is a field of a request, at any depth: lists and maps on the way are entered.
type place struct {
	path []protoreflect.FieldDescriptor
	key  bool // the key of the map at the end, not its value
}

const maxDepth = 6

// places returns the fields of a message that want accepts. A message type is entered
// once on each way down.
func places(d protoreflect.MessageDescriptor, want func(protoreflect.FieldDescriptor) bool) (all []place) {
	var walk func(d protoreflect.MessageDescriptor, above []protoreflect.FieldDescriptor, seen []protoreflect.FullName)
	walk = func(d protoreflect.MessageDescriptor, above []protoreflect.FieldDescriptor, seen []protoreflect.FullName) {
		if len(above) >= maxDepth || slices.Contains(seen, d.FullName()) {
			return
		}
		seen = append(slices.Clone(seen), d.FullName())
		for i := range d.Fields().Len() {
			fd := d.Fields().Get(i)
			path := append(slices.Clone(above), fd)
			value := fd
			if fd.IsMap() {
				value = fd.MapValue()
				if want(fd.MapKey()) {
					all = append(all, place{path, true})
				}
			}
			if want(value) {
				all = append(all, place{path, false})
			}
			if value.Message() != nil && !opaque(value.Message()) {
				walk(value.Message(), path, seen)
			}
		}
	}
	walk(d, nil, nil)
	return all
}

// opaque tells messages whose fields nobody takes for fields of the request.
func opaque(d protoreflect.MessageDescriptor) bool {
	name := d.FullName()
	if name.Parent() != "google.protobuf" {
		return false
	}
	return !strings.HasSuffix(string(name), "Value") || name == "google.protobuf.Value" || name == "google.protobuf.ListValue"
}

// String is the place as it is written in field masks.
func (p place) String() string {
	names := make([]string, 0, len(p.path)+1)
	for _, fd := range p.path {
		names = append(names, string(fd.Name()))
	}
	if p.key {
		names = append(names, "key")
	}
	return strings.Join(names, ".")
}

// leaf is the field at the end: of a map its key or value.
func (p place) leaf() protoreflect.FieldDescriptor {
	last := p.path[len(p.path)-1]
	switch {
	case last.IsMap() && p.key:
		return last.MapKey()
	case last.IsMap():
		return last.MapValue()
	}
	return last
}

// many reports whether more than one value fits: a list is on the way.
func (p place) many() bool {
	return slices.ContainsFunc(p.path, func(fd protoreflect.FieldDescriptor) bool { return fd.IsList() })
}

// in reports whether a request has the place's field, on whose way no list and no map is.
func (p place) in(request proto.Message) bool {
	m := request.ProtoReflect()
	for i, fd := range p.path {
		if fd.IsMap() || !m.Has(fd) {
			return false
		}
		if i < len(p.path)-1 {
			m = m.Get(fd).Message()
		}
	}
	return true
}

// set puts value at the place. With beside, the first list on the way keeps its element
// and gets another; else it has one.
func (p place) set(request proto.Message, value protoreflect.Value, beside bool) {
	m := request.ProtoReflect()
	for i, fd := range p.path {
		last := i == len(p.path)-1
		switch {
		case fd.IsMap():
			m = p.setMap(m.Mutable(fd).Map(), fd, value, last)
		case fd.IsList():
			list := m.Mutable(fd).List()
			if last {
				setLast(list, value, beside)
				return
			}
			m = element(list, beside)
			beside = false
		case last:
			m.Set(fd, value)
			return
		default:
			m = m.Mutable(fd).Message()
		}
		if m == nil {
			return
		}
	}
}

// setMap sets a map at the end of the way, or returns the message to go on in.
func (p place) setMap(m protoreflect.Map, fd protoreflect.FieldDescriptor, value protoreflect.Value, last bool) protoreflect.Message {
	key, found := protoreflect.MapKey{}, false
	m.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		key, found = k, true
		return false
	})
	if !found {
		key = fallback(fd.MapKey()).MapKey()
	}
	switch {
	case !last:
		return m.Mutable(key).Message()
	case !p.key:
		m.Set(key, value)
	default:
		entry := m.NewValue()
		if found {
			entry = m.Get(key)
			m.Clear(key)
		} else if fd.MapValue().Message() == nil {
			entry = fallback(fd.MapValue())
		}
		m.Set(value.MapKey(), entry)
	}
	return nil
}

// fallback is a value for a map's key or value that nothing is known of.
func fallback(fd protoreflect.FieldDescriptor) protoreflect.Value {
	if fd.Kind() == protoreflect.StringKind {
		return protoreflect.ValueOfString("key")
	}
	return fd.Default()
}

func setLast(list protoreflect.List, value protoreflect.Value, beside bool) {
	if !beside {
		list.Truncate(0)
	}
	list.Append(value)
}

// element returns the element to go on in: the first one, or a copy of it behind it.
func element(list protoreflect.List, beside bool) protoreflect.Message {
	if list.Len() == 0 {
		return list.AppendMutable().Message()
	}
	first := list.Get(0).Message()
	if !beside {
		list.Truncate(1)
		return first
	}
	twin := proto.Clone(first.Interface()).ProtoReflect()
	list.Append(protoreflect.ValueOfMessage(twin))
	return twin
}

// valueOf returns an id as a value of the field, and false where it is of another kind.
func valueOf(fd protoreflect.FieldDescriptor, id string) (protoreflect.Value, bool) {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(id), true
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(id)), true
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		n, err := strconv.ParseInt(id, 10, 64)
		return protoreflect.ValueOfInt64(n), err == nil
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		n, err := strconv.ParseUint(id, 10, 64)
		return protoreflect.ValueOfUint64(n), err == nil
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		n, err := strconv.ParseInt(id, 10, 32)
		return protoreflect.ValueOfInt32(int32(n)), err == nil
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		n, err := strconv.ParseUint(id, 10, 32)
		return protoreflect.ValueOfUint32(uint32(n)), err == nil
	default:
		return protoreflect.Value{}, false
	}
}

// textOf is the reverse of valueOf.
func textOf(fd protoreflect.FieldDescriptor, v protoreflect.Value) string {
	if fd.Kind() == protoreflect.BytesKind {
		return string(v.Bytes())
	}
	return v.String()
}

func isNumber(fd protoreflect.FieldDescriptor) bool {
	_, ok := valueOf(fd, "1")
	return ok && !isText(fd)
}

func isText(fd protoreflect.FieldDescriptor) bool {
	return fd.Kind() == protoreflect.StringKind || fd.Kind() == protoreflect.BytesKind
}
