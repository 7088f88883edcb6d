package rule_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	_ "google.golang.org/grpc/health/grpc_health_v1"

	_ "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	_ "github.com/rowhouse-platform/rowhouse/gen/rowhouse/gateway/v1"
	_ "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
)

func TestEveryServiceOfOursDeclaresCompleteRules(t *testing.T) {
	t.Parallel()
	checked := 0
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if !strings.HasPrefix(string(file.Package()), "rowhouse.") {
			return true
		}
		for i := range file.Services().Len() {
			checked++
			if err := rule.CheckService(file.Services().Get(i)); err != nil {
				t.Error(err)
			}
		}
		return true
	})
	if checked < 5 {
		t.Errorf("only %d services were found", checked)
	}
}

// declare makes the descriptor of a service with one method from its options, its request's fields and whether it
// streams.
func declare(t *testing.T, options, fields string, stream bool) protoreflect.ServiceDescriptor {
	t.Helper()
	file := &descriptorpb.FileDescriptorProto{}
	text := `name: "test.proto" package: "test" syntax: "proto3"
		dependency: "rowhouse/api/v1/method.proto" dependency: "buf/validate/validate.proto"
		message_type { name: "Request" ` + fields + ` }
		message_type { name: "Inner" field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
		  field { name: "tenant_id" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL } }
		message_type { name: "Response" }
		service { name: "Service" method { name: "Do" input_type: ".test.Request" output_type: ".test.Response"
		  options { ` + options + ` } } }`
	if err := prototext.Unmarshal([]byte(text), file); err != nil {
		t.Fatal(err)
	}
	file.GetService()[0].GetMethod()[0].ServerStreaming = &stream
	d, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	return d.Services().Get(0)
}

const (
	stringField = " type: TYPE_STRING label: LABEL_OPTIONAL }"
	name        = `field { name: "name" number: 1` + stringField
	request     = name + `field { name: "request_id" number: 2` + stringField
	reason      = request + `field { name: "reason" number: 3` + stringField
	inner       = `field { name: "inner" number: 4 type: TYPE_MESSAGE type_name: ".test.Inner" label: LABEL_OPTIONAL }`
	many        = `field { name: "names" number: 5 type: TYPE_STRING label: LABEL_REPEATED }`
	patterned   = `field { name: "thing" number: 6 type: TYPE_STRING label: LABEL_OPTIONAL
		options { [buf.validate.field] { string { pattern: "^tenants/[a-z]+$" } } } }`
)

