package rule_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

const (
	trustDomain = "rowhouse.localhost"
	cell        = "cell-1"
	requestID   = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"
)

// world is a server under rules, with callers.
type world struct {
	authority *identity.Authority
	listener  *bufconn.Listener
	enforcer  *rule.Enforcer
	server    *grpc.Server
	issuer    *tenanttest.Issuer
	tokens    map[string]string // by role

	mu     sync.Mutex
	seen   []rule.Call // by handlers
	denied []denial
}

type denial struct {
	Principal, Method, Target, Reason string
}

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// newWorld serves tenants, routing, settings and operations. Edits change the enforcer's configuration.
func newWorld(t *testing.T, edits ...func(*rule.Config)) *world {
	t.Helper()
	w := &world{
		authority: must(identity.NewAuthority(identity.AuthorityConfig{TrustDomain: trustDomain}))(t),
		listener:  bufconn.Listen(1 << 20), tokens: map[string]string{},
		issuer: tenanttest.NewIssuer(t, time.Now),
	}
	cfg := rule.Config{
		Authenticator: w.callers(t),
		Table: rule.Operations(func(_ context.Context, verb, name string) (string, error) {
			if name == "operations/gone" {
				return "", fault.New(fault.NotFound, fault.ReasonResourceNotFound, "there is no such resource")
			}
			return map[string]string{"get": "tenancy.tenants.get", "list": "tenancy.tenants.list"}[verb], nil
		}, "tenancy.tenants.get", "tenancy.tenants.list"),
		Denied: w.recordDenial,
		Log:    slog.New(slog.DiscardHandler),
	}
	for _, edit := range edits {
		edit(&cfg)
	}
	w.enforcer = rule.New(cfg)
	var options []grpc.ServerOption
	source := w.source(t, "service", "tenancy")
	options = append(options, grpc.Creds(credentials.NewTLS(source.ServerTLS(identity.OptionalClient()))))
	options = append(options, w.enforcer.Outer()...)
	options = append(options, tenantgrpc.Server(tenantgrpc.ServerConfig{
		Verifier: w.issuer.Verifier(t), Rules: tenantgrpc.NewRules(tenantTable(cfg.Table)), Log: cfg.Log, Examined: true,
	})...)
	options = append(options, w.enforcer.Inner()...)
	w.server = grpc.NewServer(options...)
	tenancyv1.RegisterTenantServiceServer(w.server, &tenants{world: w})
	tenancyv1.RegisterRoutingServiceServer(w.server, &routing{world: w})
	configv1.RegisterSettingsServiceServer(w.server, &settings{world: w})
	longrunningpb.RegisterOperationsServer(w.server, &operations{world: w})
	var serving sync.WaitGroup
	serving.Go(func() { _ = w.server.Serve(w.listener) })
	t.Cleanup(func() {
		w.server.Stop()
		serving.Wait()
	})
	return w
}

func tenantTable(table rule.Table) tenantgrpc.Table {
	rules := tenantgrpc.Table{}
	for method, entry := range table {
		rules[method] = entry.Rule
	}
	return rules
}

