package rpc

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantotel"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/rules"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/store"
)

// leaseService serves LeaseService. What is charged it resolves itself: of a caller it
// believes the tenant's signed context, if the caller may present that, and ids of limits.
type leaseService struct {
	quotav1.UnimplementedLeaseServiceServer
	Config
}

// presenter is who calls, and whom the items of the call are for.
type presenter struct {
	*leaseService

	caller  identity.ID
	tenants []tenant.Context // of items that were accepted
}

func (s *leaseService) presenter(ctx context.Context) (*presenter, error) {
	caller, ok := identity.FromPeer(ctx)
	if !ok {
		return nil, fault.New(fault.Unauthenticated, fault.ReasonCredentialMissing, "a client certificate is needed")
	}
	return &presenter{leaseService: s, caller: caller}, nil
}

// holder is what a process of the caller is known by: another caller's cannot be named.
func (p *presenter) holder(name string) string { return p.caller.String() + " " + name }

// tenant verifies an item's context; the reason says why it is not accepted.
func (p *presenter) tenant(token []byte) (tc tenant.Context, reason string) {
	tc, err := p.Verifier.Verify(string(token), p.caller)
	if err != nil {
		return tc, fault.ReasonOf(err)
	}
	p.tenants = append(p.tenants, tc)
	return tc, ""
}

// traced has the call be part of a tenant's trace when all of it is for that tenant.
func (p *presenter) traced(ctx context.Context) context.Context {
	for _, tc := range p.tenants {
		if tc.UID() != p.tenants[0].UID() {
			return ctx
		}
	}
	if len(p.tenants) > 0 {
		ctx = tenant.NewContext(ctx, p.tenants[0])
		tenantotel.Stamp(ctx)
	}
	return ctx
}

// named is a cell as callers name it.
type named interface {
	GetLimit() string
	GetKey() []byte
}

// cell is a cell that was resolved.
type cell struct {
	rule rules.Rule
	key  lease.Key
}

// resolve finds the limits of cells and whose they are. Those that no limit holds for have
// no policy. The cells are one scope's, of one kind and each another, or the reason says
// otherwise.
func resolve[C named](s *leaseService, tc tenant.Context, kind lease.Kind, cells []C) (out []cell, scope lease.Scope, reason string) {
	seen := make(map[lease.Key]bool, len(cells))
	for _, c := range cells {
		rule, ok := s.Rules.Find(tc.UID(), tc.Plan(), c.GetLimit())
		if !ok {
			out = append(out, cell{})
			continue
		}
		key, ok := keyOf(rule, c)
		if !ok || rule.Policy.Kind != kind || seen[key] || len(seen) > 0 && scope != rule.Scope {
			return nil, scope, fault.ReasonInvalidField
		}
		scope, seen[key] = rule.Scope, true
		out = append(out, cell{rule, key})
	}
	return out, scope, ""
}

// keyOf is the key that a cell is stored by. Of a limit without dimensions it is the one
// that everybody makes; of one with dimensions the caller's, bound to the limit: no
// caller reaches the cells of one limit by the name of another.
func keyOf(r rules.Rule, c named) (lease.Key, bool) {
	given := c.GetKey()
	if len(r.Limit.GetDimensions()) == 0 {
		own := lease.KeyOf(r.Scope, c.GetLimit())
		return own, len(given) == 0 || lease.Key(given) == own
	}
	if len(given) == 0 {
		return lease.Key{}, false
	}
	text := binary.BigEndian.AppendUint32(nil, uint32(len(c.GetLimit()))) //nolint:gosec // an id
	sum := sha256.Sum256(append(append(text, c.GetLimit()...), given...))
	return lease.Key(sum[:16]), true
}

// GrantLeases implements rowhouse.quota.v1.LeaseService. An ask is answered only for
// the tenant whose context it carries, and only if the caller may present that.
func (s *leaseService) GrantLeases(ctx context.Context, req *quotav1.GrantLeasesRequest) (*quotav1.GrantLeasesResponse, error) {
	p, err := s.presenter(ctx)
	if err != nil {
		return nil, err
	}
	resp := &quotav1.GrantLeasesResponse{Answers: make([]*quotav1.LeaseAnswer, len(req.GetAsks()))}
	var asks []lease.Ask
	var at []int
	resolved := make([][]cell, len(req.GetAsks()))
	for i, a := range req.GetAsks() {
		ask, cells, reason := p.ask(a)
		switch resolved[i] = cells; {
		case reason != "":
			resp.Answers[i] = &quotav1.LeaseAnswer{Outcome: quotav1.LeaseOutcome_LEASE_OUTCOME_REFUSED, Reason: reason}
		case len(ask.Cells) == 0:
			resp.Answers[i] = answerOf(a, cells, lease.Answer{Outcome: lease.Unlimited})
		default:
			asks, at = append(asks, ask), append(at, i)
		}
	}
	answers, holders, err := s.Allocator.Grant(p.traced(ctx), p.holder(req.GetHolder()), asks)
	if err != nil {
		return nil, fault.New(fault.Unavailable, fault.ReasonDependency, "the limits cannot be charged now").WithCause(err)
	}
	for n, i := range at {
		resp.Answers[i] = answerOf(req.GetAsks()[i], resolved[i], answers[n])
	}
	resp.Holders = int32(min(holders, 1<<20)) //nolint:gosec // bounded
	return resp, nil
}

