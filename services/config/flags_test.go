package config_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// checkout is a file of flagd's, as its users write them.
const checkout = `{
  "$schema": "https://flagd.dev/schema/v0/flags.json",
  "metadata": {"team": "shop"},
  "$evaluators": {"staff": {"ends_with": [{"var": "email"}, "@example.com"]}},
  "flags": {
    "checkout": {
      "state": "ENABLED",
      "variants": {"on": true, "off": false},
      "defaultVariant": "off",
      "targeting": {"if": [{"$ref": "staff"}, "on", null]}
    },
    "odd/key~1": {"state": "ENABLED", "variants": {"one": 1}, "defaultVariant": "one"}
  }
}`

func TestFlagsAreSettings(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("operator"), t.Context()
	r.set(a, "platform/config/flags", checkout)
	r.set(a, "plans/business/config/flags", `{"flags":{"checkout":{"defaultVariant":"on","targeting":{}}}}`)
	r.set(a, "tenants/globex/config/flags", `{"flags":{"own":{"state":"ENABLED","variants":{"v":{"a":1}},"defaultVariant":"v"}}}`)
	listed, err := a.ListFlags(ctx, &configv1.ListFlagsRequest{Parent: "tenants/globex", PageSize: 2})
	must(t, err)
	rest, err := a.ListFlags(ctx, &configv1.ListFlagsRequest{Parent: "tenants/globex", PageSize: 2, PageToken: listed.GetNextPageToken()})
	must(t, err)
	want := []*configv1.Flag{
		{Key: "checkout", State: "ENABLED", DefaultVariant: "off", Layer: "platform"},
		{Key: "odd/key~1", State: "ENABLED", DefaultVariant: "one", Layer: "platform"},
		{Key: "own", State: "ENABLED", DefaultVariant: "v", Layer: "tenants/globex"},
	}
	got := append(listed.GetFlags(), rest.GetFlags()...)
	if diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(&configv1.Flag{}, "definition")); diff != "" {
		t.Errorf("globex (-want +got)\n%s", diff)
	}
	explain := func(tenant, key, context string) *configv1.ExplainFlagResponse {
		t.Helper()
		resp, err := a.ExplainFlag(ctx, &configv1.ExplainFlagRequest{Parent: "tenants/" + tenant, Key: key, Context: context})
		must(t, err)
		return resp
	}
	answer := func(tenant, key, context string) string {
		e := explain(tenant, key, context)
		return strings.Join([]string{e.GetValue(), e.GetVariant(), e.GetReason(), e.GetErrorCode(), e.GetMetadata()}, " ")
	}
	for _, c := range [][4]string{
		{"acme", "checkout", ``, `true on STATIC  {"team":"shop"}`},
		{"globex", "checkout", ``, `false off DEFAULT  {"team":"shop"}`},
		{"globex", "checkout", `{"email":"ann@example.com","plan":"x"}`, `true on TARGETING_MATCH  {"team":"shop"}`},
		{"globex", "odd/key~1", ``, `1 one STATIC  {"team":"shop"}`},
		{"globex", "own", ``, `{"a":1} v STATIC  {"team":"shop"}`},
	} {
		if got := answer(c[0], c[1], c[2]); got != c[3] {
			t.Errorf("%s of %s over %s: %s, want %s", c[1], c[0], c[2], got, c[3])
		}
	}
	layers := map[string]string{}
	for _, p := range explain("acme", "checkout", "").GetProvenance() {
		layers[p.GetPointer()] = strings.Join(append([]string{p.GetLayer()}, p.GetShadowed()...), " over ")
	}
	if diff := cmp.Diff(map[string]string{
		"/flags/checkout/defaultVariant": "plans/business over platform", "/flags/checkout/targeting": "plans/business over platform",
		"/flags/checkout/state": "platform", "/flags/checkout/variants": "platform",
	}, layers); diff != "" {
		t.Errorf("provenance (-want +got)\n%s", diff)
	}
	_, err = a.ExplainFlag(ctx, &configv1.ExplainFlagRequest{Parent: "tenants/acme", Key: "own"})
	refused(t, "another tenant's flag", err, codes.NotFound, fault.ReasonResourceNotFound)
	for _, context := range []string{`{"tenant":"globex"}`, `[]`, `{"a":1,"a":2}`} {
		_, err = a.ExplainFlag(ctx, &configv1.ExplainFlagRequest{Parent: "tenants/acme", Key: "checkout", Context: context})
		refused(t, context, err, codes.InvalidArgument, fault.ReasonInvalidField)
	}
}

