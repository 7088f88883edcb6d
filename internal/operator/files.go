package operator

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
)

// TokenPrefix begins every static token, so that one is recognised wherever it leaks.
const TokenPrefix = "rho_"

const (
	tokenBytes  = 32
	staticRealm = "static"
)

// OperatorsFile is operators.yaml: who may act on the platform.
type OperatorsFile struct {
	// Operators are the bindings; a person has exactly one.
	Operators []OperatorEntry `yaml:"operators"`
}

// OperatorEntry binds one person, known by (issuer, subject) or by a static token, to roles.
type OperatorEntry struct { //nolint:revive // beside PeerEntry, Entry alone would mislead
	// Name is the short name in audit records: lower-case letters, digits, dots and hyphens.
	Name string `yaml:"name"`
	// Issuer and Subject are those of the person's OIDC tokens.
	Issuer  string `yaml:"issuer,omitempty"`
	Subject string `yaml:"subject,omitempty"`
	// TokenSHA256 is the hex SHA-256 of a static token, which begins with "rho_"; the token itself is in no file of ours.
	// docs/guides/operator.md says how to make one.
	TokenSHA256 string `yaml:"token_sha256,omitempty"`
	// ExpireTime is when the static token ends, "2026-03-01T12:00:00Z". Required with one, except in development.
	ExpireTime time.Time `yaml:"expire_time,omitempty"`
	// Roles are names of the roles table.
	Roles []string `yaml:"roles"`
}

// PeersFile is peers.yaml: which workloads may call, and what.
type PeersFile struct {
	// Peers are the workloads, each once.
	Peers []PeerEntry `yaml:"peers"`
}

// PeerEntry says what one workload may do.
type PeerEntry struct {
	// Identity is the SPIFFE URI, compared whole.
	Identity identity.ID `yaml:"identity"`
	// Roles and Permissions add up.
	Roles       []string `yaml:"roles,omitempty"`
	Permissions []string `yaml:"permissions,omitempty"`
	// MayPresent lets the workload present tenant contexts that others minted.
	MayPresent bool `yaml:"may_present,omitempty"`
	// Environment is where the workload runs, "staging": a lower-case label of at most 32 characters. What tenants set for
	// that environment holds in what it reads. Default none.
	Environment string `yaml:"environment,omitempty"`
	// Secrets are the namespaces whose secrets the workload may read, for the tenants whose contexts it presents.
	Secrets []string `yaml:"secrets,omitempty"`
}

// NewToken makes a static token for an operator. Give the person the token and put the hash into operators.yaml.
func NewToken(random io.Reader) (token, sha256Hex string, err error) {
	var b [tokenBytes]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", "", fmt.Errorf("make a token: %w", err)
	}
	token = TokenPrefix + base64.RawURLEncoding.EncodeToString(b[:])
	sum := sha256.Sum256([]byte(token))
	return token, hex.EncodeToString(sum[:]), nil
}

// people is operators.yaml, ready for look-ups.
type people struct {
	bySubject map[subject]Principal
	byToken   []tokenHolder
}

// subject is how an OIDC issuer names a person.
type subject struct{ issuer, subject string }

type tokenHolder struct {
	sum       [sha256.Size]byte
	expire    time.Time // zero for never, in development
	principal Principal
}

func readPeople(roles Roles, development bool) func(path string) (people, error) {
	return func(path string) (people, error) {
		var file OperatorsFile
		if err := yamlfile.Load(path, &file); err != nil {
			return people{}, err
		}
		p := people{bySubject: map[subject]Principal{}}
		names := map[string]bool{}
		for i, entry := range file.Operators {
			if err := p.add(entry, roles, names); err != nil {
				return people{}, fmt.Errorf("%s: operators[%d]: %w", path, i, err)
			}
			if entry.TokenSHA256 != "" && entry.ExpireTime.IsZero() && !development {
				return people{}, fmt.Errorf("%s: operators[%d]: the static token of %q needs an expire_time", path, i, entry.Name)
			}
		}
		return p, nil
	}
}

func (p *people) add(entry OperatorEntry, roles Roles, names map[string]bool) error {
	if !regexp.MustCompile(`^[a-z][a-z0-9.-]{0,62}$`).MatchString(entry.Name) {
		return fmt.Errorf("%q is no name for an operator", entry.Name)
	}
	if names[entry.Name] {
		return fmt.Errorf("there are two operators %q", entry.Name)
	}
	names[entry.Name] = true
	granted, err := roles.grant(entry.Roles, nil)
	if err != nil {
		return err
	}
	principal := Principal{Kind: KindOperator, Roles: slices.Sorted(slices.Values(entry.Roles)), granted: granted}
	byToken, bySubject := entry.TokenSHA256 != "", entry.Issuer != "" || entry.Subject != ""
	switch {
	case byToken == bySubject:
		return fmt.Errorf("operator %q needs either issuer and subject or token_sha256", entry.Name)
	case byToken:
		return p.addToken(entry, principal)
	default:
		return p.addSubject(entry, principal)
	}
}

