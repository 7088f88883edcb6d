// Package authority reads host names, and is the only place that does.
//
// A claim of a domain, an SNI, a Host header, an :authority and a certificate's name all pass through it, so two of them
// are the same host exactly when their Hosts are equal. It knows the grammar of names and nothing about who owns them:
// platform zones, public suffixes and reserved names are rules of the tenancy registry.
//
// Start at ParseHost for what arrives on the wire, which may carry a port, and at ParseName where a port is a mistake.
package authority

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// maxName is the longest name in the DNS without its trailing dot, maxLabel the longest part of one.
const (
	maxName  = 253
	maxLabel = 63
)

// Host is a canonical host name: lower case, IDN labels as A-labels, no trailing dot, no port. It is comparable and may
// be a map key. Only ParseHost and ParseName make a valid one; the zero Host names nothing.
type Host struct{ name string }

// String returns the name; "" for the zero Host. Parsing it again gives the same Host.
func (h Host) String() string { return h.name }

// IsZero reports whether the Host names nothing.
func (h Host) IsZero() bool { return h.name == "" }

// Under reports whether the host lies strictly below zone, at any depth.
func (h Host) Under(zone Host) bool {
	return !zone.IsZero() && len(h.name) > len(zone.name)+1 &&
		strings.HasSuffix(h.name, zone.name) && h.name[len(h.name)-len(zone.name)-1] == '.'
}

// Labels returns how many labels the name has.
func (h Host) Labels() int {
	if h.IsZero() {
		return 0
	}
	return 1 + strings.Count(h.name, ".")
}

// Rule names what a host name breaks.
type Rule string

// The rules, in the spelling that errors carry on the wire.
const (
	// RuleEmpty is a name without characters.
	RuleEmpty Rule = "empty"
	// RuleCharacter is a character that no host name has, such as "_", "@", "/", "%" or a space.
	RuleCharacter Rule = "character"
	// RuleLabel is an empty label, one above 63 octets, or one with a hyphen in a place where none may be.
	RuleLabel Rule = "label"
	// RuleLength is a name above 253 octets.
	RuleLength Rule = "length"
	// RuleAddress is an IP address, or what some resolvers read as one.
	RuleAddress Rule = "address"
	// RulePort is a port that is not a number of 1 to 65535, or a port where none may be.
	RulePort Rule = "port"
	// RuleIDN is a label that IDNA 2008 refuses, or a second spelling of one.
	RuleIDN Rule = "idn"
)

// Error says which rule a name breaks. It does not repeat the name, which may be hostile.
type Error struct {
	// Rule is the rule.
	Rule Rule
}

// Error returns one line for people.
func (e *Error) Error() string { return "not a host name: it breaks the rule " + string(e.Rule) }

// ParseHost reads a host name with an optional port, as in a Host header. The port is checked and dropped. Errors are
// *Error.
func ParseHost(s string) (Host, error) {
	if strings.HasPrefix(s, "[") {
		return Host{}, &Error{RuleAddress}
	}
	name, port, found := strings.Cut(s, ":")
	if found && !validPort(port) {
		return Host{}, &Error{RulePort}
	}
	return parse(name)
}

// ParseName reads a host name and refuses one with a port. Errors are *Error.
func ParseName(s string) (Host, error) {
	if strings.HasPrefix(s, "[") {
		return Host{}, &Error{RuleAddress}
	}
	if strings.Contains(s, ":") {
		return Host{}, &Error{RulePort}
	}
	return parse(s)
}

// parse tries the spelling that nearly every request has before it asks IDNA.
func parse(s string) (Host, error) {
	s = strings.TrimSuffix(s, ".")
	rule, plain := check(s)
	if rule != "" {
		return Host{}, &Error{rule}
	}
	if plain {
		return Host{s}, nil
	}
	return parseSlow(s)
}

func parseSlow(s string) (Host, error) {
	folded := foldASCII(s)
	name, err := profile().ToASCII(folded)
	if err != nil {
		return Host{}, &Error{RuleIDN}
	}
	if isASCII(folded) && name != folded {
		return Host{}, &Error{RuleIDN} // an A-label has one spelling
	}
	if rule, _ := check(name); rule != "" {
		return Host{}, &Error{rule}
	}
	if again, err := profile().ToASCII(name); err != nil || again != name {
		return Host{}, &Error{RuleIDN} // what cannot be read back is no name
	}
	return Host{name}, nil
}

// profile is IDNA 2008 with the mapping of UTS 46, not transitional, with every check on.
func profile() *idna.Profile {
	return idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(true), idna.BidiRule(),
		idna.CheckHyphens(true), idna.CheckJoiners(true), idna.ValidateLabels(true), idna.VerifyDNSLength(true))
}

// check reports the rule that the ASCII of s breaks, and whether s is canonical as it stands. Anything beyond ASCII, an
// upper-case letter and an A-label leave that to IDNA.
func check(s string) (rule Rule, plain bool) {
	if s == "" {
		return RuleEmpty, false
	}
	if !utf8.ValidString(s) {
		return RuleCharacter, false
	}
	plain = true
	start := 0
	for i := 0; i <= len(s); i++ {
		if i == len(s) || s[i] == '.' {
			if r, ok := checkLabel(s[start:i]); r != "" {
				return r, false
			} else if !ok {
				plain = false
			}
			start = i + 1
			continue
		}
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-':
		case c >= 'A' && c <= 'Z', c >= 0x80:
			plain = false
		default:
			return RuleCharacter, false
		}
	}
	if len(s) > utf8.UTFMax*maxName || len(s) > maxName && isASCII(s) {
		return RuleLength, false
	}
	if endsInNumber(s) {
		return RuleAddress, false
	}
	return "", plain
}

// checkLabel reports the rule a label breaks, and whether it is plain: hyphens in places three and four mean an A-label
// or nothing.
func checkLabel(label string) (rule Rule, plain bool) {
	switch {
	case label == "", len(label) > maxLabel && isASCII(label):
		return RuleLabel, false
	case label[0] == '-', label[len(label)-1] == '-':
		return RuleLabel, false
	}
	return "", len(label) < 4 || label[2] != '-' || label[3] != '-'
}

// endsInNumber reports whether the last label is a number, decimal or 0x…: such names are addresses to some resolvers.
func endsInNumber(s string) bool {
	last := s[strings.LastIndexByte(s, '.')+1:]
	if len(last) >= 2 && last[0] == '0' && (last[1] == 'x' || last[1] == 'X') {
		return strings.Trim(last[2:], "0123456789abcdefABCDEF") == ""
	}
	return strings.Trim(last, "0123456789") == ""
}

func validPort(port string) bool {
	if port == "" || len(port) > 5 || port[0] == '0' {
		return false
	}
	n := 0
	for _, c := range []byte(port) {
		if c < '0' || c > '9' {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return n <= 65535
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func foldASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + ('a' - 'A')
		}
	}
	return string(b)
}
