package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/rowhouse-platform/rowhouse/internal/egress"
	"github.com/rowhouse-platform/rowhouse/internal/seal"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/ask"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/rpc"
)

// Hooks is what the addresses of hooks are bounded by: their operators choose them, and those of webhooks tenants.
type Hooks struct {
	// Egress bounds where hooks may be. Nothing of the part egress beside it, which is of webhooks, holds for them.
	Egress Egress `yaml:"egress,omitempty"`
}

// Egress says which addresses may be called beyond those of the public Internet, and which may not.
type Egress struct {
	// Ports that may be named. Default 443 and 8443.
	Ports []int `yaml:"ports,omitempty"`
	// Deny are our own networks in CIDR notation, for what they use of the public Internet.
	Deny []string `yaml:"deny,omitempty"`
	// DenyNames are our own names, refused with all below them: "corp.example.com", in any case and without a wildcard.
	DenyNames []string `yaml:"deny_names,omitempty"`
	// Allow are networks that are called although they are private or otherwise special.
	Allow []string `yaml:"allow,omitempty"`
	// AllowNames are names that are looked up although they have no public meaning, with all below them.
	AllowNames []string `yaml:"allow_names,omitempty"`
	// Roots holds the certificates that verify receivers, PEM. Default: those of the system.
	Roots yamlfile.Path `yaml:"roots,omitempty"`
}

// hostLetters are those of names that are looked up. Any other, such as that of a wildcard, would never match.
const hostLetters = "abcdefghijklmnopqrstuvwxyz0123456789.-"

func (e Egress) bounds() (egress.Config, error) {
	c := egress.Config{DenyNames: e.DenyNames, AllowNames: e.AllowNames}
	for _, port := range e.Ports {
		c.Ports = append(c.Ports, strconv.Itoa(port))
	}
	for _, name := range slices.Concat(e.DenyNames, e.AllowNames) {
		if bare := strings.Trim(name, "."); bare == "" || strings.Trim(strings.ToLower(bare), hostLetters) != "" {
			return c, fmt.Errorf("%q is not the name of a host", name)
		}
	}
	for _, list := range []struct {
		from []string
		into *[]netip.Prefix
	}{{e.Deny, &c.Deny}, {e.Allow, &c.Allow}} {
		for _, text := range list.from {
			p, err := netip.ParsePrefix(text)
			if err != nil {
				return c, fmt.Errorf("%q is not a network: %w", text, err)
			}
			*list.into = append(*list.into, p.Masked())
		}
	}
	if e.Roots != "" {
		pem, err := e.Roots.Read()
		if err != nil {
			return c, fmt.Errorf("roots: %w", err)
		}
		if c.Roots = x509.NewCertPool(); !c.Roots.AppendCertsFromPEM(pem) {
			return c, errors.New("roots: no certificate in PEM")
		}
	}
	return c, nil
}

// webhooks opens what webhooks and hooks need.
func (c Config) webhooks() (rpc.Webhooks, error) {
	webhooks, err := c.Egress.bounds()
	if err != nil {
		return rpc.Webhooks{}, fmt.Errorf("egress: %w", err)
	}
	hooks, err := c.Hooks.Egress.bounds()
	if err != nil {
		return rpc.Webhooks{}, fmt.Errorf("hooks: egress: %w", err)
	}
	hooks.Timeout, hooks.MaxAnswer = ask.MaxTimeout, ask.MaxAnswer
	out := rpc.Webhooks{Client: egress.New(webhooks), Hooks: egress.New(hooks)}
	if c.KEK == "" {
		return out, nil
	}
	keys, err := keyfile.Secrets(string(c.KEK))
	if err != nil {
		return rpc.Webhooks{}, fmt.Errorf("kek: %w", err)
	}
	out.Box, err = seal.New(keys...)
	return out, err
}
