package usage

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

const (
	firstPause = 250 * time.Millisecond
	mostPause  = 30 * time.Second
	callTime   = 20 * time.Second
	// spare is how much life a context must have left to be sent.
	spare = 2 * time.Second
)

// run sends what waits, until ctx ends.
func (r *Recorder) run(ctx context.Context) {
	defer close(r.done)
	pause := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-after(pause):
		}
		if !wait(ctx, r.config.Linger) {
			return
		}
		left, err := r.sendAll(ctx)
		if err != nil && ctx.Err() == nil {
			r.config.Log.WarnContext(ctx, "usage cannot be kept or sent; it is tried again", "error", err)
		}
		if pause = 0; left || err != nil {
			pause = firstPause // each tenant that fails has a pause of its own, which grows
		}
	}
}

// next is the pause of a tenant after another failure.
func next(pause time.Duration) time.Duration {
	pause = min(max(2*pause, firstPause), mostPause)
	return pause/2 + rand.N(pause/2) //nolint:gosec // a pause is no secret
}

// after is time.After, and never for no time.
func after(d time.Duration) <-chan time.Time {
	if d == 0 {
		return nil
	}
	return time.After(d)
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

// sendAll sends every batch that waits once, and reports whether something is left.
func (r *Recorder) sendAll(ctx context.Context) (left bool, err error) {
	batches, err := r.spool.take()
	if err != nil {
		return true, err
	}
	for _, b := range batches {
		records, err := b.load()
		if err != nil {
			return true, err
		}
		rest := r.send(ctx, records)
		left = left || len(rest) > 0
		if err := r.spool.done(b, len(records), rest); err != nil {
			return true, err
		}
		if n := len(records) - len(rest); n > 0 {
			r.settle(n)
		}
		r.forget(rest)
		if ctx.Err() != nil {
			return true, ctx.Err()
		}
	}
	return left, nil
}

// forget drops the contexts that nothing waits for.
func (r *Recorder) forget(rest []record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting == 0 && len(rest) == 0 {
		clear(r.contexts)
	}
}

// send sends records, each tenant's by themselves, and returns those that have to be sent again.
func (r *Recorder) send(ctx context.Context, records []record) (rest []record) {
	byTenant, order := map[tenant.UID][]record{}, []tenant.UID{}
	for _, rec := range records {
		if byTenant[rec.tenant] == nil {
			order = append(order, rec.tenant)
		}
		byTenant[rec.tenant] = append(byTenant[rec.tenant], rec)
	}
	for _, uid := range order {
		rest = append(rest, r.sendOf(ctx, uid, byTenant[uid])...)
	}
	return rest
}

// sendOf sends the records of one tenant, unless it failed a moment ago: then the others do not wait for it.
func (r *Recorder) sendOf(ctx context.Context, uid tenant.UID, records []record) (rest []record) {
	if p, ok := r.paused[uid]; ok && r.config.Clock().Before(p.until) {
		return records
	}
	for len(records) > 0 {
		n, size := 0, 0
		for n < len(records) && n < maxEvents && size+records[n].size() <= maxRequest {
			size += records[n].size()
			n++
		}
		again, err := r.call(ctx, uid, records[:max(n, 1)])
		rest, records = append(rest, again...), records[max(n, 1):]
		if err != nil { // the tenant's next would fare no better
			if !errors.Is(err, errNoContext) {
				d := next(r.paused[uid].last)
				r.paused[uid] = paused{r.config.Clock().Add(d), d}
			}
			return append(rest, records...)
		}
	}
	delete(r.paused, uid)
	return rest
}

// paused is a tenant whose events could not be sent.
type paused struct {
	until time.Time
	last  time.Duration
}

// call sends one request. With an error the records have to be sent again, but for those that never can be counted.
func (r *Recorder) call(ctx context.Context, uid tenant.UID, records []record) (again []record, err error) {
	acting, err := r.contextOf(ctx, uid)
	if err != nil {
		return records, err
	}
	acting, cancel := context.WithTimeout(acting, callTime)
	defer cancel()
	req := &quotav1.RecordUsageRequest{}
	for _, rec := range records {
		req.Events = append(req.Events, rec.event)
	}
	resp, err := r.service.RecordUsage(acting, req)
	switch {
	case err == nil && len(resp.GetOutcomes()) == len(records):
		for i, o := range resp.GetOutcomes() {
			r.judge(records[i], o)
		}
		return nil, nil
	case err == nil:
		return records, errors.New("quota answered for another number of events")
	case status.Code(err) == codes.InvalidArgument && len(records) > 1:
		return r.oneByOne(ctx, uid, records)
	case status.Code(err) == codes.InvalidArgument:
		r.refuse(records[0], "INVALID_ARGUMENT")
		return nil, nil
	case fault.ReasonOf(tenantgrpc.FromStatus(err)) == fault.ReasonTenantDeleted:
		for _, rec := range records {
			r.refuse(rec, "TENANT_DELETED")
		}
		return nil, nil
	default:
		r.config.Log.DebugContext(ctx, "usage was not counted; it is sent again", "tenant", uid.String(), "events", len(records), "error", err)
		return records, err
	}
}

// oneByOne finds the event for which a whole request was refused.
func (r *Recorder) oneByOne(ctx context.Context, uid tenant.UID, records []record) (again []record, err error) {
	for i := range records {
		rest, err := r.call(ctx, uid, records[i:i+1])
		if again = append(again, rest...); err != nil {
			return append(again, records[i+1:]...), err
		}
	}
	return again, nil
}

func (r *Recorder) judge(rec record, o quotav1.EventOutcome) {
	switch o {
	case quotav1.EventOutcome_EVENT_OUTCOME_COUNTED, quotav1.EventOutcome_EVENT_OUTCOME_DUPLICATE:
	default:
		r.refuse(rec, Outcome(strings.TrimPrefix(o.String(), "EVENT_OUTCOME_")))
	}
}

func (r *Recorder) refuse(rec record, why Outcome) {
	if r.config.Refused != nil {
		r.config.Refused(rec.tenant, decode(rec.event), why)
		return
	}
	r.config.Log.Error("an event will never be counted", "tenant", rec.tenant.String(), "meter", rec.event.GetMeter(),
		"id", rec.event.GetId(), "reason", string(why))
}

// decode is the event as it was recorded.
func decode(m *quotav1.UsageEvent) Event {
	e := Event{
		ID: m.GetId(), Source: m.GetSource(), Meter: m.GetMeter(), Quantity: m.GetQuantity(), Dimensions: m.GetDimensions(), Value: m.GetValue(),
	}
	if m.GetTime() != nil {
		e.Time = m.GetTime().AsTime()
	}
	return e
}

var errNoContext = errors.New("no context of the tenant is good any more")

// contextOf returns a context that acts for a tenant.
func (r *Recorder) contextOf(ctx context.Context, uid tenant.UID) (context.Context, error) {
	r.mu.Lock()
	tc, ok := r.contexts[uid]
	r.mu.Unlock()
	if ok && r.config.Clock().Add(spare).Before(tc.ExpireTime()) {
		return tenant.NewContext(ctx, tc), nil
	}
	if r.config.Contexts == nil {
		return nil, errNoContext
	}
	acting, err := r.config.Contexts(ctx, uid)
	if err != nil {
		return nil, err
	}
	if made, err := tenant.FromContext(acting); err != nil || made.UID() != uid {
		return nil, errors.New("Contexts returned a context of another tenant") //nolint:staticcheck // a field's name
	}
	return acting, nil
}
