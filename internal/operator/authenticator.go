package operator

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
)

// maxToken bounds a bearer token.
const maxToken = 8 << 10

// Config says where callers and their rights are written down.
type Config struct {
	// OperatorsFile is the path of operators.yaml; empty when no operator may call.
	OperatorsFile string
	// PeersFile is the path of peers.yaml; empty when no workload may call.
	PeersFile string
	// Issuers are the OIDC issuers whose tokens operators may show.
	Issuers []Issuer
	// Development lets static tokens live without end.
	Development bool
	// HTTPClient fetches the issuers' keys. Default: a client with a 5 s timeout and the system's roots.
	HTTPClient *http.Client
	// Clock judges tokens and paces the reading of files. Default: time.Now.
	Clock func() time.Time
	// OnReload hears of each attempt to take a changed file: nil for success. Default: nobody hears.
	OnReload func(error)
}

// Issuer is one OIDC issuer.
type Issuer struct {
	// URL is the issuer, an https URL, equal to the iss claim of its tokens.
	URL string `yaml:"url"`
	// Audience is what the aud claim must contain.
	Audience string `yaml:"audience"`
	// Algorithm is the only signature algorithm accepted: RS256, ES256, EdDSA and so on; none and HMAC are refused.
	Algorithm string `yaml:"algorithm"`
}

// Authenticator turns credentials into principals. It follows its files, so what a change of them takes away is gone
// within a second, on open connections too. It may be used from many goroutines.
type Authenticator struct {
	people    *follower[people]
	workloads *follower[workloads]
	issuers   map[string]*issuer
	clock     func() time.Time
}

// New reads the files. A role or permission that does not exist, an identity that cannot be parsed or an issuer that
// can never be trusted is an error. Issuers are not contacted before the first token arrives; ctx supplies values to
// those requests, its end does not matter.
func New(ctx context.Context, cfg Config) (*Authenticator, error) {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.OnReload == nil {
		cfg.OnReload = func(error) {}
	}
	roles := AllRoles()
	a := &Authenticator{issuers: map[string]*issuer{}, clock: cfg.Clock}
	var err error
	if cfg.OperatorsFile != "" {
		if a.people, err = follow(cfg.OperatorsFile, cfg, readPeople(roles, cfg.Development)); err != nil {
			return nil, err
		}
	}
	if cfg.PeersFile != "" {
		if a.workloads, err = follow(cfg.PeersFile, cfg, readWorkloads(roles)); err != nil {
			return nil, err
		}
	}
	for _, is := range cfg.Issuers {
		if _, twice := a.issuers[is.URL]; twice {
			return nil, fmt.Errorf("issuer %s is configured twice", is.URL)
		}
		if a.issuers[is.URL], err = newIssuer(ctx, is, cfg); err != nil {
			return nil, fmt.Errorf("issuer %q: %w", is.URL, err)
		}
	}
	return a, nil
}

// Bearer returns the operator who holds token. Every token that is not accepted gives the same fault,
// CREDENTIAL_INVALID, whose cause says why; an issuer that cannot be reached is DEPENDENCY_UNAVAILABLE. A person whom
// the issuer knows and operators.yaml does not is a principal without permissions.
func (a *Authenticator) Bearer(ctx context.Context, token string) (Principal, error) {
	if len(token) > maxToken {
		return Principal{}, invalid(fmt.Errorf("the token is longer than %d bytes", maxToken))
	}
	if isStatic(token) {
		return a.static(token)
	}
	who, err := a.verify(ctx, token)
	if err != nil {
		return Principal{}, err
	}
	if a.people != nil {
		if principal, ok := a.people.now().bySubject[who]; ok {
			return principal, nil
		}
	}
	return Principal{Kind: KindOperator, Name: "unbound:" + who.subject + "@" + who.issuer}, nil
}

// static compares with every holder, so that the time taken says nothing about whose token it nearly was.
func (a *Authenticator) static(token string) (Principal, error) {
	sum := sha256.Sum256([]byte(token))
	var found Principal
	if a.people != nil {
		for _, holder := range a.people.now().byToken {
			live := holder.expire.IsZero() || a.clock().Before(holder.expire)
			if subtle.ConstantTimeCompare(sum[:], holder.sum[:]) == 1 && live {
				found = holder.principal
			}
		}
	}
	if found.IsZero() {
		return Principal{}, invalid(errors.New("nobody holds this static token, or not any more"))
	}
	return found, nil
}

func (a *Authenticator) verify(ctx context.Context, token string) (subject, error) {
	iss, err := inspect(token)
	if err != nil {
		return subject{}, invalid(err)
	}
	is, ok := a.issuers[iss]
	if !ok {
		return subject{}, invalid(fmt.Errorf("issuer %q is not trusted", iss))
	}
	return is.verify(ctx, token)
}

// Peer returns the workload that id names. A workload that peers.yaml does not name is a principal without
// permissions.
func (a *Authenticator) Peer(id identity.ID) Principal {
	if a.workloads != nil {
		if w, ok := a.workloads.now()[id]; ok {
			return w.principal
		}
	}
	kind := KindWorkload
	if id.Kind() == identity.KindOperator {
		kind = KindOperator
	}
	return Principal{Kind: kind, Name: id.String()}
}

// Named returns who has a name now, as [Authenticator.Bearer] and [Authenticator.Peer] would: somebody whom the files no
// longer name, or whose static token is over, is the zero Principal. Nobody showed a credential; what the issuer of a
// person's tokens would say of them today is not known.
func (a *Authenticator) Named(name string) Principal {
	if a.people != nil {
		known := a.people.now()
		for _, holder := range known.byToken {
			if holder.principal.Name == name && (holder.expire.IsZero() || a.clock().Before(holder.expire)) {
				return holder.principal
			}
		}
		for _, principal := range known.bySubject {
			if principal.Name == name {
				return principal
			}
		}
	}
	if a.workloads != nil {
		for _, w := range a.workloads.now() {
			if w.principal.Name == name {
				return w.principal
			}
		}
	}
	return Principal{}
}

// MayPresent reports whether the workload may present tenant contexts that others minted. It fits
// tenant.VerifierConfig.
func (a *Authenticator) MayPresent(id identity.ID) bool {
	return a.workloads != nil && a.workloads.now()[id].mayPresent
}

// Environment is the environment that the workload is registered for, "" for none.
func (a *Authenticator) Environment(id identity.ID) string {
	if a.workloads == nil {
		return ""
	}
	return a.workloads.now()[id].environment
}

// ReadsSecrets reports whether the workload is registered to read the secrets of a namespace.
func (a *Authenticator) ReadsSecrets(id identity.ID, namespace string) bool {
	return a.workloads != nil && slices.Contains(a.workloads.now()[id].secrets, namespace)
}

func invalid(cause error) error {
	return fault.New(fault.Unauthenticated, fault.ReasonCredentialInvalid, "the credential cannot be verified").
		WithCause(cause)
}
