package config_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

const ownSchema = `{"properties":{"title":{"type":"string","maxLength":9,"default":"Notes","x-tenant-editable":true},
	"colours":{"x-tenant-editable":true,"additionalProperties":{"type":"string"}},
	"page":{"default":20,"x-tenant-editable":true,"x-clamp":{"max":50}},"quota":{"default":1}},
	"dependentSchemas":{"strict":{"properties":{"title":{"const":"Strict"}}}}}`

// acting is a context of a tenant, with its own plan.
func (r *rig) acting(t *testing.T, id string) context.Context {
	t.Helper()
	return r.issuer.In(t.Context(), t, id, func(c *tenant.Claims) { c.Plan = plans()[id] })
}

func TestTenantsSetWhatTheyMay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, data := r.as("owner"), apiOf(r.gateway())
	r.namespace(a, "notes", ownSchema)
	r.set(a, "tenants/acme/config/notes", `{"quota":5}`)
	update := func(id string, req *configv1.UpdateSettingsRequest) (*configv1.Effective, error) {
		req.Namespace = "notes"
		resp, err := data.UpdateSettings(r.acting(t, id), req)
		return resp.GetEffective(), err
	}
	read := func(id string) *configv1.Effective {
		resp, err := data.GetSettings(r.acting(t, id), &configv1.GetSettingsRequest{Namespace: "notes"})
		must(t, err)
		return resp.GetEffective()
	}
	before := read("acme")
	first, err := update("acme", &configv1.UpdateSettingsRequest{Content: `{"title":"Ours","colours":{"text":"red"}}`, Etag: before.GetEtag(), Reason: "taste"})
	must(t, err)
	if first.GetContent() != `{"colours":{"text":"red"},"page":20,"quota":5,"title":"Ours"}` || !proto.Equal(first, read("acme")) {
		t.Errorf("%v, then %v", first, read("acme"))
	}
	_, err = update("acme", &configv1.UpdateSettingsRequest{Content: `{"title":"Mine"}`, Etag: before.GetEtag()})
	refused(t, "stale", err, codes.Aborted, fault.ReasonEtagMismatch)
	again, err := update("acme", &configv1.UpdateSettingsRequest{Content: `{"title":"Ours"}`, Etag: first.GetEtag()})
	must(t, err)
	if again.GetEtag() != first.GetEtag() {
		t.Error("the same content made a revision")
	}
	stored, err := a.GetDocument(t.Context(), &configv1.GetDocumentRequest{Name: "tenants/acme/config/notes"})
	must(t, err)
	d := stored.GetDocument()
	if d.GetContent() != `{"colours":{"text":"red"},"quota":5,"title":"Ours"}` || d.GetReason() != "taste" ||
		!strings.HasPrefix(d.GetAuthor(), "tenant:"+tenanttest.UID("acme").String()) {
		t.Errorf("stored %v", d)
	}
	for what, c := range map[string]struct {
		content, reason, fields string
		code                    codes.Code
	}{
		"not theirs":    {`{"title":"x","quota":6,"a/b":{"c":1}}`, "SETTING_NOT_EDITABLE", "content/a~1b/c SETTING_NOT_EDITABLE, content/quota SETTING_NOT_EDITABLE", codes.PermissionDenied},
		"taking away":   {`{"quota":null}`, "SETTING_NOT_EDITABLE", "content/quota SETTING_NOT_EDITABLE", codes.PermissionDenied},
		"unset":         {`{"quota":{"$unset":true}}`, "SETTING_NOT_EDITABLE", "content/quota SETTING_NOT_EDITABLE, content/quota/$unset SETTING_NOT_EDITABLE", codes.PermissionDenied},
		"schema":        {`{"title":"longer than nine"}`, "SCHEMA_VIOLATION", "content/title MAX_LENGTH", codes.InvalidArgument},
		"clamped":       {`{"page":51}`, "SETTING_CLAMPED", "content/page X_CLAMP", codes.InvalidArgument},
		"malformed":     {`{"title":"x","title":"y"}`, "MALFORMED_DOCUMENT", "content/title MALFORMED_DOCUMENT", codes.InvalidArgument},
		"not an object": {`[]`, "MALFORMED_DOCUMENT", "content MALFORMED_DOCUMENT", codes.InvalidArgument},
		"nothing":       {``, fault.ReasonInvalidField, "content ", codes.InvalidArgument},
	} {
		_, err := update("acme", &configv1.UpdateSettingsRequest{Content: c.content})
		refused(t, what, err, c.code, c.reason)
		if got := violations(t, err); got != c.fields && c.fields != "content " {
			t.Errorf("%s: %s, want %s", what, got, c.fields)
		}
	}
	dry, err := update("acme", &configv1.UpdateSettingsRequest{Content: `{"page":50}`, ValidateOnly: true})
	must(t, err)
	if dry.GetContent() != `{"colours":{"text":"red"},"page":50,"quota":5,"title":"Ours"}` || !proto.Equal(first, read("acme")) {
		t.Errorf("validated %v, then %v", dry, read("acme"))
	}
	back, err := update("acme", &configv1.UpdateSettingsRequest{Content: `{"title":null,"colours":null}`})
	must(t, err)
	if !strings.HasPrefix(back.GetContent(), `{"page":20`) {
		t.Errorf("taken back: %v", back)
	}
	events, err := a.ListEvents(t.Context(), &auditv1.ListEventsRequest{Parent: "chains/" + tenanttest.UID("acme").String()})
	must(t, err)
	if !strings.Contains(events.String(), "UpdateSettings") {
		t.Errorf("audited %v", events)
	}
	shown, err := data.GetSettings(r.acting(t, "acme"), &configv1.GetSettingsRequest{Namespace: "notes", Provenance: true})
	must(t, err)
	for _, p := range shown.GetEffective().GetProvenance() {
		if p.GetEditable() == (p.GetPointer() == "/quota") {
			t.Errorf("%v", p)
		}
	}
}

