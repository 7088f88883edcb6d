// Package flags tells which features are on, and with which values, for the tenant of a call.
//
// Flags are settings: documents of the namespace "flags" in flagd's format, one for each layer. What holds for a tenant
// is compiled once and evaluated in memory; nothing asks another service on the path of a request. The tenant, its plan
// and its region come from the verified tenant context and the environment from the process's own configuration, never
// from what a caller says of itself.
//
// Start at [New] and [Client.Bool]. Servers of other protocols, which know their tenant by other means, use [Client.For]
// and [Client.Subscribe]. The evaluator itself is package flagset.
package flags

import (
	"context"
	"encoding/base64"
	"fmt"
	"sync"
	"time"
	"weak"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagset"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/jsonlogic"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Config makes a [Client]. Store is required.
type Config struct {
	// Store holds the settings; settings.Follow keeps it up to date. Rules see its Environment as "environment".
	Store *settings.Store
	// Clock is asked by rules that read $flagd.timestamp. Default time.Now.
	Clock func() time.Time
	// Metrics gets rowhouse.flags.failures, which counts evaluations that gave the caller's default because something
	// was wrong, by OpenFeature's error code. Default: none.
	Metrics metric.MeterProvider
	// Conditions evaluates conditions in CEL, {"cel": "…"}; package sdk/flags/cel makes one. Default: none, and flags that have
	// a condition fail with PARSE_ERROR.
	Conditions jsonlogic.Conditions
}

// Client answers for all tenants. It is safe for concurrent use and holds nothing that must be closed.
type Client struct {
	store  *settings.Store
	clock  func() time.Time
	failed metric.Int64Counter
	with   flagset.Option

	known known

	mu            sync.Mutex
	subscriptions map[*Subscription]bool
	watches       map[*Watch]bool
}

// New returns a client. It fails only when the counter cannot be made.
func New(c Config) (*Client, error) {
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Metrics == nil {
		c.Metrics = noop.NewMeterProvider()
	}
	client := &Client{
		store: c.Store, clock: c.Clock, with: flagset.WithConditions(c.Conditions),
		subscriptions: make(map[*Subscription]bool), watches: make(map[*Watch]bool),
		known: known{
			most: maxViews, views: make(map[tenant.UID][]*kept), gone: make(map[string]bool),
			sets: pool{sets: make(map[string]weak.Pointer[Set])}, same: pool{sets: make(map[string]weak.Pointer[Set])},
		},
	}
	var err error
	client.failed, err = c.Metrics.Meter("github.com/rowhouse-platform/rowhouse/sdk/flags").Int64Counter("rowhouse.flags.failures",
		metric.WithUnit("{evaluation}"), metric.WithDescription("Evaluations that gave the caller's default because something was wrong."))
	if err != nil {
		return nil, fmt.Errorf("flags: %w", err)
	}
	c.Store.OnChangeIn(client.changed, settings.FlagsNamespace, settings.FlagKillsNamespace)
	return client, nil
}

// Who is whose flags are asked for. All of it must come from something verified. Rules see ID as "tenant".
type Who settings.Reader

// Whose returns the tenant of ctx, in the environment of this process. The error is a fault CONTEXT_MISSING.
func (c *Client) Whose(ctx context.Context) (Who, error) {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return Who{}, err
	}
	return c.who(tc), nil
}

func (c *Client) who(tc tenant.Context) Who {
	return Who{UID: tc.UID(), ID: tc.ID(), Plan: tc.Plan(), Region: tc.Region(), Environment: c.store.Environment}
}

// View is what holds for one tenant at one time. It is immutable and safe for concurrent use; tenants for whom the same
// holds share its set.
type View struct {
	*Set

	// Who it holds for.
	Who Who
	// Plain is an evaluation context without any attribute of a caller's.
	Plain *flagset.Context

	bound     sync.Once
	boundText string
}

// Bound returns what bind makes of the view. It is made once, by the first who asks; all must ask with the same.
func (v *View) Bound(bind func(*View) string) string {
	v.bound.Do(func() { v.boundText = bind(v) })
	return v.boundText
}

