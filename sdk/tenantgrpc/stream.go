package tenantgrpc

import (
	"context"

	"google.golang.org/grpc"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/internal/lifetime"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// guard runs a stream of a tenant and ends it when the tenant's state changes or
// its context runs out. It returns when the handler has returned.
func (s *server) guard(c *call, ss grpc.ServerStream, clientStreams bool, run func(grpc.ServerStream) error) error {
	verified, err := tenant.FromContext(ss.Context())
	if err != nil {
		return err
	}
	ctx, cut := context.WithCancelCause(ss.Context())
	live := lifetime.NewContext(ctx, verified)
	keeper := lifetime.Keeper{
		Verifier: s.cfg.Verifier, Refresher: s.cfg.Refresher, Fault: FromStatus, Clock: s.cfg.Clock,
		Verify: func(token string) (tenant.Context, error) { return s.verify(token, c) },
	}
	wait := keeper.Keep(live, cut)
	defer wait()
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