// TestTenantsSetNothingOfOthers has each tenant write; nobody else's settings change, but those of its children.
func TestTenantsSetNothingOfOthers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, data := r.as("owner"), apiOf(r.gateway())
	r.namespace(a, "notes", ownSchema)
	title := func(id string) string {
		resp, err := data.GetSettings(r.acting(t, id), &configv1.GetSettingsRequest{Namespace: "notes", Provenance: true})
		must(t, err)
		for _, p := range resp.GetEffective().GetProvenance() {
			if p.GetPointer() == "/title" {
				return resp.GetEffective().GetContent() + " " + p.GetLayer()
			}
		}
		return ""
	}
	request := newID()
	for _, id := range []string{"acme", "globex"} { // with one request id: it is each tenant's own
		_, err := data.UpdateSettings(r.acting(t, id), &configv1.UpdateSettingsRequest{
			Namespace: "notes", Content: fmt.Sprintf(`{"title":"of %.4s"}`, id), RequestId: request,
		})
		must(t, err)
	}
	for id, want := range map[string]string{"acme": "tenants/acme", "globex": "tenants/globex", "initech": "schema", "umbrella": "schema"} {
		if got := title(id); !strings.HasSuffix(got, " "+want) || want != "schema" && !strings.Contains(got, "of "+id[:4]) {
			t.Errorf("%s has %s, want %s", id, got, want)
		}
	}
	// A parent is not told which child its write would break.
	r.set(a, "tenants/initech/config/notes", `{"strict":true,"title":"Strict"}`)
	r.set(a, "tenants/initech/environments/dev/config/notes", `{"title":"Strict"}`)
	_, err := a.UpdateDocument(t.Context(), setting("tenants/umbrella/config/notes", `{"strict":true,"title":"Other"}`))
	refused(t, "the operator", err, codes.InvalidArgument, "SCHEMA_VIOLATION")
	_, err = a.UpdateNamespace(t.Context(), &configv1.UpdateNamespaceRequest{Namespace: &configv1.Namespace{
		Name: "namespaces/notes", Schema: `{"properties":{"a":{"x-tenant-editable":true}},"not":{"required":["a","strict"]}}`,
	}})
	must(t, err)
	_, err = data.UpdateSettings(r.acting(t, "umbrella"), &configv1.UpdateSettingsRequest{Namespace: "notes", Content: `{"a":1}`})
	refused(t, "the parent", err, codes.InvalidArgument, "SCHEMA_VIOLATION")
	if err == nil || strings.Contains(err.Error(), "initech") || violations(t, err) == "" || strings.Contains(fmt.Sprint(statusDetails(err)), "initech") {
		t.Errorf("the parent is told %v", statusDetails(err))
	}
	said := status.Convert(err).Message()
	if f, _ := fault.As(tenantgrpc.FromStatus(err)); strings.ContainsAny(said, "0123456789") || f.Metadata["violations"] != "" {
		t.Errorf("the parent is told how many: %s, %v", said, f.Metadata)
	}
	// Without a tenant, or by an operator, nothing is set.
	_, err = r.as("owner").UpdateSettings(t.Context(), &configv1.UpdateSettingsRequest{Namespace: "notes", Content: `{"a":1}`})
	if err == nil {
		t.Error("an operator is a tenant")
	}
	_, err = data.UpdateSettings(r.acting(t, "acme"), &configv1.UpdateSettingsRequest{Namespace: "none", Content: `{}`})
	refused(t, "unknown namespace", err, codes.NotFound, fault.ReasonResourceNotFound)
}

