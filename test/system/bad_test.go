package system

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	notesv1 "github.com/rowhouse-platform/rowhouse/gen/notes/v1"
	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	gatewayv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/gateway/v1"
	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
)

// method is one RPC with the process that serves it.
type method struct {
	protoreflect.MethodDescriptor
	process string
	plane   apiv1.Plane
	target  string
}

func (m method) full() string { return fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name()) }

// renewal is the service that tenancy and gateways both serve.
const renewal = "rowhouse.tenancy.v1.ContextRenewalService"

// methods are all RPCs of ours; those of the audit chain at tenancy, one of its four owners.
func methods() (all []method) {
	for _, service := range ours() {
		name := strings.Split(string(service.FullName()), ".")
		process := map[string]string{"notes": app, "audit": "tenancy"}[name[len(name)-3]]
		if process == "" {
			process = name[len(name)-3]
		}
		for i := range service.Methods().Len() {
			m := service.Methods().Get(i)
			r := rule.RuleOf(m)
			all = append(all, method{m, process, r.GetPlane(), r.GetTarget()})
			if service.FullName() == renewal {
				all = append(all, method{m, "gateway", r.GetPlane(), r.GetTarget()})
			}
		}
	}
	return all
}

// call sends a request and returns the first answer's error.
func (m method) call(ctx context.Context, conn *grpc.ClientConn, in *dynamicpb.Message) error {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	if m.IsStreamingServer() {
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, m.full())
		if err != nil {
			return err
		}
		if err := stream.SendMsg(in); err != nil {
			return err
		}
		if err := stream.CloseSend(); err != nil {
			return err
		}
		return stream.RecvMsg(dynamicpb.NewMessage(m.Output()))
	}
	return conn.Invoke(ctx, m.full(), in, dynamicpb.NewMessage(m.Output()))
}

func (m method) empty() *dynamicpb.Message { return dynamicpb.NewMessage(m.Input()) }

// with returns the empty request with the target field set.
func (m method) with(value string) *dynamicpb.Message {
	in := m.empty()
	at := in.ProtoReflect()
	path := strings.Split(m.target, ".")
	for _, name := range path[:len(path)-1] {
		at = at.Mutable(at.Descriptor().Fields().ByName(protoreflect.Name(name))).Message()
	}
	at.Set(at.Descriptor().Fields().ByName(protoreflect.Name(path[len(path)-1])), protoreflect.ValueOfString(value))
	return in
}

// junk is a field that no message has, of n bytes.
func junk(n int) []byte {
	const number = 60000
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), make([]byte, n))
}

func (m method) junk(n int) *dynamicpb.Message {
	in := m.empty()
	in.ProtoReflect().SetUnknown(junk(n))
	return in
}

// most is how many bytes the method's request may have.
func (m method) most() int {
	return max(1<<20, int(rule.RuleOf(m).GetMaxRequestBytes()))
}

