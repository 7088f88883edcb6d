package settings

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Store holds the documents of all namespaces and tells what holds for a tenant. What
// it merged it keeps until one of the layers changes; tenants without a document of
// their own share one merged value per plan. It is safe for concurrent use; the zero
// Store is empty and waits for its first state.
type Store struct {
	mu         sync.RWMutex
	loaded     bool
	namespaces map[string]*namespace
	changed    []func()
}

// namespace is one namespace with what was merged of it.
type namespace struct {
	schema   *Schema // nil while the namespace is not known, whatever documents say
	platform *Layer
	plans    map[string]*Layer
	tenants  map[tenant.UID]*Layer

	changes uint64 // counts changes, so that a merge knows whether it is still true
	shared  map[string]*merged
	own     map[tenant.UID]ownMerged
}

func newNamespace() *namespace {
	n := &namespace{plans: make(map[string]*Layer), tenants: make(map[tenant.UID]*Layer)}
	n.forget()
	return n
}

// forget drops what was merged.
func (n *namespace) forget() {
	n.shared, n.own = make(map[string]*merged), make(map[tenant.UID]ownMerged)
}

// merged is an effective value and what is made of it once it is asked for.
type merged struct {
	effective Effective
	text      func() []byte
	brand     func() (Brand, error)
}

func newMerged(e Effective) *merged {
	return &merged{
		effective: e,
		text:      sync.OnceValue(func() []byte { return Canonical(e.Object) }),
		brand:     sync.OnceValues(func() (Brand, error) { return BrandOf(e) }),
	}
}

// ownMerged is the merged value of a tenant that has a document.
type ownMerged struct {
	*merged

	plan string
	id   tenant.ID
}

// OnChange has fn called after each revision that was applied, when readers see it. fn must be quick: the feed waits.
func (s *Store) OnChange(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = append(s.changed, fn)
}

// who is whose settings are asked for.
type who struct {
	uid  tenant.UID
	plan string
	id   tenant.ID
}

// name is the tenant's layer. Without an id it is named by its uid.
func (w who) name() string {
	if w.id.IsZero() {
		return "tenants/" + w.uid.String()
	}
	return "tenants/" + w.id.String()
}

// Effective returns what holds for a tenant in a namespace. It is false for a
// namespace that is not known. Treat the answer as immutable: it is shared. id only
// names the tenant's layer and may be zero.
func (s *Store) Effective(uid tenant.UID, plan string, id tenant.ID, namespace string) (Effective, bool) {
	m, err := s.merged(who{uid, plan, id}, namespace)
	if err != nil {
		return Effective{}, false
	}
	return m.effective, true
}

// merged returns what is kept, or merges it anew.
func (s *Store) merged(w who, name string) (*merged, error) {
	s.mu.RLock()
	n, ok := s.namespaces[name]
	if !ok || n.schema == nil {
		defer s.mu.RUnlock()
		return nil, s.unknown(name)
	}
	if m := n.kept(w); m != nil {
		s.mu.RUnlock()
		return m, nil
	}
	stack, changes := n.stack(w), n.changes
	s.mu.RUnlock()
	m := newMerged(stack.Effective())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.namespaces[name] == n && n.changes == changes {
		n.keep(w, m)
	}
	return m, nil
}

func (s *Store) unknown(name string) error {
	if !s.loaded {
		return fault.New(fault.Unavailable, fault.ReasonStarting, "the settings are not loaded yet")
	}
	return fault.New(fault.NotFound, fault.ReasonResourceNotFound, "namespaces/%s does not exist", name)
}

// planKey is the plan as far as it matters: plans without a document are one.
func (n *namespace) planKey(plan string) string {
	if n.plans[plan] == nil {
		return ""
	}
	return plan
}

func (n *namespace) kept(w who) *merged {
	if n.tenants[w.uid] == nil {
		return n.shared[n.planKey(w.plan)]
	}
	if own, ok := n.own[w.uid]; ok && own.plan == n.planKey(w.plan) && own.id == w.id {
		return own.merged
	}
	return nil
}

func (n *namespace) keep(w who, m *merged) {
	if n.tenants[w.uid] == nil {
		n.shared[n.planKey(w.plan)] = m
		return
	}
	n.own[w.uid] = ownMerged{m, n.planKey(w.plan), w.id}
}

// stack collects the layers of a tenant.
func (n *namespace) stack(w who) Stack {
	s := Stack{Schema: n.schema, Platform: n.platform, Plan: n.plans[w.plan]}
	if own := n.tenants[w.uid]; own != nil {
		named := *own
		named.Name = w.name()
		s.Tenant = &named
	}
	return s
}

// For reads what holds in a namespace for the tenant of ctx. Errors are faults:
// CONTEXT_MISSING without a tenant, STARTING before the first state, and
// RESOURCE_NOT_FOUND for a namespace that does not exist; and those of encoding/json
// where the value does not fit T.
func For[T any](ctx context.Context, s *Store, namespace string) (T, error) {
	var out T
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return out, err
	}
	m, err := s.merged(who{tc.UID(), tc.Plan(), tc.ID()}, namespace)
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(m.text(), &out); err != nil {
		var zero T
		return zero, fmt.Errorf("settings of %s: %w", namespace, err)
	}
	return out, nil
}

