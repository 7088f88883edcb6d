package quota_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/store"
)

func (r *rig) reports(kind, name string) quotav1.ReportServiceClient {
	return quotav1.NewReportServiceClient(r.peer(kind, name, 0).conn)
}

func amount(of quotav1.ShareResource, n int64) *quotav1.ShareAmount {
	return &quotav1.ShareAmount{Resource: of, Amount: n}
}

func share(token string, amounts ...*quotav1.ShareAmount) *quotav1.TenantShare {
	return &quotav1.TenantShare{TenantContext: []byte(token), Amounts: amounts}
}

// report is the first of a process.
func report(tenants ...*quotav1.TenantShare) *quotav1.ReportSharesRequest {
	in := &quotav1.ReportSharesRequest{Replica: "one", Run: newID(), Sequence: 1, Tenants: tenants}
	for _, line := range tenants {
		in.Totals = append(in.Totals, line.GetAmounts()...)
	}
	return in
}

func (r *rig) noisy(window time.Duration) []*quotav1.NoisyTenant {
	r.Helper()
	got, err := quotav1.NewReportServiceClient(r.as("viewer").conn).ListNoisyTenants(r.Context(), &quotav1.ListNoisyTenantsRequest{
		Window: durationpb.New(window),
	})
	r.need(err)
	return got.GetNoisyTenants()
}

const (
	requests = quotav1.ShareResource_SHARE_RESOURCE_REQUESTS
	inFlight = quotav1.ShareResource_SHARE_RESOURCE_IN_FLIGHT
	delay    = quotav1.ShareResource_SHARE_RESOURCE_DELAY
	dbTime   = quotav1.ShareResource_SHARE_RESOURCE_DB_TIME
	dbRows   = quotav1.ShareResource_SHARE_RESOURCE_DB_ROWS
)

// What gateways and apps report becomes a ranking with its trend and advice.
func TestNoisyTenants(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	acme, globex := r.token("acme", "business"), r.token("globex", "free")
	if got := r.noisy(5 * time.Minute); len(got) != 0 {
		t.Errorf("nothing was reported: %v", got)
	}
	gateway, notes := r.reports("service", "gateway"), r.reports("app", "notes")
	said := report(share(acme, amount(requests, 90_000), amount(inFlight, 1000), amount(delay, 2_000_000)), share(globex, amount(requests, 10_000), amount(inFlight, 20)))
	for range 3 { // repeats change nothing
		_, err := gateway.ReportShares(t.Context(), said)
		r.need(err)
	}
	said.Sequence, said.Tenants = 2, []*quotav1.TenantShare{share(globex, amount(inFlight, 80))}
	said.Totals = []*quotav1.ShareAmount{amount(inFlight, 80)}
	_, err := gateway.ReportShares(t.Context(), said)
	r.need(err)
	_, err = notes.ReportShares(t.Context(), report(share(globex, amount(dbTime, 970), amount(dbRows, 5)), share(acme, amount(dbTime, 30))))
	r.need(err)
	got := r.noisy(5 * time.Minute)
	if len(got) != 2 || got[0].GetTenant() != "tenants/globex" || got[1].GetTenant() != "tenants/acme" {
		t.Fatalf("%v", got)
	}
	db := got[0].GetUses()[0]
	if db.GetResource() != dbRows && db.GetResource() != dbTime || db.GetReporter() != r.id("app", "notes").String() || got[0].GetPlan() != "plans/free" ||
		got[0].GetModel() != 1 || got[0].GetReason() == "" || got[0].GetAction() == 0 {
		t.Errorf("%v", got[0])
	}
	var flight *quotav1.NoisyUse
	for _, u := range got[1].GetUses() {
		if u.GetResource() == inFlight {
			flight = u
		}
	}
	if flight.GetAmount() != 1000 || flight.GetShareOfCost() < 0.9 || flight.GetShareOfCost() > 0.92 || flight.GetShareOfWeight() != 0.5 ||
		flight.GetReporter() != r.id("service", "gateway").String() || got[1].GetDelayCaused().AsDuration() != 2*time.Second {
		t.Errorf("%v", got[1])
	}
	// Seven minutes ago it was a tenth of it.
	_, err = r.super.Exec(t.Context(), `INSERT INTO noisy.share (tenant_uid, reporter, resource, minute, amount, uncertain)
		SELECT tenant_uid, reporter, resource, minute - interval '7 minutes', amount / 10, 3 FROM noisy.share`)
	r.need(err)
	of := func(window time.Duration) *quotav1.NoisyUse {
		for _, n := range r.noisy(window) {
			for _, u := range n.GetUses() {
				if n.GetTenant() == "tenants/acme" && u.GetResource() == inFlight {
					return u
				}
			}
		}
		return nil
	}
	if u := of(5 * time.Minute); u.GetTrend() != 10 || u.GetError() != 0 {
		t.Errorf("%v", u)
	}
	if u := of(time.Hour); u.GetTrend() != 0 || u.GetError() != 3 || u.GetAmount() != 1100 {
		t.Errorf("%v", u)
	}
}

