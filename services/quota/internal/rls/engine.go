package rls

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/rls/ruleset"
)

// Charge is what a request asks of one cell, and what became of it.
type Charge struct {
	Scope  lease.Scope
	Key    lease.Key
	Policy *lease.Policy
	// Cost is at least 0; 0 looks and takes nothing.
	Cost int64

	// Over says that the cost did not fit, or for a look that not one token is there.
	Over bool
	// Remaining is how many tokens are left.
	Remaining int64
	// Wait is until the next token comes, and when Over until the cost fits; 0 is never.
	Wait time.Duration
}

// Engine keeps cells.
type Engine interface {
	// Take charges all or none, and fills in what became of each. Those whose policy is in shadow refuse nothing. No two
	// have the same cell. An error means that the cells could not be reached and a policy refuses then.
	Take(ctx context.Context, charges []Charge) error
	// Refund gives tokens back, Cost of them and at most up to a full cell, and fills in what is left.
	Refund(ctx context.Context, c *Charge) error
}

// Marks keep apart what would else be hashed alike.
const (
	markValue byte = iota
	markShared
	markRule
	markOverride
)

// saltSize is how many bytes every domain's salt has.
const saltSize = 16

// cellOf is the cell of entries in a domain. Texts are hashed with their lengths, so that no two lists are one; the salt
// keeps the values, which may be addresses or names of people, from being guessed out of the database.
func cellOf(salt []byte, mark byte, m ruleset.Match, entries []ruleset.Entry) lease.Key {
	var room [512]byte
	b := append(append(room[:0], salt...), mark)
	for i, e := range entries {
		value, kind := e.Value, markValue
		if m.Shared&(1<<i) != 0 {
			value, kind = m.Rule.Levels[i].Value, markShared
		}
		b = append(b, kind)
		b = binary.BigEndian.AppendUint32(b, uint32(len(e.Key))) //nolint:gosec // no request has 4 GB
		b = append(b, e.Key...)
		b = binary.BigEndian.AppendUint32(b, uint32(len(value))) //nolint:gosec // as above
		b = append(b, value...)
	}
	sum := sha256.Sum256(b)
	return lease.Key(sum[:len(lease.Key{})])
}

// scopeOf is who is charged together for what belongs to no tenant: a domain.
func scopeOf(domain string) lease.Scope { return lease.ScopeOf("ratelimit", domain) }
