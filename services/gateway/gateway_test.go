package gateway_test

import (
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	gatewayv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/gateway/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

// A gateway that starts with the control plane and every database gone serves from
// its disk: routes, trust, limits and keys.
func TestRestartWithoutControlPlane(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stopControl := r.serveControl()
	g := r.start()
	eventually(t, "acme is served", func() bool { return r.get(g, "acme.localhost", "/") == answer{200, "acme"} })
	if a := r.get(g, "globex.localhost", "/"); a != (answer{200, "globex"}) {
		t.Errorf("globex: %v", a)
	}
	eventually(t, "it is ready", func() bool { return r.ready(g).status == 200 })
	if r.control.asks.Load() == 0 {
		t.Error("quota was not asked")
	}
	stopControl()
	if a := r.get(g, "acme.localhost", "/"); a != (answer{200, "acme"}) {
		t.Errorf("with the control plane down: %v", a)
	}
	g.stop()

	r.reach("127.0.0.1:1")
	r.write("db.dsn", "postgres://nobody@127.0.0.1:1/none?sslmode=disable")
	g = r.start()
	for _, c := range []struct {
		host, path string
		want       answer
	}{
		{"acme.localhost", "/", answer{200, "acme"}},
		{platformHost, "/t/acme/", answer{200, "acme"}},
		{"acme.localhost", "/t/globex/", answer{403, fault.ReasonTenantMismatch}},
		{"globex.localhost", "/", answer{503, fault.ReasonDependency}}, // its limit says so
		{"hooli.localhost", "/", answer{403, fault.ReasonTenantSuspended}},
	} {
		if a := r.get(g, c.host, c.path); a != c.want {
			t.Errorf("after the restart %s%s: %v, want %v", c.host, c.path, a, c.want)
		}
	}
	if a := r.ready(g); a.status != 200 {
		t.Errorf("ready: %v", a)
	}
}

// Without a disk and without a control plane nothing is known, which is not the same
// as not found.
func TestStartWithNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.start()
	if a := r.get(g, "acme.localhost", "/"); a != (answer{503, fault.ReasonStarting}) {
		t.Errorf("%v", a)
	}
	if a := r.ready(g); a.status != 503 || !strings.Contains(a.text, "routes") {
		t.Errorf("ready: %v", a)
	}
}

func TestSuspensionReachesTheDoor(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.serveControl()
	g := r.start()
	eventually(t, "acme is served", func() bool { return r.get(g, "acme.localhost", "/").status == 200 })
	began := time.Now()
	r.setTenant("acme", tenancyv1.TenantState_TENANT_STATE_SUSPENDED, 2)
	eventually(t, "acme is refused", func() bool { return r.get(g, "acme.localhost", "/") == answer{403, fault.ReasonTenantSuspended} })
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v", took)
	}
	r.setTenant("acme", tenancyv1.TenantState_TENANT_STATE_ACTIVE, 3)
	eventually(t, "acme is served again", func() bool { return r.get(g, "acme.localhost", "/") == answer{200, "acme"} })
}

// A renewed key is not used before those who verify know it.
func TestRenewalFailsNobody(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.serveControl()
	g := r.start()
	eventually(t, "acme is served", func() bool { return r.get(g, "acme.localhost", "/").status == 200 })
	before := r.control.certified.Load()
	release := r.control.hold()
	defer release()
	r.setCell(2) // seals with a key that the gateway does not have: it asks at once
	eventually(t, "a key is certified", func() bool { return r.control.certified.Load() > before })
	for range 50 {
		if a := r.get(g, "acme.localhost", "/"); a != (answer{200, "acme"}) {
			t.Fatalf("before the feeds have the key: %v", a)
		}
	}
	release()
	for range 50 {
		if a := r.get(g, "acme.localhost", "/"); a != (answer{200, "acme"}) {
			t.Fatalf("after the feeds have the key: %v", a)
		}
	}
}

func TestAnotherKEKIsAnError(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.serveControl()
	g := r.start()
	eventually(t, "acme is served", func() bool { return r.get(g, "acme.localhost", "/").status == 200 })
	g.stop()
	r.write("kek", strings.Repeat("ab", 32)+"\n")
	err := run(t, r)
	if err == nil || !strings.Contains(err.Error(), "sealed keys") {
		t.Errorf("Run = %v", err)
	}
}

