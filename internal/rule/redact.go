package rule

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// redacts says whether a message has a field that is marked debug_redact, in itself or in a message below.
func redacts(md protoreflect.MessageDescriptor) bool {
	return holds(md, map[protoreflect.FullName]bool{})
}

func holds(md protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) bool {
	if md == nil || seen[md.FullName()] {
		return false
	}
	seen[md.FullName()] = true
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		if isRedacted(fd) || holds(below(fd), seen) {
			return true
		}
	}
	return false
}

// below is the message that a field holds, itself, in a list or as the values of a map; nil for others.
func below(fd protoreflect.FieldDescriptor) protoreflect.MessageDescriptor {
	if fd.IsMap() {
		return fd.MapValue().Message()
	}
	return fd.Message()
}

func isRedacted(fd protoreflect.FieldDescriptor) bool {
	options, ok := fd.Options().(*descriptorpb.FieldOptions)
	return ok && options.GetDebugRedact()
}

// withoutSecrets is a request as the records of its call may hold it: the log of requests, and the digest in the audit
// chain, from which a short value could be guessed. Fields that are marked debug_redact are cleared.
func withoutSecrets(msg proto.Message) proto.Message {
	clean := proto.Clone(msg)
	redact(clean.ProtoReflect())
	return clean
}

func redact(m protoreflect.Message) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case isRedacted(fd):
			m.Clear(fd)
		case below(fd) == nil:
		case fd.IsMap():
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				redact(v.Message())
				return true
			})
		case fd.IsList():
			for i := range v.List().Len() {
				redact(v.List().Get(i).Message())
			}
		default:
			redact(v.Message())
		}
		return true
	})
}