// Every RPC, asked without a credential, with a wrong one, by somebody without the right,
// with names that are none, with unknown fields and too much, answers with the right code
// and reason, and does nothing.
func TestEveryRPCRefusesBadInput(t *testing.T) {
	t.Parallel()
	h := hijacked(t)
	const (
		missing, invalid = "Unauthenticated CREDENTIAL_MISSING", "Unauthenticated CREDENTIAL_INVALID"
		noContext        = "Unauthenticated CONTEXT_MISSING"
		noRight          = "PermissionDenied PERMISSION_MISSING"
		badField         = "InvalidArgument INVALID_FIELD"
		unknownField     = "InvalidArgument UNKNOWN_FIELD"
		large            = "InvalidArgument TOO_LARGE"
		tooLarge         = "ResourceExhausted OVERLOADED" // by grpc-go, which names no reason: OVERLOADED is what clients read
	)
	beyond := map[string]int{} // the bytes that a process does not even read
	for _, m := range methods() {
		beyond[m.process] = max(beyond[m.process], m.most()+1<<20)
	}
	for _, m := range methods() {
		if m.process == app {
			continue // it knows tenants alone: TestEveryRPCOfTheAppRefusesBadInput
		}
		t.Run(m.process+m.full(), func(t *testing.T) {
			t.Parallel()
			want := func(what string, err error, verdicts ...string) {
				t.Helper()
				if got := verdict(err); !slices.Contains(verdicts, got) {
					t.Errorf("%s: %s, want %s (%v)", what, got, strings.Join(verdicts, " or "), err)
				}
			}
			nobody, rubbish := h.operator(t, m.process, ""), h.operator(t, m.process, "rubbish")
			operator, workload := h.operator(t, m.process), h.as(t, app, m.process)
			switch m.plane {
			case apiv1.Plane_PLANE_ADMIN:
				want("no token", m.call(t.Context(), nobody, m.empty()), missing)
				want("a wrong token", m.call(t.Context(), rubbish, m.empty()), invalid)
				want("a bad name", m.call(t.Context(), operator, m.with("Bad Name/\x01/..")), badField)
				want("too much", m.call(t.Context(), operator, m.junk(beyond[m.process])), tooLarge)
				// Nothing at all is well formed for lists alone; the others are in TestUnknownTenantStaleEtagWrongRole.
				want("an app's identity", m.call(t.Context(), workload, m.empty()), noRight, badField)
				if rule.RuleOf(m).GetAudit() == apiv1.AuditClass_AUDIT_CLASS_READ {
					return // a newer client may read with fields that we do not know
				}
				if m.IsStreamingServer() { // what opens a stream is checked as it is read, and its rules come first
					want("an unknown field", m.call(t.Context(), operator, m.junk(1)), badField)
				} else {
					want("an unknown field", m.call(t.Context(), operator, m.junk(1)), unknownField)
				}
				want("much", m.call(t.Context(), operator, m.junk(m.most())), large)
			case apiv1.Plane_PLANE_PEER:
				want("no certificate", m.call(t.Context(), nobody, m.empty()), missing)
				want("an operator without one", m.call(t.Context(), operator, m.empty()), missing)
				want("an empty request", m.call(t.Context(), workload, m.empty()), badField)
				want("too much", m.call(t.Context(), workload, m.junk(beyond[m.process])), tooLarge)
			case apiv1.Plane_PLANE_DATA:
				want("no context", m.call(t.Context(), workload, m.empty()), noContext)
				want("an operator without one", m.call(t.Context(), operator, m.empty()), noContext)
				if m.IsStreamingServer() { // which is refused before its request is read
					want("too much", m.call(t.Context(), workload, m.junk(beyond[m.process])), noContext)
				} else {
					want("too much", m.call(t.Context(), workload, m.junk(beyond[m.process])), tooLarge)
				}
			default:
				t.Errorf("plane %s has no attacks here", m.plane)
			}
		})
	}
}

// scribble fills every text of a request, at any depth, with one that none may hold.
func scribble(m protoreflect.Message) (texts int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		switch fd := fields.Get(i); {
		case fd.IsList() || fd.IsMap():
		case fd.Kind() == protoreflect.StringKind:
			m.Set(fd, protoreflect.ValueOfString("a\x00b"))
			texts++
		case fd.Kind() == protoreflect.MessageKind:
			texts += scribble(m.Mutable(fd).Message())
		}
	}
	return texts
}

// Every RPC of the app, asked for a tenant with text that is none, with too much and with fields that it does not
// know, names the bad field. The SDK sees to that: the app has no such checks.
func TestEveryRPCOfTheAppRefusesBadInput(t *testing.T) {
	t.Parallel()
	h := hijacked(t)
	host := h.tenant(t, "careless")
	gateway := h.as(t, "gateway", app)
	asked := 0
	for _, m := range methods() {
		if m.process != app {
			continue
		}
		asked++
		in := func() context.Context { return presenting(t.Context(), h.steal(t, host)) }
		if got := verdict(m.call(t.Context(), gateway, m.empty())); got != "Unauthenticated CONTEXT_MISSING" {
			t.Errorf("%s without a context: %s", m.full(), got)
		}
		bad := m.empty()
		if scribble(bad) > 0 {
			if got := verdict(m.call(in(), gateway, bad)); got != "InvalidArgument INVALID_FIELD" {
				t.Errorf("%s with bad text: %s", m.full(), got)
			}
		}
		if got := verdict(m.call(in(), gateway, m.junk(2<<20))); got != "InvalidArgument TOO_LARGE" {
			t.Errorf("%s with too much: %s", m.full(), got)
		}
		if rule.RuleOf(m).GetIdempotency() == apiv1.Idempotency_IDEMPOTENCY_SAFE {
			continue // a newer client may read with fields that we do not know
		}
		if got := verdict(m.call(in(), gateway, m.junk(1))); got != "InvalidArgument UNKNOWN_FIELD" {
			t.Errorf("%s with an unknown field: %s", m.full(), got)
		}
	}
	if asked == 0 {
		t.Error("the app has no RPCs")
	}
	notes := notesv1.NewNotesServiceClient(h.front(t, host, false))
	create := func(id, title string) string {
		_, err := notes.CreateNote(t.Context(), &notesv1.CreateNoteRequest{RequestId: id, Note: &notesv1.Note{Title: title}})
		return verdict(err)
	}
	const id = "7a3c2a9e-0b1d-4c5e-8f70-1a2b3c4d5e6f"
	for _, c := range [][3]string{
		{"abc", "x", "InvalidArgument INVALID_FIELD"}, {id, "x", "OK"}, {id, "x", "OK"}, {id, "y", "InvalidArgument REQUEST_ID_REUSED"},
	} {
		if got := create(c[0], c[1]); got != c[2] {
			t.Errorf("create %q with request_id %q: %s, want %s", c[1], c[0], got, c[2])
		}
	}
}