func (p *people) addToken(entry OperatorEntry, principal Principal) error {
	sum, err := hex.DecodeString(entry.TokenSHA256)
	if err != nil || len(sum) != sha256.Size {
		return fmt.Errorf("token_sha256 of operator %q is not a SHA-256 in hex", entry.Name)
	}
	principal.Name = operatorName(entry.Name, staticRealm)
	holder := tokenHolder{[sha256.Size]byte(sum), entry.ExpireTime, principal}
	for _, other := range p.byToken {
		if other.sum == holder.sum {
			return fmt.Errorf("operator %q has the token of %s", entry.Name, other.principal.Name)
		}
	}
	p.byToken = append(p.byToken, holder)
	return nil
}

func (p *people) addSubject(entry OperatorEntry, principal Principal) error {
	if !entry.ExpireTime.IsZero() {
		return fmt.Errorf("expire_time of operator %q is for a static token", entry.Name)
	}
	if entry.Issuer == "" || entry.Subject == "" {
		return fmt.Errorf("operator %q needs both issuer and subject", entry.Name)
	}
	key := subject{entry.Issuer, entry.Subject}
	if _, twice := p.bySubject[key]; twice {
		return fmt.Errorf("subject %q of %s is bound twice", entry.Subject, entry.Issuer)
	}
	principal.Name = operatorName(entry.Name, entry.Issuer)
	p.bySubject[key] = principal
	return nil
}

func operatorName(name, realm string) string { return "operator:" + name + "@" + realm }

// workloads is peers.yaml, ready for look-ups.
type workloads map[identity.ID]workload

type workload struct {
	principal   Principal
	mayPresent  bool
	environment string
	secrets     []string
}

// maxEnvironment bounds the name of an environment.
const maxEnvironment = 32

func readWorkloads(roles Roles) func(path string) (workloads, error) {
	return func(path string) (workloads, error) {
		var file PeersFile
		if err := yamlfile.Load(path, &file); err != nil {
			return nil, err
		}
		w := workloads{}
		for i, entry := range file.Peers {
			if err := w.add(entry, roles); err != nil {
				return nil, fmt.Errorf("%s: peers[%d]: %w", path, i, err)
			}
		}
		return w, nil
	}
}

func (w workloads) add(entry PeerEntry, roles Roles) error {
	if entry.Identity.IsZero() {
		return errors.New("identity is missing")
	}
	if _, twice := w[entry.Identity]; twice {
		return fmt.Errorf("%s is named twice", entry.Identity)
	}
	granted, err := roles.grant(entry.Roles, entry.Permissions)
	if err != nil {
		return fmt.Errorf("%s: %w", entry.Identity, err)
	}
	if len(granted) == 0 && !entry.MayPresent {
		return fmt.Errorf("%s may do nothing; remove it", entry.Identity)
	}
	if e := entry.Environment; e != "" && (len(e) > maxEnvironment || !regexp.MustCompile(`^[a-z](-?[a-z0-9])*$`).MatchString(e)) {
		return fmt.Errorf("%s: %q is no name for an environment", entry.Identity, e)
	}
	if err := checkSecrets(entry); err != nil {
		return fmt.Errorf("%s: %w", entry.Identity, err)
	}
	kind := KindWorkload
	if entry.Identity.Kind() == identity.KindOperator {
		kind = KindOperator
	}
	w[entry.Identity] = workload{
		principal: Principal{
			Kind: kind, Name: entry.Identity.String(),
			Roles: slices.Sorted(slices.Values(entry.Roles)), granted: granted,
		},
		mayPresent: entry.MayPresent, environment: entry.Environment, secrets: slices.Clone(entry.Secrets),
	}
	return nil
}

// checkSecrets refuses what would give no right or another one than was meant: there are no patterns.
func checkSecrets(entry PeerEntry) error {
	const most = 63
	for _, namespace := range entry.Secrets {
		if len(namespace) > most || !regexp.MustCompile(`^[a-z](-?[a-z0-9])*$`).MatchString(namespace) {
			return fmt.Errorf("%q is no name for a namespace", namespace)
		}
	}
	if len(entry.Secrets) > 0 && !entry.MayPresent {
		return errors.New("secrets are read for tenants, so it needs may_present")
	}
	return nil
}

func isStatic(token string) bool { return strings.HasPrefix(token, TokenPrefix) }
