package rule

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// maxViolations bounds how many bad fields an answer names.
const maxViolations = 20

// examine judges a request by itself: size, unknown fields, control characters, the rules beside its fields.
func (e *Enforcer) examine(m *method, msg proto.Message) error {
	if size := proto.Size(msg); size > e.cfg.MaxRequest {
		return fault.New(fault.InvalidArgument, fault.ReasonInvalidField,
			"the request has %d bytes, the most is %d", size, e.cfg.MaxRequest)
	}
	w := walker{unknown: m.change}
	if w.message(msg.ProtoReflect(), ""); w.unknownAt != nil {
		return errUnknownField(*w.unknownAt)
	}
	violations := w.control
	err := e.validate.Validate(msg)
	var invalid *protovalidate.ValidationError
	switch {
	case errors.As(err, &invalid):
		for _, v := range invalid.Violations {
			violations = append(violations, fault.FieldViolation{
				Field:       protovalidate.FieldPathString(v.Proto.GetField()),
				Description: v.Proto.GetMessage(),
				Reason:      strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(v.Proto.GetRuleId())),
			})
		}
	case err != nil:
		return fmt.Errorf("validate %s: %w", m.full, err)
	}
	return errFields(violations)
}

func errFields(violations []fault.FieldViolation) error {
	if len(violations) == 0 {
		return nil
	}
	f := fault.New(fault.InvalidArgument, fault.ReasonInvalidField, "%s: %s",
		violations[0].Field, violations[0].Description)
	for _, v := range violations[:min(len(violations), maxViolations)] {
		f = f.WithField(v)
	}
	return f
}

func errUnknownField(path string) error {
	where := path
	if where == "" {
		where = "the request"
	}
	return fault.New(fault.InvalidArgument, fault.ReasonUnknownField,
		"%s holds fields that this server does not know", where).
		WithField(fault.FieldViolation{Field: path, Description: "holds unknown fields", Reason: fault.ReasonUnknownField})
}

// walker visits all that a request holds.
type walker struct {
	unknown   bool // whether unknown fields matter
	unknownAt *string
	control   []fault.FieldViolation
}

func (w *walker) message(m protoreflect.Message, path string) {
	if w.unknown && w.unknownAt == nil && len(m.GetUnknown()) > 0 {
		w.unknownAt = &path
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		at := string(fd.Name())
		if path != "" {
			at = path + "." + at
		}
		switch {
		case fd.IsMap():
			w.entries(fd, v.Map(), at)
		case fd.IsList():
			for i := range v.List().Len() {
				w.value(fd, v.List().Get(i), fmt.Sprintf("%s[%d]", at, i))
			}
		default:
			w.value(fd, v, at)
		}
		return true
	})
}

func (w *walker) entries(fd protoreflect.FieldDescriptor, m protoreflect.Map, path string) {
	m.Range(func(key protoreflect.MapKey, v protoreflect.Value) bool {
		// The key itself may be what is wrong, so it is not repeated.
		w.value(fd.MapKey(), key.Value(), path+"[]")
		w.value(fd.MapValue(), v, path+"[]")
		return true
	})
}

func (w *walker) value(fd protoreflect.FieldDescriptor, v protoreflect.Value, path string) {
	switch fd.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		w.message(v.Message(), path)
	case protoreflect.StringKind:
		if hasControl(v.String()) && len(w.control) < maxViolations {
			w.control = append(w.control, fault.FieldViolation{
				Field: path, Description: "must not hold control characters", Reason: "CONTROL_CHARACTER",
			})
		}
	default:
	}
}

// hasControl reports C0 and C1 controls other than tab and line breaks, which texts may hold.
func hasControl(s string) bool {
	for i := 0; i < len(s); {
		r, size := rune(s[i]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s[i:])
		}
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r >= 0x7f && r <= 0x9f {
			return true
		}
		i += size
	}
	return false
}
