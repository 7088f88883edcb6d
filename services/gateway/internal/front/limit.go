package front

import (
	"context"
	"io"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/limits"
)

// spend takes the request out of what the tenant may.
func (v *visit) spend(ctx context.Context) error {
	d := v.h.c.Limits.Decide(ctx, v.ask(limits.Requests))
	if !v.grpc {
		d.Headers(v.w.Header().Set)
	}
	return d.Fault(v.tc.ID())
}

// ask is one of a resource, with the dimensions of the request where a limit looks at them.
func (v *visit) ask(resource string) limits.Ask {
	a := limits.Ask{Tenant: v.tc, Resource: resource, Cost: 1}
	if !v.h.c.Limits.Looks(v.tc, resource) {
		return a
	}
	method, route := v.r.Method, ""
	if v.grpc {
		method = v.r.URL.Path
	}
	if v.route.App != nil {
		route = v.route.App.ID
	}
	a.Dims = limits.Dims{
		{Name: limits.DimUser, Value: limits.User(v.tc)}, {Name: limits.DimRoute, Value: route},
		{Name: limits.DimMethod, Value: method}, {Name: limits.DimHost, Value: v.route.Host.String()},
	}
	return a
}

// hold counts the request into what the tenant may have under way by its limits. Leave
// counts it out.
func (v *visit) hold() (leave func(), err error) {
	c := v.h.c.Limits
	if !c.Limits(v.tc, limits.InFlight) {
		return func() {}, nil
	}
	ctx := v.r.Context()
	hold, d := c.Acquire(ctx, v.ask(limits.InFlight))
	return func() { hold.Release(ctx) }, d.Fault(v.tc.ID())
}

// slowBody has a request's body come in its turn: nothing is refused in the middle.
type slowBody struct {
	io.ReadCloser

	v    *visit
	ask  limits.Ask
	wait func(time.Duration) // is told how long we held the client up
}

// Read implements io.Reader.
func (b *slowBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n == 0 {
		return n, err //nolint:wrapcheck // io.EOF must stay what it is
	}
	began := time.Now()
	b.ask.Cost = int64(n)
	if stop := b.v.h.c.Limits.Pace(b.v.r.Context(), b.ask); stop != nil {
		return n, stop //nolint:wrapcheck // the context's own
	}
	b.wait(time.Since(began))
	return n, err //nolint:wrapcheck // as above
}

// throttle paces the request's body by the tenant's limit of bytes, if there is one.
func (v *visit) throttle() {
	if v.body == nil || !v.h.c.Limits.Limits(v.tc, limits.BytesIn) {
		return
	}
	v.r.Body = &slowBody{ReadCloser: v.r.Body, v: v, ask: v.ask(limits.BytesIn), wait: v.body.excuse}
}

// drip paces the parts of an answer, if there is a limit of bytes; else it is nil.
func (v *visit) drip() func(ctx context.Context, n int) error {
	if !v.h.c.Limits.Limits(v.tc, limits.BytesOut) {
		return nil
	}
	a := v.ask(limits.BytesOut)
	return func(ctx context.Context, n int) error {
		a.Cost = int64(n)
		return v.h.c.Limits.Pace(ctx, a) //nolint:wrapcheck // the context's own
	}
}