// sealed is newWorld with its rules in force.
func sealed(t *testing.T, edits ...func(*rule.Config)) *world {
	t.Helper()
	w := newWorld(t, edits...)
	if err := w.enforcer.Seal(w.server); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) callers(t *testing.T) *operator.Authenticator {
	t.Helper()
	var people strings.Builder
	people.WriteString("operators:\n")
	for _, role := range []string{"viewer", "operator", "security", "quota"} {
		token, sum, err := operator.NewToken(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		w.tokens[role] = token
		fmt.Fprintf(&people, "- {name: %s, token_sha256: %s, roles: [%s]}\n", role, sum, role)
	}
	dir := t.TempDir()
	operators, peers := filepath.Join(dir, "operators.yaml"), filepath.Join(dir, "peers.yaml")
	policy := "peers:\n" +
		"- {identity: spiffe://rowhouse.localhost/cell/cell-1/service/gateway, roles: [gateway]}\n" +
		"- {identity: spiffe://rowhouse.localhost/cell/cell-1/service/console, roles: [viewer]}\n"
	if err := errors.Join(os.WriteFile(operators, []byte(people.String()), 0o600),
		os.WriteFile(peers, []byte(policy), 0o600)); err != nil {
		t.Fatal(err)
	}
	return must(operator.New(t.Context(), operator.Config{OperatorsFile: operators, PeersFile: peers, Development: true}))(t)
}

func (w *world) recordDenial(_ context.Context, call rule.Call, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.denied = append(w.denied, denial{call.Principal.Name, call.Method, call.Target, fault.ReasonOf(err)})
}

func (w *world) record(ctx context.Context) rule.Call {
	call, _ := rule.CallFrom(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, call)
	return call
}

// took returns what handlers and the hook saw since the last time.
func (w *world) took() ([]rule.Call, []denial) {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen, denied := w.seen, w.denied
	w.seen, w.denied = nil, nil
	return seen, denied
}

func (w *world) source(t *testing.T, kind, name string) *identity.Source {
	t.Helper()
	id := must(identity.Parse(fmt.Sprintf("spiffe://%s/cell/%s/%s/%s", trustDomain, cell, kind, name)))(t)
	pair := must(w.authority.Issue(identity.Leaf{ID: id}))(t)
	return must(identity.FromPair(pair, identity.Options{}))(t)
}

// dial connects as "service/gateway" and the like, or without a certificate as "".
func (w *world) dial(t *testing.T, as string) *grpc.ClientConn {
	t.Helper()
	server := must(identity.Service(trustDomain, cell, "tenancy"))(t)
	cfg := must(identity.AnonymousClientTLS(w.authority.RootsPEM(), server, nil))(t)
	if kind, name, ok := strings.Cut(as, "/"); ok {
		cfg = w.source(t, kind, name).ClientTLS(server)
	}
	conn := must(grpc.NewClient("passthrough:///bufconn",
		grpc.WithTransportCredentials(credentials.NewTLS(cfg)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return w.listener.DialContext(ctx)
		})))(t)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// with adds the bearer token of a role, or the literal after "raw:".
func (w *world) with(ctx context.Context, role string) context.Context {
	switch raw, isRaw := strings.CutPrefix(role, "raw:"); {
	case role == "":
		return ctx
	case isRaw:
		return metadata.AppendToOutgoingContext(ctx, "authorization", raw)
	default:
		return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+w.tokens[role])
	}
}

type tenants struct {
	tenancyv1.UnimplementedTenantServiceServer
	world *world
}

func (s *tenants) GetTenant(ctx context.Context, r *tenancyv1.GetTenantRequest) (*tenancyv1.GetTenantResponse, error) {
	s.world.record(ctx)
	switch r.GetName() {
	case "tenants/panic":
		panic("secret-in-panic")
	case "tenants/broken":
		return nil, errors.New(`ERROR: relation "secret_table" does not exist (SQLSTATE 42P01)`)
	case "tenants/absent":
		return nil, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "there is no such resource").
			WithCause(errors.New("secret-cause"))
	}
	return &tenancyv1.GetTenantResponse{}, nil
}

func (s *tenants) CreateTenant(
	ctx context.Context, _ *tenancyv1.CreateTenantRequest,
) (*tenancyv1.CreateTenantResponse, error) {
	s.world.record(ctx)
	return &tenancyv1.CreateTenantResponse{}, nil
}

func (s *tenants) SuspendTenant(
	ctx context.Context, _ *tenancyv1.SuspendTenantRequest,
) (*tenancyv1.SuspendTenantResponse, error) {
	s.world.record(ctx)
	return &tenancyv1.SuspendTenantResponse{}, nil
}

type routing struct {
	tenancyv1.UnimplementedRoutingServiceServer
	world *world
}

func (s *routing) WatchTenants(
	_ *tenancyv1.WatchTenantsRequest, stream grpc.ServerStreamingServer[tenancyv1.WatchTenantsResponse],
) error {
	s.world.record(stream.Context())
	return stream.Send(&tenancyv1.WatchTenantsResponse{})
}

type settings struct {
	configv1.UnimplementedSettingsServiceServer
	world *world
}

func (s *settings) GetSettings(
	ctx context.Context, _ *configv1.GetSettingsRequest,
) (*configv1.GetSettingsResponse, error) {
	s.world.record(ctx)
	return &configv1.GetSettingsResponse{}, nil
}

type operations struct {
	longrunningpb.UnimplementedOperationsServer
	world *world
}

