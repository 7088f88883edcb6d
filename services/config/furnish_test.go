package config_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
)

// olderBrand is a schema of brands as an earlier release may have had it: without terms, and with a nickname.
const olderBrand = `{"additionalProperties":false,"properties":{"name":{"type":"string"},"nickname":{"type":"string"}},"type":"object"}`

// aged stops the service and makes its database one of an earlier release, which noted nothing of its schemas.
func (r *rig) aged(schema string) {
	r.tb.Helper()
	r.stop()
	_, err := r.db.Owner(r.tb).Exec(r.tb.Context(), `UPDATE settings.namespace
		SET schema = $1, builtin_version = 0, builtin_schema = '', update_time = create_time WHERE id = 'brand'`, schema)
	must(r.tb, err)
}

func (r *rig) brandNamespace() *configv1.Namespace {
	r.tb.Helper()
	got, err := r.as("owner").GetNamespace(r.tb.Context(), &configv1.GetNamespaceRequest{Name: "namespaces/brand"})
	must(r.tb, err)
	return got.GetNamespace()
}

// furnished counts the audit records of what the service itself did to brands' namespace.
func (r *rig) furnished() (n int) {
	r.tb.Helper()
	got, err := r.as("auditor").ListEvents(r.tb.Context(), &auditv1.ListEventsRequest{Parent: "chains/platform", PageSize: 1000})
	must(r.tb, err)
	for _, e := range got.GetEvents() {
		if slices.Contains(e.GetResources(), "namespaces/brand") && strings.Contains(e.GetMethod(), "furnish") && e.GetReasonCode() == "" {
			n++
		}
	}
	return n
}

// TestBuiltInSchemasAreUpgraded once, whichever of two replicas is first, and what the new schema refuses goes on to hold.
func TestBuiltInSchemasAreUpgraded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	fresh, made := r.brandNamespace(), r.furnished()
	r.set(a, "tenants/acme/config/brand", `{"name":"Acme"}`)
	r.aged(olderBrand)
	_, err := r.db.Owner(t).Exec(ctx, `UPDATE settings.document SET content = '{"name":"Acme","nickname":"The A"}' WHERE layer = 'tenant'`)
	must(t, err)
	r.beside()
	r.start()

	now := r.brandNamespace()
	if now.GetSchema() != fresh.GetSchema() || now.GetRevision() <= fresh.GetRevision() || now.GetUid() != fresh.GetUid() {
		t.Errorf("the namespace is %v", now)
	}
	if n := r.furnished() - made; n != 1 {
		t.Errorf("it was upgraded %d times", n)
	}
	a = r.as("owner")
	got, err := a.ExplainSettings(ctx, &configv1.ExplainSettingsRequest{Name: "tenants/acme/config/brand"})
	must(t, err)
	if c := got.GetEffective().GetContent(); c != `{"name":"Acme","nickname":"The A"}` {
		t.Errorf("acme is shown %s", c)
	}
	data, err := apiOf(r.gateway()).GetSettings(r.issuer.In(ctx, t, "acme"), &configv1.GetSettingsRequest{Namespace: "brand"})
	must(t, err)
	if c := data.GetEffective().GetContent(); c != `{"name":"Acme","nickname":"The A"}` {
		t.Errorf("acme reads %s", c)
	}
	r.set(a, "tenants/globex/config/brand", `{"name":"Globex","terms":{"en":{"workspace":"Project"}}}`)
	_, err = a.UpdateDocument(ctx, setting("tenants/acme/config/brand", `{"name":"Acme","nickname":"A"}`))
	refused(t, "what the new schema does not know, written anew", err, codes.InvalidArgument, "SCHEMA_VIOLATION")

	r.stop()
	r.start()
	if again := r.brandNamespace(); again.GetRevision() != now.GetRevision() || r.furnished() != made+1 {
		t.Errorf("another start upgraded again: %v", again)
	}
}

// TestUpgradesLeaveWhatIsNotTheirs: what an owner wrote, and what a later release did.
func TestUpgradesLeaveWhatIsNotTheirs(t *testing.T) {
	t.Parallel()
	for what, arrange := range map[string]string{
		"an owner's":         `UPDATE settings.namespace SET update_time = update_time + interval '1 s' WHERE id = 'brand'`,
		"an owner's, later":  `UPDATE settings.namespace SET builtin_schema = '{}' WHERE id = 'brand'`,
		"of a later release": `UPDATE settings.namespace SET builtin_version = 1000, builtin_schema = schema WHERE id = 'brand'`,
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			before := r.brandNamespace()
			r.aged(olderBrand)
			_, err := r.db.Owner(t).Exec(t.Context(), arrange)
			must(t, err)
			if what == "an owner's, later" {
				_, err := r.db.Owner(t).Exec(t.Context(), `UPDATE settings.namespace SET update_time = update_time + interval '1 s'`)
				must(t, err)
			}
			r.start()
			if now := r.brandNamespace(); now.GetSchema() != olderBrand || now.GetRevision() != before.GetRevision() {
				t.Errorf("it became %v", now)
			}
			if owners := strings.HasPrefix(what, "an owner's"); owners != strings.Contains(r.log.String(), "schema of its own") {
				t.Errorf("the log says otherwise:\n%s", r.log)
			}
		})
	}
}
