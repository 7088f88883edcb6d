package egress

import (
	"net/netip"
	"strings"
)

// Class says why a call was not made or had no answer. It is all that may be stored or shown of a failure: an address
// would tell whoever chose the name what the network behind us looks like.
type Class string

// The classes of addresses that are never dialled.
const (
	Unspecified   Class = "UNSPECIFIED_ADDRESS"
	Loopback      Class = "LOOPBACK_ADDRESS"
	LinkLocal     Class = "LINK_LOCAL_ADDRESS"
	Private       Class = "PRIVATE_ADDRESS"
	SharedSpace   Class = "SHARED_ADDRESS_SPACE"
	Multicast     Class = "MULTICAST_ADDRESS"
	Documentation Class = "DOCUMENTATION_ADDRESS"
	Benchmarking  Class = "BENCHMARKING_ADDRESS"
	Transition    Class = "TRANSITION_ADDRESS"
	Reserved      Class = "RESERVED_ADDRESS"
	Own           Class = "OWN_ADDRESS"
)

// Other classes of failures.
const (
	BadURL      Class = "BAD_URL"
	BadName     Class = "BAD_NAME"
	Unresolved  Class = "UNRESOLVED_NAME"
	Unreachable Class = "UNREACHABLE"
	BadTLS      Class = "BAD_CERTIFICATE"
	Timeout     Class = "TIMEOUT"
	BadAnswer   Class = "BAD_ANSWER"
)

// special are the ranges that are not of the public Internet, with the document that set each apart. IPv6 outside
// 2000::/3 needs no row to be refused, only to have a class.
//
//nolint:gochecknoglobals // a table that never changes
var special = []struct {
	prefix netip.Prefix
	class  Class
	rfc    int
}{
	{netip.MustParsePrefix("0.0.0.0/8"), Unspecified, 1122},
	{netip.MustParsePrefix("10.0.0.0/8"), Private, 1918},
	{netip.MustParsePrefix("100.64.0.0/10"), SharedSpace, 6598},
	{netip.MustParsePrefix("127.0.0.0/8"), Loopback, 1122},
	{netip.MustParsePrefix("169.254.0.0/16"), LinkLocal, 3927},
	{netip.MustParsePrefix("172.16.0.0/12"), Private, 1918},
	{netip.MustParsePrefix("192.0.0.0/24"), Reserved, 6890},
	{netip.MustParsePrefix("192.0.2.0/24"), Documentation, 5737},
	{netip.MustParsePrefix("192.88.99.0/24"), Transition, 7526},
	{netip.MustParsePrefix("192.168.0.0/16"), Private, 1918},
	{netip.MustParsePrefix("198.18.0.0/15"), Benchmarking, 2544},
	{netip.MustParsePrefix("198.51.100.0/24"), Documentation, 5737},
	{netip.MustParsePrefix("203.0.113.0/24"), Documentation, 5737},
	{netip.MustParsePrefix("224.0.0.0/4"), Multicast, 5771},
	{netip.MustParsePrefix("240.0.0.0/4"), Reserved, 1112},

	{netip.MustParsePrefix("::/128"), Unspecified, 4291},
	{netip.MustParsePrefix("::1/128"), Loopback, 4291},
	{netip.MustParsePrefix("::/96"), Transition, 4291},           // IPv4-compatible
	{netip.MustParsePrefix("::ffff:0:0:0/96"), Transition, 2765}, // IPv4-translated
	{netip.MustParsePrefix("64:ff9b::/96"), Transition, 6052},    // NAT64
	{netip.MustParsePrefix("64:ff9b:1::/48"), Transition, 8215},  // NAT64 of one's own
	{netip.MustParsePrefix("100::/64"), Reserved, 6666},
	{netip.MustParsePrefix("2001::/32"), Transition, 4380}, // Teredo
	{netip.MustParsePrefix("2001:2::/48"), Benchmarking, 5180},
	{netip.MustParsePrefix("2001::/23"), Reserved, 2928},
	{netip.MustParsePrefix("2001:db8::/32"), Documentation, 3849},
	{netip.MustParsePrefix("2002::/16"), Transition, 3056}, // 6to4
	{netip.MustParsePrefix("3fff::/20"), Documentation, 9637},
	{netip.MustParsePrefix("fc00::/7"), Private, 4193},
	{netip.MustParsePrefix("fe80::/10"), LinkLocal, 4291},
	{netip.MustParsePrefix("fec0::/10"), Private, 3879}, // site-local
	{netip.MustParsePrefix("ff00::/8"), Multicast, 4291},
}

// global is all of IPv6 that is given out for the Internet (RFC 4291, section 2.4; IANA's registry).
var global = netip.MustParsePrefix("2000::/3") //nolint:gochecknoglobals // as above

// refuses says why an address is not dialled, "" when it may be.
func (c *Client) refuses(a netip.Addr) Class {
	a = a.Unmap()
	if !a.IsValid() || a.Zone() != "" {
		return Reserved
	}
	if within(c.cfg.Deny, a) {
		return Own
	}
	if within(c.cfg.Allow, a) {
		return ""
	}
	for _, row := range special {
		if row.prefix.Contains(a) {
			return row.class
		}
	}
	if a.Is6() && !global.Contains(a) {
		return Reserved
	}
	return ""
}

func within(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// unmapped are networks as addresses are compared: those of IPv4 in IPv6 are networks of IPv4.
func unmapped(prefixes []netip.Prefix) []netip.Prefix {
	const before = 96 // bits of an IPv4 address in IPv6
	out := make([]netip.Prefix, 0, len(prefixes))
	for _, p := range prefixes {
		if p.Addr().Is4In6() && p.Bits() >= before {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-before)
		}
		out = append(out, p)
	}
	return out
}

// plain are names as hosts are compared. An empty one would be of nobody.
func plain(names []string) []string {
	out := make([]string, 0, len(names))
	for _, name := range names {
		if name = strings.ToLower(strings.Trim(name, ".")); name != "" {
			out = append(out, name)
		}
	}
	return out
}

// inner are the ends of names that mean something only inside a network (RFC 6761, RFC 6762, RFC 8375, RFC 9476), or
// the metadata services of clouds.
//
//nolint:gochecknoglobals // as above
var inner = []string{"localhost", "local", "internal", "home.arpa", "alt", "onion", "test", "invalid", "example"}

// refusesName says whether a host name is not looked up: one without a dot would be completed by the resolver's search
// list, and one whose last label is a number is an address in a spelling that some resolvers know (127.1, 0x7f000001).
func (c *Client) refusesName(host string) bool {
	if len(host) > 253 || strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" {
		return true
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	if last == host || last == "" || last[0] >= '0' && last[0] <= '9' || strings.Contains(host, "..") || host[0] == '.' {
		return true
	}
	for _, ends := range [][]string{inner, c.cfg.DenyNames} {
		for _, end := range ends {
			if host == end || strings.HasSuffix(host, "."+end) {
				return !c.allowsName(host)
			}
		}
	}
	return false
}

// allowsName says whether a name that is usually refused is one of a test or a private network.
func (c *Client) allowsName(host string) bool {
	for _, name := range c.cfg.AllowNames {
		if host == name || strings.HasSuffix(host, "."+name) {
			return true
		}
	}
	return false
}
