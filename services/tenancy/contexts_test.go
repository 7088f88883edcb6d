package tenancy_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy"
)

// testClock is the real time plus what the test adds.
type testClock struct{ ahead atomic.Int64 }

func (c *testClock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *testClock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// minter is a gateway's key, certified by the service.
type minter struct {
	signer *tenant.Signer
	cert   tenant.KeyCertificate
	seals  []*tenancyv1.SealKey
	clock  func() time.Time
}

func (r *rig) certify(a api, id identity.ID, key ed25519.PrivateKey) (*tenancyv1.CertifyKeyResponse, error) {
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		r.tb.Fatal("no public key")
	}
	return a.CertifyKey(r.tb.Context(), &tenancyv1.CertifyKeyRequest{
		PublicKey: public, Proof: ed25519.Sign(key, []byte("rowhouse-certify/v1\x00"+id.String())),
	})
}

func (r *rig) minter(clock func() time.Time) minter {
	r.tb.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	r.must(err)
	gateway := r.id("service", "gateway")
	resp, err := r.certify(apiOf(r.peer(gateway)), gateway, private)
	r.must(err)
	cert, err := tenant.ParseKeyCertificate(r.public("trust"), resp.GetCertificate())
	r.must(err)
	signer, err := tenant.NewSigner(private)
	r.must(err)
	return minter{signer, cert, resp.GetSealKeys(), clock}
}

// token mints as a gateway does.
func (m minter) token(tb testing.TB, t *tenancyv1.Tenant, audience tenant.Audience) string {
	tb.Helper()
	uid, err := tenant.ParseUID(t.GetUid())
	must(tb, err)
	id, err := tenant.ParseID(strings.TrimPrefix(t.GetName(), "tenants/"))
	must(tb, err)
	now := m.clock().Truncate(time.Second)
	var key tenant.SealKey
	copy(key[:], m.seals[0].GetKey())
	token, err := m.signer.Sign(tenant.Claims{
		TenantUID: uid, TenantID: id, Generation: uint64(t.GetGeneration()), Model: tenant.ModelShared, Cell: "cell-1", CellNumber: 1,
		Region: region, PlacementGeneration: 1, Plan: "free", PrincipalKind: tenant.PrincipalVisitor, Scopes: 5, Audience: audience,
		Minter: m.cert.Minter, IssueTime: now, ExpireTime: now.Add(tenant.MaxSessionLife), Class: tenant.ClassSession,
	}.WithSeal(&key, uint8(m.seals[0].GetKid())))
	must(tb, err)
	return string(token)
}

func TestCertifiedKeyIsTrustedUntilRevoked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	acme := r.tenant(a, "acme")
	known, _ := r.follow(time.Now)
	m := r.minter(time.Now)
	if got := m.cert; got.Minter != "gateway" || len(got.Cells) != 1 || got.Cells[0] != "cell-1" || got.SPIFFE != r.id("service", "gateway") {
		t.Errorf("the certificate says %+v", got)
	}
	verifier, err := tenant.NewVerifier(tenant.VerifierConfig{
		Trust: known, Audience: tenant.AudienceApp(16), MayPresent: tenant.Presenters(r.id("service", "gateway")),
	})
	r.must(err)
	token := m.token(t, acme, tenant.AudienceApp(16))
	verify := func() string {
		_, err := verifier.Verify(token, r.id("service", "gateway"))
		return fault.ReasonOf(err)
	}
	eventually(t, "the key is trusted", func() bool { return verify() == "" })
	list, err := a.ListContextKeys(ctx, &tenancyv1.ListContextKeysRequest{})
	r.must(err)
	name := ""
	for _, k := range list.GetContextKeys() {
		if k.GetMinter() == "gateway" {
			name = k.GetName()
		}
	}
	revoked, err := a.RevokeContextKey(ctx, &tenancyv1.RevokeContextKeyRequest{Name: name, Reason: why, RequestId: newID()})
	r.must(err)
	if revoked.GetContextKey().GetRevokeTime() == nil {
		t.Error("the revoked key has no revoke_time")
	}
	began := time.Now()
	eventually(t, "the key is refused", func() bool { return verify() == "CONTEXT_INVALID" })
	if took := time.Since(began); took > time.Second {
		t.Errorf("a revoked key was refused after %s", took)
	}
}

