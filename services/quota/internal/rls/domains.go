package rls

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/rls/ruleset"
)

// bound is a limit that is ready to be decided by.
type bound struct {
	rule   *ruleset.Rule // nil of an override
	title  string
	policy *lease.Policy
	// encoded is the current limit as answers hold it.
	encoded []byte
	counts  *series
	// split says that decisions are counted by values too.
	split bool
	// quoted and promised are the limit's name and its policy in header fields.
	quoted, promised string
}

// domain is what holds in one domain. But for what requests bring along it does not change.
type domain struct {
	set   *ruleset.Set
	salt  []byte
	scope lease.Scope
	// revision is that of the import.
	revision int64
	bounds   []*bound // by the rules' ids
	brought  overrides
	// overridden counts decisions by what requests bring along.
	overridden *series
}

// Domains are what was imported, by domain. They are safe for concurrent use; the zero Domains knows none.
type Domains struct {
	now   atomic.Pointer[map[string]*domain]
	mu    sync.Mutex // for writers
	meter *Meter
}

// NewDomains returns none yet. Decisions are counted by meter.
func NewDomains(meter *Meter) *Domains {
	d := &Domains{meter: meter}
	d.now.Store(&map[string]*domain{})
	return d
}

// find returns a domain, or nil.
func (d *Domains) find(name string) *domain { return (*d.now.Load())[name] }

// Len is how many domains there are.
func (d *Domains) Len() int { return len(*d.now.Load()) }

// Import is one domain's rules as they were stored.
type Import struct {
	Domain string
	// Set is nil when the domain was deleted.
	Set *ruleset.Set
	// Keep has what is known of the domain stay.
	Keep bool
	// Salt is the domain's own, for as long as it is there.
	Salt     []byte
	Revision int64
}

// Apply takes imports in, all at once. With whole they are all that there is.
func (d *Domains) Apply(imports []Import, whole bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := *d.now.Load()
	all := maps.Clone(before)
	if whole {
		all = make(map[string]*domain, len(imports))
	}
	for _, i := range imports {
		if i.Keep {
			if known := before[i.Domain]; known != nil {
				all[i.Domain] = known
			}
			continue
		}
		if i.Set == nil {
			delete(all, i.Domain)
			continue
		}
		made, err := d.ready(i)
		if err != nil {
			return fmt.Errorf("domain %q: %w", i.Domain, err)
		}
		all[i.Domain] = made
	}
	d.now.Store(&all)
	return nil
}

// ready makes what decisions need.
func (d *Domains) ready(i Import) (*domain, error) {
	if len(i.Salt) != saltSize {
		return nil, fmt.Errorf("the salt has %d bytes", len(i.Salt))
	}
	out := &domain{set: i.Set, salt: i.Salt, scope: scopeOf(i.Domain), revision: i.Revision}
	out.overridden = d.meter.of(i.Domain, overrideTitle)
	for _, rule := range i.Set.Rules {
		b := &bound{rule: rule, title: rule.Title(), counts: d.meter.of(i.Domain, rule.Title()), split: rule.Split()}
		if !rule.Unlimited {
			b.policy = &lease.Policy{Name: b.title, Limit: rule.Limit, Shadow: rule.Shadow || rule.Quota, Revision: i.Revision}
			var err error
			if b.encoded, err = encodeLimit(rule.Name, rule.Requests, int32(rule.Unit), nil); err != nil {
				return nil, err
			}
			b.promise()
		}
		out.bounds = append(out.bounds, b)
	}
	return out, nil
}

// encodeLimit encodes a current limit.
func encodeLimit(name string, requests uint32, unit int32, multiplier *wrapperspb.UInt32Value) ([]byte, error) {
	return proto.MarshalOptions{}.MarshalAppend([]byte{}, &rlsv3.RateLimitResponse_RateLimit{
		Name: name, RequestsPerUnit: requests, Unit: rlsv3.RateLimitResponse_RateLimit_Unit(unit), UnitMultiplier: multiplier,
	})
}

// maxOverrides is how many overrides are kept ready.
const maxOverrides = 4096

// overrides keeps limits that requests brought along, so that the same one is the same policy again. It forgets all of
// them when there are too many: that costs leases, never a token.
type overrides struct {
	mu    sync.RWMutex
	known map[override]*bound
}

// of returns the limit of an override. Of one that is none it returns the reason.
func (o *overrides) of(asked override, counts *series) (*bound, error) {
	o.mu.RLock()
	b := o.known[asked]
	o.mu.RUnlock()
	if b != nil {
		return b, nil
	}
	b, err := asked.bound()
	if err != nil {
		return nil, err
	}
	b.counts = counts
	o.mu.Lock()
	defer o.mu.Unlock()
	if other := o.known[asked]; other != nil {
		return other, nil
	}
	if o.known == nil || len(o.known) >= maxOverrides {
		o.known = map[override]*bound{}
	}
	o.known[asked] = b
	return b, nil
}

// overrideTitle is how overrides are called, all alike.
const overrideTitle = "override"

func (o override) bound() (*bound, error) {
	unit := ruleset.Unit(o.unit).Duration()
	if unit == 0 {
		return nil, fmt.Errorf("a limit of a descriptor has the unit %s", typev3.RateLimitUnit(o.unit))
	}
	var multiplier *wrapperspb.UInt32Value
	times := int64(1)
	if o.multiplied {
		if times = int64(o.multiplier); times == 0 {
			return nil, errors.New("a limit of a descriptor has the unit_multiplier 0")
		}
		multiplier = wrapperspb.UInt32(o.multiplier)
	}
	if times > int64(gcra.MaxPeriod/unit) {
		return nil, fmt.Errorf("a limit of a descriptor has a period of more than %d days", gcra.MaxPeriod/(24*time.Hour))
	}
	limit, err := gcra.New(int64(o.requests), unit*time.Duration(times), 0)
	if err != nil {
		return nil, err
	}
	encoded, err := encodeLimit("", o.requests, o.unit, multiplier)
	if err != nil {
		return nil, err
	}
	b := &bound{title: overrideTitle, policy: &lease.Policy{Name: overrideTitle, Limit: limit}, encoded: encoded}
	b.promise()
	return b, nil
}
