package tenant

import (
	"errors"
	"math/bits"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
)

const (
	// clockSkew is how far a minter's clock may be ahead of ours.
	clockSkew   = 5 * time.Second
	skewSeconds = int64(clockSkew / time.Second)
	// lossAfter is the silence that counts as the loss of the control plane.
	lossAfter = 15 * time.Second
	// aheadWait is how long a token may wait for the change it was made after.
	aheadWait = 250 * time.Millisecond
	// slotWait is how long an unknown token may wait for its turn to be verified.
	slotWait = 250 * time.Millisecond
)

// VerifierConfig says what a verifier accepts.
type VerifierConfig struct {
	// Trust holds the keys and the tenants. Required.
	Trust *Trust
	// Clock is the time; the trust's clock when nil. [NewClock] is the cheapest.
	Clock func() time.Time
	// Audience is this service's own audience bit. Required, exactly one bit.
	Audience Audience
	// Cells holds the cells whose tenants are served here; nil serves all.
	Cells []string
	// MayPresent reports whether a peer may present contexts here. It is asked on
	// every call, so that a withdrawn right is seen at once; keep it quick, see
	// [Presenters]. Required.
	MayPresent func(identity.ID) bool
}

// Verifier turns tokens into contexts. It is safe for concurrent use and starts
// no goroutines.
type Verifier struct {
	trust      *Trust
	clock      func() time.Time
	audience   Audience
	cells      []string
	mayPresent func(identity.ID) bool

	cache    *cache
	bad      *budget
	slots    chan struct{}
	lost     atomic.Bool
	unproven atomic.Uint64
}

// NewVerifier returns a verifier. It fails when the configuration lacks what is
// required.
func NewVerifier(cfg VerifierConfig) (*Verifier, error) {
	switch {
	case cfg.Trust == nil:
		return nil, errors.New("verifier: Trust is missing")
	case bits.OnesCount64(uint64(cfg.Audience)) != 1:
		return nil, errors.New("verifier: Audience is not exactly one bit")
	case cfg.MayPresent == nil:
		return nil, errors.New("verifier: MayPresent is missing")
	}
	if cfg.Clock == nil {
		cfg.Clock = cfg.Trust.clock
	}
	return &Verifier{
		trust:      cfg.Trust,
		clock:      cfg.Clock,
		audience:   cfg.Audience,
		cells:      slices.Clone(cfg.Cells),
		mayPresent: cfg.MayPresent,
		cache:      newCache(),
		bad:        newBudget(),
		slots:      make(chan struct{}, runtime.GOMAXPROCS(0)),
	}, nil
}

// Presenters returns a MayPresent that knows a fixed list.
func Presenters(ids ...identity.ID) func(identity.ID) bool {
	const fewEnoughToCompare = 4
	ids = slices.Clone(ids)
	if len(ids) <= fewEnoughToCompare {
		return func(id identity.ID) bool {
			for i := range ids { //nolint:modernize // slices.Contains copies: twice the time of a warm check
				if ids[i] == id {
					return true
				}
			}
			return false
		}
	}
	known := make(map[identity.ID]bool, len(ids))
	for _, id := range ids {
		known[id] = true
	}
	return func(id identity.ID) bool { return known[id] }
}

// Verify returns the context that token says, for a call that arrived on a
// connection of presenter, the peer's mTLS identity.
//
// It may wait up to 250 ms for a change that the token's minter knew before us.
// Errors are faults: CONTEXT_MISSING (empty token), CONTEXT_INVALID (any forgery,
// one answer for all), CONTEXT_EXPIRED, PRESENTER_REFUSED (certificate, audience,
// cell or peer do not fit), TENANT_SUSPENDED, TENANT_DELETED, PLACEMENT_STALE
// (mint anew and retry once), STARTING (not yet known here; retry), OVERLOADED
// (too many bad tokens from this peer), CONTROL_PLANE_LOST.
//
// A tenant that is known not to be active is answered as such whatever the
// token's generation, so that a suspended caller is not asked to retry.
func (v *Verifier) Verify(token string, presenter identity.ID) (Context, error) {
	now := v.clock()
	silence := v.hear(now)
	e := v.cache.find(token)
	// The warm way: nothing has changed since this token was accepted. Audience and
	// cell depend on bytes and configuration only, so they cannot have.
	if e != nil && silence < lossAfter && e.within(now.Unix()) && e.unchanged() && v.presents(&presenter) {
		return Context{e}, nil
	}
	return v.verifyHit(e, token, &presenter, StateActive)
}

// VerifySuspended is Verify for methods that serve suspended tenants too.
func (v *Verifier) VerifySuspended(token string, presenter identity.ID) (Context, error) {
	v.hear(v.clock())
	return v.verifyHit(v.cache.find(token), token, &presenter, StateSuspended)
}

