package cli

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	_ "cloud.google.com/go/longrunning/autogen/longrunningpb" // registers google.longrunning.Operations
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	_ "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"   // registers its descriptors
	_ "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"  // as above
	_ "github.com/rowhouse-platform/rowhouse/gen/rowhouse/gateway/v1" // as above
	_ "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"   // as above
	_ "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1" // as above
	"github.com/rowhouse-platform/rowhouse/internal/hook"
)

const (
	operationsService = "google.longrunning.Operations"
	auditService      = "rowhouse.audit.v1.AuditService"
	// callWithin bounds one call; a wait for an operation is many.
	callWithin = 30 * time.Second
)

// backends are the services of an installation.
func backends() []string { return []string{"tenancy", "config", "quota", "gateway"} }

// backend is the service of an installation that serves a method. Audit chains are everywhere; they default to
// tenancy's.
func backend(m protoreflect.MethodDescriptor) string {
	pkg := string(m.ParentFile().Package())
	for _, b := range backends() {
		if strings.HasPrefix(pkg, "rowhouse."+b+".") {
			return b
		}
	}
	return "tenancy"
}

// methods are all RPCs that we know of, by full name.
func methods() []protoreflect.MethodDescriptor {
	var all []protoreflect.MethodDescriptor
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if pkg := string(f.Package()); !strings.HasPrefix(pkg, "rowhouse.") && pkg != "google.longrunning" {
			return true
		}
		for i := range f.Services().Len() {
			for j := range f.Services().Get(i).Methods().Len() {
				all = append(all, f.Services().Get(i).Methods().Get(j))
			}
		}
		return true
	})
	slices.SortFunc(all, func(a, b protoreflect.MethodDescriptor) int { return cmp.Compare(a.FullName(), b.FullName()) })
	return all
}

// method finds a method of the table of verbs.
func method(service, name string) protoreflect.MethodDescriptor {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service + "." + name))
	m, ok := d.(protoreflect.MethodDescriptor)
	if err != nil || !ok {
		panic("cli: the table names " + service + "." + name + ", which does not exist") // a test makes every command
	}
	return m
}

// methodPath is the name by which gRPC calls a method.
func methodPath(m protoreflect.MethodDescriptor) string {
	return "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
}

// shortName is the name by which people call a method.
func shortName(m protoreflect.MethodDescriptor) string {
	return string(m.Parent().Name()) + "/" + string(m.Name())
}

// ruleOf is what a method declares about itself; empty for a service that is not ours.
func ruleOf(m protoreflect.MethodDescriptor) *apiv1.MethodRule {
	rule, _ := proto.GetExtension(m.Options(), apiv1.E_Rule).(*apiv1.MethodRule)
	return rule
}

// message makes an empty message.
func message(d protoreflect.MessageDescriptor) proto.Message {
	t, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		panic("cli: no Go type for " + string(d.FullName())) // requests and responses of linked packages have one
	}
	return t.New().Interface()
}

// destructive says whether a method takes away what people may need: its caller must confirm.
func destructive(m protoreflect.MethodDescriptor) bool {
	for _, verb := range []string{"Delete", "Suspend", "Revoke", "Destroy", "Erase"} {
		if strings.HasPrefix(string(m.Name()), verb) {
			return true
		}
	}
	return false
}

// call is one RPC.
type call struct {
	method  protoreflect.MethodDescriptor
	service string // of the installation
	request proto.Message
}

// newCall prepares a call with an empty request.
func newCall(m protoreflect.MethodDescriptor) call {
	return call{method: m, service: backend(m), request: message(m.Input())}
}

// do calls, unary. A change always has a request id, so that a retry is safe.
func (a *app) do(ctx context.Context, c *cobra.Command, r call) (proto.Message, error) {
	conn, err := a.dial(r.service)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	ctx, failed := a.identify(ctx, c, r)
	response := message(r.method.Output())
	var trailer metadata.MD
	if err := conn.Invoke(ctx, methodPath(r.method), r.request, response, grpc.Trailer(&trailer)); err != nil {
		return nil, failed(err)
	}
	warn(c, trailer.Get(hook.WarningHeader))
	return response, nil
}

// identify gives a call its ids, and returns what makes its error.
func (a *app) identify(ctx context.Context, c *cobra.Command, r call) (context.Context, func(error) error) {
	id := a.requestID(r.request)
	e := callError{
		service: r.service, method: shortName(r.method), requestID: id,
		verbose: a.verbose, changes: id != "", raw: c.Name() == "call",
	}
	if a.verbose {
		trace, span := a.id(), a.id()
		e.traceID = hex.EncodeToString(trace[:])
		ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", fmt.Sprintf("00-%s-%x-01", e.traceID, span[:8]))
		_, _ = fmt.Fprintln(c.ErrOrStderr(), e.ids()) // nothing depends on it
	}
	return ctx, func(err error) error {
		e.err = err
		return &e
	}
}

// requestID returns the request's id and gives it one when it can have one and has none.
func (a *app) requestID(request proto.Message) string {
	m := request.ProtoReflect()
	fd := m.Descriptor().Fields().ByName("request_id")
	if fd == nil {
		return ""
	}
	if m.Get(fd).String() == "" {
		m.Set(fd, protoreflect.ValueOfString(a.id().String()))
	}
	return m.Get(fd).String()
}

// resourceField is the field of a message that holds the resource it is about, or nil.
func resourceField(d protoreflect.MessageDescriptor) protoreflect.FieldDescriptor {
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		if fd.Message() != nil && !fd.IsMap() && fd.Message().ParentFile().Package() != "google.protobuf" &&
			fd.Message().FullName() != "google.longrunning.Operation" {
			return fd
		}
	}
	return nil
}
