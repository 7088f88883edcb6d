package config_test

import (
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
)

// A plan's document may break a rule together with a tenant's: the write is refused, with the rule's message at its
// pointer, and nothing is stored.
func TestARuleAcrossMembersAndLayers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	owner := r.as("owner")
	r.namespace(owner, "portal", `{"properties":{"min":{"default":1},"max":{"default":5}},
		"x-rules":[{"rule":"config.min <= config.max","message":"min is above max","pointer":"/min"}]}`)
	r.set(owner, "tenants/acme/config/portal", `{"min":4}`)
	_, err := owner.UpdateDocument(t.Context(), setting("plans/business/config/portal", `{"max":3}`))
	refused(t, "a plan below a tenant", err, codes.InvalidArgument, "SCHEMA_VIOLATION")
	said := ""
	for _, d := range status.Convert(err).Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok && len(bad.GetFieldViolations()) == 1 {
			v := bad.GetFieldViolations()[0]
			said = v.GetField() + " " + v.GetReason() + " " + v.GetDescription()
		}
	}
	if !strings.HasPrefix(said, "document.content/min X_RULES min is above max") || !strings.Contains(said, "tenants/acme") {
		t.Errorf("the refusal says %q", said)
	}
	r.set(owner, "plans/free/config/portal", `{"max":3}`) // acme is of another plan
	if _, err := owner.GetDocument(t.Context(), &configv1.GetDocumentRequest{Name: "plans/business/config/portal"}); status.Code(err) != codes.NotFound {
		t.Errorf("what was refused is stored: %v", err)
	}
	_, err = owner.CreateNamespace(t.Context(), &configv1.CreateNamespaceRequest{NamespaceId: "bad", Namespace: &configv1.Namespace{
		Schema: `{"x-rules":[{"rule":"tenant == 'acme'","message":"m"}]}`}})
	refused(t, "a rule about the tenant", err, codes.InvalidArgument, "SCHEMA_INVALID")
}