// A page of one leads to the next.
func TestNoisyTenantsByPages(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, err := r.reports("service", "gateway").ReportShares(t.Context(), report(
		share(r.token("acme", "business"), amount(requests, 9)), share(r.token("globex", "free"), amount(requests, 1))))
	r.need(err)
	client := quotav1.NewReportServiceClient(r.as("viewer").conn)
	var names []string
	token := ""
	for range 3 {
		got, err := client.ListNoisyTenants(t.Context(), &quotav1.ListNoisyTenantsRequest{PageSize: 1, PageToken: token})
		r.need(err)
		for _, n := range got.GetNoisyTenants() {
			names = append(names, n.GetTenant())
		}
		if token = got.GetNextPageToken(); token == "" {
			break
		}
	}
	if !slices.Equal(names, []string{"tenants/acme", "tenants/globex"}) || token != "" {
		t.Errorf("%v, then %q", names, token)
	}
	_, err = client.ListNoisyTenants(t.Context(), &quotav1.ListNoisyTenantsRequest{PageToken: "x"})
	refused(t, "a bad token", err, codes.InvalidArgument, fault.ReasonPageTokenInvalid)
	_, err = client.ListNoisyTenants(t.Context(), &quotav1.ListNoisyTenantsRequest{Window: durationpb.New(time.Second)})
	refused(t, "a short window", err, codes.InvalidArgument, fault.ReasonInvalidField)
}

// A reporter speaks for itself, of tenants that it serves, of what it sees.
func TestReportersSpeakForThemselves(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	acme := r.token("acme", "business")
	gateway, notes := r.reports("service", "gateway"), r.reports("app", "notes")
	_, err := notes.ReportShares(t.Context(), report(share(acme, amount(dbTime, 500))))
	r.need(err)

	_, err = notes.ReportShares(t.Context(), report(share(acme, amount(requests, 1))))
	refused(t, "an app of requests", err, codes.PermissionDenied, fault.ReasonPermissionMissing)
	in := report(share(acme, amount(dbTime, 1)))
	in.Totals = []*quotav1.ShareAmount{amount(inFlight, 7)}
	_, err = notes.ReportShares(t.Context(), in)
	refused(t, "an app of all requests", err, codes.PermissionDenied, fault.ReasonPermissionMissing)
	_, err = gateway.ReportShares(t.Context(), report(share(acme, amount(dbTime, 1))))
	refused(t, "a gateway of databases", err, codes.PermissionDenied, fault.ReasonPermissionMissing)
	_, err = r.reports("app", "stranger").ReportShares(t.Context(), report(share(acme, amount(dbTime, 1))))
	refused(t, "who is not declared", err, codes.PermissionDenied, fault.ReasonPermissionMissing)
	_, err = quotav1.NewReportServiceClient(r.as("owner").conn).ReportShares(t.Context(), report(share(acme, amount(dbTime, 1))))
	if err == nil {
		t.Error("an operator may report")
	}
	_, err = notes.ListNoisyTenants(t.Context(), &quotav1.ListNoisyTenantsRequest{})
	refused(t, "an app asks", err, codes.PermissionDenied, fault.ReasonPermissionMissing)

	// Without a good context of the tenant a line is left out: forged, expired, or for a presenter without the right.
	got, err := gateway.ReportShares(t.Context(), report(
		share(strings.Repeat("x", 100), amount(requests, 1)), share(r.token("acme", "business", longAgo), amount(requests, 1)),
		share(r.token("nobody", "free"), amount(requests, 1)), share(r.token("globex", "free"), amount(requests, 4))))
	r.need(err)
	if got.GetRefused() != 3 {
		t.Errorf("%v", got)
	}
	got, err = r.reports("service", "relay").ReportShares(t.Context(), report(share(acme, amount(requests, 1))))
	if err == nil && got.GetRefused() != 1 {
		t.Errorf("who may present nothing: %v", got)
	}
	// The same name of a replica under another identity is another process: nothing of notes' has changed.
	list := r.noisy(time.Minute * 5)
	if len(list) != 2 {
		t.Fatalf("%v", list)
	}
	for _, n := range list {
		for _, u := range n.GetUses() {
			app := n.GetTenant() == "tenants/acme" && u.GetReporter() == r.id("app", "notes").String() && u.GetResource() == dbTime && u.GetAmount() == 500
			door := n.GetTenant() == "tenants/globex" && u.GetReporter() == r.id("service", "gateway").String() && u.GetResource() == requests && u.GetAmount() == 4
			if !app && !door {
				t.Errorf("%s: %v", n.GetTenant(), u)
			}
		}
	}
}

func longAgo(c *tenant.Claims) {
	c.IssueTime, c.ExpireTime = c.IssueTime.Add(-time.Hour), c.ExpireTime.Add(-time.Hour)
}

// What was told of a tenant that is erased goes, and what is too old for everybody.
func TestNoiseIsCollected(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, err := r.reports("service", "gateway").ReportShares(t.Context(), report(
		share(r.token("acme", "business"), amount(requests, 9)), share(r.token("globex", "free"), amount(requests, 1))))
	r.need(err)
	acme, globex := tenanttest.UID("acme"), tenanttest.UID("globex")
	_, err = r.super.Exec(t.Context(), `INSERT INTO noisy.share SELECT tenant_uid, reporter, resource, minute - interval '1 day', 1, 0 FROM noisy.share`)
	r.need(err)
	r.need(store.CollectNoise(t.Context(), r.db.Service(t), func(uid tenant.UID) bool { return uid == acme }))
	var left []string
	rows, err := r.super.Query(t.Context(), `SELECT tenant_uid::text FROM noisy.share UNION ALL SELECT tenant_uid::text FROM noisy.tenant`)
	r.need(err)
	for rows.Next() {
		var uid string
		r.need(rows.Scan(&uid))
		left = append(left, uid)
	}
	r.need(rows.Err())
	if !slices.Equal(left, []string{globex.String(), globex.String()}) {
		t.Errorf("%v is left", left)
	}
}
