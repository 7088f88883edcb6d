// Package lifetime keeps a tenant context good for as long as a stream or a request
// is served with it: it renews the context before it expires, and ends the work when
// the tenant's state or the end of the chain says so.
//
// It is what sdk/tenantgrpc and sdk/tenanthttp have in common. Start at
// [Keeper.Keep].
package lifetime

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// RetryAfter is the pause between two tries to renew.
const RetryAfter = time.Second

// renewBefore is how long before its end a context is renewed. It leaves room for a
// second try.
const renewBefore = 10 * time.Second

// Refresher renews a context that is about to expire.
type Refresher interface {
	// RefreshContext returns the successor of token, a context that is still good.
	RefreshContext(ctx context.Context, token string) (string, error)
}

// Context shows the newest tenant context to whoever asks it, or a context derived
// from it, so that calls made late in its life forward a token that is still good.
type Context struct {
	context.Context //nolint:containedctx // it is a context itself

	newest atomic.Pointer[tenantContext]
}

type tenantContext struct{ context.Context } //nolint:containedctx // as Context

// NewContext returns parent with a verified tenant context that can be replaced.
func NewContext(parent context.Context, verified tenant.Context) *Context {
	c := &Context{Context: parent}
	c.set(verified)
	return c
}

func (c *Context) set(verified tenant.Context) {
	c.newest.Store(&tenantContext{tenant.NewContext(c.Context, verified)})
}

// Value implements context.Context.
func (c *Context) Value(key any) any { return c.newest.Load().Value(key) }

// Keeper says how contexts are kept good. All fields but Refresher are required.
type Keeper struct {
	// Verifier tells of changes of a tenant.
	Verifier *tenant.Verifier
	// Verify checks a token as the first one of the work was checked.
	Verify func(token string) (tenant.Context, error)
	// Refresher renews; nil lets the work end when its context expires.
	Refresher Refresher
	// Fault makes a fault of an error of the Refresher's, which may be a status of gRPC.
	Fault func(error) error
	// Clock is the verifier's time.
	Clock func() time.Time
}

// Keep watches and renews the tenant context of live in the background, until live is
// done. It calls end, once, when the work must end, with the reason: end cancels live.
// wait returns when nothing of it runs any more; live must be done by then.
func (k Keeper) Keep(live *Context, end func(cause error)) (wait func()) {
	verified, err := tenant.FromContext(live)
	if err != nil {
		end(err)
		return func() {}
	}
	w := &watcher{Keeper: k, live: live, verified: verified, renewals: make(chan renewal, 1)}
	w.running.Go(func() {
		if err := w.watch(); err != nil {
			end(err)
		}
	})
	return w.running.Wait
}

// watcher sees to it that one context stays good. It renews beside watching: a
// refresher that hangs must not hide a suspension.
type watcher struct {
	Keeper

	live     *Context
	verified tenant.Context
	renewing bool
	renewals chan renewal
	running  sync.WaitGroup
}

// renewal is how a try to renew ended.
type renewal struct {
	verified tenant.Context
	err      error
}

// watch returns nil when the work ended by itself, else why it must end.
func (w *watcher) watch() error {
	for {
		end, err := w.step()
		if end || err != nil {
			return err
		}
	}
}

// step waits for the next event in the work's life; end means that it is over.
func (w *watcher) step() (end bool, err error) {
	changed := w.Verifier.Watch(w.verified)
	var due <-chan time.Time
	if !w.renewing {
		timer := time.NewTimer(w.untilRenewal(w.verified, w.Clock()))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-w.live.Done():
		return true, nil
	case <-changed:
		// What was found now stands for the old: watching the old again would
		// tell of the same change for ever.
		fresh, err := w.Verify(w.verified.Token())
		if err != nil {
			return false, err
		}
		w.take(fresh)
	case <-due:
		w.renewing = true
		old := w.verified
		w.running.Go(func() {
			renewed, err := w.renew(w.live, old)
			w.renewals <- renewal{renewed, err}
		})
	case r := <-w.renewals:
		if r.err != nil {
			return false, r.err
		}
		w.renewing = false
		w.take(r.verified)
	}
	return false, nil
}

func (w *watcher) take(fresh tenant.Context) {
	w.verified = fresh
	w.live.set(fresh)
}

func (k Keeper) untilRenewal(verified tenant.Context, now time.Time) time.Duration {
	left := verified.ExpireTime().Sub(now)
	if k.Refresher == nil || !Renewable(verified) {
		return left
	}
	return max(left-renewBefore, 0)
}

// Renewable reports whether a context has a successor: a SESSION whose chain has not
// come to its end.
func Renewable(c tenant.Context) bool {
	return c.Class() == tenant.ClassSession && c.FirstIssueTime().Add(tenant.MaxChainLife).After(c.ExpireTime())
}

// renew tries until the context has expired. What the refresher hands out is
// verified like any other token and must speak for nobody else.
func (k Keeper) renew(ctx context.Context, old tenant.Context) (tenant.Context, error) {
	for {
		left := old.ExpireTime().Sub(k.Clock())
		if k.Refresher == nil || !Renewable(old) || left <= 0 {
			return tenant.Context{}, errExpired()
		}
		renewed, err := k.renewOnce(ctx, old, left)
		if err == nil {
			return renewed, nil
		}
		if final(err) {
			return tenant.Context{}, err
		}
		if !pause(ctx, min(RetryAfter, left)) {
			return tenant.Context{}, context.Cause(ctx)
		}
	}
}

func (k Keeper) renewOnce(ctx context.Context, old tenant.Context, left time.Duration) (tenant.Context, error) {
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	token, err := k.Refresher.RefreshContext(ctx, old.Token())
	if err != nil {
		return tenant.Context{}, k.Fault(err)
	}
	renewed, err := k.Verify(token)
	if err != nil {
		return tenant.Context{}, err
	}
	if !succeeds(old, renewed) {
		return tenant.Context{}, fault.New(fault.Unauthenticated, fault.ReasonContextInvalid,
			"the renewed tenant context is not the successor of the old one")
	}
	return renewed, nil
}

// final reports whether another try cannot help: a refusal, not an outage.
func final(err error) bool {
	switch fault.KindOf(err) {
	case fault.Unauthenticated, fault.PermissionDenied, fault.Aborted, fault.NotFound, fault.InvalidArgument:
		return true
	default:
		return false
	}
}

// succeeds reports whether renewed speaks for the same tenant and principal, grants
// no more, lives longer and still says when its chain began.
func succeeds(verified, renewed tenant.Context) bool {
	old, next := verified.Claims(), renewed.Claims()
	return renewed.FirstIssueTime().Equal(verified.FirstIssueTime()) && next.TenantUID == old.TenantUID && next.TenantID == old.TenantID &&
		next.PrincipalKind == old.PrincipalKind && next.PrincipalDigest == old.PrincipalDigest &&
		old.Scopes.Has(next.Scopes) && old.Audience.Has(next.Audience) &&
		next.Class == old.Class && next.ExpireTime.After(old.ExpireTime)
}

// pause waits for d and reports false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func errExpired() *fault.Error {
	return fault.New(fault.Unauthenticated, fault.ReasonContextExpired,
		"the tenant context expired while it was in use")
}
