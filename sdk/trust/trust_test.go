package trust_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/trust"
)

// tenancy is the control plane, as far as the feed "tenants" goes. Its state is sent as one snapshot per stream; what
// is set later goes out as a delta.
type tenancy struct {
	tenancyv1.UnimplementedRoutingServiceServer
	private ed25519.PrivateKey
	reports chan *tenancyv1.ReportAppliedRequest

	mu       sync.Mutex
	revision int64
	state    map[string][]byte
	digest   *feed.Digest
	streams  map[chan *apiv1.FeedFrame]bool
}

func (s *tenancy) ReportApplied(
	_ context.Context, req *tenancyv1.ReportAppliedRequest,
) (*tenancyv1.ReportAppliedResponse, error) {
	select {
	case s.reports <- req:
	default:
	}
	return &tenancyv1.ReportAppliedResponse{}, nil
}

func (s *tenancy) WatchTenants(
	_ *tenancyv1.WatchTenantsRequest, stream grpc.ServerStreamingServer[tenancyv1.WatchTenantsResponse],
) error {
	frames := make(chan *apiv1.FeedFrame, 100)
	s.mu.Lock()
	c := &apiv1.FeedChunk{Revision: s.revision, Last: true}
	for k, v := range s.state {
		c.Entries = append(c.Entries, &apiv1.FeedEntry{Key: k, Value: v})
	}
	frames <- &apiv1.FeedFrame{Kind: &apiv1.FeedFrame_Chunk{Chunk: c}}
	frames <- s.bookmark()
	s.streams[frames] = true
	s.mu.Unlock()
	for {
		select {
		case f := <-frames:
			if err := stream.Send(&tenancyv1.WatchTenantsResponse{Frame: f}); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (s *tenancy) bookmark() *apiv1.FeedFrame {
	root := s.digest.Root()
	b := &apiv1.FeedBookmark{Revision: s.revision, Root: root[:], ServerTime: timestamppb.New(bookmarked), ResumeToken: "x"}
	feed.Sign(s.private, trust.FeedName, b)
	return &apiv1.FeedFrame{Kind: &apiv1.FeedFrame_Bookmark{Bookmark: b}}
}

// set publishes one entry; nil removes the key.
func (s *tenancy) set(t *testing.T, key string, entry *tenancyv1.RouteEntry) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &apiv1.FeedEntry{Key: key, Deleted: entry == nil}
	if entry == nil {
		delete(s.state, key)
		s.digest.Delete(key)
	} else {
		b, err := proto.Marshal(entry)
		if err != nil {
			t.Fatal(err)
		}
		e.Value, s.state[key] = b, b
		s.digest.Set(key, b)
	}
	d := &apiv1.FeedDelta{Revision: s.revision + 1, PrevRevision: s.revision, Changes: []*apiv1.FeedEntry{e}}
	s.revision++
	for frames := range s.streams {
		frames <- &apiv1.FeedFrame{Kind: &apiv1.FeedFrame_Delta{Delta: d}}
		frames <- s.bookmark()
	}
}

var (
	now        = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	bookmarked = now.Add(-time.Hour)
)

type rig struct {
	*testing.T
	server *tenancy
	listen *bufconn.Listener
	grpc   *grpc.Server
	trust  *tenant.Trust
	client *trust.Client
	root   ed25519.PrivateKey
	cfg    trust.Config
}

func newRig(t *testing.T) *rig {
	t.Helper()
	_, private := newKey(t)
	rootPublic, root := newKey(t)
	r := &rig{T: t, root: root, listen: bufconn.Listen(1 << 20), grpc: grpc.NewServer()}
	r.server = &tenancy{
		private: private, reports: make(chan *tenancyv1.ReportAppliedRequest, 100), state: map[string][]byte{},
		digest: feed.NewDigest(), streams: map[chan *apiv1.FeedFrame]bool{},
	}
	tenancyv1.RegisterRoutingServiceServer(r.grpc, r.server)
	served := make(chan struct{})
	go func() { defer close(served); _ = r.grpc.Serve(r.listen) }()
	t.Cleanup(func() { r.grpc.Stop(); <-served })
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return r.listen.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	public, _ := private.Public().(ed25519.PublicKey)
	r.cfg = trust.Config{
		Tenancy: conn, Roots: []ed25519.PublicKey{rootPublic}, FeedKeys: []ed25519.PublicKey{public}, Replica: "r1",
		Dir: t.TempDir(), Clock: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler),
	}
	return r
}

func newKey(t *testing.T) (ed25519.PublicKey, ed25519.PrivateKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return public, private
}

func (r *rig) open() {
	r.Helper()
	r.trust = tenant.NewTrust(r.cfg.Clock)
	cfg := r.cfg
	cfg.Trust = r.trust
	client, err := trust.Open(r.Context(), cfg)
	if err != nil {
		r.Fatal(err)
	}
	r.client = client
	r.Cleanup(client.Close)
}

// applied waits for the report of a revision, and returns it.
func (r *rig) applied(revision int64) *tenancyv1.ReportAppliedRequest {
	r.Helper()
	for {
		select {
		case report := <-r.server.reports:
			if report.GetAppliedRevision() >= revision {
				return report
			}
		case <-r.Context().Done():
			r.Fatal("no report")
		}
	}
}

func newTenant(t *testing.T, state tenancyv1.TenantState) (string, *tenancyv1.RouteEntry, tenant.UID) {
	t.Helper()
	uid, err := tenant.NewUID(now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return "tenant/" + uid.String(), &tenancyv1.RouteEntry{Kind: &tenancyv1.RouteEntry_Tenant{Tenant: &tenancyv1.TenantRoute{
		Uid: uid[:], TenantId: "acme", Plan: "free", State: state, Generation: 3, PlacementGeneration: 4,
		LossPolicy: tenancyv1.LossPolicy_LOSS_POLICY_DENY,
	}}}, uid
}

// certify returns the entry of a fresh key, signed by root.
func (r *rig) certify(root ed25519.PrivateKey) (string, *tenancyv1.RouteEntry) {
	r.Helper()
	public, _ := newKey(r.T)
	gateway, err := identity.Service("rowhouse.localhost", "cell-1", "gateway")
	if err != nil {
		r.Fatal(err)
	}
	b, err := tenant.SignKeyCertificate(root, tenant.KeyCertificate{
		PublicKey: public, Minter: "gateway", SPIFFE: gateway, Cells: []string{"cell-1"}, Audience: tenant.AudienceTenancy,
		Classes: tenant.ClassesOf(tenant.ClassSession), NotBefore: now, NotAfter: now.Add(time.Hour),
	})
	if err != nil {
		r.Fatal(err)
	}
	id := tenant.KeyIDOf(public)
	return "key/" + hex.EncodeToString(id[:]), &tenancyv1.RouteEntry{
		Kind: &tenancyv1.RouteEntry_ContextKey{ContextKey: &tenancyv1.ContextKeyRoute{Certificate: b}},
	}
}

func TestFollowsTenants(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	key, entry, uid := newTenant(t, tenancyv1.TenantState_TENANT_STATE_ACTIVE)
	parent, err := tenant.NewUID(now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	entry.GetTenant().ParentUid, entry.GetTenant().Region = parent[:], "eu-1"
	r.server.set(t, key, entry)
	r.open()
	<-r.client.Ready()
	r.applied(1)
	want := tenant.TenantState{
		Parent: parent, Region: "eu-1", UID: uid, ID: mustID(t, "acme"), Plan: "free", Generation: 3, PlacementGeneration: 4, State: tenant.StateActive,
		Loss: tenant.LossDenyAfter(time.Minute),
	}
	if got, ok := r.trust.Tenant(uid); !ok || got != want || r.trust.Silence() != 0 {
		t.Errorf("got %+v, %v, silent for %v", got, ok, r.trust.Silence())
	}
	changed := r.trust.Watch(uid)
	entry.GetTenant().State = tenancyv1.TenantState_TENANT_STATE_SUSPENDED
	r.server.set(t, key, entry)
	<-changed
	if got, _ := r.trust.Tenant(uid); got.State != tenant.StateSuspended {
		t.Errorf("state %v", got.State)
	}
	if report := r.applied(2); report.GetFeed() != "tenants" || report.GetReplica() != "r1" {
		t.Errorf("report %v", report)
	}
	r.server.set(t, key, nil)
	r.applied(3)
	if _, ok := r.trust.Tenant(uid); ok {
		t.Error("the tenant is still known")
	}
}

func mustID(t *testing.T, s string) tenant.ID {
	t.Helper()
	id, err := tenant.ParseID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestQuarantinesWhatIsNotTrue feeds entries that a hijacked or mistaken publisher might send; the others stay good.
func TestQuarantinesWhatIsNotTrue(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.open()
	<-r.client.Ready()
	goodKey, good := r.certify(r.root)
	r.server.set(t, goodKey, good)
	_, evilRoot := newKey(t)
	forgedKey, forged := r.certify(evilRoot)
	r.server.set(t, forgedKey, forged)
	r.server.set(t, "key/0011223344556677", good)
	tenantKey, entry, uid := newTenant(t, tenancyv1.TenantState_TENANT_STATE_ACTIVE)
	r.server.set(t, tenantKey, entry)
	other, _, _ := newTenant(t, tenancyv1.TenantState_TENANT_STATE_ACTIVE)
	r.server.set(t, other, entry)
	torn, half, _ := newTenant(t, tenancyv1.TenantState_TENANT_STATE_ACTIVE)
	half.GetTenant().ParentUid = []byte("half")
	r.server.set(t, torn, half)
	report := r.applied(6)
	bad := map[string]bool{forgedKey: true, torn: true, "key/0011223344556677": true, other: true}
	for _, key := range report.GetQuarantined() {
		if !bad[key] {
			t.Errorf("%s is in quarantine", key)
		}
		delete(bad, key)
	}
	if len(bad) != 0 {
		t.Errorf("not in quarantine: %v", bad)
	}
	if _, ok := r.trust.Tenant(uid); !ok {
		t.Error("the good tenant is unknown")
	}
}

// TestUnknownValuesServeNobody sends what a newer tenancy may say. Refused, the entry would leave the tenant served.
func TestUnknownValuesServeNobody(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.open()
	<-r.client.Ready()
	key, entry, uid := newTenant(t, tenancyv1.TenantState_TENANT_STATE_ACTIVE)
	r.server.set(t, key, entry)
	r.applied(1)
	entry.GetTenant().State, entry.GetTenant().LossPolicy = 77, 77
	r.server.set(t, key, entry)
	r.applied(2)
	if got, ok := r.trust.Tenant(uid); !ok || got.State != tenant.StateSuspended || got.Loss != tenant.LossDenyAfter(time.Minute) {
		t.Errorf("got %+v, %v", got, ok)
	}
}

// TestStartsWithoutTenancy restarts the client while nobody answers.
func TestStartsWithoutTenancy(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	key, entry, uid := newTenant(t, tenancyv1.TenantState_TENANT_STATE_ACTIVE)
	r.server.set(t, key, entry)
	r.open()
	r.applied(1)
	r.client.Close()
	r.grpc.Stop()
	r.open()
	<-r.client.Ready()
	if _, ok := r.trust.Tenant(uid); !ok || r.client.Status().Source != feed.SourceDisk {
		t.Errorf("known %v, %+v", ok, r.client.Status())
	}
	if got := r.trust.Silence(); got != time.Hour {
		t.Errorf("silent for %v, want what the file says", got)
	}
}

// TestTenantsThatWereNeverServed are unknown, not suspended.
func TestTenantsThatWereNeverServed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	key, entry, uid := newTenant(t, tenancyv1.TenantState_TENANT_STATE_CREATING)
	r.server.set(t, key, entry)
	r.open()
	report := r.applied(1)
	if _, ok := r.trust.Tenant(uid); ok || len(report.GetQuarantined()) != 0 {
		t.Errorf("known %v, quarantined %v", ok, report.GetQuarantined())
	}
}
