// Package identity says which process is at the other end of a connection.
//
// Inside the house every connection is mutual TLS 1.3, and a certificate is
// worth exactly one thing: the single SPIFFE URI it carries, compared whole.
// Common names, DNS names, suffixes and second URIs never identify anybody.
//
// Start at [Files], which reads a process's own certificate and the roots it
// trusts and keeps following the files; hand [Source.ServerTLS] to a server,
// [Source.ClientTLS] to a client, and ask [FromPeer] or [FromTLS] who called.
// [Authority] makes certificates for development and tests. It is not meant to
// be a production certificate authority.
//
// The package decides who a peer is, never what the peer may do: that is
// policy, and it is read per call by the layers above.
package identity

import (
	"errors"
	"fmt"
	"strings"
)

// Kind says which sort of peer an [ID] names.
type Kind uint8

// The kinds of identities. The zero value belongs to the zero ID alone.
const (
	// KindService is one of Rowhouse's own services in a cell.
	KindService Kind = iota + 1
	// KindApp is a product service in a cell.
	KindApp
	// KindOperator is a person or an automation that runs the platform.
	KindOperator
)

const (
	scheme          = "spiffe://"
	maxIDLength     = 255
	maxSegment      = 63
	segmentService  = "service"
	segmentApp      = "app"
	segmentOperator = "operator"
	segmentCell     = "cell"
)

// String returns the path word of the kind: "service", "app" or "operator".
func (k Kind) String() string {
	switch k {
	case KindService:
		return segmentService
	case KindApp:
		return segmentApp
	case KindOperator:
		return segmentOperator
	default:
		return "unknown"
	}
}

// ID is a parsed SPIFFE identity. Only [Parse], [Service], [App] and [Operator]
// make a valid one; the zero ID is valid nowhere and equals no peer. IDs are
// comparable and may be map keys.
type ID struct {
	kind   Kind
	domain string
	cell   string
	name   string
}

// Parse reads spiffe://{domain}/cell/{cell}/service/{name}, the same with app,
// or spiffe://{domain}/operator/{name}. There is one spelling per identity:
// what Parse accepts, String returns unchanged.
func Parse(s string) (ID, error) {
	if len(s) > maxIDLength {
		return ID{}, fmt.Errorf("identity longer than %d bytes", maxIDLength)
	}
	rest, ok := strings.CutPrefix(s, scheme)
	if !ok {
		return ID{}, fmt.Errorf("identity %q does not start with %s", s, scheme)
	}
	parts := strings.Split(rest, "/")
	switch {
	case len(parts) == 5 && parts[1] == segmentCell && parts[3] == segmentService:
		return Service(parts[0], parts[2], parts[4])
	case len(parts) == 5 && parts[1] == segmentCell && parts[3] == segmentApp:
		return App(parts[0], parts[2], parts[4])
	case len(parts) == 3 && parts[1] == segmentOperator:
		return Operator(parts[0], parts[2])
	default:
		return ID{}, fmt.Errorf("identity %q is neither a service, an app nor an operator", s)
	}
}

// Service returns the identity of Rowhouse's own service name in cell. It fails
// when a part is not a lower-case label.
func Service(trustDomain, cell, name string) (ID, error) {
	return inCell(KindService, trustDomain, cell, name)
}

// App returns the identity of the product service name in cell. It fails when a
// part is not a lower-case label.
func App(trustDomain, cell, name string) (ID, error) {
	return inCell(KindApp, trustDomain, cell, name)
}

// Operator returns the identity of the operator name. It fails when a part is
// not a lower-case label.
func Operator(trustDomain, name string) (ID, error) {
	if err := errors.Join(checkDomain(trustDomain), checkSegment("name", name)); err != nil {
		return ID{}, err
	}
	return ID{kind: KindOperator, domain: trustDomain, name: name}, nil
}

func inCell(kind Kind, domain, cell, name string) (ID, error) {
	err := errors.Join(checkDomain(domain), checkSegment("cell", cell), checkSegment("name", name))
	if err != nil {
		return ID{}, err
	}
	return ID{kind: kind, domain: domain, cell: cell, name: name}, nil
}

// String returns the SPIFFE URI, or "" for the zero ID.
func (id ID) String() string {
	switch id.kind {
	case KindService, KindApp:
		return scheme + id.domain + "/" + segmentCell + "/" + id.cell + "/" + id.kind.String() + "/" + id.name
	case KindOperator:
		return scheme + id.domain + "/" + segmentOperator + "/" + id.name
	default:
		return ""
	}
}

// Kind returns which sort of peer this is; 0 for the zero ID.
func (id ID) Kind() Kind { return id.kind }

// TrustDomain returns the domain whose roots vouch for the identity.
func (id ID) TrustDomain() string { return id.domain }

// Cell returns the cell the process runs in; "" for operators.
func (id ID) Cell() string { return id.cell }

// Name returns the last word of the identity, such as "tenancy" or "notes".
func (id ID) Name() string { return id.name }

// IsZero reports whether the ID names nobody.
func (id ID) IsZero() bool { return id == ID{} }

// MarshalText returns the SPIFFE URI. It fails for the zero ID.
func (id ID) MarshalText() ([]byte, error) {
	if id.IsZero() {
		return nil, errors.New("the zero identity has no text")
	}
	return []byte(id.String()), nil
}

// UnmarshalText reads what [Parse] reads.
func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

func checkDomain(s string) error {
	for label := range strings.SplitSeq(s, ".") {
		if err := checkSegment("trust domain", label); err != nil {
			return err
		}
	}
	return nil
}

// checkSegment accepts a lower-case label: letters, digits and inner hyphens.
func checkSegment(what, s string) error {
	if s == "" || len(s) > maxSegment {
		return fmt.Errorf("%s must have 1 to %d bytes", what, maxSegment)
	}
	for i := range len(s) {
		c := s[i]
		alnum := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		inner := i > 0 && i < len(s)-1
		if !alnum && (c != '-' || !inner) {
			return fmt.Errorf("%s %q is not a lower-case label", what, s)
		}
	}
	return nil
}
