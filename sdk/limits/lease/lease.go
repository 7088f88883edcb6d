// Package lease decides in the process from tokens that an allocator lent it.
//
// It knows no tenants and no wire: who is charged together is a [Scope], what is
// charged is a [Key] in it, and by what rule is a [Policy]. A [Table] spends leases
// without a lock, without an allocation and without asking, and asks a [Granter] when
// a lease is used up: one ask at a time for each scope. All levels of one [Table.Take]
// are charged or none is. What was lent is charged at the lease's end, so any number
// of tables together keep the bound of package gcra.
//
// Places of concurrency limits are not lent in advance: see [Slots].
//
// It is for whoever holds leases: sdk/limits for products and the gateway, and the
// quota service for Envoy. Start at [New] and [Table.Take].
package lease

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
)

// MaxLevels is how many cells one decision charges at most.
const MaxLevels = 8

// MaxCost is the most that one decision takes of a cell.
const MaxCost = gcra.MaxTokens

// Scope is who is charged together: a tenant's uid, or [ScopeOf] of what is above or
// beside tenants. Cells of one scope are charged in one step.
type Scope [16]byte

// ScopeOf returns the scope of something that is no tenant, such as a plan or the
// platform. Kind and name are told apart by their lengths.
func ScopeOf(kind, name string) Scope {
	sum := sha256.Sum256(appendText(appendText(make([]byte, 0, shortText), kind), name))
	return Scope(sum[:16])
}

// PlanScope returns the scope of all tenants of a plan.
func PlanScope(plan string) Scope { return ScopeOf("plan", plan) }

// PlatformScope returns the scope of all tenants.
func PlatformScope() Scope { return ScopeOf("platform", "") }

// Key is a cell of a scope: what [KeyOf] makes.
type Key [16]byte

// KeyOf returns the key of a limit's cell in a scope. Without values it is that of the
// only cell, and costs little; with values, in the order of the limit's dimensions, it
// is a hash from which they cannot be read. The same everywhere: holders and the quota
// service must agree.
func KeyOf(scope Scope, limit string, values ...string) Key {
	if len(values) == 0 {
		return LimitKey(limit).In(scope)
	}
	var buffer [256]byte
	text := appendText(append(buffer[:0], scope[:]...), limit)
	for _, v := range values {
		text = appendText(text, v)
	}
	sum := sha256.Sum256(text)
	return Key(sum[:16])
}

// LimitKey returns what [KeyOf] a limit without values is made of; it is for whoever
// makes that once and uses it for many scopes.
func LimitKey(limit string) Key {
	sum := sha256.Sum256(appendText(make([]byte, 0, shortText), limit))
	return Key(sum[:16])
}

// In returns the key of the only cell of a limit in a scope.
func (k Key) In(s Scope) Key {
	var out Key
	binary.NativeEndian.PutUint64(out[:8], binary.NativeEndian.Uint64(k[:8])^binary.NativeEndian.Uint64(s[:8]))
	binary.NativeEndian.PutUint64(out[8:], binary.NativeEndian.Uint64(k[8:])^binary.NativeEndian.Uint64(s[8:]))
	return out
}

// shortText is room for most names.
const shortText = 96

// appendText appends a text with its length before it, so that no two lists of texts
// become the same bytes.
func appendText(b []byte, text string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(text))) //nolint:gosec // no name has 4 GB
	return append(b, text...)
}

// Kind is what a policy bounds.
type Kind uint8

// The kinds.
const (
	// Rate bounds tokens in time.
	Rate Kind = iota
	// Concurrency bounds slots that are held at the same time.
	Concurrency
)

// Loss is what a holder does when the allocator cannot be reached.
type Loss uint8

// The policies of loss. The zero Loss is SafeRate.
const (
	// SafeRate admits at the limit's rate divided by the holders last known, one call
	// after the other: those that come together wait their turn, or are refused when
	// it is further away than [Config.Patience].
	SafeRate Loss = iota
	// FailOpen admits everything.
	FailOpen
	// FailClosed refuses everything.
	FailClosed
)

// Change is what becomes of what was spent when a limit changes.
type Change uint8

// The changes. The zero Change is KeepUsed.
const (
	// KeepUsed keeps what was spent spent.
	KeepUsed Change = iota
	// Reset begins with a full limit.
	Reset
)

// Policy is the rule of a level. It is immutable once made; two versions of a limit
// are two policies, told apart by their address first and by Revision then. Whoever
// makes policies makes one for each version, not one for each call.
type Policy struct {
	// Name is the limit's id, as the allocator knows it.
	Name string
	Kind Kind
	// Limit is the bound of a Rate.
	Limit gcra.Limit
	// Slots and TTL are the bound of a Concurrency: how many are held at the same time,
	// and after how long a holder that says nothing loses its own.
	Slots int64
	TTL   time.Duration
	// OnLoss is what happens when the allocator cannot be reached.
	OnLoss Loss
	// Shadow decides and counts, but refuses nothing.
	Shadow bool
	// OnChange is what becomes of what was spent under the version before.
	OnChange Change
	// Revision tells versions apart across processes.
	Revision int64
}

