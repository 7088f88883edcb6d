package settings

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// namespace is one namespace. The store's lock guards it, but for the cache.
type namespace struct {
	schema         *Schema // nil while the namespace is not known, whatever documents say
	platform       *Layer
	plans, regions map[string]*Layer
	tenants        map[tenant.UID]document
	environments   map[tenantEnvironment]document
	rollout        *live // nil while none runs

	shared map[common]*view // by what tenants without documents of their own have in common
	cache  cache
}

// tenantEnvironment is an environment of a tenant.
type tenantEnvironment struct {
	uid         tenant.UID
	environment string
}

// common is what decides which layers hold for a tenant without documents of its own. Plans, regions and parents that
// have no document are one. Tenants that a rollout concerns are apart, and those of them that have its content: rolling
// is the level at which they have it.
type common struct {
	plan, region  string
	parent        tenant.UID
	kills         string
	rolling, next Level
}

func newNamespace() *namespace {
	return &namespace{
		plans: make(map[string]*Layer), regions: make(map[string]*Layer), tenants: make(map[tenant.UID]document),
		environments: make(map[tenantEnvironment]document), shared: make(map[common]*view),
	}
}

// forget drops all that was collected.
func (n *namespace) forget() {
	clear(n.shared)
	n.cache.clear()
}

// view finds the layers of a reader with this parent and these kills.
func (n *namespace) view(r Reader, parent tenant.UID, kills []Kill) *view {
	own, env := n.tenants[r.UID], n.environments[tenantEnvironment{r.UID, r.Environment}]
	rolling := n.rolling().For(r, parent)
	if own != nil || env != nil || rolling.personal() {
		return &view{
			schema: n.schema, platform: n.platform, plan: n.plans[r.Plan], region: n.regions[r.Region],
			parent: n.tenants[parent], tenant: own, env: env, name: r.name(), environment: r.Environment,
			kills: kills, rolling: rolling, live: n.rollout,
		}
	}
	c := common{kills: killsText(kills)}
	if rolling != nil {
		c.rolling = rolling.level
		if rolling.Next {
			c.next = rolling.level
		}
	}
	if n.plans[r.Plan] != nil {
		c.plan = r.Plan
	}
	if n.regions[r.Region] != nil {
		c.region = r.Region
	}
	if n.tenants[parent] != nil {
		c.parent = parent
	}
	v := n.shared[c]
	if v == nil {
		v = &view{
			schema: n.schema, platform: n.platform, plan: n.plans[c.plan], region: n.regions[c.region], parent: n.tenants[c.parent],
			kills: kills, rolling: rolling, live: n.rollout,
		}
		n.shared[c] = v
	}
	return v
}

func (n *namespace) empty() bool { return n.schema == nil && n.rollout == nil && n.bare() }

// bare reports whether there are no documents.
func (n *namespace) bare() bool {
	return n.platform == nil && len(n.plans)+len(n.regions)+len(n.tenants)+len(n.environments) == 0
}

// killsOf finds what is killed for a reader in one of the namespaces.
func killsOf(index map[string]*namespace, r Reader, parent tenant.UID, name string) ([]Kill, error) {
	n := index[KillsNamespace]
	if n == nil || n.bare() || name == KillsNamespace {
		return nil, nil
	}
	e, err := n.view(r, parent, nil).merge()
	return KillsOf(e, name), err
}

// OnChange has fn called after each revision that was applied, when readers see it. fn must be quick: the feed waits
// for it. Who keeps what it made of settings uses [Store.OnChangeIn]; others use [Store.Notify].
func (s *Store) OnChange(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = append(s.changed, fn)
}

// OnChangeIn has fn called after each revision by which settings in one of the namespaces may be others, when readers
// see it, with whose: those of a layer, of kills in it and of a rollout are told alike. fn must be quick: the feed waits
// for it. It is for packages that keep what they made of settings.
func (s *Store) OnChangeIn(fn func(Change), namespaces ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keepers = append(s.keepers, keeper{namespaces, fn})
}