func TestCertifyKeyRefusals(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	gateway, notes := r.id("service", "gateway"), r.id("app", "notes")
	_, private, err := ed25519.GenerateKey(rand.Reader)
	r.must(err)
	at := apiOf(r.peer(gateway))
	_, err = r.certify(apiOf(r.peer(notes)), notes, private)
	refused(t, "an app asks", err, codes.PermissionDenied, "PERMISSION_MISSING")
	_, err = r.certify(at, notes, private)
	refused(t, "a proof for another identity", err, codes.InvalidArgument, "INVALID_FIELD")
	_, err = r.certify(a, gateway, private)
	if code := codeOf(err); code != codes.PermissionDenied && code != codes.Unauthenticated {
		t.Errorf("an operator asks: %v", err)
	}
	resp, err := r.certify(at, gateway, private)
	r.must(err)
	if got := resp.GetSealKeys(); len(got) != 1 || got[0].GetCell() != "cell-1" || len(got[0].GetKey()) != 32 {
		t.Errorf("seal keys: %d", len(got))
	}
	again, err := r.certify(at, gateway, private)
	if err != nil || len(again.GetCertificate()) == 0 {
		t.Errorf("a renewal: %v", err)
	}
	cert, err := tenant.ParseKeyCertificate(r.public("trust"), resp.GetCertificate())
	r.must(err)
	name := "contextKeys/" + hex.EncodeToString(cert.KeyID[:])
	_, err = a.RevokeContextKey(ctx, &tenancyv1.RevokeContextKeyRequest{Name: name, Reason: why})
	r.must(err)
	_, err = r.certify(at, gateway, private)
	refused(t, "a revoked key", err, codes.InvalidArgument, "INVALID_FIELD")
}

// TestSealOpensTheCell holds that the key which gateways get is the one that PostgreSQL checks with.
func TestSealOpensTheCell(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.furnish()
	acme := r.tenant(a, "acme")
	known, _ := r.follow(time.Now)
	m := r.minter(time.Now)
	verifier, err := tenant.NewVerifier(tenant.VerifierConfig{
		Trust: known, Audience: tenant.AudienceApp(16), MayPresent: tenant.Presenters(r.id("service", "gateway")),
	})
	r.must(err)
	var c tenant.Context
	token := m.token(t, acme, tenant.AudienceApp(16))
	eventually(t, "the key is trusted", func() bool {
		c, err = verifier.Verify(token, r.id("service", "gateway"))
		return err == nil
	})
	app, err := pgx.Connect(t.Context(), r.roleDSN)
	r.must(err)
	defer func() { _ = app.Close(context.Background()) }()
	var who string
	r.must(app.QueryRow(t.Context(), `SELECT current_user`).Scan(&who))
	if who != "rowhouse_app_notes" {
		t.Fatalf("the app is %s", who)
	}
	enter := func(c tenant.Context) error {
		seal := c.Seal()
		return pgx.BeginFunc(t.Context(), app, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), `SELECT rowhouse.enter($1)`, seal[:])
			return err
		})
	}
	if err := enter(c); err != nil {
		t.Errorf("the seal does not open the cell: %v", err)
	}
	resp, err := apiOf(r.peer(r.id("app", "notes"))).RefreshContext(t.Context(), &tenancyv1.RefreshContextRequest{TenantContext: []byte(token)})
	r.must(err)
	fresh, err := verifier.Verify(string(resp.GetTenantContext()), r.id("service", "gateway"))
	r.must(err)
	if err := enter(fresh); err != nil {
		t.Errorf("a refreshed seal does not open the cell: %v", err)
	}
	o, err := a.SuspendTenant(t.Context(), &tenancyv1.SuspendTenantRequest{Name: acme.GetName(), Cause: 1, Reason: why})
	r.must(err)
	r.wait(a, o.GetOperation())
	if err := enter(c); err == nil {
		t.Error("a suspended tenant's seal opens the cell")
	}
}

