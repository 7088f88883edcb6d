package routes_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/feed/feedtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/edge"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/routes"
)

// tenancy publishes routes.
type tenancy struct {
	tenancyv1.UnimplementedRoutingServiceServer
	routes  *feedtest.Publisher
	reports chan *tenancyv1.ReportAppliedRequest
}

func (s *tenancy) WatchRoutes(_ *tenancyv1.WatchRoutesRequest, stream grpc.ServerStreamingServer[tenancyv1.WatchRoutesResponse]) error {
	return s.routes.Watch(stream.Context(), func(f *apiv1.FeedFrame) error {
		return stream.Send(&tenancyv1.WatchRoutesResponse{Frame: f})
	})
}

func (s *tenancy) ReportApplied(ctx context.Context, in *tenancyv1.ReportAppliedRequest) (*tenancyv1.ReportAppliedResponse, error) {
	select {
	case s.reports <- in:
	case <-ctx.Done():
	}
	return &tenancyv1.ReportAppliedResponse{}, nil
}

// rig is a client and its tenancy.
type rig struct {
	*testing.T
	tenancy *tenancy
	cfg     routes.Config
	client  *routes.Client
	stop    func()
}

func newRig(t *testing.T) *rig {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	need(t, err)
	r := &rig{T: t, tenancy: &tenancy{routes: feedtest.New(routes.FeedName, private), reports: make(chan *tenancyv1.ReportAppliedRequest)}}
	server, l := grpc.NewServer(), bufconn.Listen(1<<20)
	tenancyv1.RegisterRoutingServiceServer(server, r.tenancy)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	r.stop = func() { server.Stop(); serving.Wait() }
	t.Cleanup(r.stop)
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	need(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	r.cfg = routes.Config{
		Tenancy: conn, FeedKeys: []ed25519.PublicKey{public}, Replica: "g", Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler),
	}
	return r
}

func (r *rig) open() {
	r.Helper()
	var err error
	r.client, err = routes.Open(r.Context(), r.cfg)
	need(r, err)
	r.Cleanup(r.client.Close)
	<-r.client.Ready()
}

// applied waits until the client has reported a revision.
func (r *rig) applied(revision int64) *tenancyv1.ReportAppliedRequest {
	r.Helper()
	for {
		select {
		case report := <-r.tenancy.reports:
			if report.GetAppliedRevision() >= revision {
				return report
			}
		case <-r.Context().Done():
			r.Fatal("no report")
		}
	}
}

