package tenant

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
)

// Model is how a tenant's rows are kept apart.
type Model uint8

// The isolation models. The zero value is invalid.
const (
	// ModelShared keeps the rows in tables shared by tenants.
	ModelShared Model = iota + 1
	// ModelSchema keeps them in a schema of the tenant's own.
	ModelSchema
	// ModelDatabase keeps them in a database of the tenant's own.
	ModelDatabase
)

// String returns the model's name in the API: "SHARED", "SCHEMA" or "DATABASE".
func (m Model) String() string {
	return enumName(uint8(m), "SHARED", "SCHEMA", "DATABASE")
}

// PrincipalKind is what kind of principal acts.
type PrincipalKind uint8

// The kinds of principals. The zero value is invalid.
const (
	// PrincipalVisitor is somebody who has not signed in.
	PrincipalVisitor PrincipalKind = iota + 1
	// PrincipalUser is a user that a customer token names.
	PrincipalUser
	// PrincipalAPIKey is the holder of an API key.
	PrincipalAPIKey
	// PrincipalService is a product service.
	PrincipalService
	// PrincipalJob is a job or a schedule.
	PrincipalJob
	// PrincipalSupport is a supporter with an access grant.
	PrincipalSupport
)

// String returns the kind's name in the API, such as "USER".
func (k PrincipalKind) String() string {
	return enumName(uint8(k), "VISITOR", "USER", "API_KEY", "SERVICE", "JOB", "SUPPORT")
}

// Class is how often a context may be used.
type Class uint8

// The classes of contexts. The zero value is invalid.
const (
	// ClassSession contexts live for at most 45 s and may be used again.
	ClassSession Class = iota + 1
	// ClassTransaction contexts live for at most 10 s and are good for one request.
	ClassTransaction
)

// String returns the class's name in the API: "SESSION" or "TRANSACTION".
func (c Class) String() string { return enumName(uint8(c), "SESSION", "TRANSACTION") }

// life returns how long a context of class c may live, in seconds.
func (c Class) life() int64 {
	if c == ClassTransaction {
		return int64(MaxTransactionLife / time.Second)
	}
	return int64(MaxSessionLife / time.Second)
}

// The longest lives of contexts, by class.
const (
	MaxSessionLife     = 45 * time.Second
	MaxTransactionLife = 10 * time.Second
)

// MaxChainLife is how long after its first context a chain of renewed ones ends.
const MaxChainLife = time.Hour

func enumName(v uint8, names ...string) string {
	if v == 0 || int(v) > len(names) {
		return fmt.Sprintf("UNKNOWN_%d", v)
	}
	return names[v-1]
}

// Scopes is a bit set of granted scopes; what a bit grants is the plan's and
// the method options' matter.
type Scopes uint64

// Has reports whether every scope of want is granted.
func (s Scopes) Has(want Scopes) bool { return s&want == want }

// Audience is a bit set of the services that may accept a context: bits 0–15
// are Rowhouse's own, 16–63 belong to registered apps.
type Audience uint64

// The audience bits of Rowhouse's own services.
const (
	AudienceTenancy Audience = 1 << iota
	AudienceConfig
	AudienceQuota
	AudienceGateway
)

const (
	firstAppBit = 16
	lastAppBit  = 63
)

// AudienceApp returns the audience bit of the app registered under number n,
// 16 to 63. Any other number returns the empty set, which every verifier
// refuses.
func AudienceApp(n int) Audience {
	if n < firstAppBit || n > lastAppBit {
		return 0
	}
	return 1 << n
}

// Has reports whether the set holds every bit of want.
func (a Audience) Has(want Audience) bool { return a&want == want }

// Limits that make every context fit [MaxTokenSize].
const (
	maxCell    = 20
	maxRegion  = 24
	maxPlan    = 20
	maxMinter  = 12
	maxSeconds = 1<<35 - 1
)

// DBSeal is what a context carries of its database seal: the key id and the
// tag. The zero value means that the context opens no database.
type DBSeal [1 + sealTagSize]byte

// Claims is everything that a tenant context says, as plain values. Claims by
// themselves prove nothing: a [Signer] signs them, a [Verifier] turns signed
// ones into a [Context].
type Claims struct {
	// TenantUID is the tenant.
	TenantUID UID
	// TenantID is the name the tenant's users chose. For people and telemetry;
	// look-ups use TenantUID.
	TenantID ID
	// Generation grows when the tenant is suspended, resumed or deleted. At least 1.
	Generation uint64
	// Model, Cell, CellNumber and Region say where the tenant's rows are. Cell is a
	// label of at most 20 characters, Region of at most 24; CellNumber is at least 1.
	Model      Model
	Cell       string
	CellNumber uint32
	Region     string
	// PlacementGeneration grows with each move. At least 1.
	PlacementGeneration uint64
	// Plan is the id of the tenant's plan, a label of at most 20 characters.
	Plan string
	// PrincipalKind and PrincipalDigest say who acts. The digest is
	// [PrincipalDigest]; it is zero for a visitor and never otherwise.
	PrincipalKind   PrincipalKind
	PrincipalDigest [16]byte
	// Scopes are the granted scopes; may be empty.
	Scopes Scopes
	// Audience holds the services that may accept the context; never empty.
	Audience Audience
	// Minter is who made the context, a label of at most 12 characters.
	Minter string
	// IssueTime and ExpireTime bound the context's life. They are whole seconds.
	IssueTime, ExpireTime time.Time
	// FirstIssueTime is when the first context of the chain was made that this one
	// renews, in whole seconds. It is zero in that first one, and in one that was
	// renewed within its second: it lies before IssueTime, and ExpireTime is at most
	// [MaxChainLife] after it. SESSION only.
	FirstIssueTime time.Time
	// Class says how often the context may be used.
	Class Class
	// Nonce and RequestDigest bind a TRANSACTION to its one request; zero otherwise.
	Nonce         [16]byte
	RequestDigest [16]byte
	// DBSeal opens the tenant's database; see [Claims.WithSeal].
	DBSeal DBSeal
}