// ask resolves an ask, in either form.
func (p *presenter) ask(a *quotav1.LeaseAsk) (ask lease.Ask, cells []cell, reason string) {
	tc, reason := p.tenant(a.GetTenantContext())
	if reason != "" {
		return ask, nil, reason
	}
	wanted := a.GetCells()
	if len(wanted) == 0 {
		wanted = []*quotav1.LeaseCell{{Limit: a.GetLimit(), Need: a.GetNeed(), Want: a.GetWant()}}
	}
	cells, ask.Scope, reason = resolve(p.leaseService, tc, lease.Rate, wanted)
	for i, c := range cells {
		if c.rule.Policy != nil {
			ask.Cells = append(ask.Cells, lease.CellAsk{
				Key: c.key, Policy: c.rule.Policy, Need: wanted[i].GetNeed(), Want: max(wanted[i].GetNeed(), wanted[i].GetWant()),
			})
		}
	}
	return ask, cells, reason
}

func outcomeOf(o lease.Outcome) quotav1.LeaseOutcome {
	switch o {
	case lease.Granted:
		return quotav1.LeaseOutcome_LEASE_OUTCOME_GRANTED
	case lease.Denied:
		return quotav1.LeaseOutcome_LEASE_OUTCOME_DENIED
	case lease.Unlimited:
		return quotav1.LeaseOutcome_LEASE_OUTCOME_UNLIMITED
	default:
		return quotav1.LeaseOutcome_LEASE_OUTCOME_REFUSED
	}
}

// answerOf answers an ask in the form in which it was asked.
func answerOf(a *quotav1.LeaseAsk, cells []cell, got lease.Answer) *quotav1.LeaseAnswer {
	out := &quotav1.LeaseAnswer{Outcome: outcomeOf(got.Outcome), Reason: got.Reason}
	if got.Outcome == lease.Refused {
		return out
	}
	out.Cells = cellAnswers(cells, got.Cells)
	if len(a.GetCells()) == 0 {
		c := out.GetCells()[0]
		out.Cells, out.Tokens, out.Remaining, out.LimitRevision = nil, c.GetTokens(), c.GetRemaining(), c.GetLimitRevision()
		out.Lifetime, out.RetryAfter = c.GetLifetime(), c.GetRetryAfter()
	}
	return out
}

// cellAnswers puts the answers to what was asked in the places of all cells.
func cellAnswers(cells []cell, got []lease.CellAnswer) (out []*quotav1.LeaseCellAnswer) {
	for _, c := range cells {
		if c.rule.Policy == nil {
			out = append(out, &quotav1.LeaseCellAnswer{Ok: true, Unlimited: true})
			continue
		}
		a := &quotav1.LeaseCellAnswer{
			Ok: got[0].OK, Tokens: got[0].Tokens, Remaining: got[0].Remaining, Tat: int64(got[0].TAT), LimitRevision: got[0].Revision,
		}
		if a.GetOk() {
			a.Lifetime = durationpb.New(got[0].Lifetime)
		} else {
			a.RetryAfter = durationpb.New(max(got[0].RetryAfter, 0))
		}
		out, got = append(out, a), got[1:]
	}
	return out
}

// ReturnLeases implements rowhouse.quota.v1.LeaseService.
func (s *leaseService) ReturnLeases(ctx context.Context, req *quotav1.ReturnLeasesRequest) (*quotav1.ReturnLeasesResponse, error) {
	p, err := s.presenter(ctx)
	if err != nil {
		return nil, err
	}
	var gives []lease.Give
	for _, r := range req.GetReturns() {
		tc, reason := p.tenant(r.GetTenantContext())
		if reason != "" {
			continue
		}
		cells, scope, reason := resolve(s, tc, lease.Rate, []*quotav1.LeaseReturn{r})
		if reason != "" || cells[0].rule.Policy == nil || cells[0].rule.Policy.Revision != r.GetLimitRevision() {
			continue
		}
		gives = append(gives, lease.Give{
			Scope: scope, Key: cells[0].key, Policy: cells[0].rule.Policy, Tokens: r.GetTokens(), TAT: gcra.Ticks(r.GetTat()),
		})
	}
	taken, err := s.Allocator.Return(p.traced(ctx), gives)
	if err != nil {
		return nil, fault.New(fault.Unavailable, fault.ReasonDependency, "leases cannot be returned now").WithCause(err)
	}
	resp := &quotav1.ReturnLeasesResponse{}
	for _, ok := range taken {
		if ok {
			resp.Taken++
		}
	}
	return resp, nil
}

// usageService serves UsageService.
type usageService struct {
	quotav1.UnimplementedUsageServiceServer
	Config
}

// ListLimitUsage implements rowhouse.quota.v1.UsageService.
func (s *usageService) ListLimitUsage(ctx context.Context, _ *quotav1.ListLimitUsageRequest) (*quotav1.ListLimitUsageResponse, error) {
	found, err := store.Own(ctx, s.Pool)
	if err != nil {
		return nil, err
	}
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return nil, err
	}
	left := make([]alloc.Left, len(found))
	for i, l := range found {
		policy, err := rules.PolicyOf(l)
		if err != nil {
			return nil, err
		}
		scope := lease.Scope(tc.UID())
		left[i] = alloc.Left{Scope: scope, Key: lease.KeyOf(scope, policy.Name), Policy: policy}
	}
	if err := s.Allocator.Left(ctx, left); err != nil {
		return nil, fault.New(fault.Unavailable, fault.ReasonDependency, "what is left cannot be read now").WithCause(err)
	}
	resp := &quotav1.ListLimitUsageResponse{}
	for i, l := range found {
		resp.Usage = append(resp.Usage, &quotav1.LimitUsage{
			Limit: &quotav1.Limit{
				Name:   "limits/" + strings.TrimPrefix(l.GetName(), "platform/limits/"),
				Tokens: l.GetTokens(), Period: l.GetPeriod(), Burst: l.GetBurst(), Kind: l.GetKind(), Resource: l.GetResource(),
			},
			Remaining: left[i].Remaining,
		})
	}
	return resp, nil
}
