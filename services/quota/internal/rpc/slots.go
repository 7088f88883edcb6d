package rpc

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
)

// holdsAtOnce is how many holds of one call are at the store at a time.
const holdsAtOnce = 8

// hold resolves a hold.
func (p *presenter) hold(a *quotav1.SlotAsk) (ask lease.SlotAsk, cells []cell, reason string) {
	tc, reason := p.tenant(a.GetTenantContext())
	if reason != "" {
		return ask, nil, reason
	}
	ask.Hold = lease.HoldID(a.GetHold())
	cells, ask.Scope, reason = resolve(p.leaseService, tc, lease.Concurrency, a.GetCells())
	for i, c := range cells {
		if c.rule.Policy != nil {
			ask.Cells = append(ask.Cells, lease.SlotCell{Key: c.key, Policy: c.rule.Policy, Slots: max(a.GetCells()[i].GetSlots(), 1)})
		}
	}
	return ask, cells, reason
}

// ttl is how long a hold lasts: as its limit with the shortest period says.
func ttl(ask lease.SlotAsk) time.Duration {
	shortest := ask.Cells[0].Policy.TTL
	for _, c := range ask.Cells {
		shortest = min(shortest, c.Policy.TTL)
	}
	return shortest
}

func slotsAway(err error) error {
	return fault.New(fault.Unavailable, fault.ReasonDependency, "slots cannot be counted now").WithCause(err)
}

// AcquireSlots implements rowhouse.quota.v1.LeaseService.
func (s *leaseService) AcquireSlots(ctx context.Context, req *quotav1.AcquireSlotsRequest) (*quotav1.AcquireSlotsResponse, error) {
	p, err := s.presenter(ctx)
	if err != nil {
		return nil, err
	}
	resp := &quotav1.AcquireSlotsResponse{Answers: make([]*quotav1.SlotAnswer, len(req.GetAsks()))}
	var g errgroup.Group
	g.SetLimit(holdsAtOnce)
	for i, a := range req.GetAsks() {
		ask, cells, reason := p.hold(a)
		switch {
		case reason != "":
			resp.Answers[i] = &quotav1.SlotAnswer{Outcome: quotav1.LeaseOutcome_LEASE_OUTCOME_REFUSED, Reason: reason}
			continue
		case len(ask.Cells) == 0:
			resp.Answers[i] = &quotav1.SlotAnswer{Outcome: quotav1.LeaseOutcome_LEASE_OUTCOME_UNLIMITED, Cells: cellAnswers(cells, nil)}
			continue
		}
		g.Go(func() error {
			got, err := s.Allocator.Acquire(ctx, p.holder(req.GetHolder()), ask)
			if err != nil {
				return err
			}
			resp.Answers[i] = &quotav1.SlotAnswer{Outcome: outcomeOf(got.Outcome), Reason: got.Reason}
			if got.Outcome != lease.Refused {
				resp.Answers[i].Cells = cellAnswers(cells, got.Cells)
			}
			if got.Outcome == lease.Granted {
				resp.Answers[i].Ttl = durationpb.New(got.TTL)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, slotsAway(err)
	}
	return resp, nil
}

// holds answers holds that are renewed or released, each by do.
func (p *presenter) holds(holds []*quotav1.SlotAsk, do func(lease.SlotAsk) (bool, error)) ([]*quotav1.HoldAnswer, error) {
	answers := make([]*quotav1.HoldAnswer, len(holds))
	var g errgroup.Group
	g.SetLimit(holdsAtOnce)
	for i, a := range holds {
		ask, _, reason := p.hold(a)
		switch {
		case reason != "":
			answers[i] = &quotav1.HoldAnswer{Outcome: quotav1.HoldOutcome_HOLD_OUTCOME_REFUSED, Reason: reason}
			continue
		case len(ask.Cells) == 0: // nothing limits them any more
			answers[i] = &quotav1.HoldAnswer{Outcome: quotav1.HoldOutcome_HOLD_OUTCOME_NOT_FOUND}
			continue
		}
		g.Go(func() error {
			answers[i] = &quotav1.HoldAnswer{Outcome: quotav1.HoldOutcome_HOLD_OUTCOME_NOT_FOUND}
			found, err := do(ask)
			if found {
				answers[i].Outcome, answers[i].Ttl = quotav1.HoldOutcome_HOLD_OUTCOME_DONE, durationpb.New(ttl(ask))
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, slotsAway(err)
	}
	return answers, nil
}

// RenewSlots implements rowhouse.quota.v1.LeaseService.
func (s *leaseService) RenewSlots(ctx context.Context, req *quotav1.RenewSlotsRequest) (*quotav1.RenewSlotsResponse, error) {
	p, err := s.presenter(ctx)
	if err != nil {
		return nil, err
	}
	answers, err := p.holds(req.GetHolds(), func(ask lease.SlotAsk) (bool, error) {
		return s.Allocator.Renew(ctx, p.holder(req.GetHolder()), ask)
	})
	if err != nil {
		return nil, err
	}
	return &quotav1.RenewSlotsResponse{Answers: answers}, nil
}

// ReleaseSlots implements rowhouse.quota.v1.LeaseService.
func (s *leaseService) ReleaseSlots(ctx context.Context, req *quotav1.ReleaseSlotsRequest) (*quotav1.ReleaseSlotsResponse, error) {
	p, err := s.presenter(ctx)
	if err != nil {
		return nil, err
	}
	answers, err := p.holds(req.GetHolds(), func(ask lease.SlotAsk) (bool, error) {
		return s.Allocator.Release(ctx, p.holder(req.GetHolder()), ask)
	})
	if err != nil {
		return nil, err
	}
	for _, a := range answers {
		a.Ttl = nil
	}
	return &quotav1.ReleaseSlotsResponse{Answers: answers}, nil
}