func need(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func tenantEntry(id, plan string, generation uint64) (string, *tenancyv1.RouteEntry) {
	uid := tenanttest.UID(id)
	return "tenant/" + uid.String(), &tenancyv1.RouteEntry{Kind: &tenancyv1.RouteEntry_Tenant{Tenant: &tenancyv1.TenantRoute{
		Uid: uid[:], TenantId: id, State: tenancyv1.TenantState_TENANT_STATE_ACTIVE, Generation: generation, Plan: plan,
		Model: tenancyv1.IsolationModel_ISOLATION_MODEL_SHARED, Cell: "cell-1", PlacementGeneration: 5, LossPolicy: tenancyv1.LossPolicy_LOSS_POLICY_DENY,
	}}}
}

func domainEntry(host, id string) (string, *tenancyv1.RouteEntry) {
	uid := tenanttest.UID(id)
	return "domain/" + host, &tenancyv1.RouteEntry{Kind: &tenancyv1.RouteEntry_Domain{
		Domain: &tenancyv1.DomainRoute{Host: host, TenantUid: uid[:], App: "notes"},
	}}
}

func appEntry(address string) (string, *tenancyv1.RouteEntry) {
	return "app/notes", &tenancyv1.RouteEntry{Kind: &tenancyv1.RouteEntry_App{App: &tenancyv1.AppRoute{
		App: "notes", AudienceBit: 16, GrpcServices: []string{"notes.v1.NotesService"}, SharedHosts: []string{"rowhouse.test"},
		Upstreams: []*tenancyv1.AppRouteUpstream{{Cell: "cell-1", GrpcAddress: "g:1", HttpAddress: address, SpiffeId: "spiffe://x/y"}},
	}}}
}

func cellEntry(kid uint32) (string, *tenancyv1.RouteEntry) {
	return "cell/cell-1", &tenancyv1.RouteEntry{Kind: &tenancyv1.RouteEntry_Cell{
		Cell: &tenancyv1.CellRoute{Cell: "cell-1", Number: 3, Region: "local", SealKid: kid},
	}}
}

func planEntry(weight int32) (string, *tenancyv1.RouteEntry) {
	return "plan/gold", &tenancyv1.RouteEntry{Kind: &tenancyv1.RouteEntry_Plan{Plan: &tenancyv1.PlanRoute{Plan: "gold", Weight: weight}}}
}

func (r *rig) set(key string, e *tenancyv1.RouteEntry) int64 {
	r.Helper()
	return r.tenancy.routes.Set(r, key, e)
}

func (r *rig) furnish() {
	r.set(cellEntry(1))
	r.set(appEntry("h:1"))
	r.set(tenantEntry("acme", "free", 1))
	r.set(domainEntry("acme.test", "acme"))
}

func (r *rig) resolve(host string) (edge.Route, error) {
	return r.client.Table().Resolve(edge.Ask{Host: host, Path: "/"})
}

func TestTableFollowsTheFeed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var mu sync.Mutex
	kids := map[string]uint8{}
	r.cfg.SealKey = func(cell string, kid uint8) {
		mu.Lock()
		defer mu.Unlock()
		kids[cell] = kid
	}
	r.furnish()
	r.open()
	got, err := r.resolve("acme.test")
	need(t, err)
	if got.Tenant.ID.String() != "acme" || got.Tenant.UID != tenanttest.UID("acme") || got.Tenant.Plan != "free" || got.Tenant.State != edge.Active ||
		got.Tenant.Model != tenant.ModelShared || got.Tenant.PlacementGeneration != 5 || !got.Tenant.DenyOnLoss || got.App.Audience != tenant.AudienceApp(16) ||
		got.Upstream != (edge.Upstream{GRPCAddress: "g:1", HTTPAddress: "h:1", SPIFFEID: "spiffe://x/y"}) || got.Cell.Number != 3 || got.Revision != 4 {
		t.Errorf("%+v, tenant %+v", got, got.Tenant)
	}
	r.set(tenantEntry("acme", "gold", 2))
	r.set(appEntry("h:2"))
	r.set(planEntry(7))
	r.applied(r.set(cellEntry(2)))
	if weight := r.client.Table().Weight("gold"); weight != 7 {
		t.Errorf("the plan's weight is %d", weight)
	}
	if got, err := r.resolve("acme.test"); err != nil || got.Tenant.Plan != "gold" || got.Tenant.Generation != 2 || got.Upstream.HTTPAddress != "h:2" {
		t.Errorf("after changes: %+v, %v", got, err)
	}
	mu.Lock()
	if kids["cell-1"] != 2 {
		t.Errorf("seal keys %v", kids)
	}
	mu.Unlock()
	r.applied(r.set("domain/acme.test", nil))
	if _, err := r.resolve("acme.test"); err == nil {
		t.Error("a removed domain is served")
	}
	key, _ := tenantEntry("acme", "", 0)
	r.set(key, nil)
	r.set("app/notes", nil)
	r.set("plan/gold", nil)
	r.applied(r.set("cell/cell-1", nil))
	table := r.client.Table()
	if tenants, domains := table.Counts(); tenants != 0 || domains != 0 || table.Cell("cell-1") != nil || table.Weight("gold") != 0 || r.client.Table().Revision() != 13 {
		t.Errorf("%d tenants and %d domains are left at %d", tenants, domains, table.Revision())
	}
}