// admin are the admin services of a house, as one caller sees them.
type admin struct {
	tenants    tenancyv1.TenantServiceClient
	plans      tenancyv1.PlanServiceClient
	domains    tenancyv1.DomainServiceClient
	cells      tenancyv1.CellServiceClient
	apps       tenancyv1.AppServiceClient
	placements tenancyv1.PlacementServiceClient
	documents  configv1.DocumentServiceClient
	limits     quotav1.LimitServiceClient
	edges      gatewayv1.EdgeServiceClient
}

func adminOf(dial func(service string) *grpc.ClientConn) admin {
	tenancy, config, quota, gateway := dial("tenancy"), dial("config"), dial("quota"), dial("gateway")
	return admin{
		tenancyv1.NewTenantServiceClient(tenancy), tenancyv1.NewPlanServiceClient(tenancy), tenancyv1.NewDomainServiceClient(tenancy),
		tenancyv1.NewCellServiceClient(tenancy), tenancyv1.NewAppServiceClient(tenancy), tenancyv1.NewPlacementServiceClient(tenancy),
		configv1.NewDocumentServiceClient(config), quotav1.NewLimitServiceClient(quota), gatewayv1.NewEdgeServiceClient(gateway),
	}
}

// about are well-formed calls about a tenant, each with an etag that is not its state's.
func (a admin) about(ctx context.Context, id string) map[string]error {
	name, why, stale := "tenants/"+id, "a test of bad input", "stale"
	second := func(_ any, err error) error { return err }
	return map[string]error{
		"GetTenant": second(a.tenants.GetTenant(ctx, &tenancyv1.GetTenantRequest{Name: name})),
		"UpdateTenant": second(a.tenants.UpdateTenant(ctx, &tenancyv1.UpdateTenantRequest{
			Tenant: &tenancyv1.Tenant{Name: name, DisplayName: "x", Etag: stale}})),
		"SuspendTenant": second(a.tenants.SuspendTenant(ctx, &tenancyv1.SuspendTenantRequest{
			Name: name, Etag: stale, Reason: why, Cause: tenancyv1.SuspensionCause_SUSPENSION_CAUSE_ABUSE})),
		"DeleteTenant": second(a.tenants.DeleteTenant(ctx, &tenancyv1.DeleteTenantRequest{Name: name, Etag: stale, Reason: why})),
		"ResumeTenant": second(a.tenants.ResumeTenant(ctx, &tenancyv1.ResumeTenantRequest{
			Name: name, Etag: stale, Reason: why, Cause: tenancyv1.SuspensionCause_SUSPENSION_CAUSE_ABUSE})),
		"UndeleteTenant": second(a.tenants.UndeleteTenant(ctx, &tenancyv1.UndeleteTenantRequest{Name: name, Etag: stale})),
		"GetPlacement":   second(a.placements.GetPlacement(ctx, &tenancyv1.GetPlacementRequest{Name: name + "/placement"})),
		"ListDomains":    second(a.domains.ListDomains(ctx, &tenancyv1.ListDomainsRequest{Parent: name})),
		"CreateDomain": second(a.domains.CreateDomain(ctx, &tenancyv1.CreateDomainRequest{
			Parent: name, DomainId: "x." + id + ".localhost", Domain: &tenancyv1.Domain{App: "apps/" + app}, ValidateOnly: true})),
		"ListDocuments": second(a.documents.ListDocuments(ctx, &configv1.ListDocumentsRequest{Parent: name})),
		"UpdateDocument": second(a.documents.UpdateDocument(ctx, &configv1.UpdateDocumentRequest{
			Document: &configv1.Document{Name: name + "/config/brand", Content: `{"name":"x"}`, Etag: stale}, AllowMissing: true, Reason: why})),
		"ExplainLimits": second(a.limits.ExplainLimits(ctx, &quotav1.ExplainLimitsRequest{Parent: name})),
		"UpdateLimit": second(a.limits.UpdateLimit(ctx, &quotav1.UpdateLimitRequest{AllowMissing: true,
			Limit: &quotav1.Limit{Name: name + "/limits/requests", Tokens: 1, Period: durationpb.New(1e9), Burst: 1, Etag: stale}})),
	}
}