// TestRefreshIsNeverWiderAndEnds renews one context again and again until its chain is over.
func TestRefreshIsNeverWiderAndEnds(t *testing.T) {
	t.Parallel()
	clock := &testClock{}
	r := newRig(t, tenancy.WithClock(clock.now))
	a, ctx := r.furnish(), t.Context()
	acme := r.tenant(a, "acme")
	m := r.minter(clock.now)
	notes := apiOf(r.peer(r.id("app", "notes")))
	refresh := func(token string) (string, error) {
		resp, err := notes.RefreshContext(ctx, &tenancyv1.RefreshContextRequest{TenantContext: []byte(token)})
		return string(resp.GetTenantContext()), err
	}
	known, _ := r.follow(clock.now)
	verifier, err := tenant.NewVerifier(tenant.VerifierConfig{
		Trust: known, Audience: tenant.AudienceApp(16), MayPresent: tenant.Presenters(r.id("service", "gateway")),
	})
	r.must(err)
	token := m.token(t, acme, tenant.AudienceApp(16))
	var first tenant.Context
	eventually(t, "the key is trusted", func() bool {
		first, err = verifier.Verify(token, r.id("service", "gateway"))
		return err == nil
	})
	_, err = refresh(m.token(t, acme, tenant.AudienceApp(17)))
	refused(t, "a context for another app", err, codes.PermissionDenied, "PRESENTER_REFUSED")
	_, err = refresh(token[:len(token)-1] + "x")
	refused(t, "a forged context", err, codes.Unauthenticated, "CONTEXT_INVALID")
	began, renewed := clock.now(), 0
	for {
		next, err := refresh(token)
		if err != nil {
			if code := codeOf(err); code != codes.Unauthenticated {
				t.Fatalf("the chain ended with %v", err)
			}
			break
		}
		c, err := verifier.Verify(next, r.id("service", "gateway"))
		r.must(err)
		if c.UID() != first.UID() || c.Scopes() != first.Scopes() || c.Audience() != first.Audience() ||
			c.PrincipalKind() != first.PrincipalKind() || c.Minter() != "tenancy" {
			t.Fatalf("the fresh context says %+v", c.Claims())
		}
		if !c.FirstIssueTime().Equal(first.IssueTime()) || c.ExpireTime().Sub(first.IssueTime()) > time.Hour {
			t.Fatalf("the chain lives until %s after its first issue; it says %+v", c.ExpireTime().Sub(first.IssueTime()), c.Claims())
		}
		token = next
		renewed++
		clock.advance(30 * time.Second)
	}
	if lived := clock.now().Sub(began); lived < 59*time.Minute {
		t.Errorf("the chain lived %s, renewed %d times", lived, renewed)
	}
}

// TestFeedsHoldWhatTheyShould reads both feeds from their snapshots.
func TestFeedsHoldWhatTheyShould(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	acme := r.tenant(a, "acme")
	domain := func(host string) {
		t.Helper()
		_, err := a.CreateDomain(ctx, &tenancyv1.CreateDomainRequest{Parent: "tenants/acme", DomainId: host, Domain: &tenancyv1.Domain{App: "apps/" + r.app}})
		r.must(err)
	}
	domain("Notes.acme.localhost")
	domain("pending.example.com")
	r.minter(time.Now)
	gateway := apiOf(r.peer(r.id("service", "gateway")))
	routes, err := gateway.WatchRoutes(ctx, &tenancyv1.WatchRoutesRequest{Replica: "g"})
	r.must(err)
	got := feedState(t, func() (*apiv1.FeedFrame, error) { m, err := routes.Recv(); return m.GetFrame(), err }, "domain/notes.acme.localhost")
	uid, err := tenant.ParseUID(acme.GetUid())
	r.must(err)
	if d := got["domain/notes.acme.localhost"].GetDomain(); string(d.GetTenantUid()) != string(uid[:]) || d.GetApp() != r.app {
		t.Errorf("the domain's route is %v", d)
	}
	if _, ok := got["domain/pending.example.com"]; ok {
		t.Error("a pending domain is in the feed")
	}
	if c := got["cell/cell-1"].GetCell(); c.GetNumber() != 1 || c.GetSealKid() != 1 || c.GetRegion() != region {
		t.Errorf("the cell's route is %v", c)
	}
	if app := got["app/"+r.app].GetApp(); app.GetAudienceBit() != 16 || len(app.GetUpstreams()) != 1 || app.GetSharedHosts()[0] != "rowhouse.localhost" {
		t.Errorf("the app's route is %v", app)
	}
	if e := got["tenant/"+acme.GetUid()].GetTenant(); e.GetTenantId() != "acme" || e.GetPlan() != "free" || e.GetLossPolicy() != tenancyv1.LossPolicy_LOSS_POLICY_SERVE || e.GetPlacementGeneration() != 1 {
		t.Errorf("the tenant's route is %v", e)
	}
	eventually(t, "the feed tenants holds two keys, the gateway's and tenancy's", func() bool {
		tenants, err := gateway.WatchTenants(ctx, &tenancyv1.WatchTenantsRequest{Replica: "g"})
		r.must(err)
		keys := 0
		for key := range feedState(t, func() (*apiv1.FeedFrame, error) { m, err := tenants.Recv(); return m.GetFrame(), err }, "tenant/"+acme.GetUid()) {
			kind, _, _ := strings.Cut(key, "/")
			if !slices.Contains([]string{"tenant", "key", "plan", "cell"}, kind) {
				t.Errorf("the feed tenants holds %s", key)
			}
			if strings.HasPrefix(key, "key/") {
				keys++
			}
		}
		if keys > 2 {
			t.Fatalf("the feed tenants holds %d keys", keys)
		}
		return keys == 2
	})
	odd, err := gateway.WatchTenants(ctx, &tenancyv1.WatchTenantsRequest{Replica: "g", ResumeToken: []byte("nonsense")})
	r.must(err)
	_, err = odd.Recv()
	refused(t, "a damaged resume token", err, codes.OutOfRange, "RESYNC")
	none, err := apiOf(r.as("owner")).WatchRoutes(ctx, &tenancyv1.WatchRoutesRequest{Replica: "g"})
	r.must(err)
	if _, err = none.Recv(); codeOf(err) != codes.Unauthenticated && codeOf(err) != codes.PermissionDenied {
		t.Errorf("an operator follows the routes: %v", err)
	}
}

