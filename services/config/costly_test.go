package config_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
)

// menuSchema is a schema as it is often written, and exponential in the depth of a document.
const menuSchema = `{"type":"object","properties":{"menu":{"$ref":"#/$defs/item","x-tenant-editable":true},"n":{"type":"integer","x-tenant-editable":true}},
	"$defs":{"item":{"type":"object","anyOf":[
		{"required":["link"],"properties":{"children":{"type":"array","items":{"$ref":"#/$defs/item"}}}},
		{"required":["action"],"properties":{"children":{"type":"array","items":{"$ref":"#/$defs/item"}}}}]}}}`

// TestCostlySettingsAreRefused, and before anybody waits for the namespace.
func TestCostlySettingsAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	data := apiOf(r.gateway())
	r.namespace(r.as("owner"), "notes", menuSchema)
	tx, err := r.db.Owner(t).Begin(t.Context())
	must(t, err)
	_, err = tx.Exec(t.Context(), `SELECT FROM settings.namespace WHERE id = 'notes' FOR UPDATE`)
	must(t, err)
	_, err = data.UpdateSettings(r.acting(t, "acme"), &configv1.UpdateSettingsRequest{
		Namespace: "notes", Content: `{"menu":` + strings.Repeat(`{"children":[`, 30) + `{"link":1}` + strings.Repeat(`]}`, 30) + `}`,
	})
	refused(t, "a deep menu", err, codes.InvalidArgument, "SCHEMA_VIOLATION")
	if got := violations(t, err); got != "content/menu BOUNDS" {
		t.Errorf("%s", got)
	}
	must(t, tx.Rollback(t.Context()))
	_, err = data.UpdateSettings(r.acting(t, "globex"), &configv1.UpdateSettingsRequest{Namespace: "notes", Content: `{"n":2}`})
	must(t, err)
}

// TestCostlySchemasAreRefused with what is the matter with them.
func TestCostlySchemasAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, err := r.as("owner").CreateNamespace(t.Context(), &configv1.CreateNamespaceRequest{NamespaceId: "ladder", Namespace: &configv1.Namespace{
		Schema: `{"properties":{"v":{"$ref":"#/$defs/a00"}},"$defs":{` + rungs(20) + `"a20":{"type":"integer"}}}`,
	}})
	refused(t, "a ladder", err, codes.InvalidArgument, "SCHEMA_INVALID")
	if err == nil || !strings.Contains(err.Error(), "leads to more than 10000 schemas for the same value") {
		t.Errorf("%v", err)
	}
}

func rungs(n int) string {
	var b strings.Builder
	for i := range n {
		step := func(i int) string { return "a" + string(rune('0'+i/10)) + string(rune('0'+i%10)) }
		b.WriteString(`"` + step(i) + `":{"allOf":[{"$ref":"#/$defs/` + step(i+1) + `"},{"$ref":"#/$defs/` + step(i+1) + `"}]},`)
	}
	return b.String()
}