// hear returns the trust's silence. When the control plane is lost or found
// again the cache is emptied.
func (v *Verifier) hear(now time.Time) time.Duration {
	silence := v.trust.silence(now)
	if lost := silence >= lossAfter; lost != v.lost.Load() && v.lost.CompareAndSwap(!lost, lost) {
		v.cache.clear()
	}
	return silence
}

func (v *Verifier) presents(presenter *identity.ID) bool {
	return presenter.Kind() != 0 && v.mayPresent(*presenter)
}

// verifyHit takes every step that depends on more than the token's bytes, in
// order. e is the cache's entry or nil; tenants in states up to worst are accepted.
func (v *Verifier) verifyHit(e *verified, s string, presenter *identity.ID, worst State) (Context, error) {
	if e == nil {
		return v.verifyCold(s, presenter, worst)
	}
	state := e.tenant.state.Load()
	if state == nil || e.key.dead.Load() {
		v.cache.drop(e)
		return v.verifyCold(s, presenter, worst)
	}
	if err := v.admit(e, presenter, v.clock().Unix()); err != nil {
		return Context{}, err
	}
	return v.conclude(e, worst)
}

// verifyCold does all that depends on the token's bytes and remembers the result.
func (v *Verifier) verifyCold(s string, presenter *identity.ID, worst State) (Context, error) {
	if s == "" {
		return Context{}, errMissing()
	}
	t, err := parseToken(s)
	if err != nil {
		return Context{}, errInvalid(err)
	}
	if !v.trust.loaded.Load() {
		return Context{}, errStarting("the trust is not loaded")
	}
	if v.bad.spent(*presenter, v.clock()) || !v.takeSlot() {
		return Context{}, errOverloaded()
	}
	e, err := v.authenticate(t)
	<-v.slots
	now := v.clock()
	if err == nil {
		err = v.admit(e, presenter, now.Unix())
	}
	if err != nil {
		v.bad.charge(*presenter, now)
		return Context{}, err
	}
	if e.tenant != nil && e.claims.Class == ClassSession {
		v.cache.put(e, now.Unix())
	}
	return v.conclude(e, worst)
}

// authenticate proves that a certified key signed the token and may say what it
// says.
func (v *Verifier) authenticate(t token) (*verified, error) {
	key := v.trust.key(t.keyID)
	if key == nil {
		return nil, errInvalid(errors.New("key is not certified"))
	}
	if !t.verify(key.cert.PublicKey) {
		return nil, errInvalid(errors.New("signature is wrong"))
	}
	whole := strings.Clone(t.whole) // the cache must not keep a caller's larger buffer
	e := &verified{token: whole, hash: tokenHash(whole), key: key}
	payload := whole[frameHeader : frameHeader+len(t.payload)]
	if err := decodePayload(payload, &e.claims); err != nil {
		return nil, errInvalid(err)
	}
	e.issue, e.expire = e.claims.IssueTime.Unix(), e.claims.ExpireTime.Unix()
	e.from, e.until = max(e.issue, key.notBefore)-skewSeconds, min(e.expire, key.notAfter)
	if err := key.cert.covers(&e.claims); err != nil {
		return nil, errRefused(err.Error())
	}
	e.tenant = v.trust.tenant(e.claims.TenantUID)
	return e, nil
}

func (v *Verifier) takeSlot() bool {
	select {
	case v.slots <- struct{}{}:
		return true
	default:
	}
	timer := time.NewTimer(slotWait)
	defer timer.Stop()
	select {
	case v.slots <- struct{}{}:
		return true
	case <-timer.C:
		return false
	}
}

// admit checks what depends on this call and this verifier: times, key,
// audience, cell and presenter. It runs on every call. sec is now.
func (v *Verifier) admit(e *verified, presenter *identity.ID, sec int64) error {
	life := e.expire - e.issue
	switch {
	case e.issue > sec+skewSeconds, sec >= e.expire, life < 1, life > e.claims.Class.life():
		return errExpired()
	case e.key.dead.Load(), sec >= e.key.notAfter, sec+skewSeconds < e.key.notBefore:
		return errInvalid(errors.New("key is revoked or out of its time"))
	case !e.claims.Audience.Has(v.audience):
		return errRefused("audience does not hold this service")
	case v.cells != nil && !slices.Contains(v.cells, e.claims.Cell):
		return errRefused("cell is not served here")
	case !v.presents(presenter):
		return errRefused("peer may not present contexts")
	default:
		return nil
	}
}

// judge compares the token with what is known about its tenant now; state is nil
// for an unknown tenant. It returns errAhead when the token knows more than we do.
func judge(e *verified, state *TenantState, silence time.Duration, worst State) error {
	lost := silence >= lossAfter
	if lost && e.claims.Class == ClassTransaction {
		return errLost()
	}
	if state == nil {
		return errAhead
	}
	generation, placement := e.claims.Generation, e.claims.PlacementGeneration
	below := generation < state.Generation || placement < state.PlacementGeneration
	above := generation > state.Generation || placement > state.PlacementGeneration
	switch {
	case lost && state.Loss.denies(silence):
		return errLost()
	case above && !below:
		return errAhead
	case state.State == StateDeleted:
		return errDeleted()
	case state.State > worst:
		return errSuspended()
	case below:
		return errStale()
	case e.claims.TenantID != state.ID:
		return errInvalid(errors.New("tenant id is not that of the uid"))
	default:
		return nil
	}
}