// keeper keeps what it made of some namespaces.
type keeper struct {
	namespaces []string
	fn         func(Change)
}

// told returns the call that tells a keeper of a revision, nil if it does not concern the keeper.
func (k keeper) told(news map[string]*Change) func() {
	var all *Change
	for _, name := range k.namespaces {
		if c := news[name]; c != nil {
			if all == nil {
				all = new(Change)
			}
			all.add(c)
		}
	}
	if all == nil {
		return nil
	}
	return func() { k.fn(*all) }
}

// edit is a decoded entry of the feed: what becomes of the namespace, and whose settings that changes.
type edit struct {
	namespace string
	apply     func(*namespace)
	concerns  func(*Change)
	rollout   bool // what runs is another rollout, or none
}

// Apply takes a revision of the feed in, all of it or nothing. Documents of tenants are not read before somebody asks
// for them: [Check] has seen them.
func (s *Store) Apply(change feed.Change) error {
	edits := make([]edit, 0, len(change.Entries))
	for _, e := range change.Entries {
		decoded, err := s.decode(e)
		if err != nil {
			return fmt.Errorf("%s: %w", e.Key, err)
		}
		edits = append(edits, decoded)
	}
	for _, fn := range s.apply(change, edits) {
		s.guard(fn)
	}
	return nil
}

// checking decodes for [Check] and never holds anything.
var checking Store //nolint:gochecknoglobals // it never changes

// Check reads an entry of the feed as strictly as config does, and refuses what a reader could not.
func Check(key string, value []byte) error {
	_, err := checking.decode(feed.Entry{Key: key, Value: value})
	if err != nil || !strings.HasPrefix(key, "doc/") {
		return err
	}
	_, err = document(value).layer("")
	return err
}

// apply makes the edits of a revision and returns who wants to know.
func (s *Store) apply(change feed.Change, edits []edit) []func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.index.Load()
	index, copied := make(map[string]*namespace), true
	if !change.Reset && before != nil {
		index, copied = *before, false
	}
	own := func() {
		if !copied {
			index, copied = maps.Clone(index), true
		}
	}
	var news map[string]*Change // nobody asks most stores
	if len(s.watchers)+len(s.keepers) > 0 {
		news = make(map[string]*Change)
	}
	rolled := change.Reset
	for _, e := range edits {
		n := index[e.namespace]
		if n == nil {
			own()
			n = newNamespace()
			index[e.namespace] = n
		}
		e.apply(n)
		if n.empty() {
			own()
			delete(index, e.namespace)
		}
		rolled = rolled || e.rollout
		e.tell(news, e.namespace)
		if e.namespace == KillsNamespace {
			e.kills(index, news)
		}
	}
	if change.Reset && before != nil && news != nil {
		for name := range *before {
			news[name] = new(Change)
		}
		for _, c := range news {
			c.All = true
		}
	}
	if copied {
		s.index.Store(&index)
	}
	if rolled {
		s.setRollouts(index)
	}
	for w := range s.watchers {
		if c := news[w.namespace]; c != nil {
			w.tell(c)
		}
	}
	return s.wanted(news)
}

// wanted are the calls that tell of a revision. The caller holds the lock.
func (s *Store) wanted(news map[string]*Change) []func() {
	if len(s.keepers) == 0 {
		return s.changed
	}
	calls := slices.Clone(s.changed)
	for _, k := range s.keepers {
		if call := k.told(news); call != nil {
			calls = append(calls, call)
		}
	}
	return calls
}

var errKey = errors.New("not the key of a namespace or a document")

// kills has all namespaces collected anew, and tells whoever the edit of a layer's kills concerns.
func (e edit) kills(index map[string]*namespace, news map[string]*Change) {
	for name, n := range index {
		n.forget()
		if name != KillsNamespace {
			e.tell(news, name)
		}
	}
}

