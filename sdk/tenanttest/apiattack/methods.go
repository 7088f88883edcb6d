package apiattack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
)

// method is one method of the target.
type method struct {
	protoreflect.MethodDescriptor

	full  string // "/notes.v1.NotesService/GetNote"
	verb  string // "get"
	noun  string // "note": lower-case, singular, without underscores
	batch bool   // BatchGetNotes
}

func newMethod(d protoreflect.MethodDescriptor) *method {
	m := &method{MethodDescriptor: d, full: fmt.Sprintf("/%s/%s", d.Parent().FullName(), d.Name())}
	words := camelWords(string(d.Name()))
	if len(words) > 1 && words[0] == "batch" {
		m.batch, words = true, words[1:]
	}
	m.verb, m.noun = words[0], singular(strings.Join(words[1:], ""))
	return m
}

func camelWords(name string) (words []string) {
	from := 0
	for i, c := range name {
		if i > 0 && unicode.IsUpper(c) {
			words, from = append(words, strings.ToLower(name[from:i])), i
		}
	}
	return append(words, strings.ToLower(name[from:]))
}

// singular is good enough to tell that "notes" are many of "note".
func singular(noun string) string {
	switch {
	case strings.HasSuffix(noun, "ies"):
		return strings.TrimSuffix(noun, "ies") + "y"
	case strings.HasSuffix(noun, "sses"), strings.HasSuffix(noun, "xes"), strings.HasSuffix(noun, "ches"):
		return strings.TrimSuffix(noun, "es")
	case strings.HasSuffix(noun, "s") && !strings.HasSuffix(noun, "ss"):
		return strings.TrimSuffix(noun, "s")
	}
	return noun
}

func oneOf(word string, list string) bool { return slices.Contains(strings.Fields(list), word) }

// creates reports whether a method makes things, by its name as AIP-133 has it and as others do.
func (m *method) creates() bool {
	return oneOf(m.verb, "create insert add put register upload import make new post save store append")
}

// removes reports whether a method ends what it names.
func (m *method) removes() bool {
	return oneOf(m.verb, "delete remove purge destroy drop erase expunge")
}

// safe reports whether a method says of itself that it changes nothing, or is named so.
func (m *method) safe() bool {
	options, _ := m.Options().(*descriptorpb.MethodOptions)
	switch rule := m.rule(); {
	case rule.GetIdempotency() != apiv1.Idempotency_IDEMPOTENCY_UNSPECIFIED:
		return rule.GetIdempotency() == apiv1.Idempotency_IDEMPOTENCY_SAFE
	case options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS:
		return true
	}
	return oneOf(m.verb, "get list search query find read fetch count watch stream subscribe lookup export describe show tail "+
		"download explain")
}

func (m *method) rule() *apiv1.MethodRule {
	rule, _ := proto.GetExtension(m.Options(), apiv1.E_Rule).(*apiv1.MethodRule)
	return rule
}

// outside says why a method acts for no tenant, or nothing.
func (m *method) outside() string {
	switch plane := m.rule().GetPlane(); plane {
	case apiv1.Plane_PLANE_UNSPECIFIED, apiv1.Plane_PLANE_DATA:
		return ""
	default:
		return "declared to be of " + plane.String()
	}
}

func (m *method) streams() bool { return m.IsStreamingClient() || m.IsStreamingServer() }

// order is when a method is attacked: what changes nothing first, what makes things last,
// because a thing made under a foreign id is the attacker's own from then on.
func (m *method) order() int {
	switch {
	case m.safe() && !m.streams():
		return 0
	case m.safe():
		return 1
	case m.removes():
		return 3
	case m.creates():
		return 4
	}
	return 2
}

// newMessage returns an empty message: of its generated type where that is linked in.
func newMessage(d protoreflect.MessageDescriptor) proto.Message {
	if known, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName()); err == nil && known.Descriptor() == d {
		return known.New().Interface()
	}
	return dynamicpb.NewMessage(d)
}

// methods returns the methods of the target's services, by name.
func (t Target) methods(ctx context.Context) ([]*method, error) {
	files, services, err := t.describe(ctx)
	if err != nil {
		return nil, err
	}
	var all []*method
	for _, name := range services {
		d, err := files.FindDescriptorByName(protoreflect.FullName(name))
		if err != nil {
			return nil, fmt.Errorf("apiattack: service %s: %w", name, err)
		}
		service, ok := d.(protoreflect.ServiceDescriptor)
		if !ok {
			return nil, fmt.Errorf("apiattack: %s is no service", name)
		}
		for i := range service.Methods().Len() {
			all = append(all, newMethod(service.Methods().Get(i)))
		}
	}
	if len(all) == 0 {
		return nil, errors.New("apiattack: there is no method to attack: name the Services")
	}
	slices.SortFunc(all, func(a, b *method) int { return strings.Compare(a.full, b.full) })
	return all, nil
}