// feedState reads a stream up to the first bookmark at which the key last is there: a snapshot may be older than the
// newest commit.
func feedState(tb testing.TB, recv func() (*apiv1.FeedFrame, error), last string) map[string]*tenancyv1.RouteEntry {
	tb.Helper()
	state := map[string]*tenancyv1.RouteEntry{}
	for {
		f, err := recv()
		if errors.Is(err, io.EOF) {
			tb.Fatal("the stream ended")
		}
		must(tb, err)
		if _, ok := state[last]; ok && f.GetBookmark() != nil {
			return state
		}
		for _, e := range append(f.GetChunk().GetEntries(), f.GetDelta().GetChanges()...) {
			m := new(tenancyv1.RouteEntry)
			must(tb, proto.Unmarshal(e.GetValue(), m))
			state[e.GetKey()] = m
		}
	}
}

// TestDomainsLeadToOneTenant lets two tenants claim one host.
func TestDomainsLeadToOneTenant(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	for _, id := range []string{"acme", "globex"} {
		r.tenant(a, id)
		resp, err := a.CreateDomain(ctx, &tenancyv1.CreateDomainRequest{Parent: "tenants/" + id, DomainId: "Shop.Example.com.", Domain: &tenancyv1.Domain{App: "apps/" + r.app}})
		r.must(err)
		if d := resp.GetDomain(); d.GetState() != tenancyv1.DomainState_DOMAIN_STATE_PENDING || d.GetName() != "tenants/"+id+"/domains/shop.example.com" {
			t.Errorf("the claim is %v", d)
		}
	}
	verify := func(id string) error {
		_, err := a.VerifyDomain(ctx, &tenancyv1.VerifyDomainRequest{Name: "tenants/" + id + "/domains/shop.example.com", Reason: why})
		return err
	}
	r.must(verify("acme"))
	refused(t, "the other claim", verify("globex"), codes.AlreadyExists, "DOMAIN_TAKEN")
	_, err := a.DeleteDomain(ctx, &tenancyv1.DeleteDomainRequest{Name: "tenants/acme/domains/shop.example.com"})
	r.must(err)
	r.must(verify("globex"))
	all, err := a.ListDomains(ctx, &tenancyv1.ListDomainsRequest{Parent: "tenants/-"})
	if err != nil || len(all.GetDomains()) != 1 || all.GetDomains()[0].GetVerifyTime() == nil {
		t.Errorf("all domains: %v, %v", all, err)
	}
}
