package tenancy_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

// mints is a rig with a tenant, a gateway's key and a declared kind of job, in which the app asks for contexts.
type mints struct {
	*rig
	a       api
	m       minter
	acme    *tenancyv1.Tenant
	asNotes api
}

const scopesOfJobs = 0b1100

func newMints(t *testing.T) *mints {
	t.Helper()
	r := newRig(t)
	s := &mints{rig: r, a: r.furnish()}
	s.acme, s.m, s.asNotes = r.tenant(s.a, "acme"), r.minter(time.Now), apiOf(r.peer(r.id("app", "notes")))
	s.declare("import", nil)
	// Origins of these tests are older than the app would be.
	_, err := r.super.Exec(t.Context(), `UPDATE registry.app SET create_time = create_time - interval '30 days'`)
	r.must(err)
	return s
}

func (s *mints) declare(kind string, edit func(*tenancyv1.JobPolicy)) *tenancyv1.JobPolicy {
	s.tb.Helper()
	p := &tenancyv1.JobPolicy{Name: "apps/" + s.app + "/jobPolicies/" + kind, Scopes: scopesOfJobs}
	if edit != nil {
		edit(p)
	}
	resp, err := s.a.UpdateJobPolicy(s.tb.Context(), &tenancyv1.UpdateJobPolicyRequest{JobPolicy: p, AllowMissing: true})
	s.must(err)
	return resp.GetJobPolicy()
}

// origin is a context as the gateway makes it for a user who asks for a job.
func (s *mints) origin(t *tenancyv1.Tenant, edits ...func(*tenant.Claims)) string {
	s.tb.Helper()
	uid, err := tenant.ParseUID(t.GetUid())
	s.must(err)
	id, err := tenant.ParseID(strings.TrimPrefix(t.GetName(), "tenants/"))
	s.must(err)
	now := time.Now().Truncate(time.Second)
	c := tenant.Claims{
		TenantUID: uid, TenantID: id, Generation: 1, Model: tenant.ModelShared, Cell: "cell-1", CellNumber: 1, Region: region,
		PlacementGeneration: 1, Plan: "old-plan", PrincipalKind: tenant.PrincipalUser, PrincipalDigest: tenant.PrincipalDigest("i", "ann"),
		Scopes: 0b0101, Audience: tenant.AudienceApp(16) | tenant.AudienceApp(17) | tenant.AudienceQuota, Minter: s.m.cert.Minter,
		IssueTime: now, ExpireTime: now.Add(tenant.MaxSessionLife), Class: tenant.ClassSession,
	}
	for _, edit := range edits {
		edit(&c)
	}
	var key tenant.SealKey
	copy(key[:], s.m.seals[0].GetKey())
	token, err := s.m.signer.Sign(c.WithSeal(&key, uint8(s.m.seals[0].GetKid())))
	s.must(err)
	return string(token)
}

func aged(d time.Duration) func(*tenant.Claims) {
	return func(c *tenant.Claims) { c.IssueTime, c.ExpireTime = c.IssueTime.Add(-d), c.ExpireTime.Add(-d) }
}

func (s *mints) mint(origin, kind string) (string, error) {
	resp, err := s.asNotes.MintContext(s.tb.Context(), &tenancyv1.MintContextRequest{TenantContext: []byte(origin), JobKind: kind})
	return string(resp.GetTenantContext()), err
}

