package flagd_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"buf.build/gen/go/open-feature/flagd/connectrpc/go/flagd/sync/v1/syncv1connect"
	syncv1 "buf.build/gen/go/open-feature/flagd/protocolbuffers/go/flagd/sync/v1"
	"connectrpc.com/connect"

	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagset"
)

// Whoever evaluates the document that is synced gets, whatever its caller says of itself, what the server answers.
func TestSyncedRulesKnowTheirTenant(t *testing.T) {
	t.Parallel()
	var rules []string
	for i, rule := range []string{
		`{"if":[{"==":[{"var":"tenant"},"acme"]},"y","n"]}`,
		`{"if":[{"==":[{"var":["tenant"]},"acme"]},"y","n"]}`,
		`{"if":[{"in":[{"var":"environment"},["production","test"]]},"y","n"]}`,
		`{"if":[{"==":[{"cat":[{"var":"plan"},"-",{"var":"region"}]},"x-moon"]},"y","n"]}`,
		`{"if":[{"some":[{"var":"list"},{"==":[{"var":"tenant"},"globex"]}]},"y","n"]}`,
		`{"if":[{"some":[[{"var":"tenant"}],{"==":[{"var":""},"acme"]}]},"y","n"]}`,
		`{"if":[{"==":[{"reduce":[{"var":"list"},{"+":[{"var":"accumulator"},1]},{"var":["nobody",{"var":"tenant"}]}]},"acme1"]},"y","n"]}`,
		`{"if":[{"$ref":"ours"},"y","n"]}`,
		`{"fractional":[{"cat":[{"var":"tenant"},"salt"]},["y",1],["n",1]]}`,
		`{"if":[{"!":[{"var":"level"}]},"y","n"]}`,
	} {
		rules = append(rules, fmt.Sprintf(`"f%d":{"state":"ENABLED","variants":{"y":1,"n":0},"defaultVariant":"n","targeting":%s}`, i, rule))
	}
	s := newSite(t)
	s.SetPlatform(`{"$evaluators":{"ours":{"==":[{"var":"tenant"},"acme"]}},"flags":{` + strings.Join(rules, ",") + `}}`)
	c := syncv1connect.NewFlagSyncServiceClient(s.server.Client(), s.server.URL, with(map[string]string{"Authorization": "Bearer " + s.key}))
	got, err := c.FetchAllFlags(t.Context(), connect.NewRequest(&syncv1.FetchAllFlagsRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	var document map[string]any
	if err := json.Unmarshal([]byte(got.Msg.GetFlagConfiguration()), &document); err != nil {
		t.Fatal(err)
	}
	there, err := flagset.Compile(document, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	lies, err := flagset.NewContext(flagset.Identity{Tenant: "globex", Plan: "x", Region: "moon"}, map[string]any{
		"targetingKey": "u", "list": []any{map[string]any{"tenant": "globex"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	here, err := s.Door.Flags.For(s.Who("acme", "production"))
	if err != nil {
		t.Fatal(err)
	}
	truth, err := flagset.NewContext(here.Who.Identity(), map[string]any{"targetingKey": "u", "list": []any{map[string]any{"tenant": "globex"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range here.Keys() {
		if want, got := here.Evaluate(key, truth), there.Evaluate(key, lies); want.Variant() != got.Variant() || want.Code() != got.Code() {
			t.Errorf("%s: %s %s there, %s %s here", key, got.Variant(), got.Code(), want.Variant(), want.Code())
		}
	}
}
