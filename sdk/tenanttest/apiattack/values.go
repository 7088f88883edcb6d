package apiattack

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// value returns a value that the rules allow. empty makes a message.
func (f *filler) value(
	fd protoreflect.FieldDescriptor, rules *validate.FieldRules, above []protoreflect.FullName, empty func() protoreflect.Value,
) (protoreflect.Value, error) {
	switch fd.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		v := empty()
		return v, f.inner(v.Message(), rules, append(slices.Clone(above), fd.ContainingMessage().FullName()))
	case protoreflect.StringKind:
		text, err := f.text(fd, rules.GetString())
		return protoreflect.ValueOfString(text), err
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(f.bytes(rules.GetBytes())), nil
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(rules.GetBool().GetConst()), nil
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(enum(fd.Enum(), rules.GetEnum())), nil
	default:
		return number(fd, rules), nil
	}
}

// inner fills a message, of which some well-known ones have rules of their own.
func (f *filler) inner(m protoreflect.Message, rules *validate.FieldRules, above []protoreflect.FullName) error {
	switch m.Descriptor().FullName() {
	case "google.protobuf.Timestamp":
		return assign(m, timestamppb.New(moment(rules.GetTimestamp())))
	case "google.protobuf.Duration":
		return assign(m, durationpb.New(span(rules.GetDuration())))
	}
	if opaque(m.Descriptor()) {
		return nil
	}
	if wrapped := m.Descriptor().Fields().ByName("value"); wrapped != nil && m.Descriptor().FullName().Parent() == "google.protobuf" {
		v, err := f.value(wrapped, rules, above, nil)
		if err == nil {
			m.Set(wrapped, v)
		}
		return err
	}
	return f.message(m, above)
}

// assign copies a well-known message into one that may be of another Go type.
func assign(m protoreflect.Message, from proto.Message) error {
	from.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		m.Set(m.Descriptor().Fields().ByNumber(fd.Number()), v)
		return true
	})
	return nil
}

func moment(rules *validate.TimestampRules) time.Time {
	now := time.Now()
	switch {
	case rules.GetGtNow():
		return now.Add(min(time.Hour, cmp.Or(rules.GetWithin().AsDuration(), time.Hour)/2))
	case rules.GetLtNow(), rules.HasWithin():
		return now.Add(-time.Second)
	case rules.HasConst():
		return rules.GetConst().AsTime()
	case rules.HasGt():
		return rules.GetGt().AsTime().Add(time.Hour)
	case rules.HasGte():
		return rules.GetGte().AsTime()
	case rules.HasLt():
		return rules.GetLt().AsTime().Add(-time.Hour)
	case rules.HasLte():
		return rules.GetLte().AsTime()
	}
	return now
}

func span(rules *validate.DurationRules) time.Duration {
	switch {
	case rules.HasConst():
		return rules.GetConst().AsDuration()
	case len(rules.GetIn()) > 0:
		return rules.GetIn()[0].AsDuration()
	case rules.HasGte():
		return rules.GetGte().AsDuration()
	case rules.HasGt() && rules.HasLt():
		return (rules.GetGt().AsDuration() + rules.GetLt().AsDuration()) / 2
	case rules.HasGt():
		return rules.GetGt().AsDuration() + time.Second
	case rules.HasLte():
		return min(time.Minute, rules.GetLte().AsDuration())
	case rules.HasLt():
		return min(time.Minute, rules.GetLt().AsDuration()/2)
	}
	return time.Minute
}

// fresh is an id that nobody else has.
func (f *filler) fresh(fd protoreflect.FieldDescriptor) protoreflect.Value {
	id := f.r.random.uuid()
	if !fits(fd, id) {
		if other, err := f.shaped(rulesOf(fd).GetString(), f.r.random.word(2*frontLength)); err == nil {
			id = other
		}
	}
	f.texts = append(f.texts, id)
	v, _ := valueOf(fd, id)
	return v
}

const frontLength = 6

// text returns a text with the party's secret in it, as far as the rules leave room. What
// names a thing has no secret, since names are repeated in errors and logs.
func (f *filler) text(fd protoreflect.FieldDescriptor, rules *validate.StringRules) (string, error) {
	text := f.r.random.word(frontLength)
	switch {
	case idish(fd.Name()) || f.made(fd):
		text += f.r.random.word(frontLength)
	case f.decoy:
		text += f.r.random.word(len(f.s.secret))
	default:
		text += f.s.secret
	}
	text, err := f.shaped(rules, text)
	if err != nil {
		return "", fmt.Errorf("%s: %w", fd.FullName(), err)
	}
	if len(text) >= frontLength {
		f.texts = append(f.texts, text)
	}
	return text, nil
}