// A job's context says what its origin said, of what it may, about the tenant as it is now. It opens the cell, is nobody's origin,
// and nobody renews it. That it was made is on record in the tenant's chain.
func TestMintIsNeverWiderThanItsOrigin(t *testing.T) {
	t.Parallel()
	s := newMints(t)
	token, err := s.mint(s.origin(s.acme, aged(6*24*time.Hour)), "import")
	s.must(err)
	known, _ := s.follow(time.Now)
	verifier, err := tenant.NewVerifier(tenant.VerifierConfig{
		Trust: known, Audience: tenant.AudienceApp(16), MayPresent: tenant.Presenters(s.own),
	})
	s.must(err)
	var c tenant.Context
	eventually(t, "the key is trusted", func() bool {
		c, err = verifier.Verify(token, s.own)
		return err == nil
	})
	got := c.Claims()
	if life := got.ExpireTime.Sub(got.IssueTime); life != tenant.MaxSessionLife || time.Since(got.IssueTime) > time.Minute {
		t.Errorf("it lives %s from %s on", life, got.IssueTime)
	}
	want := tenant.Claims{
		TenantUID: got.TenantUID, TenantID: got.TenantID, Generation: 1, Model: tenant.ModelShared, Cell: "cell-1", CellNumber: 1, Region: region,
		PlacementGeneration: 1, Plan: "free", PrincipalKind: tenant.PrincipalJob, PrincipalDigest: tenant.PrincipalDigest("i", "ann"),
		Scopes: 0b0100, Audience: tenant.AudienceApp(16) | tenant.AudienceQuota, Minter: "tenancy", Class: tenant.ClassSession,
		IssueTime: got.IssueTime, ExpireTime: got.ExpireTime, FirstIssueTime: got.FirstIssueTime, DBSeal: got.DBSeal,
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(tenant.ID{})); diff != "" || got.TenantUID.String() != s.acme.GetUid() {
		t.Errorf("(-want +got):\n%s", diff)
	}
	s.opens(c)
	_, err = s.mint(token, "import")
	refused(t, "a job's context as origin", err, codes.PermissionDenied, "PRESENTER_REFUSED")
	_, err = s.asNotes.RefreshContext(t.Context(), &tenancyv1.RefreshContextRequest{TenantContext: []byte(token)})
	refused(t, "its renewal", err, codes.Unauthenticated, "CONTEXT_EXPIRED")
	list, err := s.a.ListEvents(t.Context(), &auditv1.ListEventsRequest{Parent: "chains/" + s.acme.GetUid(), PageSize: 1000})
	s.must(err)
	if !strings.Contains(list.String(), "MintContext") || !strings.Contains(list.String(), "/jobPolicies/import") {
		t.Errorf("the tenant's chain does not tell: %v", list)
	}
}

// opens wants the seal to open the app's database.
func (s *mints) opens(c tenant.Context) {
	s.tb.Helper()
	ctx := context.WithoutCancel(s.tb.Context())
	app, err := pgx.Connect(ctx, s.roleDSN)
	s.must(err)
	defer func() { _ = app.Close(ctx) }()
	seal := c.Seal()
	s.must(pgx.BeginFunc(ctx, app, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `SELECT rowhouse.enter($1)`, seal[:])
		return err
	}))
}

