package registry_test

import (
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
)

// Whoever claims a name that cannot be a domain is told why in words, with the rule.
func TestClaimSaysWhy(t *testing.T) {
	t.Parallel()
	zones, err := registry.ParseZones([]string{"rowhouse.dev"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"": "it is empty (rule empty)", "a_b.example.org": "character that no host name has (rule character)",
		"a..example.org": "is empty, too long", strings.Repeat("a.", 130) + "org": "longer than 253 characters", "10.0.0.1": "an IP address",
		"shop.example.org:443": "it holds a port (rule port)", "xn--a.example.org": "(rule idn)", "shop": "it has no dot",
		"co.uk": "others register names below it", "rowhouse.dev": "it is the platform's own", "shop.local": "its ending is for special use",
		"www.rowhouse.dev": "the platform keeps it for itself",
	} {
		_, _, err := zones.Claim(name)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "it breaks a rule") {
			t.Errorf("%.40q: %v does not say %q", name, err, want)
		}
	}
}
