package cli

import (
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	eastasian "golang.org/x/text/width"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// column is one column of a table.
type column struct{ header, path, collection string }

// parseColumns reads "HEADER=path@collection …".
func parseColumns(text string) []column {
	var columns []column
	for part := range strings.FieldsSeq(text) {
		header, path, _ := strings.Cut(part, "=")
		path, collection, _ := strings.Cut(path, "@")
		columns = append(columns, column{header, path, collection})
	}
	return columns
}

// of is a resource's value in the column; empty where it has none.
func (c column) of(m protoreflect.Message) string {
	path := c.path
	for {
		if packed, ok := m.Interface().(*anypb.Any); ok {
			inner, err := packed.UnmarshalNew()
			if err != nil {
				return ""
			}
			m = inner.ProtoReflect()
		}
		first, rest, nested := strings.Cut(path, ".")
		fd := m.Descriptor().Fields().ByName(protoreflect.Name(first))
		if fd == nil || fd.Message() != nil && !m.Has(fd) {
			return ""
		}
		if !nested {
			return c.id(text(fd, m.Get(fd)))
		}
		m, path = m.Get(fd).Message(), rest
	}
}

// id takes the id behind the column's collection out of a name.
func (c column) id(name string) string {
	if c.collection == "" {
		return name
	}
	_, id, ok := strings.Cut("/"+name, "/"+c.collection+"/")
	if !ok {
		return name
	}
	id, _, _ = strings.Cut(id, "/")
	return id
}

// text is a field's value for people and for TSV, safe to be shown.
func text(fd protoreflect.FieldDescriptor, v protoreflect.Value) string {
	var parts []string
	switch {
	case fd.IsList():
		for i := range v.List().Len() {
			parts = append(parts, single(fd, v.List().Get(i)))
		}
		return strings.Join(parts, ",")
	case fd.IsMap():
		v.Map().Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
			parts = append(parts, printable(key.String())+"="+single(fd.MapValue(), value))
			return true
		})
		slices.Sort(parts)
		return strings.Join(parts, ",")
	default:
		return single(fd, v)
	}
}

func single(fd protoreflect.FieldDescriptor, v protoreflect.Value) string {
	switch fd.Kind() {
	case protoreflect.EnumKind:
		return enumText(fd.Enum(), v.Enum())
	case protoreflect.BytesKind:
		return hex.EncodeToString(v.Bytes())
	case protoreflect.MessageKind:
		return messageText(v.Message())
	default:
		return printable(v.String())
	}
}

func enumText(d protoreflect.EnumDescriptor, n protoreflect.EnumNumber) string {
	value := d.Values().ByNumber(n)
	switch {
	case value == nil: // of a newer service
		return strconv.Itoa(int(n))
	case n == 0:
		return ""
	default:
		return enumName(value)
	}
}

func messageText(m protoreflect.Message) string {
	switch m := m.Interface().(type) {
	case *timestamppb.Timestamp:
		return m.AsTime().UTC().Format(time.RFC3339)
	case *durationpb.Duration:
		return m.AsDuration().String()
	default:
		b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
		if err != nil {
			return ""
		}
		var compact any
		if json.Unmarshal(b, &compact) == nil { // protojson varies its spaces
			if stable, err := json.Marshal(compact); err == nil {
				b = stable
			}
		}
		return printable(string(b))
	}
}

// flatten tells every populated field of a message by its path, messages below it by longer paths.
func flatten(m protoreflect.Message, prefix string, tell func(path, value string)) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		switch {
		case !m.Has(fd):
		case fd.Message() != nil && fd.IsList():
			for j := range m.Get(fd).List().Len() {
				tell(prefix+string(fd.Name()), single(fd, m.Get(fd).List().Get(j)))
			}
		case fd.Message() != nil && !fd.IsMap() && strings.HasPrefix(string(fd.Message().FullName()), "rowhouse."):
			flatten(m.Get(fd).Message(), prefix+string(fd.Name())+".", tell)
		default:
			tell(prefix+string(fd.Name()), text(fd, m.Get(fd)))
		}
	}
}

// printable shows control characters, and those that turn the direction of text, instead of sending them to a
// terminal: tenants choose some of the text that operators see.
func printable(s string) string {
	unsafe := func(r rune) bool {
		return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
	}
	if !strings.ContainsFunc(s, unsafe) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unsafe(r) {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// width is how many columns of a terminal a text takes.
func width(s string) int {
	n := 0
	for _, r := range s {
		switch {
		case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		case wide(r):
			n += 2
		default:
			n++
		}
	}
	return n
}

func wide(r rune) bool {
	kind := eastasian.LookupRune(r).Kind()
	return kind == eastasian.EastAsianWide || kind == eastasian.EastAsianFullwidth
}
