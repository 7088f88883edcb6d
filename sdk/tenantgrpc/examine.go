package tenantgrpc

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// MaxRequest is the size in bytes above which [Examine] refuses a request, unless
// another bound is given.
const MaxRequest = 1 << 20

// maxViolations bounds how many bad fields an answer names.
const maxViolations = 20

// Examination says how strictly a request is judged. The zero value is for changes.
type Examination struct {
	// MaxSize is the most bytes. Default [MaxRequest].
	MaxSize int
	// Newer lets fields pass that this build does not know. A newer client may read
	// with them, but a change that leaves one out is not what was asked for.
	Newer bool
}

// Examine judges a request by itself: its size, unknown fields, text that is not UTF-8
// or holds control characters, and the rules that stand beside its fields in the proto
// (buf.validate). A server of [Server] does so before a handler sees a request; those
// who take requests by other ways than gRPC call it themselves. The error is a fault
// INVALID_FIELD or UNKNOWN_FIELD that names each bad field.
func Examine(msg proto.Message, how Examination) error {
	if how.MaxSize <= 0 {
		how.MaxSize = MaxRequest
	}
	if size := proto.Size(msg); size > how.MaxSize {
		return fault.New(fault.InvalidArgument, fault.ReasonTooLarge,
			"the request has %d bytes, the most is %d", size, how.MaxSize)
	}
	w := walker{unknown: !how.Newer}
	if w.message(msg.ProtoReflect(), ""); w.unknownAt != nil {
		return errUnknownField(*w.unknownAt)
	}
	violations := w.texts
	err := protovalidate.Validate(msg)
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
		return fmt.Errorf("validate %s: %w", msg.ProtoReflect().Descriptor().FullName(), err)
	}
	return errFields(violations)
}

// examine judges what a method was sent, unless the handlers do so.
func (s *server) examine(rule *apiv1.MethodRule, in any) error {
	if s.cfg.Examined {
		return nil
	}
	msg, ok := in.(proto.Message)
	if !ok {
		return errors.New("the request is no protobuf message")
	}
	return Examine(msg, Examination{
		MaxSize: max(MaxRequest, int(rule.GetMaxRequestBytes())), Newer: rule.GetIdempotency() == apiv1.Idempotency_IDEMPOTENCY_SAFE,
	})
}

// examined judges each message that a stream receives before its handler sees it.
func (s *server) examined(rule *apiv1.MethodRule, ss grpc.ServerStream) grpc.ServerStream {
	return &examinedStream{ServerStream: ss, server: s, rule: rule}
}

type examinedStream struct {
	grpc.ServerStream
	server *server
	rule   *apiv1.MethodRule
}

// RecvMsg implements grpc.ServerStream.
func (e *examinedStream) RecvMsg(into any) error {
	if err := e.ServerStream.RecvMsg(into); err != nil {
		return err //nolint:wrapcheck // io.EOF is compared, statuses are passed on
	}
	return e.server.examine(e.rule, into)
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
	texts     []fault.FieldViolation
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
		w.text(v.String(), path)
	default:
	}
}

func (w *walker) text(s, path string) {
	v := fault.FieldViolation{Field: path}
	switch {
	case len(w.texts) >= maxViolations:
		return
	case !utf8.ValidString(s): // no message from the wire holds it; one that was made of HTTP may
		v.Description, v.Reason = "must be UTF-8", "NOT_UTF8"
	case hasControl(s):
		v.Description, v.Reason = "must not hold control characters", "CONTROL_CHARACTER"
	default:
		return
	}
	w.texts = append(w.texts, v)
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