func TestUnknownTenantStaleEtagWrongRole(t *testing.T) {
	t.Parallel()
	h := hijacked(t)
	h.tenant(t, "well-known")
	operator := adminOf(func(service string) *grpc.ClientConn { return h.operator(t, service) })
	for name, err := range operator.about(t.Context(), "nobody-here") {
		if got := verdict(err); got != "NotFound RESOURCE_NOT_FOUND" {
			t.Errorf("%s of an unknown tenant: %s (%v)", name, got, err)
		}
	}
	workload := adminOf(func(service string) *grpc.ClientConn { return h.as(t, app, service) })
	for _, id := range []string{"well-known", "nobody-here"} { // who may not ask learns nothing
		for name, err := range workload.about(t.Context(), id) {
			if got := verdict(err); got != "PermissionDenied PERMISSION_MISSING" {
				t.Errorf("%s of %s by an app: %s (%v)", name, id, got, err)
			}
		}
	}
	known := operator.about(t.Context(), "well-known")
	for _, name := range []string{"UpdateTenant", "SuspendTenant", "DeleteTenant"} {
		if got := verdict(known[name]); got != "Aborted ETAG_MISMATCH" {
			t.Errorf("%s with a stale etag: %s (%v)", name, got, known[name])
		}
	}
	second := func(_ any, err error) error { return err }
	const stale = "stale"
	for name, err := range map[string]error{
		"UpdatePlan": second(operator.plans.UpdatePlan(t.Context(), &tenancyv1.UpdatePlanRequest{
			Plan: &tenancyv1.Plan{Name: "plans/free", DisplayName: "x", Etag: stale}})),
		"UpdateCell": second(operator.cells.UpdateCell(t.Context(), &tenancyv1.UpdateCellRequest{
			Cell: &tenancyv1.Cell{Name: "cells/" + cellID, Etag: stale}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"region"}}})),
		"UpdateApp": second(operator.apps.UpdateApp(t.Context(), &tenancyv1.UpdateAppRequest{
			App: &tenancyv1.App{Name: "apps/" + app, DisplayName: "x", Etag: stale}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"display_name"}}})),
		"UpdateLimit": second(operator.limits.UpdateLimit(t.Context(), &quotav1.UpdateLimitRequest{
			Limit: &quotav1.Limit{Name: "plans/free/limits/requests", Tokens: 1, Period: durationpb.New(1e9), Burst: 1, Etag: stale}})),
	} {
		if got := verdict(err); got != "Aborted ETAG_MISMATCH" {
			t.Errorf("%s with a stale etag: %s (%v)", name, got, err)
		}
	}
}

// The same request_id with the same body gives the first answer, with another body none.
func TestRequestIDIsOneRequest(t *testing.T) {
	t.Parallel()
	h := hijacked(t)
	operator := adminOf(func(service string) *grpc.ClientConn { return h.operator(t, service) })
	const id = "6f3c2a9e-0b1d-4c5e-8f70-1a2b3c4d5e6f"
	create := func(tenant, display string) (*tenancyv1.CreateTenantResponse, error) {
		return operator.tenants.CreateTenant(t.Context(), &tenancyv1.CreateTenantRequest{
			TenantId: tenant, RequestId: id, Tenant: &tenancyv1.Tenant{DisplayName: display, Plan: "plans/free"},
		})
	}
	first, err := create("replayed", "one")
	if err != nil {
		t.Fatal(err)
	}
	again, err := create("replayed", "one")
	if err != nil || again.GetTenant().GetUid() != first.GetTenant().GetUid() || again.GetOperation().GetName() != first.GetOperation().GetName() {
		t.Errorf("the replay gives %v, %v; want %v", again, err, first)
	}
	for _, other := range [][2]string{{"replayed", "two"}, {"replayed-too", "one"}} {
		if _, err := create(other[0], other[1]); verdict(err) != "InvalidArgument REQUEST_ID_REUSED" {
			t.Errorf("another body: %v", err)
		}
	}
	if _, err := operator.tenants.GetTenant(t.Context(), &tenancyv1.GetTenantRequest{Name: "tenants/replayed-too"}); verdict(err) != "NotFound RESOURCE_NOT_FOUND" {
		t.Errorf("a refused replay left a tenant: %v", err)
	}
}

