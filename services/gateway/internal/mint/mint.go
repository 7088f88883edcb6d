// Package mint makes tenant contexts at the edge.
//
// It signs with a key of the gateway's own, which tenancy certified, and seals with
// the MAC keys of the tenants' cells. One context serves all like calls for 15 s, so
// a busy tenant costs one signature in that time. Where the key comes from and how
// it survives a restart is [Keeper]'s matter. Start at [Minter.Mint].
package mint

import (
	"fmt"
	"hash/maphash"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rowhouse-platform/rowhouse/internal/renew"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

const (
	// reuse is how long one context serves; what is left of its life is for the calls behind it.
	reuse = 15 * time.Second
	// maxCached bounds the contexts that are kept.
	maxCached = 1 << 16
	// sweepEvery is how often a full shard is looked through for tokens that are too old.
	sweepEvery = time.Second
	shards     = 64
)

// SealKey is a cell's MAC key under its number.
type SealKey struct {
	KID uint8
	Key tenant.SealKey
	// NotAfter is when PostgreSQL stops to accept it.
	NotAfter time.Time
}

// Keys is what a gateway signs and seals with. Immutable.
type Keys struct {
	Signer      *tenant.Signer
	Certificate tenant.KeyCertificate
	// Encoded is the certificate as tenancy signed it.
	Encoded []byte
	// Seals holds each cell's keys, in any order.
	Seals map[string][]SealKey
}

// seal returns the cell's key with this number. Until it is here, the key that
// PostgreSQL goes on accepting the longest stands in.
func (k *Keys) seal(cell string, kid uint8, now time.Time) (best SealKey, ok bool) {
	for _, s := range k.Seals[cell] {
		switch {
		case !now.Before(s.NotAfter):
		case s.KID == kid:
			return s, true
		case s.NotAfter.After(best.NotAfter):
			best, ok = s, true
		}
	}
	return best, ok
}

// has reports whether the key is here.
func (k *Keys) has(name sealName) bool {
	return slices.ContainsFunc(k.Seals[name.cell], func(s SealKey) bool { return s.KID == name.kid })
}

// Subject is for whom and for what a context is made. Every property of a context
// but its times is in it, so it is the whole key under which one is reused.
type Subject struct {
	TenantUID           tenant.UID
	TenantID            tenant.ID
	Generation          uint64
	Model               tenant.Model
	Cell                string
	CellNumber          uint32
	Region              string
	PlacementGeneration uint64
	Plan                string
	PrincipalKind       tenant.PrincipalKind
	PrincipalDigest     [16]byte
	Scopes              tenant.Scopes
	Audience            tenant.Audience
	// SealKID is the number of the cell's key to seal with.
	SealKID uint8
}

// Minter makes contexts. It is safe for concurrent use and mints nothing until
// [Minter.Use] was called.
type Minter struct {
	clock  func() time.Time
	random io.Reader
	keys   atomic.Pointer[Keys]
	seed   maphash.Seed
	shards [shards]shard
	minted atomic.Int64
}

type shard struct {
	mu     sync.RWMutex
	tokens map[cacheKey]cached
	swept  time.Time // when it was last looked for tokens that are too old
}

// cacheKey tells contexts of two signing keys apart as well.
type cacheKey struct {
	subject Subject
	signer  tenant.KeyID
}

// caller spreads contexts over the shards: a tenant's users too, so that many of one
// tenant crowd out nobody else's.
type caller struct {
	tenant    tenant.UID
	principal [16]byte
}

type cached struct {
	token string
	until time.Time
}

// New returns a Minter without keys. random is for nonces.
func New(clock func() time.Time, random io.Reader) *Minter {
	m := &Minter{clock: clock, random: random, seed: maphash.MakeSeed()}
	for i := range m.shards {
		m.shards[i].tokens = make(map[cacheKey]cached)
	}
	return m
}

// Use makes the minter sign with these keys from now on.
func (m *Minter) Use(k *Keys) { m.keys.Store(k) }

// Keys returns the keys in use, or nil.
func (m *Minter) Keys() *Keys { return m.keys.Load() }

// Renewal returns what to renew contexts of the cell's tenants with; kid is the number
// of the cell's key to seal with. The error is a fault STARTING while there is no key
// or no seal key for the cell.
func (m *Minter) Renewal(cell string, kid uint8) (renew.Keys, error) {
	keys := m.keys.Load()
	if keys == nil || !m.clock().Before(keys.Certificate.NotAfter) {
		return renew.Keys{}, errNoKey()
	}
	seal, ok := keys.seal(cell, kid, m.clock())
	if !ok {
		return renew.Keys{}, errNoSealKey()
	}
	return renew.Keys{Signer: keys.Signer, Minter: keys.Certificate.Minter, Seal: seal.Key, SealKID: seal.KID}, nil
}

func errNoKey() error {
	return fault.New(fault.Unavailable, fault.ReasonStarting, "the gateway has no certified key yet")
}

func errNoSealKey() error {
	return fault.New(fault.Unavailable, fault.ReasonStarting, "the gateway has no seal key for the tenant's cell yet")
}

// Minted returns how many contexts were signed at the edge, for metrics.
func (m *Minter) Minted() int64 { return m.minted.Load() }

// Mint returns a SESSION context for the subject, at most 15 s old. The error is a
// fault STARTING while there is no key or no seal key for the tenant's cell.
func (m *Minter) Mint(s Subject) (string, error) {
	keys, now := m.keys.Load(), m.clock()
	if keys == nil {
		return "", errNoKey()
	}
	k := cacheKey{subject: s, signer: keys.Signer.KeyID()}
	sh := &m.shards[maphash.Comparable(m.seed, caller{s.TenantUID, s.PrincipalDigest})%shards]
	sh.mu.RLock()
	c, ok := sh.tokens[k]
	sh.mu.RUnlock()
	if ok && now.Before(c.until) {
		return c.token, nil
	}
	claims := s.claims(keys, now.Truncate(time.Second), tenant.ClassSession)
	token, err := m.sign(keys, claims, s.SealKID)
	if err != nil {
		return "", err
	}
	sh.put(k, cached{token, now.Add(reuse)}, now)
	return token, nil
}

// MintOnce returns a TRANSACTION context for one request; see
// [tenant.RequestDigest]. It is never reused.
func (m *Minter) MintOnce(s Subject, request [16]byte) (string, error) {
	keys := m.keys.Load()
	if keys == nil {
		return "", errNoKey()
	}
	claims := s.claims(keys, m.clock().Truncate(time.Second), tenant.ClassTransaction)
	claims.RequestDigest = request
	if _, err := io.ReadFull(m.random, claims.Nonce[:]); err != nil {
		return "", fmt.Errorf("make a nonce: %w", err)
	}
	return m.sign(keys, claims, s.SealKID)
}

// sign seals and signs the claims.
func (m *Minter) sign(keys *Keys, claims tenant.Claims, kid uint8) (string, error) {
	seal, ok := keys.seal(claims.Cell, kid, m.clock())
	if !ok {
		return "", errNoSealKey()
	}
	token, err := keys.Signer.Sign(claims.WithSeal(&seal.Key, seal.KID))
	if err != nil {
		return "", fault.New(fault.Internal, fault.ReasonInternal, "the tenant context cannot be made").WithCause(err)
	}
	m.minted.Add(1)
	return string(token), nil
}

func (s *Subject) claims(keys *Keys, now time.Time, class tenant.Class) tenant.Claims {
	life := tenant.MaxSessionLife
	if class == tenant.ClassTransaction {
		life = tenant.MaxTransactionLife
	}
	return tenant.Claims{
		TenantUID: s.TenantUID, TenantID: s.TenantID, Generation: s.Generation,
		Model: s.Model, Cell: s.Cell, CellNumber: s.CellNumber, Region: s.Region, PlacementGeneration: s.PlacementGeneration,
		Plan: s.Plan, PrincipalKind: s.PrincipalKind, PrincipalDigest: s.PrincipalDigest,
		Scopes: s.Scopes, Audience: s.Audience, Minter: keys.Certificate.Minter,
		IssueTime: now, ExpireTime: now.Add(life), Class: class,
	}
}

// put keeps a token; a full shard first loses what is too old, else any one.
func (s *shard) put(k cacheKey, c cached, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tokens) >= maxCached/shards && now.Sub(s.swept) > sweepEvery {
		s.swept = now
		for k, old := range s.tokens {
			if !now.Before(old.until) {
				delete(s.tokens, k)
			}
		}
	}
	if len(s.tokens) >= maxCached/shards {
		for one := range s.tokens {
			delete(s.tokens, one)
			break
		}
	}
	s.tokens[k] = c
}