// errAhead never leaves this package: the caller waits, or accepts under the
// loss policy.
var errAhead = errors.New("token is ahead of what is known")

// conclude takes the last step: the tenant's state now, waiting for it when the
// token knows more than we do.
func (v *Verifier) conclude(e *verified, worst State) (Context, error) {
	err := v.decide(e, worst)
	if errors.Is(err, errAhead) {
		err = v.await(e, worst)
	}
	if err != nil {
		return Context{}, err
	}
	return Context{e}, nil
}

// decide judges by what is known now. A silent trust will not catch up with a
// token that is ahead: then the loss policy has said yes, and the token is
// accepted and counted.
func (v *Verifier) decide(e *verified, worst State) error {
	state, silence := v.newest(e), v.trust.silence(v.clock())
	err := judge(e, state, silence, worst)
	switch {
	case err == nil && state.State == StateActive:
		e.proven.Store(state)
	case silence >= lossAfter && errors.Is(err, errAhead):
		v.unproven.Add(1)
		return nil
	}
	return err
}

// await decides again at each change, until the token is not ahead any more.
func (v *Verifier) await(e *verified, worst State) error {
	timer := time.NewTimer(aheadWait)
	defer timer.Stop()
	for {
		changed := v.trust.anyChange()
		if err := v.decide(e, worst); !errors.Is(err, errAhead) {
			return err
		}
		select {
		case <-changed:
		case <-timer.C:
			return errStarting("the tenant's newest state has not arrived")
		}
	}
}

// newest looks the tenant up where it was not known when the token was verified,
// or was removed since: it may have come back, as another entry.
func (v *Verifier) newest(e *verified) *TenantState {
	if e.tenant != nil {
		if state := e.tenant.state.Load(); state != nil {
			return state
		}
	}
	entry := v.trust.tenant(e.claims.TenantUID)
	if entry == nil {
		return nil
	}
	return entry.state.Load()
}

// Watch returns a channel that is closed when the tenant is suspended, resumed,
// moved or deleted after c was verified: at once when that has happened
// already. Whoever serves a stream ends it then.
func (v *Verifier) Watch(c Context) <-chan struct{} {
	ch := v.trust.Watch(c.UID())
	silence := v.trust.silence(v.clock())
	err := judge(c.v, v.newest(c.v), silence, StateSuspended)
	if err == nil || errors.Is(err, errAhead) && silence >= lossAfter {
		return ch
	}
	closed := make(chan struct{})
	close(closed)
	return closed
}

// VerifierStats is what a verifier can say about itself, for metrics.
type VerifierStats struct {
	// CachedTokens counts the tokens in the cache.
	CachedTokens int
	// Unproven counts contexts accepted in the control plane's silence although
	// their tenant or its generation was not known here.
	Unproven uint64
	// Silence is the time since the trust's last bookmark.
	Silence time.Duration
}

// Stats returns a snapshot. It walks the cache: ask a few times a minute.
func (v *Verifier) Stats() VerifierStats {
	return VerifierStats{
		CachedTokens: v.cache.size(),
		Unproven:     v.unproven.Load(),
		Silence:      v.trust.silence(v.clock()),
	}
}

func errExpired() error {
	return fault.New(fault.Unauthenticated, fault.ReasonContextExpired,
		"the tenant context is not good at this time")
}

func errRefused(cause string) error {
	return fault.New(fault.PermissionDenied, fault.ReasonPresenterRefused,
		"the tenant context may not be used here by this peer").WithCause(errors.New(cause))
}

func errSuspended() error {
	return fault.New(fault.PermissionDenied, fault.ReasonTenantSuspended, "the tenant is suspended")
}

func errDeleted() error {
	return fault.New(fault.PermissionDenied, fault.ReasonTenantDeleted, "the tenant is deleted")
}

func errStale() error {
	return fault.New(fault.Aborted, fault.ReasonPlacementStale,
		"the tenant has changed since the context was made; make a new one")
}

func errStarting(cause string) error {
	return fault.New(fault.Unavailable, fault.ReasonStarting, "the tenant is not known here yet").
		WithRetry(aheadWait).WithCause(errors.New(cause))
}

func errOverloaded() error {
	return fault.New(fault.ResourceExhausted, fault.ReasonOverloaded, "too many tenant contexts to check").
		WithRetry(time.Second)
}

func errLost() error {
	return fault.New(fault.Unavailable, fault.ReasonControlPlaneLost,
		"the control plane has been silent for too long for this call").WithRetry(time.Second)
}
