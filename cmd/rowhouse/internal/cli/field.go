package cli

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// fieldAt finds the field at a path like "tenant.placement.cell" of a message type, or nil.
func fieldAt(d protoreflect.MessageDescriptor, path string) protoreflect.FieldDescriptor {
	first, rest, nested := strings.Cut(path, ".")
	fd := d.Fields().ByName(protoreflect.Name(first))
	if fd == nil || !nested {
		return fd
	}
	if fd.Message() == nil {
		return nil
	}
	return fieldAt(fd.Message(), rest)
}

// setField sets the field at a path from the texts that were typed for it.
func setField(m protoreflect.Message, path string, texts ...string) error {
	first, rest, nested := strings.Cut(path, ".")
	fd := m.Descriptor().Fields().ByName(protoreflect.Name(first))
	switch {
	case nested:
		return setField(m.Mutable(fd).Message(), rest, texts...)
	case fd.IsMap():
		m.Clear(fd)
		return setMap(m.Mutable(fd).Map(), fd, texts)
	case fd.IsList():
		m.Clear(fd)
		list := m.Mutable(fd).List()
		for _, text := range texts {
			v, err := parseValue(fd, text)
			if err != nil {
				return err
			}
			list.Append(v)
		}
		return nil
	}
	v, err := parseValue(fd, texts[len(texts)-1])
	if err == nil {
		m.Set(fd, v)
	}
	return err
}

// setMap reads key=value pairs into a map of strings.
func setMap(into protoreflect.Map, fd protoreflect.FieldDescriptor, texts []string) error {
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return fmt.Errorf("%q is not key=value", text)
		}
		v, err := parseValue(fd.MapValue(), value)
		if err != nil {
			return err
		}
		into.Set(protoreflect.ValueOfString(key).MapKey(), v)
	}
	return nil
}

// parseValue reads one value. Its errors say what would be right.
func parseValue(fd protoreflect.FieldDescriptor, text string) (protoreflect.Value, error) {
	var none protoreflect.Value
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(text), nil
	case protoreflect.BoolKind:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return none, fmt.Errorf("%q is neither true nor false", text)
		}
		return protoreflect.ValueOfBool(b), nil
	case protoreflect.Int32Kind:
		n, err := strconv.ParseInt(text, 10, 32)
		return protoreflect.ValueOfInt32(int32(n)), notNumber(text, err)
	case protoreflect.Int64Kind:
		n, err := strconv.ParseInt(text, 10, 64)
		return protoreflect.ValueOfInt64(n), notNumber(text, err)
	case protoreflect.BytesKind:
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return none, fmt.Errorf("%q is not base64", text)
		}
		return protoreflect.ValueOfBytes(b), nil
	case protoreflect.EnumKind:
		return parseEnum(fd.Enum(), text)
	case protoreflect.MessageKind:
		return parseMessage(fd, text)
	default:
		return none, errors.New("cannot be set here; use --file")
	}
}

func notNumber(text string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%q is not a whole number in range", text)
}

// parseMessage reads a duration or a time.
func parseMessage(fd protoreflect.FieldDescriptor, text string) (protoreflect.Value, error) {
	switch {
	case isTime(fd):
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return protoreflect.Value{}, fmt.Errorf("%q is no time; write 2026-12-01T08:00:00Z or 2026-12-01T08:00:00+01:00", text)
		}
		return protoreflect.ValueOfMessage(timestamppb.New(at).ProtoReflect()), nil
	case fd.Message().FullName() != (*durationpb.Duration)(nil).ProtoReflect().Descriptor().FullName():
		return protoreflect.Value{}, errors.New("cannot be set here; use --file")
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return protoreflect.Value{}, fmt.Errorf("%q is no duration; write 500ms, 5s, 10m or 24h", text)
	}
	return protoreflect.ValueOfMessage(durationpb.New(d).ProtoReflect()), nil
}

func isTime(fd protoreflect.FieldDescriptor) bool {
	return fd.Message().FullName() == (*timestamppb.Timestamp)(nil).ProtoReflect().Descriptor().FullName()
}

func parseEnum(d protoreflect.EnumDescriptor, text string) (protoreflect.Value, error) {
	names := enumNames(d)
	for i := range d.Values().Len() {
		v := d.Values().Get(i)
		if n := enumName(v); n == strings.ToLower(text) || string(v.Name()) == text {
			return protoreflect.ValueOfEnum(v.Number()), nil
		}
	}
	return protoreflect.Value{}, fmt.Errorf("%q is none of %s%s", text, strings.Join(names, ", "), didYouMean(text, names, ""))
}

// enumNames are the values of an enum that can be typed: without the enum's own name and without the zero.
func enumNames(d protoreflect.EnumDescriptor) []string {
	var names []string
	for i := 1; i < d.Values().Len(); i++ {
		names = append(names, enumName(d.Values().Get(i)))
	}
	return names
}

// enumName is an enum's value as people write it: TENANT_STATE_ACTIVE is "active".
func enumName(v protoreflect.EnumValueDescriptor) string {
	var prefix strings.Builder
	for i, r := range string(v.Parent().Name()) {
		if i > 0 && unicode.IsUpper(r) {
			prefix.WriteByte('_')
		}
		prefix.WriteRune(unicode.ToUpper(r))
	}
	name := strings.TrimPrefix(string(v.Name()), prefix.String()+"_")
	return strings.ToLower(strings.ReplaceAll(name, "_", "-"))
}

// flagValue collects what is typed for one flag and checks it at once, so that a mistake is one of the command line.
type flagValue struct {
	fd    protoreflect.FieldDescriptor
	form  string // of a reference to another resource, else empty
	texts []string
}

// Set implements pflag.Value.
func (v *flagValue) Set(text string) error {
	parts := []string{text}
	if v.fd.IsList() || v.fd.IsMap() {
		parts = strings.Split(text, ",")
	}
	for i, part := range parts {
		if v.form != "" && part != "" {
			name, _, err := fill(v.form, []string{part})
			if err != nil {
				return err
			}
			parts[i] = name
		}
	}
	scratch := message(v.fd.ContainingMessage())
	if err := setField(scratch.ProtoReflect(), string(v.fd.Name()), parts...); err != nil {
		return err
	}
	v.texts = append(v.texts, parts...)
	return nil
}

// String implements pflag.Value.
func (v *flagValue) String() string { return strings.Join(v.texts, ",") }

// Type implements pflag.Value: the word that stands for the value in a command's help.
func (v *flagValue) Type() string {
	switch {
	case v.fd == nil:
		return ""
	case v.form != "":
		return strings.Join(places(v.form), "/")
	case v.fd.IsMap():
		return "key=value,…"
	case v.fd.Kind() == protoreflect.EnumKind:
		return strings.Join(enumNames(v.fd.Enum()), "|")
	case v.fd.Kind() == protoreflect.MessageKind && isTime(v.fd):
		return "time"
	case v.fd.Kind() == protoreflect.MessageKind:
		return "duration"
	case v.fd.Kind() == protoreflect.BoolKind:
		return "bool"
	case v.fd.Kind() == protoreflect.Int64Kind || v.fd.Kind() == protoreflect.Int32Kind:
		return "number"
	default:
		return "text"
	}
}

// isSet says whether the flag was given.
func (v *flagValue) isSet() bool { return v.texts != nil }