func (s *operations) GetOperation(
	ctx context.Context, r *longrunningpb.GetOperationRequest,
) (*longrunningpb.Operation, error) {
	s.world.record(ctx)
	return &longrunningpb.Operation{Name: r.GetName()}, nil
}

func (s *operations) CancelOperation(
	ctx context.Context, _ *longrunningpb.CancelOperationRequest,
) (*emptypb.Empty, error) {
	s.world.record(ctx)
	return &emptypb.Empty{}, nil
}

func validSuspend() *tenancyv1.SuspendTenantRequest {
	return &tenancyv1.SuspendTenantRequest{
		Name: "tenants/acme", RequestId: requestID, Reason: "bills are unpaid since May",
		Cause: tenancyv1.SuspensionCause_SUSPENSION_CAUSE_BILLING,
	}
}

const (
	methodGet      = "/rowhouse.tenancy.v1.TenantService/GetTenant"
	methodCreate   = "/rowhouse.tenancy.v1.TenantService/CreateTenant"
	methodSuspend  = "/rowhouse.tenancy.v1.TenantService/SuspendTenant"
	methodSettings = "/rowhouse.config.v1.SettingsService/GetSettings"
	methodGetOp    = "/google.longrunning.Operations/GetOperation"
)

// TestOrder goes through the questions one by one: every row is refused for the first thing that is wrong.
func TestOrder(t *testing.T) {
	t.Parallel()
	w := sealed(t)
	unknown := func(m proto.Message) proto.Message {
		m.ProtoReflect().SetUnknown([]byte{0xf8, 0x3f, 0x01}) // field 1023, varint 1
		return m
	}
	get := &tenancyv1.GetTenantRequest{Name: "tenants/acme"}
	create := &tenancyv1.CreateTenantRequest{TenantId: "acme", Tenant: &tenancyv1.Tenant{Plan: "plans/free"}}
	noReason := validSuspend()
	noReason.Reason = strings.Repeat(" \t", 5)
	long := validSuspend()
	long.Etag = strings.Repeat("x", 1<<20)
	control := &tenancyv1.GetTenantRequest{Name: "tenants/ac\x00me"}
	nested := &tenancyv1.CreateTenantRequest{TenantId: "acme", Tenant: unknown(&tenancyv1.Tenant{}).(*tenancyv1.Tenant)}
	tests := map[string]struct {
		as, token, method string
		request           proto.Message
		code              codes.Code
		reason            string // empty: the handler ran
		denied            string // the reason that the hook heard
	}{
		"unknown method":         {"", "", "/rowhouse.tenancy.v1.TenantService/Nope", get, codes.Unimplemented, "METHOD_UNKNOWN", ""},
		"unknown service":        {"", "viewer", "/nowhere.Service/Get", get, codes.Unimplemented, "METHOD_UNKNOWN", ""},
		"reflection":             {"", "viewer", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", get, codes.Unimplemented, "METHOD_UNKNOWN", ""},
		"nobody, bad request":    {"", "", methodGet, unknown(&tenancyv1.GetTenantRequest{}), codes.Unauthenticated, "CREDENTIAL_MISSING", "CREDENTIAL_MISSING"},
		"bad token":              {"", "raw:Bearer rho_x", methodGet, get, codes.Unauthenticated, "CREDENTIAL_INVALID", "CREDENTIAL_INVALID"},
		"no bearer":              {"", "raw:Basic eDp5", methodGet, get, codes.Unauthenticated, "CREDENTIAL_INVALID", "CREDENTIAL_INVALID"},
		"bad token, good cert":   {"service/console", "raw:Bearer rho_x", methodGet, get, codes.Unauthenticated, "CREDENTIAL_INVALID", "CREDENTIAL_INVALID"},
		"too large":              {"", "viewer", methodSuspend, long, codes.InvalidArgument, "TOO_LARGE", ""},
		"unknown field":          {"", "viewer", methodSuspend, unknown(validSuspend()), codes.InvalidArgument, "UNKNOWN_FIELD", ""},
		"nested unknown field":   {"", "viewer", methodCreate, nested, codes.InvalidArgument, "UNKNOWN_FIELD", ""},
		"unknown field in read":  {"", "viewer", methodGet, unknown(proto.Clone(get)), codes.OK, "", ""},
		"field rule":             {"", "viewer", methodSuspend, &tenancyv1.SuspendTenantRequest{Name: "acme"}, codes.InvalidArgument, "INVALID_FIELD", ""},
		"control character":      {"", "viewer", methodGet, control, codes.InvalidArgument, "INVALID_FIELD", ""},
		"no permission":          {"", "viewer", methodSuspend, noReason, codes.PermissionDenied, "PERMISSION_MISSING", "PERMISSION_MISSING"},
		"no permission, quota":   {"", "quota", methodGet, get, codes.PermissionDenied, "PERMISSION_MISSING", "PERMISSION_MISSING"},
		"no reason":              {"", "security", methodSuspend, noReason, codes.InvalidArgument, "REASON_REQUIRED", "REASON_REQUIRED"},
		"sensitive":              {"", "security", methodSuspend, validSuspend(), codes.OK, "", ""},
		"viewer reads":           {"", "viewer", methodGet, get, codes.OK, "", ""},
		"operator creates":       {"", "operator", methodCreate, create, codes.OK, "", ""},
		"workload reads":         {"service/console", "", methodGet, get, codes.OK, "", ""},
		"workload without right": {"service/gateway", "", methodGet, get, codes.PermissionDenied, "PERMISSION_MISSING", "PERMISSION_MISSING"},
		"unlisted workload":      {"app/notes", "", methodGet, get, codes.PermissionDenied, "PERMISSION_MISSING", "PERMISSION_MISSING"},
		"operator by a workload": {"app/notes", "viewer", methodGet, get, codes.OK, "", ""},
		"workload's rights are not lent": {
			"service/console", "quota", methodGet, get, codes.PermissionDenied, "PERMISSION_MISSING", "PERMISSION_MISSING",
		},
		"data without certificate": {"", "viewer", methodSettings, &configv1.GetSettingsRequest{}, codes.Unauthenticated, "CONTEXT_MISSING", ""},
		"data without context":     {"service/gateway", "", methodSettings, &configv1.GetSettingsRequest{}, codes.Unauthenticated, "CONTEXT_MISSING", ""},
		"operation":                {"", "viewer", methodGetOp, &longrunningpb.GetOperationRequest{Name: "operations/1"}, codes.OK, "", ""},
		"operation that is gone":   {"", "viewer", methodGetOp, &longrunningpb.GetOperationRequest{Name: "operations/gone"}, codes.NotFound, "RESOURCE_NOT_FOUND", ""},
		"operation, no right":      {"", "quota", methodGetOp, &longrunningpb.GetOperationRequest{Name: "operations/1"}, codes.PermissionDenied, "PERMISSION_MISSING", "PERMISSION_MISSING"},
		"operation, other right": {
			"", "viewer", "/google.longrunning.Operations/CancelOperation",
			&longrunningpb.CancelOperationRequest{Name: "operations/1"}, codes.NotFound, "RESOURCE_NOT_FOUND", "PERMISSION_MISSING",
		},
	}
	for name, test := range tests { // one after the other: they share what was recorded
		conn := w.dial(t, test.as)
		err := conn.Invoke(w.with(t.Context(), test.token), test.method, test.request, &emptypb.Empty{})
		seen, denied := w.took()
		if status.Code(err) != test.code || reasonOf(err) != test.reason {
			t.Errorf("%s: got %v %q, want %v %q", name, err, reasonOf(err), test.code, test.reason)
		}
		if ran := len(seen) > 0; ran != (test.reason == "") {
			t.Errorf("%s: handler ran: %v", name, ran)
		}
		heard := ""
		if len(denied) > 0 {
			heard = denied[0].Reason
		}
		if heard != test.denied || len(denied) > 1 {
			t.Errorf("%s: the hook heard %v, want %q", name, denied, test.denied)
		}
	}
}

func reasonOf(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

func TestDoubledAuthorizationIsRefused(t *testing.T) {
	t.Parallel()
	w := sealed(t)
	ctx := w.with(w.with(t.Context(), "viewer"), "viewer")
	_, err := tenancyv1.NewTenantServiceClient(w.dial(t, "")).GetTenant(ctx, &tenancyv1.GetTenantRequest{Name: "tenants/acme"})
	if reasonOf(err) != "CREDENTIAL_INVALID" {
		t.Errorf("error = %v", err)
	}
}

func TestCallFrom(t *testing.T) {
	t.Parallel()
	w := sealed(t)
	request := validSuspend()
	request.ValidateOnly = true
	client := tenancyv1.NewTenantServiceClient(w.dial(t, "service/console"))
	if _, err := client.SuspendTenant(w.with(t.Context(), "security"), request); err != nil {
		t.Fatal(err)
	}
	seen, _ := w.took()
	if len(seen) != 1 {
		t.Fatalf("%d calls", len(seen))
	}
	call := seen[0]
	if call.Principal.Name != "operator:security@static" || call.Method != methodSuspend || call.Target != "tenants/acme" ||
		call.RequestID != requestID || !call.ValidateOnly || call.Reason != request.GetReason() ||
		call.Peer != "bufconn spiffe://rowhouse.localhost/cell/cell-1/service/console" ||
		call.Rule.GetAudit() != apiv1.AuditClass_AUDIT_CLASS_SENSITIVE || !proto.Equal(call.Request, request) {
		t.Errorf("call = %+v", call)
	}
	if _, ok := rule.CallFrom(t.Context()); ok {
		t.Error("there is no call outside of one")
	}
	made, ok := rule.CallFrom(rule.NewContext(t.Context(), call))
	if !ok || made.Target != call.Target {
		t.Errorf("made = %+v, %v", made, ok)
	}
}

func TestDenialNamesCallerAndTarget(t *testing.T) {
	t.Parallel()
	w := sealed(t)
	client := tenancyv1.NewTenantServiceClient(w.dial(t, ""))
	_, err := client.SuspendTenant(w.with(t.Context(), "viewer"), validSuspend())
	_, denied := w.took()
	want := []denial{{"operator:viewer@static", methodSuspend, "tenants/acme", "PERMISSION_MISSING"}}
	if diff := cmp.Diff(want, denied); diff != "" {
		t.Errorf("denied (-want +got):\n%s", diff)
	}
	for _, detail := range status.Convert(err).Details() {
		info, ok := detail.(*errdetails.ErrorInfo)
		if ok && (info.GetDomain() != "rowhouse.api" || info.GetMetadata()["permission"] != "tenancy.tenants.suspend") {
			t.Errorf("info = %v", info)
		}
	}
}

func TestViolationsNameTheFields(t *testing.T) {
	t.Parallel()
	w := sealed(t)
	client := tenancyv1.NewTenantServiceClient(w.dial(t, ""))
	bad := &tenancyv1.SuspendTenantRequest{Name: "tenants/UPPER", Etag: "a\x01b", RequestId: "no-uuid"}
	_, err := client.SuspendTenant(w.with(t.Context(), "security"), bad)
	var fields []string
	for _, detail := range status.Convert(err).Details() {
		if b, ok := detail.(*errdetails.BadRequest); ok {
			for _, v := range b.GetFieldViolations() {
				fields = append(fields, v.GetField())
				if v.GetDescription() == "" || v.GetReason() == "" {
					t.Errorf("violation = %v", v)
				}
			}
		}
	}
	if diff := cmp.Diff([]string{"etag", "name", "request_id", "cause"}, fields); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}

func TestDataPlane(t *testing.T) {
	t.Parallel()
	w := sealed(t)
	conn := w.dial(t, "service/gateway")
	ctx := metadata.AppendToOutgoingContext(t.Context(), tenant.MetadataKey, w.issuer.Token(t, "acme", tenanttest.As("user-1")))
	if err := conn.Invoke(ctx, methodSettings, &configv1.GetSettingsRequest{Namespace: "brand"}, &configv1.GetSettingsResponse{}); err != nil {
		t.Fatal(err)
	}
	seen, denied := w.took()
	if len(seen) != 1 || len(denied) != 0 {
		t.Fatalf("seen %v, denied %v", seen, denied)
	}
	p := seen[0].Principal
	prefix := "tenant:" + tenanttest.UID("acme").String() + "/user:"
	if p.Kind != operator.KindTenant || !strings.HasPrefix(p.Name, prefix) || strings.Contains(p.Name, "user-1") ||
		len(p.Permissions()) != 0 {
		t.Errorf("principal = %+v, want %s…", p, prefix)
	}
}

func TestPeerStream(t *testing.T) {
	t.Parallel()
	w := sealed(t)
	tests := map[string]struct{ as, token, reason string }{
		"gateway":       {"service/gateway", "", ""},
		"unlisted":      {"app/notes", "", "PERMISSION_MISSING"},
		"no right":      {"service/console", "", "PERMISSION_MISSING"},
		"operator":      {"", "operator", "CREDENTIAL_MISSING"},
		"borrowed":      {"app/notes", "operator", "PERMISSION_MISSING"},
		"nobody at all": {"", "", "CREDENTIAL_MISSING"},
	}
	for name, test := range tests {
		client := tenancyv1.NewRoutingServiceClient(w.dial(t, test.as))
		stream, err := client.WatchTenants(w.with(t.Context(), test.token), &tenancyv1.WatchTenantsRequest{Replica: "r-1"})
		if err == nil {
			_, err = stream.Recv()
		}
		seen, denied := w.took()
		if reasonOf(err) != test.reason || (len(seen) == 1) != (test.reason == "") {
			t.Errorf("%s: %v, handler ran %d times", name, err, len(seen))
		}
		if (len(denied) == 1) != (test.reason != "") {
			t.Errorf("%s: denied %v", name, denied)
		}
		for _, call := range seen {
			if call.Request == nil || call.Principal.Kind != operator.KindWorkload {
				t.Errorf("%s: call = %+v", name, call)
			}
		}
	}
}

func TestErrorsTellNoSecrets(t *testing.T) {
	t.Parallel()
	w := sealed(t)
	client := tenancyv1.NewTenantServiceClient(w.dial(t, ""))
	for name, code := range map[string]codes.Code{
		"tenants/panic": codes.Internal, "tenants/broken": codes.Internal, "tenants/absent": codes.NotFound,
	} {
		_, err := client.GetTenant(w.with(t.Context(), "viewer"), &tenancyv1.GetTenantRequest{Name: name})
		text := fmt.Sprint(err, status.Convert(err).Details())
		if status.Code(err) != code || strings.Contains(text, "secret") || strings.Contains(text, "SQLSTATE") {
			t.Errorf("%s: %s", name, text)
		}
		if code == codes.Internal && reasonOf(err) != "INTERNAL" {
			t.Errorf("%s: reason %q", name, reasonOf(err))
		}
	}
	if _, err := client.GetTenant(w.with(t.Context(), "viewer"), &tenancyv1.GetTenantRequest{Name: "tenants/acme"}); err != nil {
		t.Errorf("after a panic: %v", err)
	}
}

func TestNothingIsServedBeforeTheRulesAreInForce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	client := tenancyv1.NewTenantServiceClient(w.dial(t, ""))
	_, err := client.GetTenant(w.with(t.Context(), "viewer"), &tenancyv1.GetTenantRequest{Name: "tenants/acme"})
	if seen, _ := w.took(); reasonOf(err) != "STARTING" || len(seen) != 0 {
		t.Errorf("error = %v, handler ran %d times", err, len(seen))
	}
}

func TestDeadlines(t *testing.T) {
	t.Parallel()
	var left []time.Duration
	w := sealed(t, func(cfg *rule.Config) {
		cfg.Authenticator = watched{cfg.Authenticator, func(ctx context.Context) {
			end, _ := ctx.Deadline()
			left = append(left, time.Until(end).Round(10*time.Second))
		}}
	})
	client := tenancyv1.NewTenantServiceClient(w.dial(t, ""))
	for _, given := range []time.Duration{0, 20 * time.Second, time.Hour} {
		ctx, cancel := context.WithCancel(w.with(t.Context(), "viewer"))
		if given > 0 {
			ctx, cancel = context.WithTimeout(ctx, given)
		}
		if _, err := client.GetTenant(ctx, &tenancyv1.GetTenantRequest{Name: "tenants/acme"}); err != nil {
			t.Error(err)
		}
		cancel()
	}
	if diff := cmp.Diff([]time.Duration{30 * time.Second, 20 * time.Second, time.Minute}, left); diff != "" {
		t.Errorf("time left (-want +got):\n%s", diff)
	}
}

// watched looks at the contexts in which callers are authenticated.
type watched struct {
	rule.Authenticator
	look func(context.Context)
}

func (w watched) Bearer(ctx context.Context, token string) (operator.Principal, error) {
	w.look(ctx)
	return w.Authenticator.Bearer(ctx, token)
}
