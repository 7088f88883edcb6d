package registry

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/rowhouse-platform/rowhouse/sdk/authority"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// The rules of claims beyond the grammar of sdk/authority, as the metadata key "rule" of DOMAIN_INVALID names them.
const (
	ruleSingleLabel  = "single_label"
	rulePublicSuffix = "public_suffix"
	rulePlatformZone = "platform_zone"
	ruleReserved     = "reserved"
	ruleSpecialUse   = "special_use"
)

// DomainState is whether a domain serves. The numbers are those of rowhouse.tenancy.v1.DomainState and are stored.
type DomainState int32

// The states of a domain.
const (
	DomainPending DomainState = iota + 1
	DomainActive
)

// Zones are the platform's own zones: names below them need no proof, because the platform answers for them in the DNS.
type Zones []authority.Host

// ParseZones reads zones as a configuration names them.
func ParseZones(names []string) (Zones, error) {
	var zones Zones
	for _, name := range names {
		host, err := authority.ParseName(name)
		if err != nil {
			return nil, fmt.Errorf("platform zone %q: %w", name, err)
		}
		if slices.Contains(zones, host) {
			return nil, fmt.Errorf("platform zone %q is named twice", name)
		}
		zones = append(zones, host)
	}
	return zones, nil
}

// Claim reads the host name of a new domain. vouched is true when it lies below a platform zone and so serves at once.
// A name that cannot be a domain is a fault DOMAIN_INVALID that names the rule.
func (z Zones) Claim(name string) (host authority.Host, vouched bool, err error) {
	host, err = authority.ParseName(name)
	if err != nil {
		if bad, ok := errors.AsType[*authority.Error](err); ok {
			return authority.Host{}, false, invalidDomain(string(bad.Rule))
		}
		return authority.Host{}, false, err
	}
	if slices.Contains(z, host) {
		return authority.Host{}, false, invalidDomain(rulePlatformZone)
	}
	for _, zone := range z {
		if !host.Under(zone) {
			continue
		}
		if IsReserved(labelBelow(host, zone)) {
			return authority.Host{}, false, invalidDomain(ruleReserved)
		}
		return host, true, nil
	}
	if rule := z.checkForeign(host); rule != "" {
		return authority.Host{}, false, invalidDomain(rule)
	}
	return host, false, nil
}

// checkForeign names the rule that a host outside our zones breaks, or "".
func (z Zones) checkForeign(host authority.Host) string {
	name := host.String()
	last := name[strings.LastIndexByte(name, '.')+1:]
	suffix, _ := publicsuffix.PublicSuffix(name)
	switch {
	case host.Labels() == 1:
		return ruleSingleLabel
	case slices.Contains([]string{"alt", "arpa", "example", "internal", "invalid", "local", "localhost", "onion", "test"}, last):
		return ruleSpecialUse
	case suffix == name:
		return rulePublicSuffix
	}
	for _, zone := range z {
		if zone.Under(host) {
			return rulePlatformZone // who holds the parent could answer for our zone
		}
	}
	return ""
}

// labelBelow returns the label of host that stands directly below zone.
func labelBelow(host, zone authority.Host) string {
	rest := strings.TrimSuffix(host.String(), "."+zone.String())
	return rest[strings.LastIndexByte(rest, '.')+1:]
}

func invalidDomain(rule string) error {
	return refuse(fault.InvalidArgument, ReasonDomainInvalid, "the host name cannot be a domain: %s (rule %s)", inWords(rule), rule).
		WithMetadata("rule", rule).
		WithField(fault.FieldViolation{Field: "domain_id", Description: "breaks the rule " + rule, Reason: ReasonDomainInvalid})
}

// inWords tells people what a name that breaks a rule is.
func inWords(rule string) string {
	switch authority.Rule(rule) {
	case authority.RuleEmpty:
		return "it is empty"
	case authority.RuleCharacter:
		return "it holds a character that no host name has"
	case authority.RuleLabel:
		return "a part between its dots is empty, too long, or has a hyphen in a wrong place"
	case authority.RuleLength:
		return "it is longer than 253 characters"
	case authority.RuleAddress:
		return "it is an IP address"
	case authority.RulePort:
		return "it holds a port"
	case authority.RuleIDN:
		return "it is no international name, or another spelling of one"
	case ruleSingleLabel:
		return "it has no dot"
	case rulePublicSuffix:
		return "others register names below it"
	case rulePlatformZone:
		return "it is the platform's own"
	case ruleReserved:
		return "the platform keeps it for itself"
	case ruleSpecialUse:
		return "its ending is for special use"
	default:
		return "it breaks a rule"
	}
}