func TestMintRefusals(t *testing.T) {
	t.Parallel()
	s := newMints(t)
	s.declare("brief", func(p *tenancyv1.JobPolicy) { p.MaxOriginAge = durationpb.New(time.Minute) })
	good := s.origin(s.acme)
	uid := strings.Index(good, string(mustUID(t, s.acme)))
	for name, c := range map[string]struct {
		origin, kind string
		code         codes.Code
		reason       string
	}{
		"a forged signature":             {good[:len(good)-1] + string(good[len(good)-1]^1), "import", codes.Unauthenticated, "CONTEXT_INVALID"},
		"another tenant's uid in it":     {good[:uid] + strings.Repeat("\x01", 16) + good[uid+16:], "import", codes.Unauthenticated, "CONTEXT_INVALID"},
		"a key of nobody's":              {good[:1] + "nobodys!" + good[9:], "import", codes.Unauthenticated, "CONTEXT_INVALID"},
		"another app's origin":           {s.origin(s.acme, func(c *tenant.Claims) { c.Audience = tenant.AudienceApp(17) }), "import", codes.PermissionDenied, "PRESENTER_REFUSED"},
		"our services' alone":            {s.origin(s.acme, func(c *tenant.Claims) { c.Audience = tenant.AudienceQuota }), "import", codes.PermissionDenied, "PRESENTER_REFUSED"},
		"of an app that had the bit":     {s.origin(s.acme, aged(31*24*time.Hour)), "import", codes.PermissionDenied, "PRESENTER_REFUSED"},
		"a supporter's":                  {s.origin(s.acme, func(c *tenant.Claims) { c.PrincipalKind = tenant.PrincipalSupport }), "import", codes.PermissionDenied, "PRESENTER_REFUSED"},
		"good for one request":           {s.origin(s.acme, once), "import", codes.PermissionDenied, "PRESENTER_REFUSED"},
		"a kind that nobody declared":    {good, "export", codes.PermissionDenied, "JOB_NOT_DECLARED"},
		"a kind that is no label":        {good, "Import", codes.InvalidArgument, "INVALID_FIELD"},
		"an origin of eight days ago":    {s.origin(s.acme, aged(8*24*time.Hour)), "import", codes.Unauthenticated, "JOB_ORIGIN_EXPIRED"},
		"too old for its kind":           {s.origin(s.acme, aged(2*time.Minute)), "brief", codes.Unauthenticated, "JOB_ORIGIN_EXPIRED"},
		"a tenant that nobody knows":     {s.origin(&tenancyv1.Tenant{Name: "tenants/erased", Uid: "01890a5d-ac96-774b-bcce-b302099a8057"}), "import", codes.PermissionDenied, "TENANT_DELETED"},
		"a generation that has not come": {s.origin(s.acme, func(c *tenant.Claims) { c.Generation = 9 }), "import", codes.Unavailable, "STARTING"},
		"no context":                     {strings.Repeat("x", 80), "import", codes.Unauthenticated, "CONTEXT_INVALID"},
	} {
		_, err := s.mint(c.origin, c.kind)
		refused(t, name, err, c.code, c.reason)
	}
	_, err := apiOf(s.peer(s.id("app", "thief"))).MintContext(t.Context(), &tenancyv1.MintContextRequest{TenantContext: []byte(good), JobKind: "import"})
	refused(t, "a caller without a right", err, codes.PermissionDenied, "PERMISSION_MISSING")
	o, err := s.a.SuspendTenant(t.Context(), &tenancyv1.SuspendTenantRequest{Name: s.acme.GetName(), Cause: 1, Reason: why})
	s.must(err)
	s.wait(s.a, o.GetOperation())
	_, err = s.mint(good, "import")
	refused(t, "a suspended tenant", err, codes.PermissionDenied, "TENANT_SUSPENDED")
	_, err = s.a.ResumeTenant(t.Context(), &tenancyv1.ResumeTenantRequest{Name: s.acme.GetName(), Cause: 1})
	s.must(err)
	if _, err := s.mint(good, "import"); err != nil {
		t.Errorf("a tenant that was resumed: %v", err)
	}
	d, err := s.a.DeleteTenant(t.Context(), &tenancyv1.DeleteTenantRequest{Name: s.acme.GetName(), Reason: why})
	s.must(err)
	s.wait(s.a, d.GetOperation())
	_, err = s.mint(good, "import")
	refused(t, "a deleted tenant", err, codes.PermissionDenied, "TENANT_DELETED")
}

func once(c *tenant.Claims) {
	c.Class, c.Nonce, c.RequestDigest = tenant.ClassTransaction, [16]byte{1}, [16]byte{2}
	c.ExpireTime = c.IssueTime.Add(tenant.MaxTransactionLife)
}

func mustUID(tb testing.TB, t *tenancyv1.Tenant) []byte {
	tb.Helper()
	uid, err := tenant.ParseUID(t.GetUid())
	must(tb, err)
	return uid[:]
}

// A key that was revoked makes no origins, however old they are.
func TestMintAsksWhetherTheKeyWasRevoked(t *testing.T) {
	t.Parallel()
	s := newMints(t)
	origin := s.origin(s.acme)
	list, err := s.a.ListContextKeys(t.Context(), &tenancyv1.ListContextKeysRequest{})
	s.must(err)
	for _, k := range list.GetContextKeys() {
		if k.GetMinter() == "gateway" {
			_, err := s.a.RevokeContextKey(t.Context(), &tenancyv1.RevokeContextKeyRequest{Name: k.GetName(), Reason: why})
			s.must(err)
		}
	}
	_, err = s.mint(origin, "import")
	refused(t, "an origin of a revoked key", err, codes.Unauthenticated, "CONTEXT_INVALID")
}

// Each budget is spent for itself: of a tenant, and of all.
func TestMintBudgets(t *testing.T) {
	t.Parallel()
	s := newMints(t)
	s.declare("import", func(p *tenancyv1.JobPolicy) { p.ContextsPerMinute = 3 })
	s.declare("single", func(p *tenancyv1.JobPolicy) { p.TenantsPerMinute = 1 })
	globex := s.tenant(s.a, "globex")
	a, b := s.origin(s.acme), s.origin(globex)
	for range 3 {
		_, err := s.mint(a, "import")
		s.must(err)
	}
	_, err := s.mint(a, "import")
	refused(t, "the fourth in a minute", err, codes.ResourceExhausted, "JOB_BUDGET_EXHAUSTED")
	f := new(fault.Error)
	if !errors.As(tenantgrpc.FromStatus(err), &f) || f.RetryAfter <= 0 || f.RetryAfter > 20*time.Second || f.Metadata["budget"] != "tenant" {
		t.Errorf("the refusal says %+v", f)
	}
	for _, origin := range []string{b, a} {
		kind := map[string]string{a: "single", b: "import"}[origin]
		if _, err := s.mint(origin, kind); err != nil {
			t.Errorf("another tenant's, or another kind's: %v", err)
		}
	}
	_, err = s.mint(b, "single")
	refused(t, "a second tenant in a minute", err, codes.ResourceExhausted, "JOB_BUDGET_EXHAUSTED")
	if _, err := s.mint(a, "single"); err != nil {
		t.Errorf("the first tenant again: %v", err)
	}
}

