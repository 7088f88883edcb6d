package ruleset_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rowhouse-platform/rowhouse/services/quota/internal/rls/ruleset"
)

func parse(t testing.TB, text string) *ruleset.Set {
	t.Helper()
	s, err := ruleset.Parse("rules.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const everything = `
domain: default/eg/http
descriptors:
  - key: host
    value: api.example.com
    rate_limit: {unit: SECOND, requests_per_unit: 10, name: api}
  - key: host
    value: "*.example.com"   # no wildcard: the star is not at the end
    rate_limit: {unit: minute, requests_per_unit: 11}
  - key: host
    value: api*
    rate_limit: {unit: Hour, requests_per_unit: 12}
  - key: host
    value: a*
    rate_limit: {unit: day, requests_per_unit: 13}
  - key: host
    rate_limit: {unit: week, requests_per_unit: 14}
  - key: code
    value: 404
    rate_limit: {unit: month, requests_per_unit: 15}
    shadow_mode: true
  - key: code
    value: true
    rate_limit: {unit: year, requests_per_unit: 16}
    quota_mode: true
  - key: free
    rate_limit: {unlimited: true, name: free, replaces: [{name: api}, {name: other}]}
  - key: files
    value: /files/*
    share_threshold: true
    descriptors:
      - key: user
        value_to_metric: true
        rate_limit: {unit: second, requests_per_unit: 0x10}
        detailed_metric: true
  - key: empty
    rate_limit:
  - key: bare
`

func TestMatch(t *testing.T) {
	t.Parallel()
	s := parse(t, everything)
	if s.Domain != "default/eg/http" || !s.Replacing || len(s.Rules) != 9 {
		t.Errorf("%+v", s)
	}
	for _, c := range []struct {
		entries string
		want    uint32
		unit    time.Duration
	}{
		{"host=api.example.com", 10, time.Second},
		{"host=*.example.com", 11, time.Minute},
		{"host=www.example.com", 14, 7 * 24 * time.Hour},
		{"host=api", 12, time.Hour},
		{"host=api2", 12, time.Hour}, // the first wildcard of the file
		{"host=app", 13, 24 * time.Hour},
		{"host=", 14, 7 * 24 * time.Hour},
		{"code=404", 15, 30 * 24 * time.Hour},
		{"code=true", 16, 365 * 24 * time.Hour},
		{"code=500", 0, 0},
		{"files=/files/a|user=ann", 16, time.Second},
		{"files=/files/a", 0, 0},
		{"files=/file|user=ann", 0, 0},
		{"empty=x", 0, 0},
		{"bare=x", 0, 0},
		{"", 0, 0},
		{"host=api|host=api", 0, 0},
	} {
		var entries []ruleset.Entry
		for _, e := range strings.FieldsFunc(c.entries, func(r rune) bool { return r == '|' }) {
			key, value, _ := strings.Cut(e, "=")
			entries = append(entries, ruleset.Entry{Key: key, Value: value})
		}
		m := s.Match(entries)
		switch {
		case m.Rule == nil:
			if c.want != 0 {
				t.Errorf("%s meets nothing", c.entries)
			}
		case m.Rule.Requests != c.want || m.Rule.Unit.Duration() != c.unit:
			t.Errorf("%s meets %s of %d per %s", c.entries, m.Rule.Path(), m.Rule.Requests, m.Rule.Unit.Duration())
		case m.Rule.Limit.Burst() != int64(c.want) || m.Rule.Limit.Period() != c.unit:
			t.Errorf("%s has the limit %+v", c.entries, m.Rule.Limit)
		}
		if shared := m.Rule != nil && m.Shared != 0; shared != (c.entries == "files=/files/a|user=ann") {
			t.Errorf("%s is shared: %b", c.entries, m.Shared)
		}
	}
}

func TestNamesOfRules(t *testing.T) {
	t.Parallel()
	s := parse(t, everything)
	at := func(key string) *ruleset.Rule {
		return s.Rules[slices.IndexFunc(s.Rules, func(r *ruleset.Rule) bool { return r.Levels[0].Key == key })]
	}
	if r := at("host"); r.Title() != "api" || r.Path() != "host_api.example.com" || r.Split() {
		t.Errorf("%q %q", r.Title(), r.Path())
	}
	entries := []ruleset.Entry{{Key: "files", Value: "/files/secret"}, {Key: "user", Value: "ann"}}
	if r := at("files"); !r.Split() || r.Series(entries) != "files_/files/*.user_ann" || r.Path() != "files_/files/*.user" {
		t.Errorf("%q", r.Series(entries))
	}
	if r := at("free"); !r.Unlimited || !slices.Equal(r.Replaces, []string{"api", "other"}) {
		t.Errorf("%+v", r)
	}
	if shadow, quota := s.Rules[5], s.Rules[6]; !shadow.Shadow || !quota.Quota || shadow.Quota || quota.Shadow {
		t.Errorf("%+v %+v", shadow, quota)
	}
}

// What upstream refuses is refused, with file and line; and so is what it would misread.
func TestParseRefuses(t *testing.T) {
	t.Parallel()
	const head = "domain: x\ndescriptors:\n"
	for name, c := range map[string]struct {
		text string
		line int
		want string
	}{
		"empty file":          {"", 1, "empty"},
		"comments only":       {"# nothing\n", 1, "empty"},
		"no yaml":             {"domain: [x\n", 1, "no YAML"},
		"two documents":       {"domain: x\n---\ndomain: y\n", 1, "more than one YAML document"},
		"a list":              {"- domain: x\n", 1, "keys and values"},
		"empty domain":        {"descriptors: []\n", 1, "domain is empty"},
		"null domain":         {"domain:\n", 1, "domain is empty"},
		"unknown key":         {"domain: x\ndescriptor: []\n", 2, `unknown key "descriptor" in the file; the nearest known key is "descriptors"`},
		"misspelled":          {head + "  - key: a\n    ratelimit: {unit: day}\n", 4, `nearest known key is "rate_limit"`},
		"misspelled in limit": {head + "  - key: a\n    rate_limit:\n      requestsperunit: 1\n", 5, "unknown key"},
		"a key twice":         {head + "  - key: a\n    key: b\n", 4, "twice"},
		"a number as key":     {head + "  - key: a\n    1: b\n", 4, "no text"},
		"empty key":           {head + "  - value: a\n", 3, "empty key"},
		"list of texts":       {head + "  - a\n", 3, "keys and values"},
		"descriptors no list": {"domain: x\ndescriptors: {key: a}\n", 2, "must be a list"},
		"descriptor twice":    {head + "  - key: a\n    value: b\n  - key: a\n    value: b\n", 5, `"a", "b" is there twice`},
		"key twice":           {head + "  - key: a\n  - key: a\n", 4, `"a" is there twice`},
		"no unit":             {head + "  - key: a\n    rate_limit: {requests_per_unit: 1}\n", 4, "no unit"},
		"bad unit":            {head + "  - key: a\n    rate_limit: {unit: fortnight, requests_per_unit: 1}\n", 4, `"fortnight" is no unit`},
		"unit UNKNOWN":        {head + "  - key: a\n    rate_limit: {unit: unknown, requests_per_unit: 1}\n", 4, "no unit"},
		"unlimited with unit": {head + "  - key: a\n    rate_limit:\n      unlimited: true\n      unit: day\n", 6, "has no unit"},
		"replaces itself":     {head + "  - key: a\n    rate_limit: {unit: day, name: n, replaces: [{name: n}]}\n", 4, "replace itself"},
		"replaces nothing":    {head + "  - key: a\n    rate_limit:\n      unit: day\n      replaces:\n        - name: \"\"\n", 7, "has no name"},
		"replaces no list":    {head + "  - key: a\n    rate_limit: {unit: day, replaces: n}\n", 4, "must be a list"},
		"share without star":  {head + "  - key: a\n    value: b\n    share_threshold: true\n", 5, "end with *"},
		"share without value": {head + "  - key: a*\n    share_threshold: true\n", 4, "end with *"},
		"negative":            {head + "  - key: a\n    rate_limit: {unit: day, requests_per_unit: -1}\n", 4, "whole number"},
		"too many":            {head + "  - key: a\n    rate_limit: {unit: day, requests_per_unit: 4294967296}\n", 4, "whole number"},
		"text as a number":    {head + "  - key: a\n    rate_limit: {unit: day, requests_per_unit: ten}\n", 4, "whole number"},
		"no truth":            {head + "  - key: a\n    shadow_mode: perhaps\n", 4, "true or false"},
		"limit no mapping":    {head + "  - key: a\n    rate_limit: 5\n", 4, "keys and values"},
		"value no scalar":     {head + "  - key: a\n    value: [b]\n", 4, "must be text"},
		"a long key":          {head + "  - key: " + strings.Repeat("k", 1025) + "\n", 3, "longer than"},
		"an endless alias":    {head + "  - &a\n    key: a\n    descriptors:\n      - *a\n", 0, "deeper than"},
		"deeply nested":       {"domain: x\n" + nested(40), 0, "deeper than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := ruleset.Parse("rules.yaml", []byte(c.text))
			var faults ruleset.Errors
			if !errors.As(err, &faults) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, want %q", err, c.want)
			}
			if f := faults[0]; f.File != "rules.yaml" || c.line != 0 && f.Line != c.line {
				t.Errorf("%v, want line %d", f, c.line)
			}
		})
	}
}

// nested are descriptors in each other.
func nested(depth int) string {
	var b strings.Builder
	for i := range depth {
		in := strings.Repeat("  ", i)
		fmt.Fprintf(&b, "%sdescriptors:\n%s- key: k\n", in, in)
	}
	return b.String()
}

// All defects are told at once, up to a bound; an alias is what it stands for.
func TestParseTellsAll(t *testing.T) {
	t.Parallel()
	_, err := ruleset.Parse("f", []byte("domain: x\ndescriptors:\n  - key: a\n    rate_limit: {unit: x}\n  - key: b\n    rate_limit: {unit: y}\n"))
	if got := strings.Count(err.Error(), "\n"); got != 1 {
		t.Errorf("%v", err)
	}
	many := "domain: x\ndescriptors:\n" + strings.Repeat("  - nokey: a\n", 100)
	if _, err := ruleset.Parse("f", []byte(many)); strings.Count(err.Error(), "\n") != 19 {
		t.Errorf("%v", err)
	}
	s := parse(t, "domain: x\ndescriptors:\n  - key: a\n    rate_limit: &l {unit: day, requests_per_unit: 3}\n  - key: b\n    rate_limit: *l\n")
	if m := s.Match([]ruleset.Entry{{Key: "b", Value: "x"}}); m.Rule == nil || m.Rule.Requests != 3 {
		t.Errorf("the alias meets %+v", m)
	}
}

// Lists of pairs that differ meet rules of their own.
func TestPairsAreNotJoined(t *testing.T) {
	t.Parallel()
	word := rapid.StringMatching(`[ab_.*]{1,3}`)
	rapid.Check(t, func(t *rapid.T) {
		one := []string{word.Draw(t, "key"), word.Draw(t, "value")}
		two := []string{word.Draw(t, "key"), word.Draw(t, "value")}
		if slices.Equal(one, two) {
			return
		}
		s, err := ruleset.Parse("f", fmt.Appendf(nil, "domain: x\ndescriptors:\n  - {key: %q, value: %q, rate_limit: {unit: day, requests_per_unit: 1}}\n"+
			"  - {key: %q, value: %q, rate_limit: {unit: day, requests_per_unit: 2}}\n", one[0], one[1], two[0], two[1]))
		if err != nil {
			t.Fatal(err)
		}
		for i, pair := range [][]string{one, two} {
			if m := s.Match([]ruleset.Entry{{Key: pair[0], Value: pair[1]}}); m.Rule == nil || m.Rule.Requests != uint32(i+1) {
				t.Fatalf("%q meets %+v", pair, m.Rule)
			}
		}
	})
}

// No file makes the reader panic or run for long, and what it takes can be matched.
func FuzzParse(f *testing.F) {
	f.Add([]byte(everything))
	f.Add([]byte("domain: x\ndescriptors:\n  - &a\n    key: a\n    descriptors: [*a, *a]\n"))
	f.Add([]byte("domain: x\ndescriptors: [{key: a, rate_limit: {unit: day, replaces: [{name: b}]}}]"))
	f.Add([]byte("&a [*a]"))
	f.Add([]byte("domain: &d {<<: *d}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ruleset.Parse("f", text)
		if err != nil {
			var faults ruleset.Errors
			if !errors.As(err, &faults) || len(faults) == 0 || faults[0].Line < 1 {
				t.Fatalf("%v", err)
			}
			return
		}
		for _, r := range s.Rules {
			entries := make([]ruleset.Entry, len(r.Levels))
			for i, l := range r.Levels {
				entries[i] = ruleset.Entry{Key: l.Key, Value: l.Value}
			}
			if m := s.Match(entries); m.Rule == nil {
				t.Fatalf("%s meets nothing", r.Path())
			}
			_ = r.Series(entries)
		}
	})
}
