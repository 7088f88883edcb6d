package rpc

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantotel"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/store"
)

// leaseService serves LeaseService.
type leaseService struct {
	quotav1.UnimplementedLeaseServiceServer
	Config
}

// GrantLeases implements rowhouse.quota.v1.LeaseService. An ask is answered only for
// the tenant whose context it carries, and only if the caller may present that.
func (s *leaseService) GrantLeases(ctx context.Context, req *quotav1.GrantLeasesRequest) (*quotav1.GrantLeasesResponse, error) {
	caller, ok := identity.FromPeer(ctx)
	if !ok {
		return nil, fault.New(fault.Unauthenticated, fault.ReasonCredentialMissing, "a client certificate is needed")
	}
	resp := &quotav1.GrantLeasesResponse{Answers: make([]*quotav1.LeaseAnswer, len(req.GetAsks()))}
	var asks []store.Ask
	var at []int
	var first tenant.Context
	alone := true // all asks are of one tenant
	for i, a := range req.GetAsks() {
		tc, err := s.Verifier.Verify(string(a.GetTenantContext()), caller)
		if err != nil {
			resp.Answers[i] = &quotav1.LeaseAnswer{
				Outcome: quotav1.LeaseOutcome_LEASE_OUTCOME_REFUSED, Reason: fault.ReasonOf(err),
			}
			continue
		}
		if len(asks) == 0 {
			first = tc
		}
		alone = alone && tc.UID() == first.UID()
		at = append(at, i)
		asks = append(asks, store.Ask{
			TenantUID: tc.UID().String(), Plan: tc.Plan(), Limit: a.GetLimit(), Need: a.GetNeed(), Want: a.GetWant(),
		})
	}
	if alone && len(asks) > 0 { // then the call is part of that tenant's trace
		ctx = tenant.NewContext(ctx, first)
		tenantotel.Stamp(ctx)
	}
	answers, holders, err := store.Charge(ctx, s.Pool, caller.String()+" "+req.GetHolder(), asks)
	if err != nil {
		return nil, fault.New(fault.Unavailable, fault.ReasonDependency, "the limits cannot be charged now").WithCause(err)
	}
	for i, a := range answers {
		resp.Answers[at[i]] = answerOf(a)
	}
	resp.Holders = int32(min(holders, 1<<20)) //nolint:gosec // bounded
	return resp, nil
}

func answerOf(a store.Answer) *quotav1.LeaseAnswer {
	out := &quotav1.LeaseAnswer{Remaining: a.Grant.Remaining, LimitRevision: a.Revision}
	switch {
	case !a.Limited:
		out.Outcome = quotav1.LeaseOutcome_LEASE_OUTCOME_UNLIMITED
	case a.Grant.OK:
		out.Outcome, out.Tokens = quotav1.LeaseOutcome_LEASE_OUTCOME_GRANTED, a.Grant.Tokens
		out.Lifetime = durationpb.New(a.Grant.Lifetime)
	default:
		out.Outcome = quotav1.LeaseOutcome_LEASE_OUTCOME_DENIED
		out.RetryAfter = durationpb.New(max(a.Grant.RetryAfter, 0))
	}
	return out
}

// usageService serves UsageService.
type usageService struct {
	quotav1.UnimplementedUsageServiceServer
	Config
}

// ListLimitUsage implements rowhouse.quota.v1.UsageService.
func (s *usageService) ListLimitUsage(ctx context.Context, _ *quotav1.ListLimitUsageRequest) (*quotav1.ListLimitUsageResponse, error) {
	found, err := store.Usage(ctx, s.Pool)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(a, b *quotav1.LimitUsage) int {
		return strings.Compare(a.GetLimit().GetName(), b.GetLimit().GetName())
	})
	return &quotav1.ListLimitUsageResponse{Usage: found}, nil
}

// collectEvery is how often cells and holders that mean nothing any more are removed.
const collectEvery = time.Minute

// Collect removes them until ctx ends.
func Collect(c Config) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		tick := time.NewTicker(collectEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				if err := store.Collect(ctx, c.Pool); err != nil && ctx.Err() == nil {
					c.Log.WarnContext(ctx, "idle cells were not collected", "error", err) // the next minute comes
				}
			}
		}
	}
}
