package limits

import (
	"strings"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
)

// Loss is what a process does when quota cannot be reached.
type Loss = lease.Loss

// The policies of loss; see package lease.
const (
	SafeRate   = lease.SafeRate
	FailOpen   = lease.FailOpen
	FailClosed = lease.FailClosed
)

// Scope is who shares the cells of a limit.
type Scope uint8

// The scopes. The zero Scope is ScopeTenant.
const (
	// ScopeTenant gives each tenant its own.
	ScopeTenant Scope = iota
	// ScopePlan has all tenants of a plan share one.
	ScopePlan
	// ScopePlatform has all tenants share one.
	ScopePlatform
)

// Policy is a limit that holds for a tenant. It is immutable once a [Store] has it.
type Policy struct {
	// ID is the limit's id.
	ID string
	// Resource is what is spent; empty means ID.
	Resource string
	// Kind says whether it bounds a rate or what is held at once.
	Kind lease.Kind
	// Limit is the bound of a rate.
	Limit gcra.Limit
	// Slots and TTL are the bound of a concurrency.
	Slots int64
	TTL   time.Duration
	// OnLoss is what happens when quota cannot be reached.
	OnLoss Loss
	// Scope is who shares its cells.
	Scope Scope
	// Dimensions have a cell for each of their values.
	Dimensions []string
	// Match says which calls it is for: those that match all.
	Match []Match
	// Costs replace what calls cost; the first that matches counts.
	Costs []Cost
	// Shadow decides and counts, but refuses nothing.
	Shadow bool
	// OnChange is what becomes of what is spent when it changes.
	OnChange lease.Change
	// ExpireTime is when it ends by itself; zero for never.
	ExpireTime time.Time
	// Revision tells two versions of a limit apart; leases of another one are dropped.
	Revision int64
	// Source is the layer that set it: "platform", "plan" or "tenant".
	Source string

	rule lease.Policy
	key  lease.Key
}

// Match is a condition on one dimension of a call.
type Match struct {
	// Dimension is its name.
	Dimension string
	// Values match exactly, or as the beginning when they end in "*".
	Values []string
}

// Cost is what some calls cost.
type Cost struct {
	// Match says which calls: those that match all.
	Match []Match
	// Cost is what one costs.
	Cost int64
}

// Dim is a dimension of a call and its value there.
type Dim struct{ Name, Value string }

// Dims are the dimensions of a call. One that is not there has the empty value.
type Dims []Dim

// Of returns the value of a dimension.
func (d Dims) Of(name string) string {
	for i := range d {
		if d[i].Name == name {
			return d[i].Value
		}
	}
	return ""
}

// finish makes what decisions use, for the place where it is set.
func (p *Policy) finish(id, source string) {
	p.ID, p.Source = id, source
	if p.Resource == "" {
		p.Resource = id
	}
	p.rule = lease.Policy{
		Name: id, Kind: p.Kind, Limit: p.Limit, Slots: p.Slots, TTL: p.TTL, OnLoss: p.OnLoss, Shadow: p.Shadow, OnChange: p.OnChange,
		Revision: p.Revision,
	}
	p.key = lease.LimitKey(id)
}

// Matches reports whether the policy is for a call.
func (p *Policy) Matches(d Dims) bool { return all(p.Match, d) }

// CostOf returns what a call costs under the policy, when its caller says cost.
func (p *Policy) CostOf(d Dims, cost int64) int64 {
	for i := range p.Costs {
		if all(p.Costs[i].Match, d) {
			return p.Costs[i].Cost
		}
	}
	return cost
}

// looks reports whether the policy looks at dimensions at all.
func (p *Policy) looks() bool { return len(p.Dimensions) > 0 || len(p.Match) > 0 || len(p.Costs) > 0 }

func all(matches []Match, d Dims) bool {
	for i := range matches {
		if !matches[i].covers(d.Of(matches[i].Dimension)) {
			return false
		}
	}
	return true
}

func (m *Match) covers(value string) bool {
	for _, v := range m.Values {
		if prefix, ok := strings.CutSuffix(v, "*"); v == value || ok && strings.HasPrefix(value, prefix) {
			return true
		}
	}
	return false
}

// keyOf returns the key of the policy's cell for a call.
func (p *Policy) keyOf(scope lease.Scope, d Dims) lease.Key {
	var values [maxDimensions]string
	n := 0
	for _, name := range p.Dimensions {
		values[n] = d.Of(name)
		n++
	}
	if n == 0 {
		return p.key.In(scope)
	}
	return lease.KeyOf(scope, p.ID, values[:n]...)
}

const maxDimensions = 3
