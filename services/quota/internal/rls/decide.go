package rls

import (
	"context"
	"math"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/rls/ruleset"
)

// Tenants find a tenant by its id; *tenant.Trust does.
type Tenants interface {
	Find(id tenant.ID) (tenant.TenantState, bool)
}

// Service decides. It is safe for concurrent use.
type Service struct {
	engine  Engine
	domains *Domains
	tenants Tenants
	style   Style
	meter   *Meter
}

// Config makes a [Service]. All but Style is required.
type Config struct {
	Engine  Engine
	Domains *Domains
	Tenants Tenants
	Meter   *Meter
	// Style is which header fields answers ask Envoy to add.
	Style Style
}

// New returns a Service.
func New(c Config) *Service {
	return &Service{engine: c.Engine, domains: c.Domains, tenants: c.Tenants, meter: c.Meter, style: c.Style}
}

// verdict is how a descriptor is answered apart from what its cell says.
type verdict uint8

const (
	unmatched verdict = iota // nothing holds
	unlimited
	refused // its tenant is unknown
	charged
	refunded
)

// asked is one descriptor of a request on its way to an answer.
type asked struct {
	verdict verdict
	bound   *bound
	scope   lease.Scope
	// shared is as in [ruleset.Match].
	shared uint32
	// charge is the place of its charge; several descriptors may have one.
	charge int
}

// decision is what a request needs while it is decided.
type decision struct {
	request request
	answer  answer

	asked   []asked
	charges []Charge
	refunds []Charge
	cells   map[cell]int
	names   map[string]bool
}

// cell is what is charged once, however often it is asked for.
type cell struct {
	scope lease.Scope
	key   lease.Key
}

// The refusals of the protocol.
var (
	errNoDomain      = fault.New(fault.InvalidArgument, fault.ReasonInvalidField, "rate limit domain must not be empty")
	errNoDescriptors = fault.New(fault.InvalidArgument, fault.ReasonInvalidField, "rate limit descriptor list must not be empty")
)

// decide answers the request that d has read. Nothing of d outlives it.
func (s *Service) decide(ctx context.Context, p *Peer, d *decision) error {
	if err := admit(p, &d.request); err != nil {
		return err
	}
	d.reset()
	if found := s.domains.find(d.request.domain); found != nil {
		if err := s.match(p, found, d); err != nil {
			return err
		}
		if found.set.Replacing {
			d.replace()
		}
		if err := s.take(ctx, found, d); err != nil {
			return err
		}
	}
	s.conclude(d)
	return nil
}

// admit says whether the peer may ask this at all.
func admit(p *Peer, r *request) error {
	switch {
	case r.domain == "":
		return errNoDomain
	case len(r.descriptors) == 0:
		return errNoDescriptors
	case !p.may(r.domain):
		return denied("ask about this domain")
	}
	for i := range r.descriptors {
		if r.descriptors[i].overridden && !p.Override {
			return denied("bring limits along (override)")
		}
		if r.descriptors[i].negative && !p.Refund {
			return denied("give hits back (refund)")
		}
	}
	return nil
}

func denied(what string) error {
	return fault.New(fault.PermissionDenied, fault.ReasonPermissionMissing, "the peer may not %s", what)
}

// reset prepares d for the request that it holds.
func (d *decision) reset() {
	n := len(d.request.descriptors)
	if cap(d.asked) < n {
		d.asked, d.answer.statuses = make([]asked, n), make([]status, n)
	}
	d.asked, d.answer.statuses = d.asked[:n], d.answer.statuses[:n]
	clear(d.asked)
	clear(d.answer.statuses)
	clear(d.charges)
	clear(d.refunds)
	d.charges, d.refunds = d.charges[:0], d.refunds[:0]
	d.answer = answer{statuses: d.answer.statuses, headers: d.answer.headers[:0], body: d.answer.body[:0]}
}

// match finds out which limit each descriptor meets.
func (s *Service) match(p *Peer, in *domain, d *decision) error {
	for i := range d.request.descriptors {
		asks, a := &d.request.descriptors[i], &d.asked[i]
		var ok bool
		if a.scope, ok = s.scope(p, in, asks.entries); !ok {
			a.verdict = refused
			continue
		}
		if asks.overridden {
			b, err := in.brought.of(asks.override, in.overridden)
			if err != nil {
				return fault.New(fault.InvalidArgument, fault.ReasonInvalidField, "%w", err)
			}
			a.verdict, a.bound = charged, b
			continue
		}
		m := in.set.Match(asks.entries)
		if m.Rule == nil {
			continue
		}
		a.verdict, a.bound, a.shared = charged, in.bounds[m.Rule.ID], m.Shared
		if m.Rule.Unlimited {
			a.verdict = unlimited
		}
	}
	return nil
}

// scope is who is charged for a descriptor: the tenant that it names, or the domain. It is false when it names one that
// does not exist and the peer wants such to be refused.
func (s *Service) scope(p *Peer, in *domain, entries []ruleset.Entry) (lease.Scope, bool) {
	if p.NamesTenant == "" {
		return in.scope, true
	}
	for _, e := range entries {
		if e.Key != p.NamesTenant {
			continue
		}
		if id, err := tenant.ParseID(e.Value); err == nil {
			if state, ok := s.tenants.Find(id); ok {
				return lease.Scope(state.UID), true
			}
		}
		return in.scope, p.UnknownTenant != RefuseUnknown
	}
	return in.scope, true
}

