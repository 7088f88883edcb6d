package apiattack

import (
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// rulesOf returns what buf.validate says of a field, or of the elements of a list.
func rulesOf(fd protoreflect.FieldDescriptor) *validate.FieldRules {
	rules, _ := proto.GetExtension(fd.Options(), validate.E_Field).(*validate.FieldRules)
	if fd.ContainingMessage().IsMapEntry() {
		return nil // the map's field has them
	}
	return rules
}

func itemRules(fd protoreflect.FieldDescriptor, rules *validate.FieldRules) *validate.FieldRules {
	if fd.IsList() {
		return rules.GetRepeated().GetItems()
	}
	return rules
}

func behaves(fd protoreflect.FieldDescriptor, as annotations.FieldBehavior) bool {
	behavior, _ := proto.GetExtension(fd.Options(), annotations.E_FieldBehavior).([]annotations.FieldBehavior)
	return slices.Contains(behavior, as)
}

// demanded reports whether a request without the field is refused.
func demanded(fd protoreflect.FieldDescriptor) bool {
	rules := rulesOf(fd)
	if behaves(fd, annotations.FieldBehavior_REQUIRED) || rules.GetRequired() {
		return true
	}
	if rules == nil || rules.GetIgnore() != validate.Ignore_IGNORE_UNSPECIFIED || fd.HasPresence() {
		return false
	}
	if fd.IsList() {
		return rules.GetRepeated().GetMinItems() > 0
	}
	if fd.IsMap() {
		return rules.GetMap().GetMinPairs() > 0
	}
	switch {
	case fd.Kind() == protoreflect.StringKind:
		return !fitsText(rules.GetString(), "")
	case fd.Kind() == protoreflect.BytesKind:
		return !fitsBytes(rules.GetBytes(), nil)
	default:
		return true // numbers and enums: a rule may refuse 0, and filling does no harm
	}
}

// fits reports whether a text may stand in the field, as far as is known without CEL.
func fits(fd protoreflect.FieldDescriptor, text string) bool {
	rules := itemRules(fd, rulesOf(fd))
	if _, ok := valueOf(fd, text); !ok {
		return false
	}
	switch fd.Kind() {
	case protoreflect.StringKind:
		return utf8.ValidString(text) && fitsText(rules.GetString(), text)
	case protoreflect.BytesKind:
		return fitsBytes(rules.GetBytes(), []byte(text))
	default:
		return true
	}
}

func fitsText(rules *validate.StringRules, text string) bool {
	if rules == nil {
		return true
	}
	n := uint64(utf8.RuneCountInString(text)) //nolint:gosec // not negative
	size := uint64(len(text))
	switch {
	case rules.HasConst() && text != rules.GetConst(),
		len(rules.GetIn()) > 0 && !slices.Contains(rules.GetIn(), text),
		slices.Contains(rules.GetNotIn(), text),
		n < rules.GetMinLen(), rules.HasMaxLen() && n > rules.GetMaxLen(), rules.HasLen() && n != rules.GetLen(),
		size < rules.GetMinBytes(), rules.HasMaxBytes() && size > rules.GetMaxBytes(), rules.HasLenBytes() && size != rules.GetLenBytes(),
		!strings.HasPrefix(text, rules.GetPrefix()), !strings.HasSuffix(text, rules.GetSuffix()),
		!strings.Contains(text, rules.GetContains()),
		rules.HasNotContains() && strings.Contains(text, rules.GetNotContains()),
		rules.GetUuid() && (len(text) != 36 || uuid.Validate(text) != nil),
		rules.GetTuuid() && (len(text) != 32 || uuid.Validate(text) != nil),
		rules.GetEmail() && !strings.Contains(text, "@"),
		rules.GetUri() && !strings.Contains(text, ":"),
		rules.GetHostname() && strings.ContainsAny(text, "/@: "),
		(rules.GetIp() || rules.GetIpv4()) && strings.Count(text, ".") != 3:
		return false
	}
	return !rules.HasPattern() || matches(rules.GetPattern(), []byte(text))
}

func fitsBytes(rules *validate.BytesRules, b []byte) bool {
	if rules == nil {
		return true
	}
	size := uint64(len(b))
	return size >= rules.GetMinLen() && (!rules.HasMaxLen() || size <= rules.GetMaxLen()) &&
		(!rules.HasLen() || size == rules.GetLen()) && (!rules.HasConst() || string(b) == string(rules.GetConst())) &&
		(!rules.HasPattern() || matches(rules.GetPattern(), b))
}

func matches(pattern string, text []byte) bool {
	compiled, err := regexp.Compile(pattern)
	return err == nil && compiled.Match(text)
}
