package tenantgrpc

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// renewBefore is how long before its end a stream's context is renewed. It
// leaves room for a second try.
const renewBefore = 10 * time.Second

// retryRenewal is the pause between two tries to renew.
const retryRenewal = time.Second

// guard runs a stream of a tenant and ends it when the tenant's state changes or
// its context runs out. It returns when the handler has returned.
func (s *server) guard(c *call, ss grpc.ServerStream, clientStreams bool, run func(grpc.ServerStream) error) error {
	verified, err := tenant.FromContext(ss.Context())
	if err != nil {
		return err
	}
	ctx, cut := context.WithCancelCause(ss.Context())
	live := &liveContext{Context: ctx}
	live.set(verified)
	w := &watcher{server: s, call: c, live: live, verified: verified, renewals: make(chan renewal, 1)}
	w.running.Go(func() {
		if err := w.watch(); err != nil {
			cut(err)
		}
	})
	defer w.running.Wait()
	defer cut(nil)
	err = run(&guardedStream{ServerStream: ss, ctx: live, clientStreams: clientStreams})
	if f, ok := fault.As(context.Cause(ctx)); ok {
		return f
	}
	if err == nil {
		err = redeemed(ss.Context())
	}
	return err
}

// watcher sees to it that a stream's context stays good. It renews beside
// watching: a refresher that hangs must not hide a suspension.
type watcher struct {
	*server
	call     *call
	live     *liveContext
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

// watch returns nil when the stream ended by itself, else why it must end.
func (w *watcher) watch() error {
	for {
		end, err := w.step()
		if end || err != nil {
			return err
		}
	}
}

// step waits for the next event in the stream's life; end means that it is over.
func (w *watcher) step() (end bool, err error) {
	changed := w.cfg.Verifier.Watch(w.verified)
	var due <-chan time.Time
	if !w.renewing {
		timer := time.NewTimer(w.untilRenewal(w.verified, w.cfg.Clock()))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-w.live.Done():
		return true, nil
	case <-changed:
		// What was found now stands for the old: watching the old again would
		// tell of the same change for ever.
		fresh, err := w.verify(w.verified.Token(), w.call)
		if err != nil {
			return false, err
		}
		w.take(fresh)
	case <-due:
		w.renewing = true
		old := w.verified
		w.running.Go(func() {
			renewed, err := w.renew(w.live, w.call, old)
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

func (s *server) untilRenewal(verified tenant.Context, now time.Time) time.Duration {
	left := verified.ExpireTime().Sub(now)
	if s.cfg.Refresher == nil || !renewable(verified) {
		return left
	}
	return max(left-renewBefore, 0)
}

// renewable reports whether a context has a successor: a SESSION whose chain has not
// come to its end.
func renewable(c tenant.Context) bool {
	return c.Class() == tenant.ClassSession && c.FirstIssueTime().Add(tenant.MaxChainLife).After(c.ExpireTime())
}

// renew tries until the context has expired. What the refresher hands out is
// verified like any other token and must speak for nobody else.
func (s *server) renew(ctx context.Context, c *call, old tenant.Context) (tenant.Context, error) {
	for {
		left := old.ExpireTime().Sub(s.cfg.Clock())
		if s.cfg.Refresher == nil || !renewable(old) || left <= 0 {
			return tenant.Context{}, errExpired()
		}
		renewed, err := s.renewOnce(ctx, c, old, left)
		if err == nil {
			return renewed, nil
		}
		if final(err) {
			return tenant.Context{}, err
		}
		if !pause(ctx, min(retryRenewal, left)) {
			return tenant.Context{}, context.Cause(ctx)
		}
	}
}

func (s *server) renewOnce(ctx context.Context, c *call, old tenant.Context, left time.Duration) (tenant.Context, error) {
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	token, err := s.cfg.Refresher.RefreshContext(ctx, old.Token())
	if err != nil {
		return tenant.Context{}, FromStatus(err)
	}
	renewed, err := s.verify(token, c)
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
		"the tenant context expired while the stream was open")
}

// liveContext shows the newest tenant context of a stream to whoever asks it, or
// a context derived from it, so that calls made late in a stream's life forward
// a token that is still good.
type liveContext struct {
	context.Context //nolint:containedctx // it is a context itself

	newest atomic.Pointer[tenantContext]
}

type tenantContext struct{ context.Context } //nolint:containedctx // as liveContext

func (l *liveContext) set(c tenant.Context) {
	l.newest.Store(&tenantContext{tenant.NewContext(l.Context, c)})
}

// Value implements context.Context.
func (l *liveContext) Value(key any) any { return l.newest.Load().Value(key) }

// guardedStream refuses to move messages once its stream was cut.
type guardedStream struct {
	grpc.ServerStream
	ctx           context.Context //nolint:containedctx // what the stream's Context returns
	clientStreams bool
}

// Context implements grpc.ServerStream.
func (g *guardedStream) Context() context.Context { return g.ctx }

// SendMsg implements grpc.ServerStream. A client that reads nothing holds it up
// for as long as it likes, so it too returns as soon as the stream is cut.
func (g *guardedStream) SendMsg(m any) error {
	return g.uncut(func() error { return g.ServerStream.SendMsg(m) })
}

// RecvMsg implements grpc.ServerStream. Where the client may stay silent for as
// long as it likes, it returns as soon as the stream is cut.
func (g *guardedStream) RecvMsg(m any) error {
	if g.ctx.Err() != nil {
		return context.Cause(g.ctx)
	}
	if !g.clientStreams {
		return g.received(g.ServerStream.RecvMsg(m))
	}
	return g.received(g.uncut(func() error { return g.ServerStream.RecvMsg(m) }))
}

// uncut runs a step that may block, until it is done or the stream is cut. None
// starts after the cut: two reads, or two writes, at a time are not allowed. A step
// that is left behind ends with the stream, which gRPC ends when the handler has
// returned.
func (g *guardedStream) uncut(step func() error) error {
	if g.ctx.Err() != nil {
		return context.Cause(g.ctx)
	}
	done := make(chan error, 1)
	go func() {
		var err error
		defer func() { done <- err }()
		defer recoverInto(&err) // a message that cannot be coded panics here, not in the handler
		err = step()
	}()
	select {
	case err := <-done:
		return err
	case <-g.ctx.Done():
		return context.Cause(g.ctx)
	}
}

// received hides a message that arrived after the cut.
func (g *guardedStream) received(err error) error {
	if g.ctx.Err() != nil {
		return context.Cause(g.ctx)
	}
	return err
}
