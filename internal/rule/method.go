package rule

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Names of request fields that have one meaning in every request of ours.
const (
	fieldRequestID    = "request_id"
	fieldReason       = "reason"
	fieldValidateOnly = "validate_only"
)

// Registrar is a *grpc.Server, as far as its methods matter here.
type Registrar interface {
	GetServiceInfo() map[string]grpc.ServiceInfo
}

// method is a rule, resolved against its request's descriptor.
type method struct {
	full         string
	rule         *apiv1.MethodRule
	entry        Entry
	change       bool
	clientStream bool
	serverStream bool
	redacts      bool
	target       []protoreflect.FieldDescriptor
	requestID    protoreflect.FieldDescriptor
	reason       protoreflect.FieldDescriptor
	validateOnly protoreflect.FieldDescriptor
}

// judge checks declarations.
type judge struct {
	roles  operator.Roles
	scopes map[string]tenant.Scopes
}

// Check says whether every registered method has a complete rule, of its own or in table, and whether the table holds
// nothing else. Scopes of DATA methods are not known here and therefore refused; an [Enforcer] knows them.
func Check(server Registrar, table Table) error {
	_, err := judge{roles: operator.AllRoles()}.methods(server, Join(Health(), table))
	return err
}

// CheckService says whether every method of a service declares a complete rule, for tests that enumerate descriptors.
// Any scope is taken to exist.
func CheckService(service protoreflect.ServiceDescriptor) error {
	j := judge{roles: operator.AllRoles(), scopes: map[string]tenant.Scopes{}}
	var faults []error
	for i := range service.Methods().Len() {
		md := service.Methods().Get(i)
		if r := RuleOf(md); r.GetPlane() == apiv1.Plane_PLANE_DATA {
			j.scopes[r.GetPermission()] = 1
		}
		_, err := j.declared(md)
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// RuleOf returns what a method declares, or nil.
func RuleOf(md protoreflect.MethodDescriptor) *apiv1.MethodRule { //nolint:revive // rule.Of says too little
	options, ok := md.Options().(*descriptorpb.MethodOptions)
	if !ok || !proto.HasExtension(options, apiv1.E_Rule) {
		return nil
	}
	r, _ := proto.GetExtension(options, apiv1.E_Rule).(*apiv1.MethodRule)
	return r
}

// methods resolves all that is registered.
func (j judge) methods(server Registrar, table Table) (map[string]*method, error) {
	methods := map[string]*method{}
	var faults []error
	services := server.GetServiceInfo()
	for _, name := range slices.Sorted(maps.Keys(services)) {
		sd, err := describe(name)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		for _, info := range services[name].Methods {
			full := "/" + name + "/" + info.Name
			m, err := j.method(sd, info.Name, table)
			if err != nil {
				faults = append(faults, err)
				continue
			}
			methods[full] = m
		}
	}
	for _, full := range slices.Sorted(maps.Keys(table)) {
		if _, ok := methods[full]; !ok && !isHealth(full) {
			faults = append(faults, fmt.Errorf("%s is in the table of rules and not registered", full))
		}
	}
	return methods, errors.Join(faults...)
}

func isHealth(full string) bool {
	_, ok := Health()[full]
	return ok
}

func describe(service string) (protoreflect.ServiceDescriptor, error) {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return nil, fmt.Errorf("service %s: %w", service, err)
	}
	sd, ok := d.(protoreflect.ServiceDescriptor)
	if !ok {
		return nil, fmt.Errorf("%s is no service", service)
	}
	return sd, nil
}

func (j judge) method(sd protoreflect.ServiceDescriptor, name string, table Table) (*method, error) {
	full := fmt.Sprintf("/%s/%s", sd.FullName(), name)
	md := sd.Methods().ByName(protoreflect.Name(name))
	if md == nil {
		return nil, fmt.Errorf("%s is registered and not described", full)
	}
	entry, tabled := table[full]
	switch {
	case tabled && RuleOf(md) != nil:
		return nil, fmt.Errorf("%s declares a rule and is in the table too", full)
	case tabled:
		return j.tabled(md, entry)
	default:
		return j.declared(md)
	}
}

func (j judge) tabled(md protoreflect.MethodDescriptor, entry Entry) (*method, error) {
	m := newMethod(md, entry.Rule)
	m.entry = entry
	if entry.Open {
		m.rule = &apiv1.MethodRule{Audit: apiv1.AuditClass_AUDIT_CLASS_NONE}
		return m, nil
	}
	if entry.Rule == nil {
		return nil, fmt.Errorf("%s: its table entry has no rule", m.full)
	}
	var faults []error
	elsewhere := entry.Keyed || entry.Listed
	if entry.Rule.GetTarget() != "" || !elsewhere {
		m.target, faults = resolveTarget(md.Input(), entry.Rule.GetTarget(), faults)
	}
	switch permission := entry.Rule.GetPermission(); {
	case entry.Keyed && entry.Listed:
		faults = append(faults, errors.New("is called with a client key and with a certificate"))
	case elsewhere:
		if permission != "" || entry.Permission != nil {
			faults = append(faults, errors.New("is judged by its own listener and names a permission"))
		}
	case (permission == "") == (entry.Permission == nil):
		faults = append(faults, errors.New("needs either a permission or a function that finds it"))
	case entry.Permission != nil && len(entry.Permissions) == 0:
		faults = append(faults, errors.New("does not say which permissions its function may find"))
	case permission != "":
		faults = j.checkPermission(permission, faults)
	}
	for _, permission := range entry.Permissions {
		faults = j.checkPermission(permission, faults)
	}
	return m, about(m.full, faults)
}

func (j judge) declared(md protoreflect.MethodDescriptor) (*method, error) {
	r := RuleOf(md)
	m := newMethod(md, r)
	if r == nil {
		return nil, fmt.Errorf("%s declares no rule", m.full)
	}
	var faults []error
	if r.GetTarget() != "" {
		m.target, faults = resolveTarget(md.Input(), r.GetTarget(), faults)
	}
	faults = j.checkPlane(md, r, faults)
	faults = checkAudit(md, r, faults)
	faults = checkIdempotency(md, r, faults)
	return m, about(m.full, faults)
}

func newMethod(md protoreflect.MethodDescriptor, r *apiv1.MethodRule) *method {
	fields := md.Input().Fields()
	return &method{
		full:         fmt.Sprintf("/%s/%s", md.Parent().FullName(), md.Name()),
		rule:         r,
		change:       r.GetIdempotency() != apiv1.Idempotency_IDEMPOTENCY_SAFE,
		clientStream: md.IsStreamingClient(),
		serverStream: md.IsStreamingServer(),
		redacts:      redacts(md.Input()),
		requestID:    ofKind(fields.ByName(fieldRequestID), protoreflect.StringKind),
		reason:       ofKind(fields.ByName(fieldReason), protoreflect.StringKind),
		validateOnly: ofKind(fields.ByName(fieldValidateOnly), protoreflect.BoolKind),
	}
}

func ofKind(fd protoreflect.FieldDescriptor, kind protoreflect.Kind) protoreflect.FieldDescriptor {
	if fd == nil || fd.Kind() != kind || fd.Cardinality() == protoreflect.Repeated {
		return nil
	}
	return fd
}

// resolveTarget turns "tenant.name" into field descriptors.
func resolveTarget(
	md protoreflect.MessageDescriptor, path string, faults []error,
) ([]protoreflect.FieldDescriptor, []error) {
	var fields []protoreflect.FieldDescriptor
	names := strings.Split(path, ".")
	for i, name := range names {
		fd := md.Fields().ByName(protoreflect.Name(name))
		last := i == len(names)-1
		switch {
		case fd == nil:
			return nil, append(faults, fmt.Errorf("target %q: %s has no field %q", path, md.FullName(), name))
		case last && ofKind(fd, protoreflect.StringKind) == nil:
			return nil, append(faults, fmt.Errorf("target %q is not a single string", path))
		case !last && ofKind(fd, protoreflect.MessageKind) == nil:
			return nil, append(faults, fmt.Errorf("target %q: %q is not a message", path, name))
		}
		fields = append(fields, fd)
		md = fd.Message()
	}
	return fields, faults
}

func (j judge) checkPlane(md protoreflect.MethodDescriptor, r *apiv1.MethodRule, faults []error) []error {
	data := r.GetPlane() == apiv1.Plane_PLANE_DATA
	switch r.GetPlane() {
	case apiv1.Plane_PLANE_ADMIN:
		if r.GetTarget() == "" {
			faults = append(faults, errors.New("names no target, which ADMIN needs"))
		}
		faults = j.checkPermission(r.GetPermission(), faults)
	case apiv1.Plane_PLANE_PEER:
		faults = j.checkPermission(r.GetPermission(), faults)
	case apiv1.Plane_PLANE_DATA:
		if scope := r.GetPermission(); scope != "" && j.scopes[scope] == 0 {
			faults = append(faults, fmt.Errorf("scope %q is unknown", scope))
		}
		faults = checkTenantFree(md.Input(), map[protoreflect.FullName]bool{}, faults)
	default:
		faults = append(faults, errors.New("names no plane"))
	}
	if !data && (r.GetContext() != apiv1.ContextClass_CONTEXT_CLASS_UNSPECIFIED || r.GetAllowSuspended()) {
		faults = append(faults, errors.New("context and allow_suspended belong to DATA"))
	}
	return faults
}

func (j judge) checkPermission(permission string, faults []error) []error {
	if permission == "" {
		return append(faults, errors.New("names no permission"))
	}
	if !j.roles.Known(permission) {
		return append(faults, fmt.Errorf("permission %q is in no role", permission))
	}
	return faults
}

// checkTenantFree refuses requests of the data plane that could name a tenant: there it comes from the context alone.
func checkTenantFree(
	md protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool, faults []error,
) []error {
	if seen[md.FullName()] {
		return faults
	}
	seen[md.FullName()] = true
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		name := string(fd.Name())
		named := name == "tenant" || strings.HasPrefix(name, "tenant_") || strings.HasSuffix(name, "_tenant")
		if named || strings.Contains(prototext.Format(fd.Options()), "tenants/") {
			faults = append(faults, fmt.Errorf("request field %s names a tenant, which DATA must not", fd.FullName()))
		}
		if fd.Message() != nil {
			faults = checkTenantFree(fd.Message(), seen, faults)
		}
	}
	return faults
}

