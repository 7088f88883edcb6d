package tenant

import (
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// State is what may be done for a tenant.
type State uint8

// The states of a tenant. The zero value is invalid.
const (
	// StateActive tenants are served.
	StateActive State = iota + 1
	// StateSuspended tenants are refused until they are resumed.
	StateSuspended
	// StateDeleted tenants are refused for good, unless they are restored.
	StateDeleted
)

// String returns the state's name in the API, such as "ACTIVE".
func (s State) String() string { return enumName(uint8(s), "ACTIVE", "SUSPENDED", "DELETED") }

// Loss is what becomes of a tenant's SESSION traffic while the control plane
// is silent. The zero value serves.
type Loss time.Duration

// LossServe goes on serving, however long the silence.
const LossServe Loss = 0

const (
	minDenyAfter = 30 * time.Second
	maxDenyAfter = 24 * time.Hour
)

// LossDenyAfter refuses from d of silence on; d is 30 s to 24 h.
func LossDenyAfter(d time.Duration) Loss { return Loss(d) }

func (l Loss) valid() bool {
	d := time.Duration(l)
	return l == LossServe || d >= minDenyAfter && d <= maxDenyAfter
}

func (l Loss) denies(silence time.Duration) bool {
	return l != LossServe && silence >= time.Duration(l)
}

// TenantState is what a verifier knows about a tenant beside its token.
type TenantState struct { //nolint:revive // State is the word for ACTIVE and its like
	// UID is the tenant; ID its name, which never changes.
	UID UID
	ID  ID
	// Generation and PlacementGeneration are the newest; a token below either is stale.
	Generation          uint64
	PlacementGeneration uint64
	// State says whether the tenant is served.
	State State
	// Loss says what to do when the control plane is lost.
	Loss Loss
	// Plan is the tenant's plan now; a token's may be as old as the token. May be empty.
	Plan string
	// Parent is the tenant that this one belongs to, whose settings and brand hold for it where it has none; zero
	// without one. Verifying a token does not look at it.
	Parent UID
	// Region is where the tenant's cell is. May be empty.
	Region string
}

func (s *TenantState) check() error {
	switch {
	case !s.UID.valid():
		return errors.New("tenant uid is not a UUIDv7")
	case s.ID.IsZero():
		return errors.New("tenant id is missing")
	case s.State < StateActive || s.State > StateDeleted:
		return errors.New("tenant state is not known")
	case !s.Loss.valid():
		return errors.New("deny_after is 30 s to 24 h")
	default:
		return nil
	}
}

// Trust is the live view that verifiers read: the certified keys and the state
// of every tenant. One feeder writes it (sdk/trust, or a test's issuer); any
// number of verifiers read it without locks on their warm path, so a change is
// seen by the next call. All methods are safe for concurrent use.
type Trust struct {
	clock  func() time.Time
	base   time.Time
	heard  atomic.Int64 // last bookmark, as time since base
	moves  atomic.Uint64
	loaded atomic.Bool

	mu      sync.RWMutex
	keys    map[KeyID]*keyEntry
	tenants map[UID]*tenantEntry
	ids     map[ID]UID
	below   map[UID]map[UID]bool // children by their parent
	watched map[UID]chan struct{}
	changed chan struct{} // closed at the next change of any tenant; nil when nobody waits
}

// keyEntry is one certificate. A dead one was revoked or replaced.
type keyEntry struct {
	cert                KeyCertificate
	notBefore, notAfter int64
	dead                atomic.Bool
}

// tenantEntry is where a tenant's newest state is found, without a look-up. A
// nil state means that the tenant was removed.
type tenantEntry struct{ state atomic.Pointer[TenantState] }

const neverHeard = math.MinInt64

// NewTrust returns an empty trust, from which nothing verifies until it is
// filled and the first Replace or Bookmark has come.
func NewTrust(clock func() time.Time) *Trust {
	t := &Trust{
		clock:   clock,
		base:    clock(),
		keys:    map[KeyID]*keyEntry{},
		tenants: map[UID]*tenantEntry{},
		ids:     map[ID]UID{},
		below:   map[UID]map[UID]bool{},
		watched: map[UID]chan struct{}{},
	}
	t.heard.Store(neverHeard)
	return t
}

// SetKey certifies a key, or replaces its certificate. The caller has verified
// the certificate with ParseKeyCertificate. It fails when a field breaks its rule.
func (t *Trust) SetKey(cert KeyCertificate) error {
	if err := cert.check(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.setKey(cert)
	return nil
}

func (t *Trust) setKey(cert KeyCertificate) {
	cert.KeyID = KeyIDOf(cert.PublicKey)
	cert.PublicKey = slices.Clone(cert.PublicKey)
	cert.Cells = slices.Clone(cert.Cells)
	old := t.keys[cert.KeyID]
	if old != nil && old.cert.equal(&cert) {
		return
	}
	t.keys[cert.KeyID] = &keyEntry{
		cert:      cert,
		notBefore: cert.NotBefore.Unix(),
		notAfter:  cert.NotAfter.Unix(),
	}
	if old != nil {
		old.dead.Store(true)
	}
}

// Certifies reports whether the key is one that verifiers accept; its dates apply besides.
func (t *Trust) Certifies(id KeyID) bool { return t.key(id) != nil }

// RevokeKey withdraws a key: no token it signed is accepted any more. An
// unknown id is no error.
func (t *Trust) RevokeKey(id KeyID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.revokeKey(id)
}

func (t *Trust) revokeKey(id KeyID) {
	if k := t.keys[id]; k != nil {
		delete(t.keys, id)
		k.dead.Store(true)
	}
}

// SetTenant adds a tenant or replaces its state. It fails when a field breaks
// its rule; the tenant's earlier state then stands.
func (t *Trust) SetTenant(s TenantState) error {
	if err := s.check(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.setTenant(s)
	return nil
}

func (t *Trust) setTenant(s TenantState) {
	entry := t.tenants[s.UID]
	if entry == nil {
		entry = &tenantEntry{}
		t.tenants[s.UID] = entry
	}
	old := entry.state.Swap(&s)
	if old != nil && old.ID != s.ID && t.ids[old.ID] == s.UID {
		delete(t.ids, old.ID)
	}
	t.ids[s.ID] = s.UID
	t.move(old, &s)
	if old == nil || old.State != s.State || old.Generation != s.Generation ||
		old.PlacementGeneration != s.PlacementGeneration || old.Plan != s.Plan || old.Region != s.Region || old.Parent != s.Parent {
		t.tell(s.UID)
	}
}

// RemoveTenant forgets a tenant. An unknown uid is no error.
func (t *Trust) RemoveTenant(uid UID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.removeTenant(uid)
}

func (t *Trust) removeTenant(uid UID) {
	if entry := t.tenants[uid]; entry != nil {
		delete(t.tenants, uid)
		old := entry.state.Swap(nil)
		if old != nil && t.ids[old.ID] == uid {
			delete(t.ids, old.ID)
		}
		t.move(old, nil)
		t.tell(uid)
	}
}

// move keeps the children of parents, for a tenant whose state changes from one to another; nil is none.
func (t *Trust) move(from, to *TenantState) {
	if from != nil && !from.Parent.IsZero() {
		children := t.below[from.Parent]
		if delete(children, from.UID); len(children) == 0 {
			delete(t.below, from.Parent)
		}
	}
	if to != nil && !to.Parent.IsZero() {
		if t.below[to.Parent] == nil {
			t.below[to.Parent] = map[UID]bool{}
		}
		t.below[to.Parent][to.UID] = true
	}
	if parentOf(from) != parentOf(to) {
		t.moves.Add(1) // after the state, so that who reads the number first reads no older parent
	}
}

func parentOf(s *TenantState) (uid UID) {
	if s != nil {
		uid = s.Parent
	}
	return uid
}

// tell wakes those who watch uid and those who wait for any tenant.
func (t *Trust) tell(uid UID) {
	if ch := t.watched[uid]; ch != nil {
		delete(t.watched, uid)
		close(ch)
	}
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}

// Replace makes keys and tenants the whole content, at a resync or from a disk
// copy. Each key and each tenant changes at one instant and what stays the same
// is not disturbed. When any entry breaks a rule nothing changes.
func (t *Trust) Replace(keys []KeyCertificate, tenants []TenantState) error {
	newKeys := make(map[KeyID]bool, len(keys))
	for i := range keys {
		if err := keys[i].check(); err != nil {
			return err
		}
		newKeys[KeyIDOf(keys[i].PublicKey)] = true
	}
	newTenants := make(map[UID]bool, len(tenants))
	for i := range tenants {
		if err := tenants[i].check(); err != nil {
			return err
		}
		newTenants[tenants[i].UID] = true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for id := range t.keys {
		if !newKeys[id] {
			t.revokeKey(id)
		}
	}
	for uid := range t.tenants {
		if !newTenants[uid] {
			t.removeTenant(uid)
		}
	}
	for _, s := range tenants {
		t.setTenant(s)
	}
	for _, k := range keys {
		t.setKey(k)
	}
	t.loaded.Store(true)
	return nil
}

// Bookmark notes that the trust was complete at the given time: the clock's now
// for a live bookmark, the server's time for one from disk. Times that go back
// are ignored, times in the future count as now.
func (t *Trust) Bookmark(at time.Time) {
	if now := t.clock(); at.After(now) {
		at = now
	}
	since := int64(at.Sub(t.base))
	for {
		old := t.heard.Load()
		if since <= old || t.heard.CompareAndSwap(old, since) {
			break
		}
	}
	t.loaded.Store(true)
}

// Silence returns how long the trust has gone without a bookmark; a trust that
// never had one is silent for ever.
func (t *Trust) Silence() time.Duration { return t.silence(t.clock()) }

func (t *Trust) silence(now time.Time) time.Duration {
	heard := t.heard.Load()
	if heard == neverHeard {
		return math.MaxInt64
	}
	return now.Sub(t.base) - time.Duration(heard)
}

// Find returns the newest state of the tenant that has this id; false when it is
// unknown. It is for calls that administer tenants by name.
func (t *Trust) Find(id ID) (TenantState, bool) {
	t.mu.RLock()
	uid, ok := t.ids[id]
	t.mu.RUnlock()
	if !ok {
		return TenantState{}, false
	}
	return t.Tenant(uid)
}

// Tenant returns the newest state of a tenant; false when it is unknown.
func (t *Trust) Tenant(uid UID) (TenantState, bool) {
	entry := t.tenant(uid)
	if entry == nil {
		return TenantState{}, false
	}
	s := entry.state.Load()
	if s == nil {
		return TenantState{}, false
	}
	return *s, true
}

// Children returns the newest states of the tenants whose parent has this uid, in no order.
func (t *Trust) Children(uid UID) []TenantState {
	t.mu.RLock()
	defer t.mu.RUnlock()
	children := make([]TenantState, 0, len(t.below[uid]))
	for child := range t.below[uid] {
		if entry := t.tenants[child]; entry != nil {
			if s := entry.state.Load(); s != nil {
				children = append(children, *s)
			}
		}
	}
	return children
}

// Families returns a number that grows whenever a tenant may have another parent
// than before; 0 while nobody has had one. What was made of a tenant's parent is
// good as long as the number is.
func (t *Trust) Families() uint64 { return t.moves.Load() }

// Watch returns a channel that is closed when the tenant's state, one of its
// generations, its plan, region or parent changes next. Watch first and look second, or use
// [Verifier.Watch], which does: a change before Watch is not told.
func (t *Trust) Watch(uid UID) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	ch := t.watched[uid]
	if ch == nil {
		ch = make(chan struct{})
		t.watched[uid] = ch
	}
	return ch
}

// anyChange returns a channel that is closed when any tenant changes next.
func (t *Trust) anyChange() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	return t.changed
}

func (t *Trust) key(id KeyID) *keyEntry {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.keys[id]
}

func (t *Trust) tenant(uid UID) *tenantEntry {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.tenants[uid]
}

func (c *KeyCertificate) equal(o *KeyCertificate) bool {
	return c.PublicKey.Equal(o.PublicKey) && c.Minter == o.Minter && c.SPIFFE == o.SPIFFE &&
		slices.Equal(c.Cells, o.Cells) && c.Audience == o.Audience && c.Classes == o.Classes &&
		c.NotBefore.Equal(o.NotBefore) && c.NotAfter.Equal(o.NotAfter)
}
