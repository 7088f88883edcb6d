package rls_test

import (
	"encoding/json"
	"strings"
	"testing"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/services/quota/internal/rls"
)

// added are the header fields of an answer.
func added(resp *rlsv3.RateLimitResponse) map[string]string {
	out := map[string]string{}
	for _, h := range resp.GetResponseHeadersToAdd() {
		out[h.GetKey()] += h.GetValue()
	}
	return out
}

func TestHeadersOfTheDraft(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.load(edge)
	got := r.ask("edge", of("user", "ann"), of("path", "/login"), of("free", "x"), of("other", "x"))
	want := map[string]string{
		"RateLimit-Policy": `"logins";q=3;w=60, "user";q=10;w=3600`,
		"RateLimit":        `"logins";r=2;t=20, "user";r=9;t=360`,
	}
	if diff := cmp.Diff(want, added(got)); diff != "" || len(got.GetRawBody()) > 0 {
		t.Errorf("%s\n%s", diff, got.GetRawBody())
	}
	got = r.ask("edge", hits(5, of("user", "ann")), hits(3, of("path", "/login")))
	want = map[string]string{
		"RateLimit-Policy": `"logins";q=3;w=60, "user";q=10;w=3600`,
		"RateLimit":        `"logins";r=0;t=20, "user";r=9;t=360`,
		"Retry-After":      "20",
		"content-type":     "application/problem+json",
	}
	if diff := cmp.Diff(want, added(got)); diff != "" {
		t.Error(diff)
	}
	var problem struct {
		Type     string
		Title    string
		Status   int
		Violated []string `json:"violated-policies"`
	}
	if err := json.Unmarshal(got.GetRawBody(), &problem); err != nil {
		t.Fatal(err)
	}
	if problem.Status != 429 || !strings.HasSuffix(problem.Type, "#quota-exceeded") || problem.Title == "" || !cmp.Equal(problem.Violated, []string{"logins"}) {
		t.Errorf("%+v", problem)
	}
	if got := r.ask("edge", of("free", "x")); len(got.GetResponseHeadersToAdd()) > 0 {
		t.Errorf("unlimited: %v", got)
	}
}

// At most four limits are named, the tightest first, and none twice.
func TestHeadersNameTheTightest(t *testing.T) {
	t.Parallel()
	r := newRig(t, rls.Draft)
	r.load(`
domain: edge
descriptors:
  - {key: a, rate_limit: {unit: hour, requests_per_unit: 50, name: 'quo"te\'}}
  - {key: b, rate_limit: {unit: hour, requests_per_unit: 40, name: "ümlaut"}}
  - {key: c, rate_limit: {unit: hour, requests_per_unit: 30}}
  - {key: d, rate_limit: {unit: hour, requests_per_unit: 20}}
  - {key: e, rate_limit: {unit: hour, requests_per_unit: 10}}
`)
	got := added(r.ask("edge", of("a", ""), of("b", ""), of("c", ""), of("c", ""), of("d", ""), of("e", "")))["RateLimit-Policy"]
	if want := `"e";q=10;w=3600, "d";q=20;w=3600, "c";q=30;w=3600, "?mlaut";q=40;w=3600`; got != want {
		t.Errorf("%s", got)
	}
	if got := added(r.ask("edge", of("a", "")))["RateLimit-Policy"]; got != `"quo\"te\\";q=50;w=3600` {
		t.Errorf("%s", got)
	}
}

func TestThreeHeaders(t *testing.T) {
	t.Parallel()
	r := newRig(t, rls.Three)
	r.load(edge)
	want := map[string]string{"RateLimit-Limit": "3", "RateLimit-Remaining": "2", "RateLimit-Reset": "20"}
	if diff := cmp.Diff(want, added(r.ask("edge", of("user", "ann"), of("path", "/login")))); diff != "" {
		t.Error(diff)
	}
	bare := newRig(t, rls.Bare)
	bare.load(edge)
	if got := bare.ask("edge", of("closed", "x")); len(got.GetResponseHeadersToAdd()) > 0 || len(got.GetRawBody()) > 0 {
		t.Errorf("%v", got)
	}
}