// TestFlagsRefused writes what must not be published, below a flag that is sound.
func TestFlagsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("operator")
	r.set(a, "platform/config/flags", checkout)
	flag := func(rest string) string {
		return `{"flags":{"x":{"state":"ENABLED","variants":{"a":1,"b":2},` + rest + `}}}`
	}
	// Each shared rule refers to the one before: four of them are too deep, fifteen that do so twice too much.
	chain := func(n int, first, format string) string {
		rules := []string{`"e0":` + first}
		for i := range n {
			rules = append(rules, fmt.Sprintf(`"e%d":`, i+1)+strings.ReplaceAll(format, "REF", fmt.Sprintf(`{"$ref":"e%d"}`, i)))
		}
		return strings.Join(rules, ",")
	}
	deep := chain(4, `true`, strings.Repeat(`{"!":[`, 20)+`REF`+strings.Repeat(`]}`, 20))
	costly := chain(14, `{"==":[{"var":"a"},1]}`, `{"==":[REF,REF]}`)
	evaluated := func(evaluators, ref string) string {
		return `{"$evaluators":{` + evaluators + `},` + flag(`"targeting":{"if":[{"$ref":"` + ref + `"},"a"]}`)[1:]
	}
	for what, c := range map[string]struct{ content, pointer string }{
		"unknown default":             {flag(`"defaultVariant":"c"`), "/flags/x/defaultVariant"},
		"unknown outcome":             {flag(`"targeting":{"if":[true,"c"]}`), "/flags/x/targeting/if/1"},
		"missing reference":           {flag(`"targeting":{"if":[{"$ref":"none"},"a"]}`), "/flags/x/targeting/if/0"},
		"broken weight":               {flag(`"targeting":{"fractional":[["a",1.5],["b",1]]}`), "/flags/x/targeting/fractional"},
		"weights too large together":  {flag(`"targeting":{"fractional":[["a",2147483647],["b",1]]}`), "/flags/x/targeting/fractional"},
		"unknown operator":            {flag(`"targeting":{"frob":[1]}`), "/flags/x/targeting"},
		"too deep":                    {evaluated(deep, "e4"), "/flags/x/targeting"},
		"too much":                    {evaluated(costly, "e14"), "/flags/x/targeting"},
		"a state of its own":          {`{"flags":{"x":{"state":"ON","variants":{"a":1}}}}`, "/flags/x/state"},
		"no variants":                 {`{"flags":{"x":{"state":"ENABLED"}}}`, "/flags/x/variants"},
		"another layer's variants":    {`{"flags":{"checkout":{"variants":{"on":true,"off":false,"new":true}}}}`, "/flags/checkout/variants"},
		"another layer's other parts": {`{"flags":{"checkout":{"description":"mine"}}}`, "/flags/checkout/description"},
		"a list":                      {`{"flags":[{"key":"x","state":"ENABLED","variants":{"a":1}}]}`, "/flags"},
		"no flags":                    {`{"flags":7}`, "/flags"},
		"no metadata":                 {`{"metadata":7}`, "/metadata"},
	} {
		_, err := a.UpdateDocument(t.Context(), setting("tenants/acme/config/flags", c.content))
		refused(t, what, err, codes.InvalidArgument, "SCHEMA_VIOLATION")
		if !strings.Contains(fields(err), "document.content"+c.pointer) {
			t.Errorf("%s: it is at %s, want %s", what, fields(err), c.pointer)
		}
	}
	_, err := a.GetDocument(t.Context(), &configv1.GetDocumentRequest{Name: "tenants/acme/config/flags"})
	refused(t, "nothing is stored", err, codes.NotFound, fault.ReasonResourceNotFound)
	// A tenant's own flag stands in the way of the platform's of the same key.
	r.set(a, "tenants/acme/config/flags", flag(`"defaultVariant":"a"`))
	_, err = a.UpdateDocument(t.Context(), setting("platform/config/flags", flag(`"defaultVariant":"b"`)))
	refused(t, "a key that a tenant uses", err, codes.InvalidArgument, "SCHEMA_VIOLATION")
	if !strings.Contains(fields(err), "tenants/acme") {
		t.Errorf("it does not say whose it is: %s", fields(err))
	}
}

// fields are the violations of a refusal.
func fields(err error) string {
	var out []string
	for _, d := range status.Convert(err).Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				out = append(out, v.GetField()+" "+v.GetDescription())
			}
		}
	}
	return strings.Join(out, "\n")
}