// Declarations are read, changed and withdrawn as others of tenancy's resources are.
func TestJobPolicies(t *testing.T) {
	t.Parallel()
	s := newMints(t)
	ctx, name := t.Context(), "apps/"+s.app+"/jobPolicies/import"
	p := s.declare("import", func(p *tenancyv1.JobPolicy) { p.ContextsPerMinute = 7 })
	if p.GetContextsPerMinute() != 7 || p.GetTenantsPerMinute() != 1000 || p.GetMaxOriginAge().AsDuration() != 7*24*time.Hour || p.GetRevision() != 2 {
		t.Errorf("declared: %v", p)
	}
	got, err := s.a.GetJobPolicy(ctx, &tenancyv1.GetJobPolicyRequest{Name: name})
	if err != nil || got.GetJobPolicy().GetEtag() != p.GetEtag() || got.GetJobPolicy().GetScopes() != scopesOfJobs {
		t.Errorf("read: %v, %v; want %v", got, err, p)
	}
	s.declare("export", nil)
	list, err := s.a.ListJobPolicies(ctx, &tenancyv1.ListJobPoliciesRequest{Parent: "apps/" + s.app, PageSize: 1})
	if err != nil || len(list.GetJobPolicies()) != 1 || list.GetNextPageToken() == "" {
		t.Errorf("listed: %v, %v", list, err)
	}
	_, err = s.a.UpdateJobPolicy(ctx, &tenancyv1.UpdateJobPolicyRequest{JobPolicy: &tenancyv1.JobPolicy{Name: name, Scopes: 1, Etag: `"x"`}})
	refused(t, "a stale change", err, codes.Aborted, "ETAG_MISMATCH")
	for _, name := range []string{"", "apps/none/jobPolicies/", "apps/" + s.app + "/jobPolicies/A", "apps/" + s.app + "/jobPolicies/" + strings.Repeat("a", 41), "plans/free"} {
		_, err = s.a.UpdateJobPolicy(ctx, &tenancyv1.UpdateJobPolicyRequest{JobPolicy: &tenancyv1.JobPolicy{Name: name}, AllowMissing: true})
		refused(t, name, err, codes.InvalidArgument, "INVALID_FIELD")
	}
	_, err = s.a.UpdateJobPolicy(ctx, &tenancyv1.UpdateJobPolicyRequest{JobPolicy: &tenancyv1.JobPolicy{Name: "apps/none/jobPolicies/x"}, AllowMissing: true})
	refused(t, "an app that is not", err, codes.NotFound, "RESOURCE_NOT_FOUND")
	_, err = s.a.UpdateJobPolicy(ctx, &tenancyv1.UpdateJobPolicyRequest{JobPolicy: &tenancyv1.JobPolicy{Name: "apps/" + s.app + "/jobPolicies/x", Scopes: 1}})
	refused(t, "a kind that is not", err, codes.NotFound, "RESOURCE_NOT_FOUND")
	_, err = apiOf(s.as("operator")).DeleteJobPolicy(ctx, &tenancyv1.DeleteJobPolicyRequest{Name: name})
	refused(t, "an operator of tenants", err, codes.PermissionDenied, "PERMISSION_MISSING")
	_, err = s.a.DeleteJobPolicy(ctx, &tenancyv1.DeleteJobPolicyRequest{Name: name, Etag: p.GetEtag()})
	s.must(err)
	_, err = s.mint(s.origin(s.acme), "import")
	refused(t, "a kind that was withdrawn", err, codes.PermissionDenied, "JOB_NOT_DECLARED")
	_, err = s.a.DeleteJobPolicy(ctx, &tenancyv1.DeleteJobPolicyRequest{Name: name})
	refused(t, "once more", err, codes.NotFound, "RESOURCE_NOT_FOUND")
}