// PrincipalDigest returns what a context says about its principal: the first
// 16 bytes of SHA-256(issuer, 0, subject).
func PrincipalDigest(issuer, subject string) [16]byte {
	return digest(issuer, subject)
}

// RequestDigest returns what a TRANSACTION context says about its one request:
// the first 16 bytes of SHA-256(full method, 0, request_id, 0, resource name).
func RequestDigest(method, requestID, resource string) [16]byte {
	return digest(method, requestID, resource)
}

func digest(parts ...string) (out [16]byte) {
	h := sha256.New()
	for i, p := range parts {
		if i > 0 {
			h.Write([]byte{0})
		}
		h.Write([]byte(p))
	}
	copy(out[:], h.Sum(nil))
	return out
}

// check reports the first rule that the claims break. It looks at values only;
// whether the times fit now is the verifier's question.
func (c *Claims) check() error {
	switch {
	case !c.TenantUID.valid():
		return errors.New("tenant uid is not a UUIDv7")
	case len(c.TenantID.s) < minIDLength || len(c.TenantID.s) > maxIDLength || !isLabel(c.TenantID.s):
		return errors.New("tenant id is not valid")
	case c.Generation == 0 || c.PlacementGeneration == 0:
		return errors.New("a generation is missing")
	case c.Model < ModelShared || c.Model > ModelDatabase:
		return errors.New("placement model is not known")
	case c.CellNumber == 0:
		return errors.New("cell number is missing")
	case c.Audience == 0:
		return errors.New("audience is empty")
	}
	return errors.Join(c.checkLabels(), c.checkPrincipal(), c.checkClass(), c.checkTimes())
}

func (c *Claims) checkLabels() error {
	if !isLabelUpTo(c.Cell, maxCell) || !isLabelUpTo(c.Region, maxRegion) ||
		!isLabelUpTo(c.Plan, maxPlan) || !isLabelUpTo(c.Minter, maxMinter) {
		return errors.New("cell, region, plan or minter is not a label or too long")
	}
	return nil
}

func isLabelUpTo(s string, limit int) bool { return len(s) <= limit && isLabel(s) }

func (c *Claims) checkPrincipal() error {
	if c.PrincipalKind < PrincipalVisitor || c.PrincipalKind > PrincipalSupport {
		return errors.New("principal kind is not known")
	}
	if (c.PrincipalKind == PrincipalVisitor) != (c.PrincipalDigest == [16]byte{}) {
		return errors.New("a principal digest belongs to all but visitors")
	}
	return nil
}

func (c *Claims) checkClass() error {
	bound := c.Nonce != [16]byte{} && c.RequestDigest != [16]byte{}
	free := c.Nonce == [16]byte{} && c.RequestDigest == [16]byte{}
	switch {
	case c.Class == ClassSession && free, c.Class == ClassTransaction && bound:
		return nil
	default:
		return errors.New("nonce and request digest belong to TRANSACTION, both or none")
	}
}

func (c *Claims) checkTimes() error {
	issue, expire := c.IssueTime.Unix(), c.ExpireTime.Unix()
	if issue < 1 || issue > maxSeconds || expire < 1 || expire > maxSeconds {
		return errors.New("a time is out of range")
	}
	if c.IssueTime.Nanosecond() != 0 || c.ExpireTime.Nanosecond() != 0 {
		return errors.New("times are whole seconds")
	}
	return c.checkChain()
}

// checkChain holds the bound of renewals. Every verifier does, so that no minter
// needs to remember what it has renewed.
func (c *Claims) checkChain() error {
	if c.FirstIssueTime.IsZero() {
		return nil
	}
	switch first := c.FirstIssueTime.Unix(); {
	case c.Class != ClassSession:
		return errors.New("the first issue time belongs to SESSION")
	case first < 1 || first >= c.IssueTime.Unix() || c.FirstIssueTime.Nanosecond() != 0:
		return errors.New("the first issue time is not a whole second before the issue")
	case c.ExpireTime.Unix()-first > int64(MaxChainLife/time.Second):
		return errors.New("the context ends too long after its chain began")
	default:
		return nil
	}
}