// A bad entry costs itself only: its key keeps its last good value.
func TestBadEntryIsQuarantined(t *testing.T) {
	t.Parallel()
	otherKey, other := tenantEntry("globex", "free", 1)
	noPlan, noGeneration, badID := proto.CloneOf(other), proto.CloneOf(other), proto.CloneOf(other)
	noPlan.GetTenant().Plan, noGeneration.GetTenant().Generation, badID.GetTenant().TenantId = "", 0, "Globex"
	shortUID, badHost := proto.CloneOf(other), &tenancyv1.RouteEntry{Kind: &tenancyv1.RouteEntry_Domain{Domain: &tenancyv1.DomainRoute{Host: "a_b"}}}
	shortUID.GetTenant().Uid = []byte{1, 2}
	_, app := appEntry("h:9")
	noBit, badShared := proto.CloneOf(app), proto.CloneOf(app)
	noBit.GetApp().AudienceBit, badShared.GetApp().SharedHosts = 3, []string{"fine.test", "not a host"}
	_, wrongApp := appEntry("h:9")
	acmeKey, _ := tenantEntry("acme", "", 0)
	_, domain := domainEntry("globex.test", "globex")
	for name, c := range map[string]struct {
		key   string
		entry *tenancyv1.RouteEntry
	}{
		"another tenant's key": {acmeKey, other},
		"another domain's key": {"domain/acme.test", domain},
		"another kind's key":   {"domain/acme.test", other},
		"another app's key":    {"app/other", wrongApp},
		"no plan":              {otherKey, noPlan},
		"no generation":        {otherKey, noGeneration},
		"a bad id":             {otherKey, badID},
		"a short uid":          {otherKey, shortUID},
		"a bad host":           {"domain/a_b", badHost},
		"a bit of ours":        {"app/notes", noBit},
		"a bad shared host":    {"app/notes", badShared},
		"nothing":              {"domain/acme.test", &tenancyv1.RouteEntry{}},
		"not a message":        {"domain/acme.test", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.furnish()
			r.open()
			r.applied(4)
			if c.entry == nil {
				r.tenancy.routes.SetBytes(c.key, []byte("\xff\xff"))
			} else {
				r.set(c.key, c.entry)
			}
			report := r.applied(r.set(domainEntry("more.test", "acme")))
			if !slices.Equal(report.GetQuarantined(), []string{c.key}) {
				t.Errorf("reported %v", report.GetQuarantined())
			}
			for _, host := range []string{"acme.test", "more.test"} {
				if got, err := r.resolve(host); err != nil || got.Tenant.ID.String() != "acme" || got.Upstream.HTTPAddress != "h:1" {
					t.Errorf("%s: %+v, %v", host, got, err)
				}
			}
			// The good value of the key ends the quarantine.
			r.furnish()
			if c.key == "domain/a_b" || c.key == "app/other" || c.key == otherKey {
				r.set(c.key, nil)
			}
			report = r.applied(r.set(domainEntry("last.test", "acme")))
			if len(report.GetQuarantined()) != 0 {
				t.Errorf("still in quarantine: %v", report.GetQuarantined())
			}
		})
	}
}

func TestRestartFromDisk(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.furnish()
	r.open()
	r.applied(4)
	r.client.Close()
	r.stop()
	r.open()
	if got, err := r.resolve("acme.test"); err != nil || got.Tenant.ID.String() != "acme" {
		t.Errorf("%+v, %v", got, err)
	}
	if s := r.client.Status(); s.Source != feed.SourceDisk || s.Revision != 4 {
		t.Errorf("%+v", s)
	}
}

// A newer tenancy may publish kinds that this gateway does not know.
func TestUnknownKindIsPassedOver(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.furnish()
	r.tenancy.routes.SetBytes("upstream/x", []byte{0xa2, 0x06, 0x00}) // field 100
	r.open()
	if report := r.applied(5); len(report.GetQuarantined()) != 0 {
		t.Errorf("quarantined %v", report.GetQuarantined())
	}
	if _, err := r.resolve("acme.test"); err != nil {
		t.Error(err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, pair := range []func() (string, *tenancyv1.RouteEntry){
		func() (string, *tenancyv1.RouteEntry) { return tenantEntry("acme", "free", 1) },
		func() (string, *tenancyv1.RouteEntry) { return domainEntry("acme.test", "acme") },
		func() (string, *tenancyv1.RouteEntry) { return appEntry("h:1") },
		func() (string, *tenancyv1.RouteEntry) { return cellEntry(1) },
	} {
		key, e := pair()
		b, err := proto.Marshal(e)
		need(f, err)
		f.Add(key, b)
	}
	known := map[string]bool{"tenant": true, "domain": true, "app": true, "cell": true}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		entry, err := routes.Decode(key, value)
		if err != nil || entry == nil {
			return
		}
		kind, rest, _ := strings.Cut(key, "/")
		if !known[kind] || rest == "" {
			t.Errorf("key %q gave %T; kinds are %v", key, entry, slices.Sorted(maps.Keys(known)))
		}
		if e, ok := entry.(edge.Tenant); ok && (e.UID.String() != rest || e.ID.IsZero() || e.Plan == "" || e.Cell == "" || e.Generation == 0) {
			t.Errorf("accepted %+v under %q", e, key)
		}
	})
}
