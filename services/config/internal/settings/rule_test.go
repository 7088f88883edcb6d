package settings_test

import (
	"errors"
	"strings"
	"testing"

	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
)

func TestRulesAcrossMembers(t *testing.T) {
	t.Parallel()
	s, err := settings.Compile("portal", `{"properties":{"min":{"default":1},"max":{"default":5}},"x-rules":[
		{"rule":"config.min <= config.max","message":"min is above max","pointer":"/min"},
		{"rule":"!has(config.mail) || config.mail.endsWith('@acme.dev')","message":"another house's mail"},
		{"rule":"!has(config.who) || config.who.all(w, w != '')","message":"nobody","pointer":"/who"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	for content, want := range map[string]string{
		`{"min":1,"max":2}`: "", `{"min":3,"max":2}`: "/min x-rules min is above max",
		`{"min":1,"max":2,"mail":"x@evil.dev"}`: " x-rules another house's mail",
		`{"min":"a","max":2}`:                   "/min x-rules min is above max (the rule cannot be evaluated for this value)",
		`{"max":2}`:                             "/min x-rules min is above max (the rule cannot be evaluated for this value)",
		`{"min":1,"max":1,"who":["` + strings.Repeat(`x","`, 9000) + `x"]}`: "/who x-rules nobody (the rule costs too much for this value)",
	} {
		o, err := sdk.Parse([]byte(content))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range s.Check(sdk.Effective{Object: o}) {
			got = append(got, p.Pointer+" "+p.Rule+" "+p.Text)
		}
		if strings.Join(got, "\n") != want {
			t.Errorf("%.60s: %q, want %q", content, got, want)
		}
	}
}

func TestRulesThatAreRefused(t *testing.T) {
	t.Parallel()
	for name, rules := range map[string]string{
		"no list": `{}`, "no object": `["x"]`, "no rule": `[{"message":"m"}]`, "no message": `[{"rule":"true"}]`,
		"not CEL": `[{"rule":"config.","message":"m"}]`, "a tenant": `[{"rule":"tenant == 'acme'","message":"m"}]`,
		"no truth value": `[{"rule":"1","message":"m"}]`, "unknown member": `[{"rule":"true","message":"m","on":"x"}]`,
		"a number": `[{"rule":1,"message":"m"}]`, "no pointer": `[{"rule":"true","message":"m","pointer":"min"}]`,
		"loops in loops": `[{"rule":"config.a.all(x, config.a.all(y, config.a.all(z, x != y)))","message":"m"}]`,
		"too many":       `[` + strings.Repeat(`{"rule":"true","message":"m"},`, 50) + `{"rule":"true","message":"m"}]`,
		"false already":  `[{"rule":"has(config.x)","message":"x is missing"}]`, // of the defaults
	} {
		if _, err := settings.Compile("portal", `{"x-rules":`+rules+`}`); !errors.Is(err, settings.ErrSchema) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