// Level is one cell that a decision charges.
type Level struct {
	// Scope is whose cell it is; the zero Scope means that of the call. Levels of another
	// scope, such as a plan's, are charged in a step of their own.
	Scope  Scope
	Key    Key
	Policy *Policy
	// Cost is 1 to [MaxCost].
	Cost int64
}

// Outcome is how an ask ended.
type Outcome uint8

// The outcomes.
const (
	// Refused is an ask that was not accepted; Reason says why. Nothing was charged.
	Refused Outcome = iota
	// Granted is a grant of all cells.
	Granted
	// Denied is a limit that is reached: the cells that are not OK say which. Nothing
	// was charged.
	Denied
	// Unlimited is an ask of cells none of whose limits holds any more.
	Unlimited
)

// Ask asks for tokens of cells of one scope: all or none.
type Ask struct {
	Scope Scope
	// Token is the signed context of the tenant whom the ask is for; empty in-process.
	Token string
	// Cells are 1 to [MaxLevels], each with another key.
	Cells []CellAsk
}

// CellAsk asks for tokens of one cell.
type CellAsk struct {
	Key    Key
	Policy *Policy
	// Need is the fewest tokens that help, at least 1; Want the most that are wanted, at
	// least Need.
	Need, Want int64
}

// Answer answers an ask.
type Answer struct {
	Outcome Outcome
	// Reason is the reason of a Refused ask, as in ErrorInfo.
	Reason string
	// Cells answer the ask's cells in their order; of a Refused ask there may be none.
	Cells []CellAnswer
}

// CellAnswer is what became of one cell of an ask.
type CellAnswer struct {
	// OK says that the cell had what was needed. Of a Denied ask that is all: nothing
	// was charged there either. A shadow that has not refuses nothing: then the ask is
	// Granted, and of this cell nothing was charged.
	OK bool
	// Unlimited says that the limit does not hold any more; the cell is OK then and
	// nothing else is set.
	Unlimited bool
	// Tokens were granted, between Need and Want. They may be spent for Lifetime from the
	// moment the ask was sent; with Lifetime 0 they are for the call at hand, and are Need.
	Tokens   int64
	Lifetime time.Duration
	// RetryAfter is, where not OK, after how long the need would fit; 0 means never.
	RetryAfter time.Duration
	// Remaining is how many tokens could still be granted at once.
	Remaining int64
	// TAT is the cell's state after the grant, for [Give]; 0 when the grant cannot be
	// given back.
	TAT gcra.Ticks
	// Revision is that of the limit that decided; the allocator may be ahead of the
	// asker's.
	Revision int64
}

// Give gives tokens of a grant back that nobody has spent or will.
type Give struct {
	Scope Scope
	// Token is as in [Ask].
	Token string
	Key   Key
	// Policy is the one of the grant.
	Policy *Policy
	// Tokens are at most those of the grant.
	Tokens int64
	// TAT is the state that the grant left. When the cell has another one by now, nothing
	// is given back: only then is the state after it the one in which the grant had been
	// smaller, and the bound holds.
	TAT gcra.Ticks
}

// Granter lends tokens. It must be safe for concurrent use.
type Granter interface {
	// Grant returns one answer to each ask, in their order, and how many processes hold
	// leases now. Each ask is charged as a whole or not at all; asks of one call are
	// charged in their order. An error means that the allocator could not be asked: what
	// became of the asks is not known, and they count as charged.
	Grant(ctx context.Context, asks []Ask) (answers []Answer, holders int, err error)
	// Return gives back what is not needed. It is best effort: what is not given back is
	// earned again in time.
	Return(ctx context.Context, gives []Give) error
}

// HoldID names a hold. Whoever acquires chooses it, at random: a repeat with the same
// id is the same hold.
type HoldID [16]byte

// SlotCell asks for slots of one cell of a Concurrency.
type SlotCell struct {
	Key    Key
	Policy *Policy
	// Slots is how many, at least 1.
	Slots int64
}

// SlotAsk asks for slots of cells of one scope: all or none.
type SlotAsk struct {
	Scope Scope
	// Token is as in [Ask].
	Token string
	Hold  HoldID
	// Cells are 1 to [MaxLevels], each with another key.
	Cells []SlotCell
}

// SlotAnswer answers a [SlotAsk].
type SlotAnswer struct {
	Outcome Outcome
	// Reason is as in [Answer].
	Reason string
	// TTL is, when granted, after how long the hold ends unless it is renewed.
	TTL time.Duration
	// Cells answer the ask's cells in their order. RetryAfter is when the first slot ends
	// by itself at the latest; Tokens, Lifetime and TAT are not used.
	Cells []CellAnswer
}

// Slots keeps slots of concurrency limits. It must be safe for concurrent use.
type Slots interface {
	// Acquire takes slots until they are released, or not renewed for the TTL.
	Acquire(ctx context.Context, ask SlotAsk) (SlotAnswer, error)
	// Renew begins the TTL of a hold anew. It is false when the hold has ended: it is not
	// taken again.
	Renew(ctx context.Context, ask SlotAsk) (held bool, err error)
	// Release ends a hold. One that has ended already is no error.
	Release(ctx context.Context, ask SlotAsk) error
}