// describe returns where the descriptors are and the names of the services to attack.
func (t Target) describe(ctx context.Context) (*protoregistry.Files, []string, error) {
	if t.Files != nil {
		return t.Files, services(t.Files, t.Services, func(*method) bool { return true }), nil
	}
	files, listed, err := t.reflect(ctx)
	if err == nil {
		if len(t.Services) > 0 {
			listed = t.Services
		}
		return files, listed, nil
	}
	if c := status.Code(err); c != codes.Unimplemented && c != codes.Unauthenticated && c != codes.PermissionDenied {
		return nil, nil, fmt.Errorf("apiattack: server reflection: %w", err)
	}
	ofTenants := func(m *method) bool { return m.rule().GetPlane() == apiv1.Plane_PLANE_DATA }
	return protoregistry.GlobalFiles, services(protoregistry.GlobalFiles, t.Services, ofTenants), nil
}

// services returns the named services, or those of which a method is wanted.
func services(files *protoregistry.Files, named []string, want func(*method) bool) []string {
	if len(named) > 0 {
		return named
	}
	var found []string
	files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				if want(newMethod(service.Methods().Get(j))) {
					found = append(found, string(service.FullName()))
					break
				}
			}
		}
		return true
	})
	slices.Sort(found)
	return found
}

// reflect asks the server what it serves (grpc.reflection.v1).
func (t Target) reflect(ctx context.Context) (*protoregistry.Files, []string, error) {
	ctx, cancel := context.WithTimeout(ctx, t.Deadline)
	defer cancel()
	if t.Attacker.In != nil {
		signed, err := t.Attacker.In(ctx, reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName, nil)
		if err == nil { // else it may answer anybody
			ctx = signed
		}
	}
	stream, err := reflectionv1.NewServerReflectionClient(t.Attacker.Conn).ServerReflectionInfo(ctx)
	if err != nil {
		return nil, nil, err
	}
	r := reflector{stream: stream, files: map[string]*descriptorpb.FileDescriptorProto{}}
	names, err := r.services()
	if err != nil {
		return nil, nil, err
	}
	for _, name := range slices.Concat(names, t.Services) {
		if err := r.fetch(&reflectionv1.ServerReflectionRequest{
			MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: name},
		}); err != nil {
			return nil, nil, err
		}
	}
	set := new(descriptorpb.FileDescriptorSet)
	for _, file := range r.files {
		set.File = append(set.File, file)
	}
	files, err := protodesc.NewFiles(set)
	return files, names, err
}

type reflector struct {
	stream grpc.BidiStreamingClient[reflectionv1.ServerReflectionRequest, reflectionv1.ServerReflectionResponse]
	files  map[string]*descriptorpb.FileDescriptorProto
}

func (r reflector) ask(q *reflectionv1.ServerReflectionRequest) (*reflectionv1.ServerReflectionResponse, error) {
	if err := r.stream.Send(q); err != nil && !errors.Is(err, io.EOF) { // after EOF, Recv has the error
		return nil, err
	}
	answer, err := r.stream.Recv()
	if err != nil {
		return nil, err
	}
	if e := answer.GetErrorResponse(); e != nil {
		return nil, status.Error(codes.Code(e.GetErrorCode()), e.GetErrorMessage()) //nolint:gosec // a code
	}
	return answer, nil
}

// services lists what the server serves, without what every server has.
func (r reflector) services() (names []string, err error) {
	answer, err := r.ask(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}})
	if err != nil {
		return nil, err
	}
	for _, service := range answer.GetListServicesResponse().GetService() {
		if !strings.HasPrefix(service.GetName(), "grpc.") {
			names = append(names, service.GetName())
		}
	}
	return names, nil
}

// fetch gets a file and all that it imports.
func (r reflector) fetch(q *reflectionv1.ServerReflectionRequest) error {
	answer, err := r.ask(q)
	if err != nil {
		return err
	}
	var imports []string
	for _, raw := range answer.GetFileDescriptorResponse().GetFileDescriptorProto() {
		file := new(descriptorpb.FileDescriptorProto)
		if err := proto.Unmarshal(raw, file); err != nil {
			return fmt.Errorf("a descriptor: %w", err)
		}
		if r.files[file.GetName()] == nil {
			r.files[file.GetName()] = file
			imports = append(imports, file.GetDependency()...)
		}
	}
	for _, name := range imports {
		if r.files[name] != nil {
			continue
		}
		if err := r.fetch(&reflectionv1.ServerReflectionRequest{
			MessageRequest: &reflectionv1.ServerReflectionRequest_FileByFilename{FileByFilename: name},
		}); err != nil {
			return err
		}
	}
	return nil
}
