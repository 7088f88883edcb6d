package rls

import (
	"errors"
	"fmt"
	"strings"

	"github.com/rowhouse-platform/rowhouse/sdk/identity"
)

// Peer is one caller and its rights. It has none that are not written down.
type Peer struct {
	// Identity is the caller's SPIFFE URI.
	Identity identity.ID `yaml:"identity"`
	// Domains are those that it may ask about; one that ends with * stands for all that begin so.
	Domains []string `yaml:"domains"`
	// Override lets its requests bring limits of their own along.
	Override bool `yaml:"override,omitempty"`
	// Refund lets its requests give hits back.
	Refund bool `yaml:"refund,omitempty"`
	// NamesTenant is the key of the descriptor entries whose value is a tenant's id. What they ask for is counted for
	// that tenant then. Default: no key has that meaning.
	NamesTenant string `yaml:"names_tenant,omitempty"`
	// UnknownTenant is what becomes of an id that no tenant has: "default" counts it in the domain like any other value,
	// "refuse" is over the limit. Default: default.
	UnknownTenant UnknownTenant `yaml:"unknown_tenant,omitempty"`
}

// UnknownTenant is what becomes of an id that no tenant has.
type UnknownTenant string

// What may become of it. The zero UnknownTenant is CountInDomain.
const (
	CountInDomain UnknownTenant = "default"
	RefuseUnknown UnknownTenant = "refuse"
)

// Peers are all callers.
type Peers []Peer

// Validate says what is wrong with the peers.
func (p Peers) Validate() error {
	var faults []error
	seen := map[identity.ID]bool{}
	for i, one := range p {
		fault := func(format string, args ...any) {
			faults = append(faults, fmt.Errorf("peers[%d]: %w", i, fmt.Errorf(format, args...)))
		}
		switch {
		case one.Identity.IsZero():
			fault("identity is missing")
		case seen[one.Identity]:
			fault("%s is there twice", one.Identity)
		}
		seen[one.Identity] = true
		if len(one.Domains) == 0 {
			fault("domains is empty; \"*\" stands for all")
		}
		for _, d := range one.Domains {
			if d == "" || strings.Contains(strings.TrimSuffix(d, "*"), "*") {
				fault("the domain %q is empty or has a * before its end", d)
			}
		}
		if one.UnknownTenant != "" && one.UnknownTenant != CountInDomain && one.UnknownTenant != RefuseUnknown {
			fault("unknown_tenant %q is neither default nor refuse", one.UnknownTenant)
		}
		if one.UnknownTenant != "" && one.NamesTenant == "" {
			fault("unknown_tenant is of no use without names_tenant")
		}
	}
	return errors.Join(faults...)
}

// byIdentity finds a caller.
func (p Peers) byIdentity() map[identity.ID]*Peer {
	found := make(map[identity.ID]*Peer, len(p))
	for i := range p {
		found[p[i].Identity] = &p[i]
	}
	return found
}

// may reports whether the peer may ask about a domain.
func (p *Peer) may(domain string) bool {
	for _, d := range p.Domains {
		if prefix, wild := strings.CutSuffix(d, "*"); d == domain || wild && strings.HasPrefix(domain, prefix) {
			return true
		}
	}
	return false
}
