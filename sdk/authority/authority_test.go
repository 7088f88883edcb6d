package authority_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/authority"
)

func ExampleParseHost() {
	host, err := authority.ParseHost("Notes.Bücher.Example.:8443")
	fmt.Println(host, err)
	// Output: notes.xn--bcher-kva.example <nil>
}

func TestParseHostAccepts(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 63)
	for in, want := range map[string]string{
		"notes.acme.example":                 "notes.acme.example",
		"NOTES.Acme.example":                 "notes.acme.example",
		"notes.acme.example.":                "notes.acme.example",
		"notes.acme.example:443":             "notes.acme.example",
		"notes.acme.example.:65535":          "notes.acme.example",
		"localhost":                          "localhost",
		"a-b.c-d":                            "a-b.c-d",
		"1a.2b.com":                          "1a.2b.com",
		long + ".com":                        long + ".com",
		"bücher.example":                     "xn--bcher-kva.example",
		"BÜCHER.example":                     "xn--bcher-kva.example",
		"xn--bcher-kva.example":              "xn--bcher-kva.example",
		"XN--Bcher-KVA.example":              "xn--bcher-kva.example",
		"faß.de":                             "xn--fa-hia.de", // not transitional: not fass.de
		"bücher。example":                     "xn--bcher-kva.example",
		"例え.テスト":                             "xn--r8jz45g.xn--zckzah",
		strings.Repeat("a.", 126) + "b":      strings.Repeat("a.", 126) + "b",
		"0x7f.example":                       "0x7f.example",
		strings.Repeat("a.", 126) + "b:8080": strings.Repeat("a.", 126) + "b",
	} {
		got, err := authority.ParseHost(in)
		if err != nil || got.String() != want {
			t.Errorf("ParseHost(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestParseHostRefuses(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]authority.Rule{
		"":                                 authority.RuleEmpty,
		".":                                authority.RuleEmpty,
		":443":                             authority.RuleEmpty,
		"..":                               authority.RuleLabel,
		"a..b":                             authority.RuleLabel,
		".a":                               authority.RuleLabel,
		"a.b..":                            authority.RuleLabel,
		"-a.b":                             authority.RuleLabel,
		"a-.b":                             authority.RuleLabel,
		strings.Repeat("a", 64) + ".b":     authority.RuleLabel,
		strings.Repeat("a.", 126) + "bc":   authority.RuleLength,
		"a_b.c":                            authority.RuleCharacter,
		"a b.c":                            authority.RuleCharacter,
		"a@b.c":                            authority.RuleCharacter,
		"a/b.c":                            authority.RuleCharacter,
		"a\\b.c":                           authority.RuleCharacter,
		"a%2eb.c":                          authority.RuleCharacter,
		"a.b%eth0":                         authority.RuleCharacter,
		"a\x00.b":                          authority.RuleCharacter,
		"*.a.b":                            authority.RuleCharacter,
		"a.b,c.d":                          authority.RuleCharacter,
		"127.0.0.1":                        authority.RuleAddress,
		"127.1":                            authority.RuleAddress,
		"a.0x7f":                           authority.RuleAddress,
		"2130706433":                       authority.RuleAddress,
		"[::1]":                            authority.RuleAddress,
		"[::1]:80":                         authority.RuleAddress,
		"１２７.０.０.１":                        authority.RuleAddress,
		"::1":                              authority.RulePort,
		"a.b:":                             authority.RulePort,
		"a.b:0":                            authority.RulePort,
		"a.b:080":                          authority.RulePort,
		"a.b:65536":                        authority.RulePort,
		"a.b:80:80":                        authority.RulePort,
		"a.b:+80":                          authority.RulePort,
		"ab--c.d":                          authority.RuleIDN,
		"xn--.d":                           authority.RuleLabel,
		"xn--a.d":                          authority.RuleIDN,
		"xn--abc-.d":                       authority.RuleLabel,
		"xn--bcher-kvb.xn--":               authority.RuleLabel,
		"a\u200db.c":                       authority.RuleIDN, // a joiner out of place
		"a／b.c":                            authority.RuleIDN, // maps to a slash
		"\xff.c":                           authority.RuleCharacter,
		"\u05d0a.c":                        authority.RuleIDN, // mixed direction
		"bücher.example。.":                 authority.RuleLabel,
		"ⓛocalhost。":                       authority.RuleLabel,
		strings.Repeat("ü", 64) + ".b":     authority.RuleIDN,
		strings.Repeat("ü.", 600) + "b":    authority.RuleLength,
		strings.Repeat("xn--bcher-kva", 6): authority.RuleLabel,
	} {
		got, err := authority.ParseHost(in)
		var bad *authority.Error
		if !errors.As(err, &bad) || bad.Rule != want || !got.IsZero() {
			t.Errorf("ParseHost(%q) = %q, %v; want rule %s", in, got, err, want)
		}
	}
}

func TestParseNameRefusesPorts(t *testing.T) {
	t.Parallel()
	var bad *authority.Error
	if _, err := authority.ParseName("a.b:80"); !errors.As(err, &bad) || bad.Rule != authority.RulePort {
		t.Errorf("a port was not refused: %v", err)
	}
	if got, err := authority.ParseName("A.b"); err != nil || got.String() != "a.b" {
		t.Errorf("ParseName = %q, %v", got, err)
	}
}

func TestUnder(t *testing.T) {
	t.Parallel()
	parse := func(s string) authority.Host {
		h, err := authority.ParseName(s)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	zone := parse("rowhouse.example")
	for name, want := range map[string]bool{
		"a.rowhouse.example": true, "a.b.rowhouse.example": true, "rowhouse.example": false,
		"arowhouse.example": false, "rowhouse.example.com": false, "example": false,
	} {
		if got := parse(name).Under(zone); got != want {
			t.Errorf("%s under %s = %v", name, zone, got)
		}
	}
	if parse("a.b").Under(authority.Host{}) || (authority.Host{}).Labels() != 0 || parse("a.b.c").Labels() != 3 {
		t.Error("the zero Host is a zone of nothing and has no labels")
	}
}

// FuzzParseHost holds that a Host is a fixed point, that it is plain ASCII of the DNS, and that the quick way and the
// way through IDNA agree.
func FuzzParseHost(f *testing.F) {
	for _, s := range []string{
		"a.example", "A.B:80", "bücher.example", "xn--bcher-kva.example", "1.2.3.4", "a..b", "a.b.", "ß.de", "a。b",
		"xn--a.b", "[::1]:80", "a_b", "例え.テスト:443", "a.0X1f", "١.com",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, err := authority.ParseHost(s)
		if err != nil {
			return
		}
		name := host.String()
		if name == "" || len(name) > 253 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" {
			t.Fatalf("ParseHost(%q) = %q", s, name)
		}
		for _, spelling := range []string{name, name + ".", name + ":443", strings.ToUpper(name)} {
			again, err := authority.ParseHost(spelling)
			if err != nil || again != host {
				t.Fatalf("ParseHost(%q) = %q, but its spelling %q gives %q, %v", s, name, spelling, again, err)
			}
		}
		slow, err := authority.ParseSlow(name)
		if err != nil || slow != host {
			t.Fatalf("%q is %q the quick way and %q, %v through IDNA", s, host, slow, err)
		}
	})
}

func BenchmarkParseHost(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := authority.ParseHost("notes.acme.example:443"); err != nil {
			b.Fatal(err)
		}
	}
}
