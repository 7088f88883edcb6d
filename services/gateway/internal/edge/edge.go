// Package edge decides what becomes of a request at the front door: which tenant
// it is for, which app answers it, and which of its header fields go on.
//
// It is pure: it knows neither sockets nor the wire format of the feeds. The
// gateway fills a [Table] from the routing feed and asks it once per request.
// Start at [Table.Resolve].
package edge

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/rowhouse-platform/rowhouse/sdk/authority"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// State is where a tenant is in its life, as far as the front door cares.
type State uint8

// The states. The zero State is not ready.
const (
	// NotReady tenants have no home yet.
	NotReady State = iota
	// Active tenants are served.
	Active
	// Suspended tenants are refused; their data is kept.
	Suspended
	// Deleted tenants are refused for good.
	Deleted
)

// Tenant is what the gateway knows of a tenant. Immutable once in a table.
type Tenant struct {
	UID                 tenant.UID
	ID                  tenant.ID
	DisplayName         string
	State               State
	Generation          uint64
	Plan                string
	Model               tenant.Model
	Cell                string
	PlacementGeneration uint64
	// DenyOnLoss says that calls are refused once the control plane is lost.
	DenyOnLoss bool
}

// Domain leads a host to a tenant's app. Immutable once in a table.
type Domain struct {
	Host   authority.Host
	Tenant tenant.UID
	App    string
}

// App is a product service. Immutable once in a table.
type App struct {
	ID string
	// Audience is the app's bit in a tenant context.
	Audience tenant.Audience
	// GRPCServices are the services that are forwarded.
	GRPCServices map[string]bool
	// SharedHosts are hosts on which path, token or selector name the tenant.
	SharedHosts []authority.Host
	// Upstreams are the app's processes by cell.
	Upstreams map[string]Upstream
}

// Upstream is where an app's processes for one cell are.
type Upstream struct {
	// GRPCAddress and HTTPAddress are "host:port", empty when there is none.
	GRPCAddress, HTTPAddress string
	// SPIFFEID is the URI that the processes must show.
	SPIFFEID string
}

// Cell is what the gateway knows of a cell. Immutable once in a table.
type Cell struct {
	ID      string
	Number  uint32
	Region  string
	SealKID uint8
}

// Plan is what the gateway knows of a plan. Immutable once in a table.
type Plan struct {
	ID string
	// Weight is what each of its tenants gets of what is shared, beside the others who want it.
	Weight int
}

// Table is the whole routing table of a gateway, in memory. It is safe for
// concurrent use. Entries may come in any order: a domain whose tenant is not
// there yet leads nowhere until it is.
type Table struct {
	mu       sync.RWMutex
	tenants  map[tenant.UID]*Tenant
	byID     map[tenant.ID]*Tenant
	domains  map[authority.Host]*Domain
	apps     map[string]*App
	shared   map[authority.Host]*App
	cells    map[string]*Cell
	plans    map[string]int // their weights
	revision atomic.Int64
}

// NewTable returns an empty table.
func NewTable() *Table {
	t := &Table{}
	t.Reset()
	return t
}

// Reset empties the table, as a new snapshot begins. Callers that must not show
// an empty table fill a new one and swap it in.
func (t *Table) Reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tenants = make(map[tenant.UID]*Tenant)
	t.byID = make(map[tenant.ID]*Tenant)
	t.domains = make(map[authority.Host]*Domain)
	t.apps = make(map[string]*App)
	t.shared = make(map[authority.Host]*App)
	t.cells = make(map[string]*Cell)
	t.plans = make(map[string]int)
	t.revision.Store(0)
}

// SetRevision records the revision that the table shows.
func (t *Table) SetRevision(r int64) { t.revision.Store(r) }

// Revision returns the revision that the table shows.
func (t *Table) Revision() int64 { return t.revision.Load() }

// SetTenant puts a tenant in, or replaces the one with its uid.
func (t *Table) SetTenant(e Tenant) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropID(e.UID)
	t.tenants[e.UID] = &e
	t.byID[e.ID] = &e
}

// RemoveTenant takes a tenant out.
func (t *Table) RemoveTenant(uid tenant.UID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropID(uid)
	delete(t.tenants, uid)
}

// dropID frees the id of uid, unless another tenant has taken it over.
func (t *Table) dropID(uid tenant.UID) {
	if old := t.tenants[uid]; old != nil && t.byID[old.ID] == old {
		delete(t.byID, old.ID)
	}
}

// SetDomain puts a domain in, or replaces the one with its host.
func (t *Table) SetDomain(e Domain) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.domains[e.Host] = &e
}

// RemoveDomain takes a domain out.
func (t *Table) RemoveDomain(host authority.Host) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.domains, host)
}

// SetApp puts an app in, or replaces the one with its id.
func (t *Table) SetApp(e App) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropShared(e.ID)
	t.apps[e.ID] = &e
	for _, h := range e.SharedHosts {
		t.shared[h] = &e
	}
}

// RemoveApp takes an app out.
func (t *Table) RemoveApp(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropShared(id)
	delete(t.apps, id)
}

func (t *Table) dropShared(id string) {
	old := t.apps[id]
	if old == nil {
		return
	}
	for _, h := range old.SharedHosts {
		if t.shared[h] == old {
			delete(t.shared, h)
		}
	}
}

// SetCell puts a cell in, or replaces the one with its id.
func (t *Table) SetCell(e Cell) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cells[e.ID] = &e
}

// RemoveCell takes a cell out.
func (t *Table) RemoveCell(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.cells, id)
}

// SetPlan puts a plan in, or replaces the one with its id.
func (t *Table) SetPlan(e Plan) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.plans[e.ID] = e.Weight
}

// RemovePlan takes a plan out.
func (t *Table) RemovePlan(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.plans, id)
}

// Weight returns the weight of a plan, 0 for one that is not known.
func (t *Table) Weight(plan string) int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.plans[plan]
}

// Tenant returns the tenant with the uid, or nil.
func (t *Table) Tenant(uid tenant.UID) *Tenant {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.tenants[uid]
}

// Cell returns the cell with the id, or nil.
func (t *Table) Cell(id string) *Cell {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.cells[id]
}

// Audiences returns the audience bits of the apps whose processes show the SPIFFE
// URI, in order; none when no app's do.
func (t *Table) Audiences(spiffe string) []tenant.Audience {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var found []tenant.Audience
	for _, a := range t.apps {
		for _, u := range a.Upstreams {
			if u.SPIFFEID == spiffe {
				found = append(found, a.Audience)
				break
			}
		}
	}
	slices.Sort(found)
	return found
}

// Knows reports whether a host is served at all.
func (t *Table) Knows(host authority.Host) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.domains[host] != nil || t.shared[host] != nil
}

// Counts returns how many tenants and domains the table holds.
func (t *Table) Counts() (tenants, domains int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.tenants), len(t.domains)
}
