package tenantgrpc

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
)

// Table gives rules to methods whose protos are not ours, such as health, by
// full method: "/grpc.health.v1.Health/Check".
type Table map[string]*apiv1.MethodRule

// Rules finds what a method declares about itself. It is safe for concurrent use.
type Rules struct {
	table Table
	found sync.Map // full method → *apiv1.MethodRule; only methods that exist, so callers cannot fill it
}

// NewRules returns rules that look into table first and into the linked-in
// descriptors second. The table is not copied and must not change.
func NewRules(table Table) *Rules { return &Rules{table: table} }

// Find returns the rule of "/package.Service/Method", and false when there is
// none: no such method, or one that declares nothing. Nobody changes the rule.
func (r *Rules) Find(fullMethod string) (*apiv1.MethodRule, bool) {
	if known, ok := r.found.Load(fullMethod); ok {
		rule, ok := known.(*apiv1.MethodRule)
		return rule, ok
	}
	rule, ok := r.table[fullMethod]
	if !ok {
		rule, ok = declared(fullMethod)
	}
	if !ok || rule.GetPlane() == apiv1.Plane_PLANE_UNSPECIFIED {
		return nil, false
	}
	r.found.Store(fullMethod, rule)
	return rule, true
}

// declared reads the option of the method's descriptor.
func declared(fullMethod string) (*apiv1.MethodRule, bool) {
	service, method, ok := splitMethod(fullMethod)
	if !ok {
		return nil, false
	}
	descriptor, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service + "." + method))
	if err != nil {
		return nil, false
	}
	options := descriptor.Options()
	if _, ok := descriptor.(protoreflect.MethodDescriptor); !ok || !proto.HasExtension(options, apiv1.E_Rule) {
		return nil, false
	}
	rule, ok := proto.GetExtension(options, apiv1.E_Rule).(*apiv1.MethodRule)
	return rule, ok
}

func splitMethod(fullMethod string) (service, method string, ok bool) {
	rest, ok := strings.CutPrefix(fullMethod, "/")
	if !ok {
		return "", "", false
	}
	service, method, ok = strings.Cut(rest, "/")
	return service, method, ok && service != "" && method != "" && !strings.ContainsAny(method, "./")
}

// ServiceInfoProvider is the part of *grpc.Server that [Check] reads.
type ServiceInfoProvider interface {
	// GetServiceInfo returns the registered services, as grpc.Server does.
	GetServiceInfo() map[string]grpc.ServiceInfo
}

// Check returns an error that names every method of server without a rule,
// every DATA method whose scope cfg does not know, and every entry of the table
// that no method uses. Call it when all services are registered, before Serve.
func Check(server ServiceInfoProvider, cfg ServerConfig) error {
	rules := cfg.rules()
	registered := registeredMethods(server)
	var problems []error
	for _, method := range registered {
		rule, ok := rules.Find(method)
		switch {
		case !ok:
			problems = append(problems, fmt.Errorf("%s has no rule", method))
		case rule.GetPlane() != apiv1.Plane_PLANE_DATA:
		case cfg.Verifier == nil:
			problems = append(problems, fmt.Errorf("%s needs a tenant context and there is no verifier", method))
		case rule.GetPermission() != "" && cfg.Scopes[rule.GetPermission()] == 0:
			problems = append(problems, fmt.Errorf("%s needs the unknown scope %q", method, rule.GetPermission()))
		}
	}
	for _, method := range slices.Sorted(maps.Keys(rules.table)) {
		if !slices.Contains(registered, method) {
			problems = append(problems, fmt.Errorf("the table rules %s, which is not registered", method))
		}
	}
	return errors.Join(problems...)
}

func registeredMethods(server ServiceInfoProvider) []string {
	var methods []string
	for service, info := range server.GetServiceInfo() {
		for _, m := range info.Methods {
			methods = append(methods, "/"+service+"/"+m.Name)
		}
	}
	slices.Sort(methods)
	return methods
}