// BrandFor returns the brand of the tenant of ctx. Errors are those of [For] and of
// [BrandOf].
func BrandFor(ctx context.Context, s *Store) (Brand, error) {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return Brand{}, err
	}
	m, err := s.merged(who{tc.UID(), tc.Plan(), tc.ID()}, BrandNamespace)
	if err != nil {
		return Brand{}, err
	}
	return m.brand()
}

// Brand returns a tenant's brand, for the gateway, which shows it where no context can
// be made. It is false where none is set or known.
func (s *Store) Brand(uid tenant.UID, plan string) (Brand, bool) {
	m, err := s.merged(who{uid: uid, plan: plan}, BrandNamespace)
	if err != nil {
		return Brand{}, false
	}
	b, err := m.brand()
	return b, err == nil && !b.Empty()
}

// NamespaceKey is a namespace's key in the feed.
func NamespaceKey(namespace string) string { return "namespace/" + namespace }

// PlatformKey is the key of the platform's document in the feed.
func PlatformKey(namespace string) string { return "doc/" + namespace + "/platform" }

// PlanKey is the key of a plan's document in the feed.
func PlanKey(namespace, plan string) string { return "doc/" + namespace + "/plan/" + plan }

// TenantKey is the key of a tenant's document in the feed; uid is the text of a uid.
func TenantKey(namespace, uid string) string {
	return "doc/" + namespace + "/tenant/" + uid
}

// edit is a decoded entry of the feed: what becomes of the namespace.
type edit struct {
	namespace string
	apply     func(*namespace)
}

// Apply takes a revision of the feed in, all of it or nothing.
func (s *Store) Apply(change feed.Change) error {
	edits := make([]edit, 0, len(change.Entries))
	for _, e := range change.Entries {
		decoded, err := decode(e)
		if err != nil {
			return fmt.Errorf("%s: %w", e.Key, err)
		}
		edits = append(edits, decoded)
	}
	for _, fn := range s.apply(change, edits) {
		fn()
	}
	return nil
}

// apply makes the edits of a revision and returns who wants to know.
func (s *Store) apply(change feed.Change, edits []edit) []func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if change.Reset || s.namespaces == nil {
		s.namespaces = make(map[string]*namespace)
	}
	s.loaded = true
	for _, e := range edits {
		n := s.namespaces[e.namespace]
		if n == nil {
			n = newNamespace()
			s.namespaces[e.namespace] = n
		}
		n.changes++
		e.apply(n)
		if n.empty() {
			delete(s.namespaces, e.namespace)
		}
	}
	return s.changed
}

func (n *namespace) empty() bool {
	return n.schema == nil && n.platform == nil && len(n.plans) == 0 && len(n.tenants) == 0
}

var errKey = errors.New("not the key of a namespace or a document")

// decode reads an entry.
func decode(e feed.Entry) (edit, error) {
	parts := strings.Split(e.Key, "/")
	if len(parts) < 2 || parts[1] == "" {
		return edit{}, errKey
	}
	if len(parts) == 2 && parts[0] == "namespace" {
		return decodeNamespace(parts[1], e)
	}
	if parts[0] != "doc" || len(parts) < 3 {
		return edit{}, errKey
	}
	l, err := decodeLayer(e)
	if err != nil {
		return edit{}, err
	}
	out := edit{namespace: parts[1]}
	switch {
	case len(parts) == 3 && parts[2] == "platform":
		out.apply = func(n *namespace) { n.setPlatform(l) }
	case len(parts) == 4 && parts[2] == "plan" && parts[3] != "":
		out.apply = func(n *namespace) { n.setPlan(parts[3], l) }
	case len(parts) == 4 && parts[2] == "tenant":
		uid, err := tenant.ParseUID(parts[3])
		if err != nil {
			return edit{}, err
		}
		out.apply = func(n *namespace) { n.setTenant(uid, l) }
	default:
		return edit{}, errKey
	}
	return out, nil
}

func decodeNamespace(name string, e feed.Entry) (edit, error) {
	var schema *Schema
	if !e.Deleted {
		entry := new(configv1.SettingsEntry)
		if err := proto.Unmarshal(e.Value, entry); err != nil {
			return edit{}, fmt.Errorf("decode: %w", err)
		}
		object, err := Parse([]byte(entry.GetSchema()))
		if err != nil {
			return edit{}, err
		}
		schema = NewSchema(object)
	}
	return edit{name, func(n *namespace) { n.schema = schema; n.forget() }}, nil
}

// decodeLayer reads a document; nil when it is deleted. Its name is set by its place.
func decodeLayer(e feed.Entry) (*Layer, error) {
	if e.Deleted {
		return nil, nil //nolint:nilnil // no document is what a deletion says
	}
	entry := new(configv1.SettingsEntry)
	if err := proto.Unmarshal(e.Value, entry); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	object, err := Parse([]byte(entry.GetContent()))
	if err != nil {
		return nil, err
	}
	return &Layer{Revision: entry.GetRevision(), Object: object}, nil
}

func (n *namespace) setPlatform(l *Layer) {
	if l != nil {
		l.Name = LayerPlatform
	}
	n.platform = l
	n.forget()
}

func (n *namespace) setPlan(plan string, l *Layer) {
	n.forget()
	if l == nil {
		delete(n.plans, plan)
		return
	}
	l.Name = "plans/" + plan
	n.plans[plan] = l
}

func (n *namespace) setTenant(uid tenant.UID, l *Layer) {
	delete(n.own, uid)
	if l == nil {
		delete(n.tenants, uid)
		return
	}
	n.tenants[uid] = l
}
