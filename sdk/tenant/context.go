package tenant

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// Context is a verified tenant context. Only a [Verifier] makes one. It is one
// pointer: pass it by value, compare it never. It is safe for concurrent use.
//
// The zero Context speaks for nobody: [FromContext] never returns it and its
// accessors panic.
type Context struct{ v *verified }

// verified is what the verifier found. It is also the entry of the verifier's
// cache, so a warm check allocates nothing; what that check reads comes first.
type verified struct {
	hash        uint64
	token       string
	from, until int64 // seconds in which both token and key are good
	key         *keyEntry
	tenant      *tenantEntry
	proven      atomic.Pointer[TenantState] // the state it was last accepted under
	claims      Claims
	issue       int64
	expire      int64
	redeemed    atomic.Bool // only where Class is TRANSACTION: those are cached nowhere
}

type contextKey struct{}

// NewContext returns a copy of ctx that carries c.
func NewContext(ctx context.Context, c Context) context.Context {
	return context.WithValue(ctx, contextKey{}, c)
}

// FromContext returns the tenant context that ctx carries. When there is none
// the error is a fault CONTEXT_MISSING.
func FromContext(ctx context.Context) (Context, error) {
	c, ok := ctx.Value(contextKey{}).(Context)
	if !ok || c.v == nil {
		return Context{}, errMissing()
	}
	return c, nil
}

// within reports whether token and key are good at the Unix second sec.
func (e *verified) within(sec int64) bool { return e.from <= sec && sec < e.until }

// unchanged reports whether the key lives and the tenant's state is the very one
// under which the token was last accepted.
func (e *verified) unchanged() bool {
	state := e.tenant.state.Load()
	return state != nil && state == e.proven.Load() && !e.key.dead.Load()
}

// Claims returns a copy of all that the context says.
func (c Context) Claims() Claims { return c.v.claims }

// UID returns the tenant.
func (c Context) UID() UID { return c.v.claims.TenantUID }

// ID returns the name that the tenant's users chose.
func (c Context) ID() ID { return c.v.claims.TenantID }

// Generation returns the tenant's generation.
func (c Context) Generation() uint64 { return c.v.claims.Generation }

// Model returns how the tenant's rows are kept apart.
func (c Context) Model() Model { return c.v.claims.Model }

// Cell returns the id of the cell that holds the tenant's rows.
func (c Context) Cell() string { return c.v.claims.Cell }

// CellNumber returns the number of that cell.
func (c Context) CellNumber() uint32 { return c.v.claims.CellNumber }

// Region returns the region of that cell.
func (c Context) Region() string { return c.v.claims.Region }

// PlacementGeneration returns the generation of the tenant's placement.
func (c Context) PlacementGeneration() uint64 { return c.v.claims.PlacementGeneration }

// Plan returns the id of the tenant's plan.
func (c Context) Plan() string { return c.v.claims.Plan }

// PrincipalKind returns what kind of principal acts.
func (c Context) PrincipalKind() PrincipalKind { return c.v.claims.PrincipalKind }

// PrincipalDigest returns who acts; zero for a visitor.
func (c Context) PrincipalDigest() [16]byte { return c.v.claims.PrincipalDigest }

// Scopes returns the granted scopes.
func (c Context) Scopes() Scopes { return c.v.claims.Scopes }

// Audience returns the services that may accept the context.
func (c Context) Audience() Audience { return c.v.claims.Audience }

// Minter returns who made the context.
func (c Context) Minter() string { return c.v.claims.Minter }

// IssueTime returns when the context was made.
func (c Context) IssueTime() time.Time { return c.v.claims.IssueTime }

// FirstIssueTime returns when the first context of the chain was made that this one
// renews: its own issue time unless it was renewed. See [MaxChainLife].
func (c Context) FirstIssueTime() time.Time {
	if c.v.claims.FirstIssueTime.IsZero() {
		return c.v.claims.IssueTime
	}
	return c.v.claims.FirstIssueTime
}

// ExpireTime returns when the context ends; at that second it is no longer good.
func (c Context) ExpireTime() time.Time { return c.v.claims.ExpireTime }

// Class returns how often the context may be used.
func (c Context) Class() Class { return c.v.claims.Class }

// Token returns the signed bytes, to forward them to the next service.
func (c Context) Token() string { return c.v.token }

// Seal returns the database seal, rebuilt from the signed claims. PostgreSQL
// refuses the seal of a context that was made without one; see [Context.HasSeal].
func (c Context) Seal() Seal { return c.v.claims.seal() }

// HasSeal reports whether the context was made with a database seal.
func (c Context) HasSeal() bool { return c.v.claims.DBSeal != DBSeal{} }

// Redeem spends a TRANSACTION context on its one request, given by
// [RequestDigest]. insert stores the nonce until the given time, inside the
// transaction that makes the change or writes the audit record, and reports
// whether it was new: then the nonce and the change stand or fall together.
//
// A context of another request, or one that was spent, is a fault
// CONTEXT_REPLAYED; a SESSION context is CONTEXT_INVALID. Errors of insert are
// returned as they are.
func (c Context) Redeem(request [16]byte, insert func(nonce [16]byte, until time.Time) (fresh bool, err error)) error {
	claims := &c.v.claims
	if claims.Class != ClassTransaction {
		return errInvalid(errors.New("the call needs a TRANSACTION context"))
	}
	if claims.RequestDigest != request {
		return errReplayed("another request")
	}
	fresh, err := insert(claims.Nonce, claims.ExpireTime.Add(clockSkew))
	if err != nil {
		return err
	}
	if !fresh {
		return errReplayed("spent before")
	}
	c.v.redeemed.Store(true)
	return nil
}

// Redeemed reports whether [Context.Redeem] succeeded. A call whose TRANSACTION
// context was not redeemed could be made twice.
func (c Context) Redeemed() bool { return c.v.redeemed.Load() }

func errReplayed(cause string) error {
	return fault.New(fault.PermissionDenied, fault.ReasonContextReplayed,
		"the tenant context was made for another request or is spent").WithCause(errors.New(cause))
}
