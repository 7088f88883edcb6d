package settings

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Store holds the documents of all namespaces and tells what holds for a tenant. It is
// safe for concurrent use; the zero Store is empty and waits for its first state. Its
// fields are set before it is used.
//
// Documents of the wide layers are kept parsed. Those of tenants are kept as they came,
// in the very bytes that the feed holds, and are merged when they are read. What was
// read is kept by its type for the tenants that are asked for most, so that the next
// read costs a look, until a layer of that tenant changes. Tenants for which nothing of
// their own is written share one value for each plan and region.
type Store struct {
	// Trust tells who a tenant's parent is. Without it nobody has one.
	Trust *tenant.Trust
	// Environment is that of this process, as it was registered; "" for none.
	Environment string
	// Log is told of callbacks that panic. Default slog.Default().
	Log *slog.Logger

	// index is the newest map of namespaces; nil before the first state. A new one is made when one comes or goes.
	index atomic.Pointer[map[string]*namespace]
	// rollouts are those that run; nil for none.
	rollouts atomic.Pointer[[]*live]
	// harmed wakes whoever reports on rollouts. It is set before the first state.
	harmed func()

	mu       sync.RWMutex // guards what is in namespaces
	changed  []func()
	keepers  []keeper
	watchers map[*watcher]bool
}

// Reader is whose settings are asked for, and from where. All of it must come from
// something verified.
type Reader struct {
	// UID is the tenant. ID only names its layer and may be zero.
	UID tenant.UID
	ID  tenant.ID
	// Plan and Region are the tenant's; Environment is where it asks from, "" for none.
	Plan, Region, Environment string
}

// name is the tenant's name in layers. Without an id it is its uid.
func (r Reader) name() string {
	if r.ID.IsZero() {
		return r.UID.String()
	}
	return r.ID.String()
}

// reader is the tenant of a verified context, in this process's environment.
func (s *Store) reader(tc tenant.Context) Reader {
	return Reader{UID: tc.UID(), ID: tc.ID(), Plan: tc.Plan(), Region: tc.Region(), Environment: s.Environment}
}

// here is a tenant where no context can be made: its region is the one that the trust knows.
func (s *Store) here(uid tenant.UID, plan string, id tenant.ID) Reader {
	r := Reader{UID: uid, ID: id, Plan: plan, Environment: s.Environment}
	if s.Trust != nil {
		state, _ := s.Trust.Tenant(uid)
		r.Region = state.Region
	}
	return r
}

// Holds returns what holds for a reader in a namespace. It is false for a namespace
// that is not known. Treat the answer as immutable: it is shared.
func (s *Store) Holds(r Reader, namespace string) (Effective, bool) {
	e, err := s.effective(r, namespace)
	return e, err == nil
}

// Effective is [Store.Holds] for a tenant in this process's environment, where no
// context can be made. id only names the tenant's layer and may be zero.
func (s *Store) Effective(uid tenant.UID, plan string, id tenant.ID, namespace string) (Effective, bool) {
	return s.Holds(s.here(uid, plan, id), namespace)
}

// effective keeps what tenants share alone: an effective value is many times as large as what is made of it.
func (s *Store) effective(r Reader, namespace string) (Effective, error) {
	v, err := s.view(r, namespace)
	if err != nil {
		return Effective{}, err
	}
	if v.own() {
		return v.merge()
	}
	return typedOf(v, func(e Effective) (Effective, error) { return e, nil })
}

// For reads what holds in a namespace for the tenant of ctx. A repeated read costs no
// decoding: the value is shared, so treat what it points to as immutable. Errors are
// faults: CONTEXT_MISSING without a tenant, STARTING before the first state, and
// RESOURCE_NOT_FOUND for a namespace that does not exist; and those of encoding/json
// where the value does not fit T. Where only the content of a rollout does not, the
// value is that of before, and the rollout is told, which halts it.
func For[T any](ctx context.Context, s *Store, namespace string) (T, error) {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		var zero T
		return zero, err
	}
	return Read(s, s.reader(tc), namespace, decoded[T])
}

func decoded[T any](e Effective) (T, error) {
	var out, zero T
	if err := json.Unmarshal(Canonical(e.Object), &out); err != nil {
		return zero, fmt.Errorf("decode settings: %w", err)
	}
	return out, nil
}

// Read is [For] where no context can be made, and where the value is made by other
// means: from is called once for all readers for whom the same holds, and again after
// a change. One T is made in one way everywhere.
func Read[T any](s *Store, r Reader, namespace string, from func(Effective) (T, error)) (T, error) {
	v, err := s.view(r, namespace)
	if err != nil {
		var zero T
		return zero, err
	}
	return typedOf(v, from)
}

// look is how a brand is kept, apart from what [For] would make of the same settings.
type look struct{ Brand }

func (s *Store) look(r Reader) (Brand, error) {
	l, err := Read(s, r, BrandNamespace, func(e Effective) (look, error) {
		b, err := BrandOf(e)
		return look{b}, err
	})
	return l.Brand, err
}

// BrandFor returns the brand of the tenant of ctx. Errors are those of [For] and of
// [BrandOf].
func BrandFor(ctx context.Context, s *Store) (Brand, error) {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return Brand{}, err
	}
	return s.look(s.reader(tc))
}

// Brand returns a tenant's brand, for the gateway, which shows it where no context can
// be made. It is false where none is set or known.
func (s *Store) Brand(uid tenant.UID, plan string) (Brand, bool) {
	b, err := s.look(s.here(uid, plan, tenant.ID{}))
	return b, err == nil && !b.Empty()
}

// Families is [tenant.Trust.Families], for packages that keep what they made of
// settings: a tenant that moves to another parent is no revision of the feed.
func (s *Store) Families() uint64 {
	if s.Trust == nil {
		return 0
	}
	return s.Trust.Families()
}

// view returns what is kept for a reader, or collects it.
func (s *Store) view(r Reader, name string) (*view, error) {
	index := s.index.Load()
	if index == nil {
		return nil, fault.New(fault.Unavailable, fault.ReasonStarting, "the settings are not loaded yet")
	}
	families := s.Families()
	n := (*index)[name]
	if n == nil {
		return nil, unknown(name)
	}
	if v := n.cache.find(&r, families); v != nil {
		return v, nil
	}
	return s.collect(r, name, families)
}

func unknown(name string) error {
	return fault.New(fault.NotFound, fault.ReasonResourceNotFound, "namespaces/%s does not exist", name)
}

// collect finds the layers of a reader. families was read before its parent is.
func (s *Store) collect(r Reader, name string, families uint64) (*view, error) {
	var parent tenant.UID
	if s.Trust != nil {
		state, _ := s.Trust.Tenant(r.UID)
		parent = state.Parent
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	index := *s.index.Load()
	n := index[name]
	if n == nil || n.schema == nil {
		return nil, unknown(name)
	}
	kills, err := killsOf(index, r, parent, name)
	if err != nil {
		return nil, err
	}
	v := n.view(r, parent, kills)
	n.cache.keep(&slot{reader: r, parent: parent, families: families, view: v})
	return v, nil
}