func TestPlantedOffenders(t *testing.T) {
	t.Parallel()
	option := func(rule string) string { return "[rowhouse.api.v1.rule] { " + rule + " }" }
	quiet := func(rule string) string { return "idempotency_level: NO_SIDE_EFFECTS " + option(rule) }
	const (
		admin = `plane: PLANE_ADMIN permission: "tenancy.tenants.update" target: "name" `
		data  = "plane: PLANE_DATA "
		peer  = `plane: PLANE_PEER permission: "tenancy.tenants.watch" `
		none  = "audit: AUDIT_CLASS_NONE "
		read  = "audit: AUDIT_CLASS_READ "
		chg   = "audit: AUDIT_CLASS_CHANGE "
		sens  = "audit: AUDIT_CLASS_SENSITIVE "
		strm  = "audit: AUDIT_CLASS_STREAM "
		safe  = "idempotency: IDEMPOTENCY_SAFE "
		byID  = "idempotency: IDEMPOTENCY_REQUEST_ID "
		nat   = "idempotency: IDEMPOTENCY_NATURAL "
	)
	tests := map[string]struct {
		options, fields string
		stream          bool
		want            string // empty: in order
	}{
		"admin read":         {quiet(admin + read + safe), name, false, ""},
		"admin change":       {option(admin + chg + byID), request, false, ""},
		"admin sensitive":    {option(admin + sens + byID), reason, false, ""},
		"admin stream":       {quiet(admin + strm + safe), name, true, ""},
		"data read":          {quiet(data + none + safe), name, false, ""},
		"data with scope":    {option(data + chg + byID + `permission: "notes.write" context: CONTEXT_CLASS_TRANSACTION`), request, false, ""},
		"peer":               {option(peer + none + nat), name, false, ""},
		"no rule":            {"", name, false, "declares no rule"},
		"no plane":           {quiet(read + safe), name, false, "names no plane"},
		"no audit":           {quiet(admin + safe), name, false, "names no audit class"},
		"no idempotency":     {option(admin + chg), name, false, "names no idempotency"},
		"admin, no target":   {quiet(`plane: PLANE_ADMIN permission: "tenancy.tenants.get" ` + read + safe), name, false, "names no target"},
		"admin, no audit":    {quiet(admin + none + safe), name, false, "leaves no audit record"},
		"no permission":      {quiet(`plane: PLANE_ADMIN target: "name" ` + read + safe), name, false, "names no permission"},
		"peer without":       {option("plane: PLANE_PEER " + none + nat), name, false, "names no permission"},
		"unheld permission":  {quiet(`plane: PLANE_ADMIN permission: "tenancy.tenants.fly" target: "name" ` + read + safe), name, false, "is in no role"},
		"absent target":      {quiet(`plane: PLANE_ADMIN permission: "tenancy.tenants.get" target: "parent" ` + read + safe), name, false, `has no field "parent"`},
		"target deep":        {quiet(`plane: PLANE_ADMIN permission: "tenancy.tenants.get" target: "inner.name" ` + read + safe), inner, false, ""},
		"target too deep":    {quiet(`plane: PLANE_ADMIN permission: "tenancy.tenants.get" target: "inner.nam" ` + read + safe), inner, false, `has no field "nam"`},
		"target of strings":  {quiet(`plane: PLANE_ADMIN permission: "tenancy.tenants.get" target: "names" ` + read + safe), many, false, "not a single string"},
		"target a message":   {quiet(`plane: PLANE_ADMIN permission: "tenancy.tenants.get" target: "inner" ` + read + safe), inner, false, "not a single string"},
		"id not declared":    {option(admin + chg + nat), request, false, "REQUEST_ID and a string field"},
		"id not there":       {option(admin + chg + byID), name, false, "REQUEST_ID and a string field"},
		"safe, not quiet":    {option(admin + read + safe), name, false, "NO_SIDE_EFFECTS"},
		"quiet, not safe":    {quiet(admin + chg + byID), request, false, "NO_SIDE_EFFECTS"},
		"safe change":        {quiet(admin + chg + safe), name, false, "audited as a change and is SAFE"},
		"changing read":      {option(admin + read + byID), request, false, "audited as READ"},
		"read stream":        {quiet(admin + read + safe), name, true, "audited as READ"},
		"unary stream":       {quiet(admin + strm + safe), name, false, "audited as STREAM"},
		"no reason":          {option(admin + sens + byID), request, false, "no string field reason"},
		"data, tenant":       {quiet(data + none + safe), `field { name: "tenant" number: 1` + stringField, false, "names a tenant"},
		"data, tenant uid":   {quiet(data + none + safe), `field { name: "tenant_uid" number: 1` + stringField, false, "names a tenant"},
		"data, nested":       {quiet(data + none + safe), inner, false, "names a tenant"},
		"data, by pattern":   {quiet(data + none + safe), patterned, false, "names a tenant"},
		"admin with context": {quiet(admin + read + safe + "context: CONTEXT_CLASS_SESSION"), name, false, "belong to DATA"},
		"peer suspended":     {option(peer + none + nat + "allow_suspended: true"), name, false, "belong to DATA"},
	}
	for label, test := range tests {
		err := rule.CheckService(declare(t, test.options, test.fields, test.stream))
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", label, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: error %v, want one with %q", label, err, test.want)
		}
	}
}

// registered is a server as Check sees it.
type registered map[string]grpc.ServiceInfo

func (r registered) GetServiceInfo() map[string]grpc.ServiceInfo { return r }

func service(methods ...string) grpc.ServiceInfo {
	var info grpc.ServiceInfo
	for _, method := range methods {
		info.Methods = append(info.Methods, grpc.MethodInfo{Name: method})
	}
	return info
}

func TestRegisteredMeansRuled(t *testing.T) {
	t.Parallel()
	find := func(context.Context, string, string) (string, error) { return "", nil }
	operations := rule.Operations(find, "tenancy.tenants.get")
	all := service("GetOperation", "ListOperations", "WaitOperation", "CancelOperation", "DeleteOperation")
	const ours, foreign, health = "rowhouse.tenancy.v1.TenantService", "google.longrunning.Operations", "grpc.health.v1.Health"
	tests := map[string]struct {
		server registered
		table  rule.Table
		want   string
	}{
		"ours, health, operations": {registered{ours: service("GetTenant"), health: service("Check", "Watch"), foreign: all}, operations, ""},
		"no table":                 {registered{foreign: all}, nil, "GetOperation declares no rule"},
		"table of the absent":      {registered{}, operations, "is in the table of rules and not registered"},
		"table over our own": {
			registered{ours: service("GetTenant")}, rule.Table{"/" + ours + "/GetTenant": {Open: true}}, "in the table too",
		},
		"unknown permission": {registered{foreign: all}, rule.Operations(find, "tenancy.operations.fly"), "is in no role"},
		"no permissions":     {registered{foreign: all}, rule.Operations(find), "which permissions"},
		"undescribed":        {registered{"nowhere.Service": service("Get")}, nil, "nowhere.Service"},
		"reflection":         {registered{"grpc.reflection.v1.ServerReflection": service("ServerReflectionInfo")}, nil, "reflection"},
	}
	for label, test := range tests {
		err := rule.Check(test.server, test.table)
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", label, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: error %v, want one with %q", label, err, test.want)
		}
	}
}
