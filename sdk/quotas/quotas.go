// Package quotas spends durable quotas from a product's service: seats, projects, GB, calls a month.
//
// Reserve before the thing is made, then commit what was made in truth, or release:
//
//	r, err := client.Reserve(ctx, quotas.Ask{Amounts: quotas.Amounts{"seats": 1}})
//	if err != nil {
//		return err // RESOURCE_EXHAUSTED QUOTA_EXCEEDED: no seat is free
//	}
//	defer r.ReleaseUnlessCommitted(ctx)
//	… make the seat …
//	return r.Commit(ctx, nil)
//
// The tenant is that of the context, and of nothing else. Calls whose outcome is not known are repeated with the same id,
// which is safe. A reservation is never guessed: while quota cannot be reached, Reserve fails. Commit and Release do not: what
// cannot be told now is kept, and told by [Client.Run]. What a process that dies had not told yet runs out by itself. It is not
// for rates; those are sdk/limits. Start at [New].
package quotas

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

const (
	defaultTries  = 4
	defaultQueued = 10_000
	firstPause    = 50 * time.Millisecond
	longestPause  = 10 * time.Second
	callTime      = 5 * time.Second
)

// Config is what a Client needs.
type Config struct {
	// Quota is a connection to the quota service that forwards the tenant's context; see [tenantgrpc.Client]. Required.
	Quota grpc.ClientConnInterface
	// Renew makes the context of a commit or release that waits anew, with a tenant context that is still good, before each
	// try. Without it what waits for longer than its context lives is lost, and runs out.
	Renew func(ctx context.Context) (context.Context, error)
	// Lost is told of a commit or release that quota refused, or that could not be told. Default: it is logged.
	Lost func(ctx context.Context, reservation string, err error)
	// MaxQueued is how many commits and releases may wait. Default 10,000; more fail.
	MaxQueued int
	// Tries is how often a call is tried while the caller waits. Default 4.
	Tries int
	// Log gets what is lost. Default slog.Default().
	Log *slog.Logger
}

// Client spends quotas. It is safe for concurrent use.
type Client struct {
	c     Config
	api   quotav1.ReservationServiceClient
	known quotav1.EntitlementServiceClient

	mu      sync.Mutex
	waiting []*ending
	wake    chan struct{}
}

// ending is a commit or a release that waits.
type ending struct {
	ctx  context.Context //nolint:containedctx // it outlives its call, with the tenant in it
	name string
	// call tells quota.
	call func(ctx context.Context) error
}

// New returns a Client. [Client.Run] must run beside it.
func New(c Config) *Client {
	c.MaxQueued, c.Tries = cmp.Or(c.MaxQueued, defaultQueued), cmp.Or(c.Tries, defaultTries)
	c.Log = cmp.Or(c.Log, slog.Default())
	return &Client{
		c: c, api: quotav1.NewReservationServiceClient(c.Quota), known: quotav1.NewEntitlementServiceClient(c.Quota),
		wake: make(chan struct{}, 1),
	}
}

// Amounts are amounts by the ids of quotas.
type Amounts map[string]int64

func (a Amounts) proto() []*quotav1.QuotaAmount {
	out := make([]*quotav1.QuotaAmount, 0, len(a))
	for quota, amount := range a {
		out = append(out, &quotav1.QuotaAmount{Quota: quota, Amount: amount})
	}
	slices.SortFunc(out, func(x, y *quotav1.QuotaAmount) int { return cmp.Compare(x.GetQuota(), y.GetQuota()) })
	return out
}

// Ask is what is to be reserved.
type Ask struct {
	// Amounts are at least 1 each, of at most 16 quotas.
	Amounts Amounts
	// TTL is how long they are held. Default 60 s, at most 24 h.
	TTL time.Duration
	// RequestID is a UUID that makes a repeat by another process have the same reservation. Default: a new one.
	RequestID string
}

// Reservation is what is held.
type Reservation struct {
	// Name is "reservations/{uuid}"; [Client.Reservation] makes another process able to end it.
	Name string
	// ExpireTime is when it runs out.
	ExpireTime time.Time
	// Overage is how much of what is held is more than the limits, by quota.
	Overage Amounts

	client *Client
	ended  atomic.Bool
}