// tell notes whom the edit concerns in a namespace; news is nil where nobody asks.
func (e edit) tell(news map[string]*Change, namespace string) {
	if news == nil {
		return
	}
	if news[namespace] == nil {
		news[namespace] = new(Change)
	}
	e.concerns(news[namespace])
}

// decode reads an entry.
func (s *Store) decode(e feed.Entry) (edit, error) {
	parts := strings.Split(e.Key, "/")
	if len(parts) < 2 || parts[1] == "" {
		return edit{}, errKey
	}
	switch {
	case len(parts) == 2 && parts[0] == "namespace":
		return decodeNamespace(parts[1], e)
	case len(parts) == 2 && parts[0] == "rollout":
		return decodeRollout(parts[1], e)
	}
	if parts[0] != "doc" || len(parts) < 3 {
		return edit{}, errKey
	}
	at := func(kind string, names int) bool {
		return parts[2] == kind && len(parts) == 3+names && parts[len(parts)-1] != ""
	}
	switch {
	case at("platform", 0), at("plan", 1), at("region", 1):
		return decodeWide(parts, e)
	case at("tenant", 1), at("environment", 2):
		return s.decodeOwn(parts, e)
	default:
		return edit{}, errKey
	}
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
	return edit{namespace: name, apply: func(n *namespace) { n.schema = schema; n.forget() }, concerns: func(c *Change) { c.All = true }}, nil
}

// documentOf is nil when it is deleted.
func documentOf(e feed.Entry) document {
	if e.Deleted {
		return nil
	}
	if e.Value == nil {
		return document{} // which no reader can parse
	}
	return e.Value
}

// decodeWide reads a document of the platform, of a plan or of a region.
func decodeWide(parts []string, e feed.Entry) (edit, error) {
	kind, name := parts[2], parts[len(parts)-1]
	layer := map[string]string{"platform": LayerPlatform, "plan": LayerPlan(name), "region": LayerRegion(name)}[kind]
	l, err := documentOf(e).layer(layer)
	if err != nil {
		return edit{}, err
	}
	out := edit{namespace: parts[1]}
	switch kind {
	case "platform":
		out.apply = func(n *namespace) { n.platform = l; n.forget() }
		out.concerns = func(c *Change) { c.All = true }
	case "plan":
		out.apply = func(n *namespace) { put(n.plans, name, l); n.forget() }
		out.concerns = func(c *Change) { add(&c.Plans, name) }
	default:
		out.apply = func(n *namespace) { put(n.regions, name, l); n.forget() }
		out.concerns = func(c *Change) { add(&c.Regions, name) }
	}
	return out, nil
}

// put removes what is nil.
func put(layers map[string]*Layer, name string, l *Layer) {
	if l == nil {
		delete(layers, name)
		return
	}
	layers[name] = l
}

// decodeOwn takes a document of a tenant, or of one of its environments, as it is.
func (s *Store) decodeOwn(parts []string, e feed.Entry) (edit, error) {
	uid, err := tenant.ParseUID(parts[3])
	if err != nil {
		return edit{}, err
	}
	d := documentOf(e)
	out := edit{namespace: parts[1], concerns: func(c *Change) { c.of(uid) }}
	if parts[2] == "environment" {
		at := tenantEnvironment{uid, parts[4]}
		out.apply = func(n *namespace) {
			if n.environments[at] = d; d == nil {
				delete(n.environments, at)
			}
			n.cache.forget(uid, false)
		}
		return out, nil
	}
	out.apply = func(n *namespace) {
		if n.tenants[uid] = d; d == nil {
			delete(n.tenants, uid)
		}
		n.cache.forget(uid, s.Families() > 0)
		for c := range n.shared {
			if c.parent == uid {
				delete(n.shared, c)
			}
		}
	}
	return out, nil
}
