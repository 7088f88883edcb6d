package flags

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagset"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Detail is a value with where it comes from.
type Detail[T any] struct {
	// Value is the flag's value, or the caller's default where there is none.
	Value T
	// Variant is the name of the value; "" where Value is the caller's default.
	Variant string
	// Reason says why. Default and Disabled without a variant mean that the caller's default applies.
	Reason flagset.Reason
	// Code says what went wrong; Value is the caller's default then.
	Code flagset.Code
	// Metadata is that of the flag, over that of all flags; nil if there is no such flag. Do not change it.
	Metadata map[string]any
}

// Bool returns the value of a flag for the tenant of ctx, and fallback where there is none: without a tenant, before
// the first state, of a flag that does not exist, is disabled, killed or broken, or has a value of another kind. It does
// not allocate for flags with and without targeting.
//
// The attributes that rules see are those of [Client.With].
func (c *Client) Bool(ctx context.Context, key string, fallback bool) bool {
	return c.BoolDetail(ctx, key, fallback).Value
}

// String is [Client.Bool] for strings.
func (c *Client) String(ctx context.Context, key, fallback string) string {
	return c.StringDetail(ctx, key, fallback).Value
}

// Int is [Client.Bool] for integers: 10.0 is 10; 3.14 and what is beyond ±(2^53-1) are no integers.
func (c *Client) Int(ctx context.Context, key string, fallback int64) int64 {
	return c.IntDetail(ctx, key, fallback).Value
}

// Float is [Client.Bool] for numbers.
func (c *Client) Float(ctx context.Context, key string, fallback float64) float64 {
	return c.FloatDetail(ctx, key, fallback).Value
}

// Object is [Client.Bool] for objects. They are shared: do not change them.
func (c *Client) Object(ctx context.Context, key string, fallback map[string]any) map[string]any {
	return c.ObjectDetail(ctx, key, fallback).Value
}

// BoolDetail is [Client.Bool] with where the value comes from.
func (c *Client) BoolDetail(ctx context.Context, key string, fallback bool) Detail[bool] {
	r := c.Evaluate(ctx, key)
	v, code := r.Bool()
	return detail(ctx, c, r, v, code, fallback)
}

// StringDetail is [Client.String] with where the value comes from.
func (c *Client) StringDetail(ctx context.Context, key, fallback string) Detail[string] {
	r := c.Evaluate(ctx, key)
	v, code := r.Text()
	return detail(ctx, c, r, v, code, fallback)
}

// IntDetail is [Client.Int] with where the value comes from.
func (c *Client) IntDetail(ctx context.Context, key string, fallback int64) Detail[int64] {
	r := c.Evaluate(ctx, key)
	v, code := r.Int()
	return detail(ctx, c, r, v, code, fallback)
}

// FloatDetail is [Client.Float] with where the value comes from.
func (c *Client) FloatDetail(ctx context.Context, key string, fallback float64) Detail[float64] {
	r := c.Evaluate(ctx, key)
	v, code := r.Float()
	return detail(ctx, c, r, v, code, fallback)
}

// ObjectDetail is [Client.Object] with where the value comes from.
func (c *Client) ObjectDetail(ctx context.Context, key string, fallback map[string]any) Detail[map[string]any] {
	r := c.Evaluate(ctx, key)
	v, code := r.Object()
	return detail(ctx, c, r, v, code, fallback)
}

// detail puts the caller's default in where there is no value, and counts what went wrong.
func detail[T any](ctx context.Context, c *Client, r flagset.Result, v T, code flagset.Code, fallback T) Detail[T] {
	d := Detail[T]{Value: v, Variant: r.Variant(), Reason: r.Reason(), Code: code, Metadata: r.Metadata()}
	if code != flagset.OK {
		c.Count(ctx, code)
		d.Value, d.Variant, d.Reason = fallback, "", flagset.Error
	} else if !r.HasValue() {
		d.Value = fallback
	}
	return d
}

// Count counts an answer that was an error in rowhouse.flags.failures, for servers of other protocols that evaluate views
// by themselves. [flagset.OK] is none. Keys are no labels: they come from callers.
func (c *Client) Count(ctx context.Context, code flagset.Code) {
	if code == flagset.OK {
		return
	}
	c.failed.Add(ctx, 1, metric.WithAttributes(attribute.String("code", code.String())))
}

// Evaluate returns the answer for a flag and the tenant of ctx, whatever its kind is. Its code is InvalidContext without
// a tenant, and NotReady before the first state.
func (c *Client) Evaluate(ctx context.Context, key string) flagset.Result {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return flagset.Failed(flagset.InvalidContext)
	}
	w := c.who(tc)
	v, err := c.For(w)
	if err != nil {
		return flagset.Failed(flagset.NotReady)
	}
	data := v.Plain
	if a, ok := ctx.Value(attributesKey{}).(*attributed); ok {
		if a.who != w {
			return flagset.Failed(flagset.InvalidContext) // they were said of another tenant
		}
		data = a.data
	}
	return v.Evaluate(key, data)
}

type attributesKey struct{}

// attributed is what a caller says of itself, for one tenant.
type attributed struct {
	who  Who
	data *flagset.Context
}

// With returns a copy of ctx whose evaluations see the caller's attributes, such as targetingKey, instead of those that
// it had. Ours go over them: tenant, plan, region, environment and $flagd. Do it once per request. The error is a fault
// CONTEXT_MISSING without a tenant, and wraps [flagset.ErrContext] if an attribute is no JSON value or "tenant" names
// another tenant; evaluations with the returned context are InvalidContext then.
func (c *Client) With(ctx context.Context, attributes map[string]any) (context.Context, error) {
	a := new(attributed)
	w, err := c.Whose(ctx)
	if err == nil {
		a.data, err = flagset.NewContext(w.Identity(), attributes)
	}
	if err == nil {
		a.who = w
	}
	return context.WithValue(ctx, attributesKey{}, a), err
}