func TestKills(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("operator"), t.Context()
	r.set(a, "platform/config/flags", checkout)
	var store settings.Store
	r.follow(t, &store)
	client, err := flags.New(flags.Config{Store: &store})
	must(t, err)
	in := func(id string) context.Context {
		return r.issuer.In(ctx, t, id, func(c *tenant.Claims) { c.Plan = plans()[id] })
	}
	reads := func(what, acme, globex string) {
		t.Helper()
		eventually(t, what, func() bool {
			one, other := client.BoolDetail(in("acme"), "checkout", true), client.BoolDetail(in("globex"), "checkout", true)
			return one.Reason.String() == acme && other.Reason.String() == globex
		})
	}
	reads("the flag", "DEFAULT", "DEFAULT")
	kill := &configv1.KillFlagRequest{Parent: "plans/business", Key: "checkout", Reason: "it charges twice"}
	_, err = r.as("viewer").KillFlag(ctx, kill)
	refused(t, "without the permission", err, codes.PermissionDenied, fault.ReasonPermissionMissing)
	kill.ValidateOnly = true
	_, err = a.KillFlag(ctx, kill)
	must(t, err)
	kill.ValidateOnly = false
	made, err := r.as("operator").KillFlag(ctx, kill)
	must(t, err)
	k := made.GetKill()
	if k.GetLayer() != "plans/business" || k.GetKey() != "checkout" || k.GetReason() != kill.GetReason() || k.GetAuthor() == "" ||
		k.GetKillTime() == nil {
		t.Errorf("the kill is %v", k)
	}
	reads("the kill", "DISABLED", "DEFAULT")
	again, err := a.KillFlag(ctx, &configv1.KillFlagRequest{Parent: "plans/business", Key: "checkout", Reason: "another reason"})
	must(t, err)
	if diff := cmp.Diff(k, again.GetKill(), protocmp.Transform()); diff != "" {
		t.Errorf("a second kill changed the first\n%s", diff)
	}
	// Documents do not bring it back, and explain says what happened.
	r.set(a, "tenants/acme/config/flags", `{"flags":{"checkout":{"state":"ENABLED"}}}`)
	explained, err := a.ExplainFlag(ctx, &configv1.ExplainFlagRequest{Parent: "tenants/acme", Key: "checkout"})
	must(t, err)
	if diff := cmp.Diff(k, explained.GetFlag().GetKill(), protocmp.Transform()); diff != "" || explained.GetReason() != "DISABLED" {
		t.Errorf("explained: %v\n%s", explained, diff)
	}
	if p := explained.GetProvenance()[1]; p.GetPointer() != "/flags/checkout/state" || p.GetLayer() != "plans/business/kill" ||
		!cmp.Equal(p.GetShadowed(), []string{"tenants/acme", "platform"}) {
		t.Errorf("provenance %v", p)
	}
	reads("still", "DISABLED", "DEFAULT")
	_, err = a.KillFlag(ctx, &configv1.KillFlagRequest{Parent: "platform", Key: "chekout", Reason: "a slip of the pen"})
	refused(t, "a flag that is not there", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = a.UpdateDocument(ctx, setting("plans/business/config/flag-kills", `{}`))
	refused(t, "a lift by the back door", err, codes.FailedPrecondition, "NAMESPACE_IN_USE")
	_, err = a.LiftFlag(ctx, &configv1.LiftFlagRequest{Parent: "platform", Key: "checkout", Reason: "it was repaired"})
	refused(t, "a lift elsewhere", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = a.LiftFlag(ctx, &configv1.LiftFlagRequest{Parent: "plans/business", Key: "checkout", Reason: "it was repaired"})
	must(t, err)
	reads("the lift", "DEFAULT", "DEFAULT")
	events, err := r.as("owner").ListEvents(ctx, &auditv1.ListEventsRequest{Parent: "chains/platform"})
	must(t, err)
	for _, want := range []string{"KillFlag", "LiftFlag", "it charges twice"} {
		if !strings.Contains(events.String(), want) {
			t.Errorf("the audit chain has no %q", want)
		}
	}
}

// A condition in CEL is checked when it is written, and answers are explained with it.
func TestConditionsOfFlags(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("operator"), t.Context()
	flag := func(condition string) string {
		return `{"flags":{"beta":{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off","targeting":{"if":[{"cel":` + condition + `},"on"]}}}}`
	}
	for name, condition := range map[string]string{"no CEL": `"plan =="`, "no such variable": `"config.x"`, "no truth value": `"plan"`, "no text": `{"var":"x"}`} {
		_, err := a.UpdateDocument(ctx, setting("platform/config/flags", flag(condition)))
		refused(t, name, err, codes.InvalidArgument, "SCHEMA_VIOLATION")
		if err != nil && !strings.Contains(fmt.Sprint(status.Convert(err).Details()), "document.content/flags/beta/targeting/if/0") {
			t.Errorf("%s: %v", name, status.Convert(err).Details())
		}
	}
	r.set(a, "platform/config/flags", flag(`"plan == 'business' && context.age >= 18.0"`))
	for _, c := range []struct{ tenant, context, want string }{
		{"acme", `{"age":18,"plan":"business"}`, "on TARGETING_MATCH  "}, {"globex", `{"age":18,"plan":"business"}`, "off DEFAULT  "},
		{"acme", `{}`, " ERROR PARSE_ERROR its condition: no such key: age"},
		{"acme", `{"age":"old"}`, " ERROR PARSE_ERROR its condition: no such overload"},
	} {
		e, err := a.ExplainFlag(ctx, &configv1.ExplainFlagRequest{Parent: "tenants/" + c.tenant, Key: "beta", Context: c.context})
		must(t, err)
		if got := strings.Join([]string{e.GetVariant(), e.GetReason(), e.GetErrorCode(), e.GetErrorDetails()}, " "); got != c.want {
			t.Errorf("%s over %s: %q, want %q", c.tenant, c.context, got, c.want)
		}
	}
}