// shaped gives a text the form that the rules ask for.
func (f *filler) shaped(rules *validate.StringRules, text string) (string, error) {
	switch {
	case rules == nil:
		return text, nil
	case rules.HasConst():
		return rules.GetConst(), nil
	case len(rules.GetIn()) > 0:
		return rules.GetIn()[0], nil
	case rules.GetUuid():
		return f.r.random.uuid(), nil
	case rules.GetTuuid():
		return strings.ReplaceAll(f.r.random.uuid(), "-", ""), nil
	case rules.GetEmail():
		return text + "@example.com", nil
	case rules.GetHostname():
		return text + ".example.com", nil
	case rules.GetUri():
		return "https://example.com/" + text, nil
	case rules.GetAddress(), rules.GetIp(), rules.GetIpv4():
		return "192.0.2.1", nil
	case rules.GetIpv6():
		return "2001:db8::1", nil
	case rules.GetHostAndPort():
		return text + ".example.com:443", nil
	}
	text = rules.GetPrefix() + text
	if rules.HasContains() && !strings.Contains(text, rules.GetContains()) {
		text += rules.GetContains()
	}
	most := uint64(math.MaxInt32)
	for _, bound := range []*uint64{rules.MaxLen, rules.Len, rules.MaxBytes, rules.LenBytes} {
		if bound != nil {
			most = min(most, *bound)
		}
	}
	room := int(most) - len(rules.GetSuffix())
	if len(text) > room && room >= 0 {
		text = text[:room]
	}
	least := max(rules.GetMinLen(), rules.GetLen(), rules.GetMinBytes(), rules.GetLenBytes())
	if missing := int(least) - len(text) - len(rules.GetSuffix()); missing > 0 && missing < 1<<20 { //nolint:gosec // as above
		text += f.r.random.word(missing)
	}
	text += rules.GetSuffix()
	if !rules.HasPattern() || fitsText(rules, text) {
		return text, nil
	}
	for size := 12; size > 0; size-- {
		if text, err := f.r.random.matching(rules.GetPattern(), size); err != nil || fitsText(rules, text) {
			return text, err
		}
	}
	return "", fmt.Errorf("no text was found for the pattern %s and the other rules", rules.GetPattern())
}

func (f *filler) bytes(rules *validate.BytesRules) []byte {
	switch {
	case rules.HasConst():
		return rules.GetConst()
	case len(rules.GetIn()) > 0:
		return rules.GetIn()[0]
	}
	text := f.r.random.word(frontLength) + f.s.secret
	if f.decoy {
		text = f.r.random.word(len(text))
	}
	b := []byte(string(rules.GetPrefix()) + text)
	if most := cmp.Or(rules.GetLen(), rules.GetMaxLen()); most > 0 && uint64(len(b)) > most {
		b = b[:most]
	}
	for uint64(len(b)) < max(rules.GetLen(), rules.GetMinLen()) {
		b = append(b, 'x')
	}
	return b
}

func enum(d protoreflect.EnumDescriptor, rules *validate.EnumRules) protoreflect.EnumNumber {
	switch {
	case rules.HasConst():
		return protoreflect.EnumNumber(rules.GetConst())
	case len(rules.GetIn()) > 0:
		return protoreflect.EnumNumber(rules.GetIn()[0])
	}
	for i := range d.Values().Len() {
		n := d.Values().Get(i).Number()
		if n != 0 && !slices.Contains(rules.GetNotIn(), int32(n)) {
			return n
		}
	}
	return 0
}

// number returns 1, or the number nearest to it that the rules allow. All kinds of number
// have rules of the same names, so they are read by name.
func number(fd protoreflect.FieldDescriptor, rules *validate.FieldRules) protoreflect.Value {
	n := 1.0
	if kind := rules.ProtoReflect().WhichOneof(rules.ProtoReflect().Descriptor().Oneofs().ByName("type")); rules != nil && kind != nil {
		n = nearest(rules.ProtoReflect().Get(kind).Message())
	}
	switch fd.Kind() {
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(n)
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(float32(n))
	default:
		v, _ := valueOf(fd, fmt.Sprintf("%.0f", n))
		return v
	}
}

func nearest(rules protoreflect.Message) float64 {
	n := 1.0
	read := func(name protoreflect.Name) (float64, bool) {
		fd := rules.Descriptor().Fields().ByName(name)
		if fd == nil || !rules.Has(fd) {
			return 0, false
		}
		v := rules.Get(fd)
		if fd.IsList() {
			v = v.List().Get(0)
		}
		switch x := v.Interface().(type) {
		case int32:
			return float64(x), true
		case int64:
			return float64(x), true
		case uint32:
			return float64(x), true
		case uint64:
			return float64(x), true
		case float32:
			return float64(x), true
		case float64:
			return x, true
		}
		return 0, false
	}
	for _, exact := range []protoreflect.Name{"const", "in"} {
		if x, ok := read(exact); ok {
			return x
		}
	}
	if x, ok := read("gte"); ok {
		n = max(n, x)
	}
	if x, ok := read("gt"); ok {
		n = max(n, x+1)
	}
	if x, ok := read("lte"); ok {
		n = min(n, x)
	}
	if x, ok := read("lt"); ok && n >= x {
		n = x - 1
	}
	return n
}
