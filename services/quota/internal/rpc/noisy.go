package rpc

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/fair"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/noisy"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/store"
)

// reportService serves ReportService.
type reportService struct {
	quotav1.UnimplementedReportServiceServer
	Config
}

// ReportShares implements rowhouse.quota.v1.ReportService. The report is kept under the identity that the connection showed.
func (s *reportService) ReportShares(ctx context.Context, req *quotav1.ReportSharesRequest) (*quotav1.ReportSharesResponse, error) {
	caller, ok := identity.FromPeer(ctx)
	if !ok {
		return nil, fault.New(fault.Unauthenticated, fault.ReasonCredentialMissing, "a client certificate is needed")
	}
	if err := mayTell(caller, req); err != nil {
		return nil, err
	}
	r := store.Report{
		Identity: caller.String(), Replica: req.GetReplica(), Run: req.GetRun(), Sequence: req.GetSequence(),
		Totals: map[noisy.Resource]int64{},
	}
	for _, a := range req.GetTotals() {
		r.Totals[noisy.Resource(a.GetResource())] += a.GetAmount() //nolint:gosec // defined ones only
	}
	resp := &quotav1.ReportSharesResponse{}
	shares := map[tenant.UID]*store.Share{}
	for _, line := range req.GetTenants() {
		tc, err := s.Verifier.Verify(string(line.GetTenantContext()), caller)
		if err != nil {
			resp.Refused++
			continue
		}
		share := shares[tc.UID()]
		if share == nil {
			share = &store.Share{Context: tc}
			shares[tc.UID()] = share
		}
		for _, a := range line.GetAmounts() {
			share.Amounts = append(share.Amounts, noisy.Line{
				Resource: noisy.Resource(a.GetResource()), Amount: a.GetAmount(), Uncertain: a.GetError(), //nolint:gosec // defined ones only
			})
		}
	}
	for _, share := range shares {
		r.Shares = append(r.Shares, *share)
	}
	if err := store.KeepReport(ctx, s.Pool, r); err != nil {
		return nil, fault.New(fault.Unavailable, fault.ReasonDependency, "the report cannot be kept now").WithCause(err)
	}
	return resp, nil
}

// mayTell refuses what is not the caller's to tell.
func mayTell(caller identity.ID, req *quotav1.ReportSharesRequest) error {
	gateway := caller.Kind() == identity.KindService
	check := func(amounts []*quotav1.ShareAmount) error {
		for _, a := range amounts {
			if !noisy.Resource(a.GetResource()).MayReport(gateway) { //nolint:gosec // defined ones only
				return fault.New(fault.PermissionDenied, fault.ReasonPermissionMissing, "%s does not tell of %s", caller, a.GetResource()).
					WithMetadata("permission", permissionReport)
			}
		}
		return nil
	}
	if err := check(req.GetTotals()); err != nil {
		return err
	}
	for _, line := range req.GetTenants() {
		if err := check(line.GetAmounts()); err != nil {
			return err
		}
	}
	return nil
}

const permissionReport = "quota.shares.report"

// defaultWindow is what ListNoisyTenants looks at.
const defaultWindow = 5 * time.Minute

// ListNoisyTenants implements rowhouse.quota.v1.ReportService.
func (s *reportService) ListNoisyTenants(
	ctx context.Context, req *quotav1.ListNoisyTenantsRequest,
) (*quotav1.ListNoisyTenantsResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.ListNoisyTenantsResponse, error) {
		length := cmp.Or(req.GetWindow().AsDuration(), defaultWindow).Truncate(time.Minute)
		p, err := tx.Page(ctx, page.Query{Filter: length.String(), Size: req.GetPageSize(), Token: req.GetPageToken()})
		if err != nil {
			return nil, err
		}
		from := 0
		if len(p.After) == 1 {
			if from, err = strconv.Atoi(p.After[0]); err != nil {
				return nil, fault.New(fault.InvalidArgument, fault.ReasonPageTokenInvalid, "the page token is damaged")
			}
		}
		ranked, err := s.rank(ctx, tx, length)
		if err != nil {
			return nil, err
		}
		var all []*quotav1.NoisyTenant
		for _, r := range ranked[min(from, len(ranked)):min(from+p.Limit(), len(ranked))] {
			all = append(all, noisyTenant(r))
		}
		found, next, err := page.Cut(p, all, func(m *quotav1.NoisyTenant) []string {
			return []string{strconv.Itoa(from + slices.Index(all, m) + 1)}
		})
		for _, m := range found {
			tx.Audit(m.GetTenant())
		}
		return &quotav1.ListNoisyTenantsResponse{NoisyTenants: found, NextPageToken: next}, err
	})
}

// rank ranks the tenants that quota knows.
func (s *reportService) rank(ctx context.Context, tx *change.Tx, length time.Duration) ([]noisy.Ranked, error) {
	w, reported, err := store.Noise(ctx, tx, length)
	if err != nil {
		return nil, err
	}
	limited, err := store.LimitedRequests(ctx, tx, slices.Collect(maps.Keys(reported)))
	if err != nil {
		return nil, err
	}
	for uid, of := range reported {
		state, ok := s.Trust.Tenant(uid)
		if !ok {
			continue
		}
		t := noisy.Tenant{ID: state.ID, Plan: cmp.Or(state.Plan, of.Plan), Model: of.Model, Weight: fair.DefaultWeight}
		if weight, ok := s.Catalog.Weight(t.Plan); ok {
			t.Weight = int64(weight)
		}
		t.Limited = limited.Holds(uid, t.Plan)
		w.Tenants[uid] = t
	}
	return noisy.Rank(w), nil
}

func noisyTenant(r noisy.Ranked) *quotav1.NoisyTenant {
	m := &quotav1.NoisyTenant{
		Tenant: "tenants/" + r.Tenant.ID.String(), Plan: "plans/" + r.Tenant.Plan, Model: tenancyv1.IsolationModel(r.Tenant.Model),
		Resource: quotav1.ShareResource(r.Uses[0].Resource), DelayCaused: durationpb.New(r.Delay),
		Action: quotav1.NoisyAction(r.Advice.Action), Suggestion: r.Advice.Command, Reason: r.Advice.Reason,
	}
	for _, u := range r.Uses {
		m.Uses = append(m.Uses, &quotav1.NoisyUse{
			Resource: quotav1.ShareResource(u.Resource), Reporter: u.Reporter, Amount: u.Amount, Error: u.Uncertain,
			ShareOfCost: u.ShareOfCost, ShareOfWeight: u.ShareOfWeight, Ratio: u.Ratio, Trend: u.Trend,
		})
	}
	return m
}

// collectEvery is how often what is long ago is removed.
const collectEvery = time.Minute

// CollectNoise removes old reports until ctx ends.
func CollectNoise(c Config) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		tick := time.NewTicker(collectEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				gone := func(uid tenant.UID) bool { _, known := c.Trust.Tenant(uid); return !known }
				if err := store.CollectNoise(ctx, c.Pool, gone); err != nil && ctx.Err() == nil {
					c.Log.WarnContext(ctx, "old reports were not collected", "error", err) // the next minute comes
				}
			}
		}
	}
}