// Host names that are none are refused as domains, as routes to explain, and at the door.
func TestInvalidHostNames(t *testing.T) {
	t.Parallel()
	h := hijacked(t)
	h.tenant(t, "hostly")
	operator := adminOf(func(service string) *grpc.ClientConn { return h.operator(t, service) })
	for _, name := range []string{
		"a b.localhost", "a..localhost", ".localhost", "-a.localhost", "a-.localhost", "a_b.localhost", "xn--a.localhost", "127.0.0.1", "[::1]",
		"localhost", "a.localhost/x", "a.localhost:80", "a@b.localhost", "a\x00.localhost", strings.Repeat("a", 64) + ".localhost",
		strings.Repeat("a.", 127) + "localhost", "*.localhost",
	} {
		_, err := operator.domains.CreateDomain(t.Context(), &tenancyv1.CreateDomainRequest{
			Parent: "tenants/hostly", DomainId: name, Domain: &tenancyv1.Domain{App: "apps/" + app},
		})
		if got := verdict(err); !strings.HasPrefix(got, "InvalidArgument ") || strings.HasSuffix(got, "InvalidArgument") {
			t.Errorf("domain %q: %s (%v)", name, got, err)
		}
	}
	for _, name := range []string{"", "a b.localhost", "a..localhost", "notes.hostly.localhost,notes.acme.localhost", "a@notes.hostly.localhost"} {
		if _, err := operator.edges.ExplainRoute(t.Context(), &gatewayv1.ExplainRouteRequest{Host: name}); verdict(err) != "InvalidArgument INVALID_FIELD" {
			t.Errorf("route of %q: %v", name, err)
		}
	}
}

// The app's JSON: too much, not JSON, unknown and wrong fields.
func TestBadJSON(t *testing.T) {
	t.Parallel()
	h := shared(t)
	for name, c := range map[string]struct {
		body   string
		status int
		reason string
	}{
		"too much":       {`{"title":"` + strings.Repeat("x", 1<<20) + `"}`, http.StatusRequestEntityTooLarge, "TOO_LARGE"},
		"cut":            {`{"title":`, http.StatusBadRequest, "INVALID_FIELD"},
		"an array":       {`[]`, http.StatusBadRequest, "INVALID_FIELD"},
		"nothing":        {``, http.StatusBadRequest, "INVALID_FIELD"},
		"unknown field":  {`{"title":"x","tenant_id":"globex"}`, http.StatusBadRequest, "INVALID_FIELD"},
		"field twice":    {`{"title":"x","title":"y"}`, http.StatusBadRequest, "INVALID_FIELD"},
		"wrong type":     {`{"title":7}`, http.StatusBadRequest, "INVALID_FIELD"},
		"no title":       {`{"body":"x"}`, http.StatusBadRequest, "INVALID_FIELD"},
		"title too long": {`{"title":"` + strings.Repeat("x", 201) + `"}`, http.StatusBadRequest, "INVALID_FIELD"},
		"a NUL":          {`{"title":"a\u0000b"}`, http.StatusBadRequest, "INVALID_FIELD"},
	} {
		a := h.visit(t, visit{method: http.MethodPost, host: "notes.initech.localhost", path: "/notes", body: c.body})
		if a.status != c.status || a.reason() != c.reason {
			t.Errorf("%s: %d %s, want %d %s", name, a.status, a.body, c.status, c.reason)
		}
	}
	for _, path := range []string{"/notes?query=%00", "/notes?query=%ff%fe", "/notes?query=" + strings.Repeat("x", 101), "/notes?page_size=x"} {
		if a := h.visit(t, visit{host: "notes.initech.localhost", path: path}); a.status != http.StatusBadRequest || a.reason() != "INVALID_FIELD" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	for _, form := range []string{"title=%ff%fe", "title=%00", "title=", "title=x&body=%00"} {
		form := visit{
			method: http.MethodPost, host: "notes.initech.localhost", path: "/", body: form,
			header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"},
		}
		if a := h.visit(t, form); a.status != http.StatusBadRequest || a.reason() != "INVALID_FIELD" {
			t.Errorf("the form %s: %d %s", form.body, a.status, a.body)
		}
	}
	for _, path := range []string{"/notes/x", "/notes/----000000004000800000000000000000000", "/notes/00000000-0000-4000-8000-000000000000"} {
		if a := h.visit(t, visit{host: "notes.initech.localhost", path: path}); a.status != http.StatusNotFound || a.reason() != "RESOURCE_NOT_FOUND" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}