// replace takes out what other limits of the request replace.
func (d *decision) replace() {
	clear(d.names)
	for _, a := range d.asked {
		if a.bound == nil || a.bound.rule == nil {
			continue
		}
		for _, name := range a.bound.rule.Replaces {
			if d.names == nil {
				d.names = map[string]bool{}
			}
			d.names[name] = true
		}
	}
	if len(d.names) == 0 {
		return
	}
	for i, a := range d.asked {
		if a.verdict == charged && a.bound.rule != nil && a.bound.rule.Name != "" && d.names[a.bound.rule.Name] {
			d.asked[i] = asked{}
		}
	}
}

// take charges the cells of all descriptors, or none; then it gives back what is to be given back.
func (s *Service) take(ctx context.Context, in *domain, d *decision) error {
	d.collect(in)
	if len(d.charges) > 0 {
		if err := s.engine.Take(ctx, d.charges); err != nil {
			return unavailable(err)
		}
	}
	for i := range d.asked {
		if d.asked[i].verdict == refused || d.asked[i].verdict == charged && d.over(i) && !d.asked[i].bound.policy.Shadow {
			d.answer.over = true
		}
	}
	for i := range d.refunds {
		c := &d.refunds[i]
		if d.answer.over { // a request is done whole or not at all
			c.Cost = 0
		}
		if err := s.engine.Refund(ctx, c); err != nil {
			return unavailable(err)
		}
	}
	return nil
}

func unavailable(err error) error {
	return fault.New(fault.Unavailable, fault.ReasonDependency, "the limits cannot be charged now").WithCause(err)
}

// over reports whether the charge of a descriptor did not fit.
func (d *decision) over(i int) bool { return d.charges[d.asked[i].charge].Over }

// manyCharges is above how many charges the same cell is looked for in a map.
const manyCharges = 16

// collect collects what is to be charged: a cell that is asked for twice is charged once, with the sum.
func (d *decision) collect(in *domain) {
	clear(d.cells)
	for i := range d.asked {
		a := &d.asked[i]
		if a.verdict != charged {
			continue
		}
		asks := &d.request.descriptors[i]
		mark := markRule
		if a.bound.rule == nil {
			mark = markOverride
		}
		c := Charge{Scope: a.scope, Policy: a.bound.policy, Cost: cost(&d.request, asks)}
		c.Key = cellOf(in.salt, mark, ruleset.Match{Rule: a.bound.rule, Shared: a.shared}, asks.entries)
		if asks.negative {
			a.verdict, a.charge = refunded, len(d.refunds)
			d.refunds = append(d.refunds, c)
			continue
		}
		a.charge = d.charge(c)
	}
}

// charge adds a charge and returns its place.
func (d *decision) charge(c Charge) int {
	if len(d.charges) < manyCharges {
		for i := range d.charges {
			if d.charges[i].Key == c.Key && d.charges[i].Scope == c.Scope {
				return d.sum(i, c)
			}
		}
		d.charges = append(d.charges, c)
		return len(d.charges) - 1
	}
	if len(d.cells) == 0 {
		if d.cells == nil {
			d.cells = map[cell]int{}
		}
		for i, c := range d.charges {
			d.cells[cell{c.Scope, c.Key}] = i
		}
	}
	if i, ok := d.cells[cell{c.Scope, c.Key}]; ok {
		return d.sum(i, c)
	}
	d.cells[cell{c.Scope, c.Key}] = len(d.charges)
	d.charges = append(d.charges, c)
	return len(d.charges) - 1
}

// sum adds to a charge. Of two overrides for one cell the last is the one that holds.
func (d *decision) sum(i int, c Charge) int {
	d.charges[i].Cost = min(d.charges[i].Cost+c.Cost, lease.MaxCost+1)
	d.charges[i].Policy = c.Policy
	return i
}

// cost is how many hits a descriptor has. More than any limit holds is never there.
func cost(r *request, d *descriptor) int64 {
	switch {
	case d.counted:
		return int64(min(d.hits, lease.MaxCost+1)) // at most that
	case r.hits == 0:
		return 1
	}
	return int64(r.hits)
}

// conclude writes the answer.
func (s *Service) conclude(d *decision) {
	for i := range d.asked {
		a, st := &d.asked[i], &d.answer.statuses[i]
		switch a.verdict {
		case unmatched:
		case unlimited:
			st.remaining = math.MaxUint32
			a.bound.counts.count(false, false)
		case refused:
			st.over = true
		case refunded:
			st.say(a.bound, &d.refunds[a.charge])
		case charged:
			c := &d.charges[a.charge]
			st.say(a.bound, c)
			s.count(d, i, c.Over)
			if a.bound.policy.Shadow {
				st.over = false
				if c.Over && a.bound.rule.Quota {
					d.answer.violations = append(d.answer.violations, i)
				}
			}
		}
	}
	s.style.decorate(d)
}

// say fills a status in from a charge.
func (s *status) say(b *bound, c *Charge) {
	s.limit, s.over, s.reset = b.encoded, c.Over, seconds(c.Wait)
	if s.remaining = saturate(c.Remaining); c.Over {
		s.remaining = 0
	}
	if c.Over && c.Wait == 0 { // it never fits: what can be said is when the limit is full
		s.reset = max(1, seconds(b.policy.Limit.Period()))
	}
}

// seconds rounds up to whole seconds, of which there is always one.
func seconds(d time.Duration) int64 { return max(1, int64((d+time.Second-1)/time.Second)) }

// count counts a decision for the limit, and for its values where it asks for that.
func (s *Service) count(d *decision, i int, over bool) {
	b := d.asked[i].bound
	b.counts.count(over, b.policy.Shadow)
	if b.rule != nil && b.split {
		s.meter.valuesOf(d.request.domain, b.title, b.rule.Series(d.request.descriptors[i].entries)).count(over, b.policy.Shadow)
	}
}
