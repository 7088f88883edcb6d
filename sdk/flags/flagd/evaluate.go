package flagd

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagset"
)

// server is what the versions of the protocol share.
type server struct{ h *Handler }

// question is a request for one flag.
type question interface {
	GetFlagKey() string
	GetContext() *structpb.Struct
}

// details is the answer for one flag.
type details[T any] struct {
	value T
	// given is false where the caller's own default applies.
	given           bool
	reason, variant string
	metadata        *structpb.Struct
}

// optional is the value for a field that can be absent.
func (d details[T]) optional() *T {
	if !d.given {
		return nil
	}
	return &d.value
}

// optionalVariant is the same of the variant.
func (d details[T]) optionalVariant() *string {
	if !d.given {
		return nil
	}
	return &d.variant
}

// ask reads a context and finds what holds for the caller.
func (s server) ask(ctx context.Context, attributes *structpb.Struct) (*flags.View, *flagset.Context, error) {
	who := visitOf(ctx).Who
	given := attributes.AsMap()
	if named, ok := given["tenant"]; ok && named != who.ID.String() {
		return nil, nil, fault.New(fault.PermissionDenied, fault.ReasonTenantMismatch, "the evaluation context names another tenant")
	}
	c, err := flagset.NewContext(who.Identity(), given)
	if err != nil {
		return nil, nil, fault.New(fault.InvalidArgument, fault.ReasonInvalidField, "the evaluation context holds what no rule can read")
	}
	view, err := s.h.c.Door.Flags.For(who)
	if err != nil {
		s.h.c.Door.Flags.Count(ctx, flagset.NotReady)
	}
	return view, c, err
}

// resolve answers for one flag; get reads its value as what was asked for.
func resolve[T any](
	ctx context.Context, s server, q question, get func(flagset.Result) (T, flagset.Code),
) (details[T], error) {
	var d details[T]
	view, c, err := s.ask(ctx, q.GetContext())
	if err != nil {
		return d, err
	}
	r := view.Evaluate(q.GetFlagKey(), c)
	value, code := get(r)
	s.h.c.Door.Flags.Count(ctx, code)
	if code != flagset.OK {
		return d, codeError(q.GetFlagKey(), code)
	}
	d = details[T]{value: value, given: r.HasValue(), reason: r.Reason().String(), variant: r.Variant()}
	d.metadata, err = structpb.NewStruct(r.Metadata())
	return d, err
}

// codeError is a flag's failure, by the codes that flagd's providers know.
func codeError(key string, c flagset.Code) error {
	code := connect.CodeInternal
	switch c { //nolint:exhaustive // what is left is GENERAL
	case flagset.FlagNotFound:
		code = connect.CodeNotFound
	case flagset.ParseError:
		code = connect.CodeDataLoss
	case flagset.TypeMismatch:
		code = connect.CodeInvalidArgument
	}
	return connect.NewError(code, fmt.Errorf("%s: flag %.64q", c, key))
}

// errNoDefault is how version 1 says that the caller's own default applies: its messages cannot leave a value out.
func errNoDefault(key string) error {
	return connect.NewError(connect.CodeNotFound, fmt.Errorf("%s: flag %.64q has no default variant", flagset.FlagNotFound, key))
}

// object is [flagset.Result.Object] as a message.
func object(r flagset.Result) (*structpb.Struct, flagset.Code) {
	m, code := r.Object()
	if code != flagset.OK || m == nil {
		return nil, code
	}
	message, err := structpb.NewStruct(m)
	if err != nil { // not of JSON
		return nil, flagset.General
	}
	return message, flagset.OK
}