// statusDetails is all that a refusal says.
func statusDetails(err error) []any { return status.Convert(err).Details() }

// TestTenantsWritesAreBounded in how often they come, and in what is kept of them.
func TestTenantsWritesAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, data := r.as("owner"), apiOf(r.gateway())
	n := r.namespace(a, "notes", ownSchema)
	first := r.set(a, "tenants/acme/config/notes", `{"quota":5}`)
	// As if the tenant and operators had written for a year, without all these calls.
	_, err := r.db.Owner(t).Exec(t.Context(), `INSERT INTO settings.document_revision
			(namespace_uid, layer, layer_id, revision, content, author, reason, revision_time)
		SELECT $1, 'tenant', $2, $3 + i, '{}', CASE WHEN i % 10 = 0 THEN 'operator:x' ELSE 'tenant:x' END, '', now() FROM generate_series(1, 200) i`,
		n.GetUid(), tenanttest.UID("acme").String(), first.GetRevision())
	must(t, err)
	_, err = r.db.Owner(t).Exec(t.Context(), `UPDATE settings.clock SET revision = revision + 1000`)
	must(t, err)
	set := func(id string, i int) error {
		_, err := data.UpdateSettings(r.acting(t, id), &configv1.UpdateSettingsRequest{Namespace: "notes", Content: fmt.Sprintf(`{"page":%d}`, i%50)})
		return err
	}
	must(t, set("acme", 1))
	var tenants, operators int
	must(t, r.db.Owner(t).QueryRow(t.Context(), `SELECT count(*) FILTER (WHERE author LIKE 'tenant:%'), count(*) FILTER (WHERE author LIKE 'operator:%')
		FROM settings.document_revision`).Scan(&tenants, &operators))
	if tenants != 100 || operators != 21 {
		t.Errorf("%d revisions of the tenant and %d of operators are kept", tenants, operators)
	}
	_, err = a.RollbackDocument(t.Context(), &configv1.RollbackDocumentRequest{
		Name: "tenants/acme/config/notes", Revision: first.GetRevision() + 1, Reason: "what was there",
	})
	refused(t, "a forgotten revision", err, codes.NotFound, fault.ReasonResourceNotFound)
	if err == nil || !strings.Contains(err.Error(), "forgotten") {
		t.Errorf("%v", err)
	}
	_, err = a.RollbackDocument(t.Context(), &configv1.RollbackDocumentRequest{
		Name: "tenants/acme/config/notes", Revision: first.GetRevision(), Reason: "what was there",
	})
	must(t, err)
	for i := 2; err == nil && i < 200; i++ {
		err = set("acme", i)
	}
	refused(t, "one too many", err, codes.ResourceExhausted, fault.ReasonRateLimitExceeded)
	if f, ok := fault.As(tenantgrpc.FromStatus(err)); !ok || f.RetryAfter <= 0 || len(f.Quotas) != 1 {
		t.Errorf("%+v", f)
	}
	must(t, set("globex", 1))
}