// Reserve holds amounts of the tenant's quotas: all of them or none. Errors are faults: QUOTA_EXCEEDED with a
// QuotaViolation for each quota that refused; QUOTA_UNKNOWN; DEPENDENCY_UNAVAILABLE when quota cannot be reached.
func (c *Client) Reserve(ctx context.Context, a Ask) (*Reservation, error) {
	req := &quotav1.ReserveRequest{Amounts: a.Amounts.proto(), RequestId: cmp.Or(a.RequestID, uuid.NewString())}
	if a.TTL > 0 {
		req.Ttl = durationpb.New(a.TTL)
	}
	var got *quotav1.Reservation
	err := c.try(ctx, func(ctx context.Context) error {
		resp, err := c.api.Reserve(ctx, req)
		got = resp.GetReservation()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reserve: %w", err)
	}
	r := c.Reservation(got.GetName())
	r.ExpireTime, r.Overage = got.GetExpireTime().AsTime(), overage(got)
	return r, nil
}

// Reservation is one that was made before, perhaps by another process.
func (c *Client) Reservation(name string) *Reservation { return &Reservation{Name: name, client: c} }

func overage(r *quotav1.Reservation) Amounts {
	out := Amounts{}
	for _, a := range r.GetAmounts() {
		if a.GetOverage() > 0 {
			out[a.GetQuota()] = a.GetOverage()
		}
	}
	return out
}

// Commit turns what is held into what is used. actual says how much it was in truth; a quota that is not in it counts as it
// was reserved. While quota cannot be reached it returns nil, and the commit waits for it; see [Config]. Errors are faults:
// RESERVATION_EXPIRED, QUOTA_EXCEEDED when more was used than the quota lets through, WRONG_STATE, RESOURCE_NOT_FOUND.
func (r *Reservation) Commit(ctx context.Context, actual Amounts) error {
	r.ended.Store(true)
	req := &quotav1.CommitRequest{Name: r.Name, Amounts: actual.proto()}
	return r.client.end(ctx, r.Name, func(ctx context.Context) error {
		_, err := r.client.api.Commit(ctx, req)
		return err
	})
}

// Release gives back what is held. While quota cannot be reached it returns nil, and the release waits for it.
func (r *Reservation) Release(ctx context.Context) error {
	r.ended.Store(true)
	return r.client.end(ctx, r.Name, func(ctx context.Context) error {
		_, err := r.client.api.Release(ctx, &quotav1.ReleaseRequest{Name: r.Name})
		return err
	})
}

// ReleaseUnlessCommitted is for defer: it releases what neither Commit nor Release was called for. What it cannot give back
// runs out.
func (r *Reservation) ReleaseUnlessCommitted(ctx context.Context) {
	if r.ended.Load() {
		return
	}
	if err := r.Release(context.WithoutCancel(ctx)); err != nil {
		r.client.lost(ctx, r.Name, err)
	}
}

// end tells quota of an end now, or has it wait. Ends of before go first, so that none is overtaken for ever.
func (c *Client) end(ctx context.Context, name string, call func(context.Context) error) error {
	err := c.try(ctx, call)
	if !away(err) && ctx.Err() == nil || err == nil {
		return err
	}
	c.mu.Lock()
	full := len(c.waiting) >= c.c.MaxQueued
	if !full {
		c.waiting = append(c.waiting, &ending{context.WithoutCancel(ctx), name, call})
	}
	c.mu.Unlock()
	if full {
		return err
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return nil
}

// Waiting is how many commits and releases wait.
func (c *Client) Waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting)
}

// Run tells quota what waits, until ctx ends.
func (c *Client) Run(ctx context.Context) error {
	pause := firstPause
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		}
		for c.Waiting() > 0 {
			if c.tell(ctx) {
				pause = firstPause
				continue
			}
			if !wait(ctx, pause) {
				return nil
			}
			pause = min(2*pause, longestPause)
		}
	}
}

// tell tells quota of what has waited for longest, and says whether it could be reached.
func (c *Client) tell(ctx context.Context) bool {
	c.mu.Lock()
	e := c.waiting[0]
	c.mu.Unlock()
	inside := e.ctx // it is of the call that waits; ctx ends it below
	if c.c.Renew != nil {
		if renewed, err := c.c.Renew(inside); err == nil {
			inside = renewed
			e.ctx = renewed
		}
	}
	inside, cancel := context.WithTimeout(inside, callTime)
	stop := context.AfterFunc(ctx, cancel)
	err := faultOf(e.call(inside)) //nolint:contextcheck // see above
	stop()
	cancel()
	if away(err) || ctx.Err() != nil {
		return false
	}
	c.mu.Lock()
	c.waiting = c.waiting[1:]
	c.mu.Unlock()
	if err != nil {
		c.lost(ctx, e.name, err)
	}
	return true
}

func (c *Client) lost(ctx context.Context, name string, err error) {
	if c.c.Lost != nil {
		c.c.Lost(ctx, name, err)
		return
	}
	c.c.Log.WarnContext(ctx, "the end of a reservation could not be told", "reservation", name, "error", err)
}

// try calls until quota has answered, and a few times at most.
func (c *Client) try(ctx context.Context, call func(context.Context) error) error {
	pause := firstPause
	for n := 1; ; n++ {
		err := faultOf(call(ctx))
		if !away(err) || n >= c.c.Tries || !wait(ctx, pause) {
			return err
		}
		pause *= 2
	}
}

func faultOf(err error) error {
	if err == nil {
		return nil
	}
	return tenantgrpc.FromStatus(err)
}

// away says that quota or its database did not answer, so that a repeat helps.
func away(err error) bool {
	kind := fault.KindOf(err)
	return kind == fault.Unavailable || kind == fault.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded)
}

func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