// Identity is what rules see of the tenant, for [flagset.NewContext].
func (w Who) Identity() flagset.Identity {
	return flagset.Identity{Tenant: w.ID.String(), Plan: w.Plan, Region: w.Region, Environment: w.Environment}
}

// Set is a compiled set of flags, shared by all tenants for whom the same holds.
type Set struct {
	*flagset.Set

	// Version is a digest of the content in base64url, never cut: equal versions mean equal flags, in all processes.
	Version string

	text func() string
}

// Text returns the flags as flagd's JSON, canonical (RFC 8785). It is made once.
func (s *Set) Text() string { return s.text() }

// For returns what holds for a tenant. The error is a fault STARTING before the first state.
func (c *Client) For(w Who) (*View, error) {
	if v := c.known.find(&w); v != nil && c.belongs(v) {
		return v.View, nil
	}
	drops, families := c.known.dropped(), c.store.Families() // before the store is read: what is read then is at least as new
	v := &kept{parent: c.parentOf(w.UID)}
	v.families.Store(families)
	var err error
	if v.View, err = c.view(w); err != nil {
		return nil, err
	}
	if families == c.store.Families() && !c.known.keep(v, drops) {
		c.retire(nil, v.View) // whoever asked may have an old answer, of which the change did not know
	}
	return v.View, nil
}

// belongs reports whether what is kept for a tenant is still its parent's.
func (c *Client) belongs(v *kept) bool {
	families := c.store.Families()
	if v.families.Load() == families {
		return true
	}
	if c.parentOf(v.Who.UID) != v.parent {
		c.changed(settings.Change{Tenants: map[tenant.UID]bool{v.Who.UID: true}})
		return false
	}
	v.families.Store(families)
	return true
}

// parentOf is a tenant's parent now, zero without one.
func (c *Client) parentOf(uid tenant.UID) tenant.UID {
	if c.store.Trust == nil {
		return tenant.UID{}
	}
	state, _ := c.store.Trust.Tenant(uid)
	return state.Parent
}

// view makes what holds for a tenant.
func (c *Client) view(w Who) (*View, error) {
	e, ok := c.store.Holds(settings.Reader(w), settings.FlagsNamespace)
	if !ok {
		return nil, fault.New(fault.Unavailable, fault.ReasonStarting, "the flags are not loaded yet")
	}
	kills, _ := c.store.Holds(settings.Reader(w), settings.FlagKillsNamespace) // made before the other: without it nothing is killed
	plain, err := flagset.NewContext(w.Identity(), nil)
	if err != nil {
		return nil, err
	}
	var base *Set // of tenants that have nothing of their own
	if shared := (Who{Plan: w.Plan, Region: w.Region}); w != shared {
		v, err := c.For(shared)
		if err != nil {
			return nil, err
		}
		base = v.Set
	}
	set, err := c.set(e, kills, base)
	if err != nil {
		return nil, err
	}
	return &View{Set: set, Who: w, Plain: plain}, nil
}

// set returns the compiled set of effective values.
func (c *Client) set(e, kills settings.Effective, base *Set) (*Set, error) {
	versions := e.Version + kills.Version
	if s := c.known.shared(versions); s != nil {
		return s, nil
	}
	var over *flagset.Set
	if base != nil {
		over = base.Set
	} else {
		c.known.making.Lock()
		defer c.known.making.Unlock()
		if s := c.known.shared(versions); s != nil {
			return s, nil
		}
	}
	compiled, err := flagset.CompileOver(over, Killed(e.Object, kills.Object), c.clock, c.with)
	if err != nil {
		return nil, err
	}
	digest := compiled.Digest()
	return c.known.share(versions, &Set{
		Set: compiled, Version: base64.RawURLEncoding.EncodeToString(digest[:]),
		text: sync.OnceValue(func() string { return string(settings.Canonical(compiled.Document())) }),
	}), nil
}