// api returns a connection to the gateway's own API with a token, or with none.
func (r *rig) api(g *running, token string) *grpc.ClientConn {
	r.Helper()
	tls, err := identity.AnonymousClientTLS(r.ca.RootsPEM(), r.self, nil)
	r.need(err)
	conn, err := grpc.NewClient("passthrough:///"+g.api, grpc.WithTransportCredentials(credentials.NewTLS(tls)),
		grpc.WithChainUnaryInterceptor(func(
			ctx context.Context, method string, req, resp any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
		) error {
			if token != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
			}
			return invoke(ctx, method, req, resp, cc, append(opts, grpc.WaitForReady(true))...)
		}))
	r.need(err)
	r.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestExplainRoute(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.serveControl()
	g := r.start()
	eventually(t, "acme is served", func() bool { return r.get(g, "acme.localhost", "/").status == 200 })
	conn := r.api(g, r.owner)
	edge := gatewayv1.NewEdgeServiceClient(conn)
	explain := func(host, path string) *gatewayv1.RouteExplanation {
		t.Helper()
		resp, err := edge.ExplainRoute(t.Context(), &gatewayv1.ExplainRouteRequest{Host: host, Path: path})
		r.need(err)
		return resp.GetExplanation()
	}
	x := explain("ACME.localhost:8443", "")
	if x.GetOutcome() != gatewayv1.RouteOutcome_ROUTE_OUTCOME_FORWARDED || x.GetTenant() != "acme" || x.GetApp() != "notes" || x.GetUpstream() == "" ||
		x.GetUpstreamPath() != "/" || x.GetSource() != "live" || x.GetRevision() == 0 || len(x.GetNamedBy()) != 1 {
		t.Errorf("acme: %v", x)
	}
	if x := explain(platformHost, "/t/globex/a"); x.GetTenant() != "globex" || x.GetUpstreamPath() != "/a" {
		t.Errorf("by path: %v", x)
	}
	for host, want := range map[string]string{
		"hooli.localhost": fault.ReasonTenantSuspended, "nobody.localhost": fault.ReasonResourceNotFound,
	} {
		if x := explain(host, "/"); x.GetOutcome() != gatewayv1.RouteOutcome_ROUTE_OUTCOME_REFUSED || x.GetReason() != want || x.GetUpstream() != "" {
			t.Errorf("%s: %v", host, x)
		}
	}
	if x := explain("acme.localhost", "/t/globex/"); x.GetReason() != fault.ReasonTenantMismatch {
		t.Errorf("a mismatch: %v", x)
	}
	for host, path := range map[string]string{"a_b": "/", "": "/", "acme.localhost": "/../x"} {
		_, err := edge.ExplainRoute(t.Context(), &gatewayv1.ExplainRouteRequest{Host: host, Path: path})
		if status.Code(err) != codes.InvalidArgument || fault.ReasonOf(tenantgrpc.FromStatus(err)) != fault.ReasonInvalidField {
			t.Errorf("%q %q: %v", host, path, err)
		}
	}
	_, err := gatewayv1.NewEdgeServiceClient(r.api(g, "")).ExplainRoute(t.Context(), &gatewayv1.ExplainRouteRequest{Host: "acme.localhost"})
	if fault.ReasonOf(tenantgrpc.FromStatus(err)) != fault.ReasonCredentialMissing {
		t.Errorf("nobody asks: %v", err)
	}
	events, err := auditv1.NewAuditServiceClient(conn).ListEvents(t.Context(), &auditv1.ListEventsRequest{Parent: "chains/platform"})
	if err != nil || len(events.GetEvents()) < 5 {
		t.Errorf("%d events, %v", len(events.GetEvents()), err)
	}
}

// A gateway whose signing key was revoked is out of service until it has another one,
// which it asks for by itself.
func TestRevokedKeyIsReplaced(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.serveControl()
	g := r.start()
	eventually(t, "acme is served", func() bool { return r.get(g, "acme.localhost", "/").status == 200 })
	before := r.control.certified.Load()
	token := r.shown(g, "acme.localhost")
	var id tenant.KeyID
	copy(id[:], token[1:])
	release := r.control.hold()
	r.trust.RevokeKey(id)
	r.control.tenants.Set(r, "key/"+hex.EncodeToString(id[:]), nil)
	eventually(t, "it is not ready", func() bool { return r.ready(g).status == 503 })
	eventually(t, "it asks for another key", func() bool { return r.control.certified.Load() > before })
	release()
	eventually(t, "acme is served with another key", func() bool { return r.get(g, "acme.localhost", "/") == answer{200, "acme"} })
	eventually(t, "it is ready", func() bool { return r.ready(g).status == 200 })
	if fresh := r.shown(g, "acme.localhost"); fresh[1:9] == token[1:9] {
		t.Error("it signs with the revoked key")
	}
}

// A database that answers and lacks a migration keeps the gateway from starting.
func TestStartLooksAtMigrations(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, err := r.db.Owner(t).Exec(t.Context(), `DELETE FROM public.rowhouse_migration`)
	r.need(err)
	if err := run(t, r); !errors.Is(err, pg.ErrBehind) {
		t.Errorf("Run = %v", err)
	}
}
