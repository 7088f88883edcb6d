// Package mask applies update masks to resources, by what their fields say about themselves in google.api.field_behavior.
//
// It changes messages in memory and knows no storage. Start at [Apply].
package mask

import (
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// Apply copies from update to resource, messages of one type, what mask names, and returns the paths that differ
// afterwards, in order. Without paths it is the populated fields of update; "*" is all fields, so that what update
// leaves empty is cleared.
//
// Output-only fields, identifiers and etag are passed over in silence, at any depth. Errors, with resource unchanged:
// FIELD_MASK_INVALID for a path that is not a field, or that goes into a list, map or scalar; IMMUTABLE_FIELD when an
// immutable field would change. An immutable field that "*" finds empty in update is left as it is.
func Apply(resource, update proto.Message, mask *fieldmaskpb.FieldMask) ([]string, error) {
	result := proto.Clone(resource)
	a := &applier{}
	dst, src := result.ProtoReflect(), update.ProtoReflect()
	switch paths := mask.GetPaths(); {
	case len(paths) == 0:
		for _, fd := range ordered(src.Descriptor()) {
			if src.Has(fd) {
				a.field(dst, src, fd, "", false, false)
			}
		}
	case slices.Contains(paths, "*"):
		if len(paths) > 1 {
			return nil, invalid("*")
		}
		a.all(dst, src, "")
	default:
		for _, path := range paths {
			if err := a.path(dst, src, path); err != nil {
				return nil, err
			}
		}
	}
	if a.err != nil {
		return nil, a.err
	}
	// Into the same message, since callers hold it.
	proto.Reset(resource)
	proto.Merge(resource, result)
	slices.Sort(a.changed)
	return slices.Compact(a.changed), nil
}

type applier struct {
	changed []string
	err     error // the first immutable field that would change
}

func (a *applier) path(dst, src protoreflect.Message, path string) error {
	return a.descend(dst, src, strings.Split(path, "."), step{path: path})
}

// step is where a path has come to.
type step struct {
	path   string // all of it
	prefix string // what is behind
	fixed  bool   // something behind is immutable
}

func (a *applier) descend(dst, src protoreflect.Message, names []string, at step) error {
	fd := dst.Descriptor().Fields().ByName(protoreflect.Name(names[0]))
	if fd == nil {
		return invalid(at.path)
	}
	if passedOver(fd) {
		return known(fd, names[1:], at.path)
	}
	at.fixed = at.fixed || has(fd, annotations.FieldBehavior_IMMUTABLE)
	if len(names) == 1 {
		a.field(dst, src, fd, at.prefix, true, at.fixed)
		return nil
	}
	if err := known(fd, names[1:], at.path); err != nil {
		return err
	}
	at.prefix += names[0] + "."
	had := dst.Has(fd)
	child := dst.Mutable(fd).Message()
	err := a.descend(child, src.Get(fd).Message(), names[1:], at)
	if !had && empty(child) {
		dst.Clear(fd)
	}
	return err
}

// known checks that the rest of a path leads to a field.
func known(fd protoreflect.FieldDescriptor, rest []string, path string) error {
	for _, name := range rest {
		if !single(fd) {
			return invalid(path)
		}
		if fd = fd.Message().Fields().ByName(protoreflect.Name(name)); fd == nil {
			return invalid(path)
		}
	}
	return nil
}

func (a *applier) all(dst, src protoreflect.Message, prefix string) {
	for _, fd := range ordered(dst.Descriptor()) {
		a.field(dst, src, fd, prefix, false, false)
	}
}

// field makes one field of dst that of src. named says that the mask names it, rather than that it is one of all; fixed
// that what it lies in is immutable.
func (a *applier) field(dst, src protoreflect.Message, fd protoreflect.FieldDescriptor, prefix string, named, fixed bool) {
	path := prefix + string(fd.Name())
	switch {
	case passedOver(fd) || equal(dst, src, fd):
		return
	case fixed || has(fd, annotations.FieldBehavior_IMMUTABLE):
		if (named || src.Has(fd)) && a.err == nil {
			a.err = fault.New(fault.InvalidArgument, fault.ReasonImmutableField, "%s is fixed at creation", path).
				WithField(fault.FieldViolation{Field: path, Description: "is fixed at creation"})
		}
	case single(fd) && guarded(fd.Message(), nil):
		had := dst.Has(fd)
		before := len(a.changed)
		a.all(dst.Mutable(fd).Message(), src.Get(fd).Message(), path+".")
		if had != src.Has(fd) && len(a.changed) == before {
			a.changed = append(a.changed, path)
		}
		if !src.Has(fd) && empty(dst.Get(fd).Message()) {
			dst.Clear(fd)
		}
	default:
		if src.Has(fd) {
			dst.Set(fd, src.Get(fd))
		} else {
			dst.Clear(fd)
		}
		a.changed = append(a.changed, path)
	}
}

// equal compares one field.
func equal(dst, src protoreflect.Message, fd protoreflect.FieldDescriptor) bool {
	return dst.Has(fd) == src.Has(fd) && dst.Get(fd).Equal(src.Get(fd))
}

func empty(m protoreflect.Message) bool {
	found := false
	m.Range(func(protoreflect.FieldDescriptor, protoreflect.Value) bool {
		found = true
		return false
	})
	return !found
}

// single reports whether a path may go into fd.
func single(fd protoreflect.FieldDescriptor) bool {
	return fd.Message() != nil && !fd.IsList() && !fd.IsMap()
}

// guarded reports whether a message holds fields that must not be replaced with it.
func guarded(md protoreflect.MessageDescriptor, above []protoreflect.FullName) bool {
	if slices.Contains(above, md.FullName()) {
		return false
	}
	above = append(above, md.FullName())
	for _, fd := range ordered(md) {
		if passedOver(fd) || has(fd, annotations.FieldBehavior_IMMUTABLE) || single(fd) && guarded(fd.Message(), above) {
			return true
		}
	}
	return false
}

func passedOver(fd protoreflect.FieldDescriptor) bool {
	return has(fd, annotations.FieldBehavior_OUTPUT_ONLY) || has(fd, annotations.FieldBehavior_IDENTIFIER) ||
		fd.Name() == "etag"
}

func has(fd protoreflect.FieldDescriptor, want annotations.FieldBehavior) bool {
	behaviors, _ := proto.GetExtension(fd.Options(), annotations.E_FieldBehavior).([]annotations.FieldBehavior)
	return slices.Contains(behaviors, want)
}

func ordered(md protoreflect.MessageDescriptor) []protoreflect.FieldDescriptor {
	fields := make([]protoreflect.FieldDescriptor, md.Fields().Len())
	for i := range fields {
		fields[i] = md.Fields().Get(i)
	}
	return fields
}

func invalid(path string) error {
	return fault.New(fault.InvalidArgument, fault.ReasonFieldMaskInvalid, "update_mask names %q, which is no field", path).
		WithField(fault.FieldViolation{Field: "update_mask", Description: "names no field of the resource"})
}
