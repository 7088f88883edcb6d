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
	"sync/atomic"
	"time"

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

	known atomic.Pointer[known]

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
	}
	var err error
	client.failed, err = c.Metrics.Meter("github.com/rowhouse-platform/rowhouse/sdk/flags").Int64Counter("rowhouse.flags.failures",
		metric.WithUnit("{evaluation}"), metric.WithDescription("Evaluations that gave the caller's default because something was wrong."))
	if err != nil {
		return nil, fmt.Errorf("flags: %w", err)
	}
	client.known.Store(newKnown(c.Store.Families()))
	c.Store.OnChange(client.changed)
	return client, nil
}

// Who is whose flags are asked for. All of it must come from something verified.
type Who struct {
	// UID and ID name the tenant. Rules see ID as "tenant".
	UID tenant.UID
	ID  tenant.ID
	// Plan and Region are the tenant's; Environment is where it asks from, "" for none.
	Plan, Region, Environment string
}

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

	text func() []byte
}

// Text returns the flags as flagd's JSON, canonical (RFC 8785). It is made once; do not change it.
func (s *Set) Text() []byte { return s.text() }

// known is what was made of the store's present state. A change drops it as a whole, so that no old set stays alive.
type known struct {
	families uint64 // of the store, before anything was made

	mu    sync.RWMutex
	views map[Who]*View
	sets  map[string]*Set // by the versions of settings that tenants share
	same  map[string]*Set // by their own version
}

func newKnown(families uint64) *known {
	return &known{families: families, views: make(map[Who]*View), sets: make(map[string]*Set), same: make(map[string]*Set)}
}

// For returns what holds for a tenant. The error is a fault STARTING before the first state.
func (c *Client) For(w Who) (*View, error) {
	k := c.known.Load()                   // before the store is read: what is read then is at least as new
	if k.families != c.store.Families() { // a tenant has another parent
		c.changed()
		k = c.known.Load()
	}
	k.mu.RLock()
	v := k.views[w]
	k.mu.RUnlock()
	if v != nil {
		return v, nil
	}
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
	if shared := (Who{Plan: w.Plan, Region: w.Region, Environment: w.Environment}); w != shared {
		v, err := c.For(shared)
		if err != nil {
			return nil, err
		}
		base = v.Set
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	set, err := k.set(e, kills, base, c)
	if err != nil {
		return nil, err
	}
	v = &View{Set: set, Who: w, Plain: plain}
	k.views[w] = v
	return v, nil
}

// set returns the compiled set of effective values. The caller holds the lock, so that each is made once.
func (k *known) set(e, kills settings.Effective, base *Set, c *Client) (*Set, error) {
	at := e.Version + kills.Version
	if s := k.sets[at]; s != nil {
		return s, nil
	}
	var over *flagset.Set
	if base != nil {
		over = base.Set
	}
	compiled, err := flagset.CompileOver(over, Killed(e.Object, kills.Object), c.clock, c.with)
	if err != nil {
		return nil, err
	}
	text := func() []byte { return settings.Canonical(compiled.Document()) }
	digest := compiled.Digest()
	version := base64.RawURLEncoding.EncodeToString(digest[:])
	s := k.same[version]
	if s == nil {
		s = &Set{Set: compiled, Version: version, text: sync.OnceValue(text)}
		k.same[version] = s
	}
	if base == nil {
		k.sets[at] = s
	}
	return s, nil
}
