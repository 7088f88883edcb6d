package rpc

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/durable"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/usage"
)

// reservationService serves ReservationService.
type reservationService struct {
	quotav1.UnimplementedReservationServiceServer
	Config

	store durable.Store
}

func newReservationService(c Config) *reservationService {
	return &reservationService{Config: c, store: durable.Store{NewID: c.newID, Record: count}}
}

// count counts what was committed by the meters of its quotas, in the commit's transaction.
func count(ctx context.Context, tx durable.Tx, tenantUID string, events []durable.UsageEvent) error {
	uid, err := tenant.ParseUID(tenantUID)
	if err != nil {
		return err
	}
	var out []usage.Event
	for _, e := range events {
		id, err := uuid.Parse(e.ID)
		if err != nil {
			return err
		}
		out = append(out, usage.Event{ID: id, Meter: strings.TrimPrefix(e.Meter, "meters/"), Quantity: e.Quantity, Time: e.Time})
	}
	err = usage.RecordIn(ctx, tx, uid, out)
	if errors.Is(err, usage.ErrRefused) {
		return fault.New(fault.FailedPrecondition, fault.ReasonWrongState, "the meter of a quota cannot count what was committed").WithCause(err)
	}
	return err
}

func (c Config) newID() (string, error) {
	uid, err := tenant.NewUID(c.Clock(), rand.Reader)
	return uid.String(), err
}

// acting is the tenant of the verified context, with those above it and its plan as tenancy tells them now: a context may be
// older than a change of plan.
func (c Config) acting(ctx context.Context) (durable.Tenant, error) {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return durable.Tenant{}, err
	}
	state, ok := c.Trust.Tenant(tc.UID())
	if !ok {
		return durable.Tenant{}, fault.New(fault.Unavailable, fault.ReasonStarting, "the tenant is not known yet")
	}
	return c.family(state), nil
}

// transact runs the work of a tenant in one transaction. Repeats are known by the reservation itself, whoever of the tenant
// sends them, and not by the log of requests, which is kept by caller.
func transact[T proto.Message](
	ctx context.Context, c Config, fn func(ctx context.Context, tx *change.Tx, t durable.Tenant) (T, error),
) (T, error) {
	var none T
	t, err := c.acting(ctx)
	if err != nil {
		return none, err
	}
	call, ok := rule.CallFrom(ctx)
	if !ok {
		return none, fault.New(fault.Internal, "INTERNAL", "the unit of work has no call")
	}
	call.RequestID = ""
	ctx = rule.NewContext(ctx, call)
	return again(ctx, func() (T, error) {
		return change.Do(ctx, c.Kernel, func(ctx context.Context, tx *change.Tx) (T, error) { return fn(ctx, tx, t) })
	})
}

// distinct refuses amounts that name a quota twice, or less than least of one.
func distinct(amounts []*quotav1.QuotaAmount, least int64) error {
	seen := make(map[string]bool, len(amounts))
	for _, a := range amounts {
		if seen[a.GetQuota()] {
			return badField("amounts", "names the quota "+a.GetQuota()+" twice")
		}
		if a.GetAmount() < least {
			return badField("amounts", "is less than 1 of the quota "+a.GetQuota())
		}
		seen[a.GetQuota()] = true
	}
	return nil
}

// Reserve implements rowhouse.quota.v1.ReservationService.
func (s *reservationService) Reserve(ctx context.Context, req *quotav1.ReserveRequest) (*quotav1.ReserveResponse, error) {
	if err := distinct(req.GetAmounts(), 1); err != nil {
		return nil, err
	}
	id, err := s.newID()
	if err != nil {
		return nil, err
	}
	ask := durable.Ask{
		ID: id, RequestID: strings.ToLower(req.GetRequestId()), Amounts: req.GetAmounts(),
		TTL: cmp.Or(req.GetTtl().AsDuration(), durable.DefaultTTL).Truncate(time.Microsecond),
	}
	return transact(ctx, s.Config, func(ctx context.Context, tx *change.Tx, t durable.Tenant) (*quotav1.ReserveResponse, error) {
		r, err := durable.Reserve(ctx, tx, t, ask)
		return &quotav1.ReserveResponse{Reservation: r}, err
	})
}

// Commit implements rowhouse.quota.v1.ReservationService.
func (s *reservationService) Commit(ctx context.Context, req *quotav1.CommitRequest) (*quotav1.CommitResponse, error) {
	if err := distinct(req.GetAmounts(), 0); err != nil {
		return nil, err
	}
	end := durable.End{ID: strings.TrimPrefix(req.GetName(), durable.ReservationPrefix), Amounts: req.GetAmounts()}
	return transact(ctx, s.Config, func(ctx context.Context, tx *change.Tx, t durable.Tenant) (*quotav1.CommitResponse, error) {
		r, err := s.store.Commit(ctx, tx, t, end)
		return &quotav1.CommitResponse{Reservation: r}, err
	})
}

// Release implements rowhouse.quota.v1.ReservationService.
func (s *reservationService) Release(ctx context.Context, req *quotav1.ReleaseRequest) (*quotav1.ReleaseResponse, error) {
	return transact(ctx, s.Config, func(ctx context.Context, tx *change.Tx, t durable.Tenant) (*quotav1.ReleaseResponse, error) {
		r, err := durable.Release(ctx, tx, t, strings.TrimPrefix(req.GetName(), durable.ReservationPrefix))
		return &quotav1.ReleaseResponse{Reservation: r}, err
	})
}

// ListQuotaUsage implements rowhouse.quota.v1.ReservationService.
func (s *reservationService) ListQuotaUsage(
	ctx context.Context, _ *quotav1.ListQuotaUsageRequest,
) (*quotav1.ListQuotaUsageResponse, error) {
	return transact(ctx, s.Config, func(ctx context.Context, tx *change.Tx, t durable.Tenant) (*quotav1.ListQuotaUsageResponse, error) {
		found, err := durable.Usage(ctx, tx, t, durable.View{}, nil)
		for _, u := range found {
			u.Etag = "" // for operators
		}
		return &quotav1.ListQuotaUsageResponse{Usage: found[:min(len(found), maxListed)]}, err
	})
}

const (
	// sweepEvery bounds how long an orphan holds what nobody else asks for.
	sweepEvery = time.Second
	forgetRate = 10 * time.Minute
)

// Sweep gives back what reservations held that ran out, until ctx ends, and removes what is past its time.
func Sweep(c Config) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		sweep, collect := time.NewTicker(sweepEvery), time.NewTicker(forgetRate)
		defer sweep.Stop()
		defer collect.Stop()
		for {
			var err error
			select {
			case <-ctx.Done():
				return nil
			case <-sweep.C:
				err = durable.Sweep(ctx, c.Pool)
			case <-collect.C:
				if err = durable.Collect(ctx, c.Pool); err == nil {
					err = forgetEvents(ctx, c)
				}
			}
			if err != nil && ctx.Err() == nil {
				c.Log.WarnContext(ctx, "quotas were not swept", "error", err) // the next time comes
			}
		}
	}
}

// forgetEvents takes old notices out of their feed.
func forgetEvents(ctx context.Context, c Config) error {
	for ctx.Err() == nil {
		more := false
		job := change.NewBookkeeping(ctx, "quota", "events.forget")
		_, err := change.Do(job, c.Kernel, func(ctx context.Context, tx *change.Tx) (_ *quotav1.QuotaEventEntry, err error) {
			more, err = durable.ForgetEvents(ctx, tx)
			return &quotav1.QuotaEventEntry{}, err
		})
		if err != nil || !more {
			return err
		}
	}
	return nil
}