func checkAudit(md protoreflect.MethodDescriptor, r *apiv1.MethodRule, faults []error) []error {
	safe := r.GetIdempotency() == apiv1.Idempotency_IDEMPOTENCY_SAFE
	switch r.GetAudit() {
	case apiv1.AuditClass_AUDIT_CLASS_NONE:
		if r.GetPlane() == apiv1.Plane_PLANE_ADMIN {
			faults = append(faults, errors.New("leaves no audit record, which ADMIN must"))
		}
	case apiv1.AuditClass_AUDIT_CLASS_READ:
		if !safe || md.IsStreamingServer() {
			faults = append(faults, errors.New("is audited as READ and is a change or a stream"))
		}
	case apiv1.AuditClass_AUDIT_CLASS_SENSITIVE, apiv1.AuditClass_AUDIT_CLASS_CHANGE:
		if safe {
			faults = append(faults, errors.New("is audited as a change and is SAFE"))
		}
		reason := ofKind(md.Input().Fields().ByName(fieldReason), protoreflect.StringKind)
		if r.GetAudit() == apiv1.AuditClass_AUDIT_CLASS_SENSITIVE && reason == nil {
			faults = append(faults, errors.New("is SENSITIVE and its request has no string field reason"))
		}
	case apiv1.AuditClass_AUDIT_CLASS_STREAM:
		if !md.IsStreamingServer() {
			faults = append(faults, errors.New("is audited as STREAM and is none"))
		}
	default:
		faults = append(faults, errors.New("names no audit class"))
	}
	return faults
}

func checkIdempotency(md protoreflect.MethodDescriptor, r *apiv1.MethodRule, faults []error) []error {
	options, _ := md.Options().(*descriptorpb.MethodOptions)
	quiet := options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
	if r.GetIdempotency() == apiv1.Idempotency_IDEMPOTENCY_UNSPECIFIED {
		faults = append(faults, errors.New("names no idempotency"))
	}
	if quiet != (r.GetIdempotency() == apiv1.Idempotency_IDEMPOTENCY_SAFE) {
		faults = append(faults, errors.New("SAFE and idempotency_level NO_SIDE_EFFECTS must go together"))
	}
	has := ofKind(md.Input().Fields().ByName(fieldRequestID), protoreflect.StringKind) != nil
	if has != (r.GetIdempotency() == apiv1.Idempotency_IDEMPOTENCY_REQUEST_ID) {
		faults = append(faults, errors.New("idempotency REQUEST_ID and a string field request_id must go together"))
	}
	return faults
}

func about(full string, faults []error) error {
	for i, fault := range faults {
		faults[i] = fmt.Errorf("%s %w", full, fault)
	}
	return errors.Join(faults...)
}
