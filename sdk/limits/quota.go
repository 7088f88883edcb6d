package limits

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
)

// Quota asks the quota service for leases and slots. [Remote] returns one.
type Quota struct {
	service quotav1.LeaseServiceClient
	holder  string
}

var (
	_ lease.Granter = (*Quota)(nil)
	_ lease.Slots   = (*Quota)(nil)
)

// Remote returns what asks the quota service over conn. holder names this process,
// unique while it runs.
func Remote(conn grpc.ClientConnInterface, holder string) *Quota {
	return &Quota{quotav1.NewLeaseServiceClient(conn), holder}
}

// Grant implements [lease.Granter].
func (q *Quota) Grant(ctx context.Context, asks []lease.Ask) ([]lease.Answer, int, error) {
	in := &quotav1.GrantLeasesRequest{Holder: q.holder, Asks: make([]*quotav1.LeaseAsk, 0, len(asks))}
	for i := range asks {
		in.Asks = append(in.Asks, leaseAsk(&asks[i]))
	}
	out, err := q.service.GrantLeases(ctx, in)
	if err != nil {
		return nil, 0, fmt.Errorf("ask quota: %w", err)
	}
	if len(out.GetAnswers()) != len(asks) {
		return nil, 0, fmt.Errorf("%d answers to %d asks", len(out.GetAnswers()), len(asks))
	}
	answers := make([]lease.Answer, 0, len(asks))
	for _, a := range out.GetAnswers() {
		answers = append(answers, leaseAnswer(a))
	}
	return answers, int(out.GetHolders()), nil
}

func leaseAsk(a *lease.Ask) *quotav1.LeaseAsk {
	out := &quotav1.LeaseAsk{TenantContext: []byte(a.Token)}
	for i := range a.Cells {
		c := &a.Cells[i]
		out.Cells = append(out.Cells, &quotav1.LeaseCell{Limit: c.Policy.Name, Key: c.Key[:], Need: c.Need, Want: c.Want})
	}
	return out
}

func leaseAnswer(a *quotav1.LeaseAnswer) lease.Answer {
	out := lease.Answer{Outcome: outcomeOf(a.GetOutcome()), Reason: a.GetReason()}
	for _, c := range a.GetCells() {
		out.Cells = append(out.Cells, cellAnswer(c))
	}
	return out
}

func cellAnswer(c *quotav1.LeaseCellAnswer) lease.CellAnswer {
	return lease.CellAnswer{
		OK: c.GetOk(), Unlimited: c.GetUnlimited(), Tokens: c.GetTokens(), Lifetime: c.GetLifetime().AsDuration(),
		RetryAfter: c.GetRetryAfter().AsDuration(), Remaining: c.GetRemaining(), TAT: gcra.Ticks(c.GetTat()), Revision: c.GetLimitRevision(),
	}
}

func outcomeOf(o quotav1.LeaseOutcome) lease.Outcome {
	switch o {
	case quotav1.LeaseOutcome_LEASE_OUTCOME_GRANTED:
		return lease.Granted
	case quotav1.LeaseOutcome_LEASE_OUTCOME_DENIED:
		return lease.Denied
	case quotav1.LeaseOutcome_LEASE_OUTCOME_UNLIMITED:
		return lease.Unlimited
	default:
		return lease.Refused
	}
}

// Return implements [lease.Granter].
func (q *Quota) Return(ctx context.Context, gives []lease.Give) error {
	in := &quotav1.ReturnLeasesRequest{Holder: q.holder}
	for i := range gives {
		g := &gives[i]
		in.Returns = append(in.Returns, &quotav1.LeaseReturn{
			TenantContext: []byte(g.Token), Limit: g.Policy.Name, Key: g.Key[:], Tokens: g.Tokens, Tat: int64(g.TAT),
			LimitRevision: g.Policy.Revision,
		})
	}
	if _, err := q.service.ReturnLeases(ctx, in); err != nil {
		return fmt.Errorf("give leases back: %w", err)
	}
	return nil
}

func slotAsk(a *lease.SlotAsk) *quotav1.SlotAsk {
	out := &quotav1.SlotAsk{TenantContext: []byte(a.Token), Hold: a.Hold[:]}
	for i := range a.Cells {
		c := &a.Cells[i]
		out.Cells = append(out.Cells, &quotav1.SlotCell{Limit: c.Policy.Name, Key: c.Key[:], Slots: c.Slots})
	}
	return out
}

// Acquire implements [lease.Slots].
func (q *Quota) Acquire(ctx context.Context, ask lease.SlotAsk) (lease.SlotAnswer, error) {
	res, err := q.service.AcquireSlots(ctx, &quotav1.AcquireSlotsRequest{Holder: q.holder, Asks: []*quotav1.SlotAsk{slotAsk(&ask)}})
	if err != nil {
		return lease.SlotAnswer{}, fmt.Errorf("ask quota for slots: %w", err)
	}
	if len(res.GetAnswers()) != 1 {
		return lease.SlotAnswer{}, fmt.Errorf("%d answers to one ask", len(res.GetAnswers()))
	}
	a := res.GetAnswers()[0]
	out := lease.SlotAnswer{Outcome: outcomeOf(a.GetOutcome()), Reason: a.GetReason(), TTL: a.GetTtl().AsDuration()}
	for _, c := range a.GetCells() {
		out.Cells = append(out.Cells, cellAnswer(c))
	}
	return out, nil
}

// Renew implements [lease.Slots].
func (q *Quota) Renew(ctx context.Context, ask lease.SlotAsk) (held bool, err error) {
	res, err := q.service.RenewSlots(ctx, &quotav1.RenewSlotsRequest{Holder: q.holder, Holds: []*quotav1.SlotAsk{slotAsk(&ask)}})
	if err != nil {
		return false, fmt.Errorf("renew slots: %w", err)
	}
	return holdOf(res.GetAnswers())
}

// Release implements [lease.Slots].
func (q *Quota) Release(ctx context.Context, ask lease.SlotAsk) error {
	res, err := q.service.ReleaseSlots(ctx, &quotav1.ReleaseSlotsRequest{Holder: q.holder, Holds: []*quotav1.SlotAsk{slotAsk(&ask)}})
	if err != nil {
		return fmt.Errorf("release slots: %w", err)
	}
	_, err = holdOf(res.GetAnswers())
	return err
}

// holdOf reads the one answer about a hold.
func holdOf(answers []*quotav1.HoldAnswer) (held bool, err error) {
	if len(answers) != 1 {
		return false, fmt.Errorf("%d answers about one hold", len(answers))
	}
	switch a := answers[0]; a.GetOutcome() {
	case quotav1.HoldOutcome_HOLD_OUTCOME_DONE:
		return true, nil
	case quotav1.HoldOutcome_HOLD_OUTCOME_NOT_FOUND:
		return false, nil
	default:
		return false, fmt.Errorf("the hold was refused: %s", a.GetReason())
	}
}
