// Package noisy is what quota knows about noisy neighbours, without wire or database:
// who took more than a share, of what, and what would help. Start at [Rank].
package noisy

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Resource is what tenants take. The values are those of rowhouse.quota.v1.ShareResource and are stored.
type Resource int16

// The resources. Times are in microseconds.
const (
	Requests Resource = iota + 1
	InFlight
	Bytes
	Refusals
	Delay
	DBTime
	DBRows
)

// MayReport reports whether a kind of process may tell of a resource: gateways of what passes through them, apps of what
// they do with databases. Both see who waits for whom.
func (r Resource) MayReport(gateway bool) bool {
	switch r {
	case DBTime, DBRows:
		return !gateway
	case Delay:
		return true
	default:
		return gateway
	}
}

// database reports whether the resource is the database's.
func (r Resource) database() bool { return r == DBTime || r == DBRows }

// Line is what a tenant took of a resource, as one reporter tells it.
type Line struct {
	Tenant   tenant.UID
	Reporter string
	Resource Resource
	// Amount is that of the window, Uncertain how much of it may be others', and Before the amount of as long a time before.
	Amount, Uncertain, Before int64
}

// Source is a resource as one reporter tells of it.
type Source struct {
	Reporter string
	Resource Resource
}

// Tenant is what else is known of a tenant.
type Tenant struct {
	ID    tenant.ID
	Plan  string
	Model tenant.Model
	// Weight is that of its plan.
	Weight int64
	// Limited says that a limit on requests holds for it.
	Limited bool
}

// Window is what was reported of a time.
type Window struct {
	Length time.Duration
	Lines  []Line
	// Totals is what all tenants took, named in Lines or not.
	Totals  map[Source]int64
	Tenants map[tenant.UID]Tenant
}

// Use is what a tenant took of one resource, beside its share.
type Use struct {
	Line

	// ShareOfCost and ShareOfWeight are from 0 to 1, Ratio is the one divided by the other, Trend is the amount divided by that
	// before, 0 without one.
	ShareOfCost, ShareOfWeight, Ratio, Trend float64
	// sure is ShareOfCost without what may be others'.
	sure float64
}

// excess is how much of all the tenant took beyond its share, for certain.
func (u Use) excess() float64 { return u.sure - u.ShareOfWeight }

// Ranked is a tenant with what it took.
type Ranked struct {
	UID    tenant.UID
	Tenant Tenant
	// Uses are by how far they are above the share.
	Uses []Use
	// Delay is how much others waited because of it.
	Delay time.Duration
	// Advice is what would help.
	Advice Advice
}

// Rank returns the tenants that are known, the noisiest first: by how much of all they took beyond their share of one
// resource, whichever is worst. A share is the weight's part of the weights of those who were reported by the same
// reporter for the same resource.
func Rank(w Window) []Ranked {
	weights := map[Source]int64{}
	for _, l := range w.Lines {
		if t, ok := w.Tenants[l.Tenant]; ok && l.Amount > 0 {
			weights[l.source()] += t.Weight
		}
	}
	by := map[tenant.UID]*Ranked{}
	for _, l := range w.Lines {
		t, ok := w.Tenants[l.Tenant]
		if !ok || l.Amount <= 0 {
			continue
		}
		r := by[l.Tenant]
		if r == nil {
			r = &Ranked{UID: l.Tenant, Tenant: t}
			by[l.Tenant] = r
		}
		if l.Resource == Delay {
			r.Delay += time.Duration(l.Amount) * time.Microsecond
		}
		r.Uses = append(r.Uses, use(l, t, max(w.Totals[l.source()], l.Amount), weights[l.source()]))
	}
	ranked := make([]Ranked, 0, len(by))
	for _, r := range by {
		slices.SortFunc(r.Uses, func(a, b Use) int {
			return cmp.Or(cmp.Compare(b.excess(), a.excess()), cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Reporter, b.Reporter))
		})
		r.Advice = advise(*r, w.Length)
		ranked = append(ranked, *r)
	}
	slices.SortFunc(ranked, func(a, b Ranked) int {
		return cmp.Or(cmp.Compare(b.Uses[0].excess(), a.Uses[0].excess()), bytes.Compare(a.UID[:], b.UID[:]))
	})
	return ranked
}

func (l Line) source() Source { return Source{l.Reporter, l.Resource} }

func use(l Line, t Tenant, total, weights int64) Use {
	u := Use{Line: l, ShareOfCost: float64(l.Amount) / float64(total), ShareOfWeight: float64(t.Weight) / float64(weights)}
	u.sure = float64(max(l.Amount-l.Uncertain, 0)) / float64(total)
	u.Ratio = u.ShareOfCost / u.ShareOfWeight
	if l.Before > 0 {
		u.Trend = float64(l.Amount) / float64(l.Before)
	}
	return u
}
