package config_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/services/config"
)

// secretive is a schema with two secrets, one of them below others.
const secretive = `{"type":"object","properties":{
	"key":{"type":"string","x-secret":true},
	"mail":{"type":"object","properties":{"password":{"type":"string","x-secret":true},"host":{"type":"string"}}}}}`

// seal gives a secret a value and returns its version.
func (r *rig) seal(a api, name, value string) int32 {
	r.tb.Helper()
	resp, err := a.PutSecret(r.tb.Context(), &configv1.PutSecretRequest{Name: name, Value: []byte(value), RequestId: newID()})
	must(r.tb, err)
	return resp.GetSecret().GetVersions()[0].GetVersion()
}

func refersTo(name string, version int32) string {
	return fmt.Sprintf(`{"$secret":%q,"version":%d}`, name, version)
}

// in is a context of a tenant on its plan.
func (r *rig) in(id string) context.Context {
	r.tb.Helper()
	return r.issuer.In(r.tb.Context(), r.tb, id, func(c *tenant.Claims) { c.Plan = plans()[id] })
}

// reveal reads a secret as a tenant.
func (r *rig) reveal(a api, id, pointer string, version int32) (string, error) {
	resp, err := a.ReadSecret(r.in(id), &configv1.ReadSecretRequest{Namespace: "portal", Pointer: pointer, Version: version})
	return string(resp.GetValue()), err
}

// reads wants a value, or the reason of a refusal.
func (r *rig) reads(a api, id, pointer, want string) {
	r.tb.Helper()
	got, err := r.reveal(a, id, pointer, 0)
	if err != nil {
		got = fault.ReasonOf(tenantgrpc.FromStatus(err))
	}
	if got != want {
		r.tb.Errorf("%s reads %q at %s (%v), want %q", id, got, pointer, err, want)
	}
}

// A secret is read where a document refers to it, by the layers that hold, and version by version.
func TestSecretsFollowTheLayers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, data, stage := r.as("owner"), apiOf(r.gateway()), apiOf(r.workload(r.service("stage")))
	r.namespace(a, "portal", secretive)
	for _, owner := range layered() {
		for _, version := range []int32{1, 2} {
			if got := r.seal(a, owner+"/config/portal/secrets/stripe", fmt.Sprintf("%s v%d", owner, version)); got != version {
				t.Fatalf("%s has version %d, want %d", owner, got, version)
			}
		}
	}
	r.reads(data, "initech", "/key", fault.ReasonResourceNotFound)
	for _, owner := range layered()[:5] { // the last is of an environment that the gateway is not in
		r.set(a, owner+"/config/portal", `{"key":`+refersTo("stripe", 1)+`}`)
		r.reads(data, "initech", "/key", owner+" v1")
	}
	r.set(a, "tenants/initech/config/portal", `{"key":`+refersTo("stripe", 2)+`,"mail":{"password":`+refersTo("stripe", 1)+`}}`)
	r.reads(data, "initech", "/key", "tenants/initech v2")
	r.reads(data, "initech", "/mail/password", "tenants/initech v1")
	if got, err := r.reveal(data, "initech", "/key", 2); got != "tenants/initech v2" {
		t.Errorf("a reader that knows what is referred to gets %q, %v", got, err)
	}
	for _, other := range []int32{1, 3} { // the reference says which version it is, and nobody else
		_, err := r.reveal(data, "initech", "/key", other)
		refused(t, "another version", err, codes.Aborted, fault.ReasonEtagMismatch)
	}
	for _, pointer := range []string{"/mail/host", "/mail", "/none", "/key/$secret"} {
		r.reads(data, "initech", pointer, fault.ReasonResourceNotFound)
	}
	// Another tenant on the plan, which has no document of its own, gets the plan's; one on another plan the region's.
	r.reads(data, "globex", "/key", "regions/"+tenanttest.Region+" v1")
	_, err := stage.ReadSecret(r.in("initech"), &configv1.ReadSecretRequest{Namespace: "portal", Pointer: "/key"})
	refused(t, "a workload without the namespace", err, codes.PermissionDenied, fault.ReasonPermissionMissing)
	if diff, err := a.DiffDocument(t.Context(), &configv1.DiffDocumentRequest{Name: "tenants/initech/config/portal", FromRevision: revisions(t, a, "tenants/initech/config/portal")[1]}); err != nil ||
		strings.Contains(diff.String(), " v") {
		t.Errorf("the difference is %v, %v", diff, err)
	}
	explained, err := a.ExplainSettings(t.Context(), &configv1.ExplainSettingsRequest{Name: "tenants/initech/config/portal"})
	must(t, err)
	if want := `{"key":{"secret":true,"version":2},"mail":{"password":{"secret":true,"version":1}}}`; explained.GetEffective().GetContent() != want {
		t.Errorf("explained is %s", explained.GetEffective().GetContent())
	}
	_, err = a.RollbackDocument(t.Context(), &configv1.RollbackDocumentRequest{
		Name: "tenants/initech/config/portal", Revision: revisions(t, a, "tenants/initech/config/portal")[1],
	})
	must(t, err)
	r.reads(data, "initech", "/key", "tenants/initech v1")
}

// revisions are those of a document, the newest first.
func revisions(tb testing.TB, a api, name string) (out []int64) {
	tb.Helper()
	resp, err := a.ListDocumentRevisions(tb.Context(), &configv1.ListDocumentRevisionsRequest{Parent: name})
	must(tb, err)
	for _, d := range resp.GetDocuments() {
		out = append(out, d.GetRevision())
	}
	return out
}

// A tenant reads what its own settings refer to. Names of another tenant's secrets, and its contexts, lead nowhere.
func TestNoTenantReadsAnothersSecret(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, data := r.as("owner"), apiOf(r.gateway())
	r.namespace(a, "portal", `{"properties":{"key":{"type":"string","x-secret":true,"x-tenant-editable":true}}}`)
	r.seal(a, "tenants/acme/config/portal/secrets/mine", "of acme")
	r.set(a, "tenants/acme/config/portal", `{"key":`+refersTo("mine", 1)+`}`)
	r.reads(data, "acme", "/key", "of acme")
	r.reads(data, "globex", "/key", fault.ReasonResourceNotFound)
	_, err := a.UpdateDocument(t.Context(), setting("tenants/globex/config/portal", `{"key":`+refersTo("mine", 1)+`}`))
	refused(t, "a name of another tenant's", err, codes.FailedPrecondition, "SECRET_UNKNOWN")
	_, err = data.UpdateSettings(r.in("globex"), &configv1.UpdateSettingsRequest{Namespace: "portal", Content: `{"key":` + refersTo("mine", 1) + `}`})
	refused(t, "the same by the tenant itself", err, codes.FailedPrecondition, "SECRET_UNKNOWN")
	// With a secret of the same name of its own, it is that.
	r.seal(a, "tenants/globex/config/portal/secrets/mine", "of globex")
	_, err = data.UpdateSettings(r.in("globex"), &configv1.UpdateSettingsRequest{Namespace: "portal", Content: `{"key":` + refersTo("mine", 1) + `}`})
	must(t, err)
	r.reads(data, "globex", "/key", "of globex")
	r.reads(data, "acme", "/key", "of acme")
	// A sealed value that somebody moves in the database opens nowhere else.
	_, err = r.db.Owner(t).Exec(t.Context(), `UPDATE secret.version v SET sealed = o.sealed, data_key_uid = o.data_key_uid
		FROM secret.version o JOIN secret.secret os ON os.uid = o.secret_uid, secret.secret s
		WHERE s.uid = v.secret_uid AND s.layer_id = $1 AND os.layer_id = $2`, tenanttest.UID("globex").String(), tenanttest.UID("acme").String())
	must(t, err)
	r.reads(data, "globex", "/key", fault.ReasonInternal)
	for _, denied := range []*configv1.ReadSecretRequest{
		{Namespace: "portal", Pointer: "key"}, {Namespace: "portal"}, {Namespace: "Portal", Pointer: "/key"}, {Namespace: "portal", Pointer: "/key", Version: -1},
	} {
		_, err := data.ReadSecret(r.in("acme"), denied)
		refused(t, denied.String(), err, codes.InvalidArgument, fault.ReasonInvalidField)
	}
	_, err = data.ReadSecret(r.in("acme"), &configv1.ReadSecretRequest{Namespace: "brand", Pointer: "/name"})
	refused(t, "a namespace that the workload may not", err, codes.PermissionDenied, fault.ReasonPermissionMissing)
}

// Each read is in the tenant's chain, with what was read, whether it was allowed or not.
func TestEachReadOfASecretIsAudited(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, data := r.as("owner"), apiOf(r.gateway())
	r.namespace(a, "portal", secretive)
	r.seal(a, "plans/business/config/portal/secrets/stripe", "x")
	r.set(a, "plans/business/config/portal", `{"key":`+refersTo("stripe", 1)+`}`)
	for range 2 {
		r.reads(data, "acme", "/key", "x")
	}
	_, err := apiOf(r.workload(r.service("stage"))).ReadSecret(r.in("acme"), &configv1.ReadSecretRequest{Namespace: "portal", Pointer: "/key"})
	refused(t, "stage", err, codes.PermissionDenied, fault.ReasonPermissionMissing)
	resp, err := r.as("auditor").ListEvents(t.Context(), &auditv1.ListEventsRequest{Parent: "chains/" + tenanttest.UID("acme").String()})
	must(t, err)
	outcomes := map[auditv1.Outcome]int{}
	for _, e := range resp.GetEvents() {
		if !strings.HasSuffix(e.GetMethod(), "/ReadSecret") {
			continue
		}
		outcomes[e.GetOutcome()]++
		if e.GetOutcome() == auditv1.Outcome_OUTCOME_OK &&
			!slices.Equal(e.GetResources(), []string{"namespaces/portal/key", "plans/business/config/portal/secrets/stripe/versions/1"}) {
			t.Errorf("the event is about %v", e.GetResources())
		}
	}
	if outcomes[auditv1.Outcome_OUTCOME_OK] != 2 || outcomes[auditv1.Outcome_OUTCOME_DENIED] != 1 {
		t.Errorf("the outcomes are %v", outcomes)
	}
}

// What is not a reference is refused where a secret belongs, before and after the schema says so, and not repeated.
func TestSecretsInClearAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "portal", secretive)
	for _, value := range []string{
		`"hunter2-clear"`, `{"$secret":"hunter2-clear"}`, `{"$secret":"Hunter2-clear","version":1}`, `{"$secret":"x","version":1.5}`,
		`{"$secret":"x","version":0}`, `{"$secret":"x","version":1,"value":"hunter2-clear"}`, `["hunter2-clear"]`, `7`, `null`, `{}`,
	} {
		for _, content := range []string{`{"key":` + value + `}`, `{"mail":{"password":` + value + `}}`} {
			_, err := a.UpdateDocument(t.Context(), setting("tenants/acme/config/portal", content))
			refused(t, content, err, codes.InvalidArgument, "SECRET_IN_CLEAR")
			if strings.Contains(strings.ToLower(fmt.Sprint(err, fieldsOf(err))), "hunter2") {
				t.Errorf("the refusal repeats it: %v", err)
			}
		}
	}
	_, err := a.UpdateDocument(t.Context(), setting("tenants/acme/config/portal", `{"key":`+refersTo("none", 1)+`}`))
	refused(t, "a secret that is not", err, codes.FailedPrecondition, "SECRET_UNKNOWN")
	r.set(a, "tenants/acme/config/portal", `{"key":{"$unset":true}}`)

	r.namespace(a, "late", `{"properties":{"key":{"type":"string"}}}`)
	r.set(a, "tenants/acme/config/late", `{"key":"hunter2-clear"}`)
	_, err = a.UpdateNamespace(t.Context(), &configv1.UpdateNamespaceRequest{
		Namespace: &configv1.Namespace{Name: "namespaces/late", Schema: `{"properties":{"key":{"type":"string","x-secret":true}}}`},
		Overrides: configv1.OverridePolicy_OVERRIDE_POLICY_SHADOW,
	})
	refused(t, "a schema over what stands in clear", err, codes.InvalidArgument, "SECRET_IN_CLEAR")
	for schema, why := range map[string]string{
		`{"properties":{"k":{"type":"integer","x-secret":true}}}`:                                         "another type",
		`{"properties":{"k":{"x-secret":true}}}`:                                                          "no type",
		`{"properties":{"k":{"type":"string","x-secret":"yes"}}}`:                                         "no boolean",
		`{"properties":{"k":{"type":"string","x-secret":true,"default":"hunter2"}}}`:                      "a default",
		`{"properties":{"k":{"type":"string","x-secret":true,"pattern":"^x"}}}`:                           "a pattern",
		`{"properties":{"k":{"type":"string","x-secret":true,"x-clamp":{"enum":["x"]}}}}`:                 "a clamp",
		`{"properties":{"k":{"type":"array","items":{"type":"string","x-secret":true}}}}`:                 "an element",
		`{"allOf":[{"properties":{"k":{"type":"string","x-secret":true}}}]}`:                              "where it does not act",
		`{"type":"string","x-secret":true}`:                                                               "the root",
		`{"properties":{"k":{"x-merge":"replace","properties":{"l":{"type":"string","x-secret":true}}}}}`: "below what is not merged",
	} {
		_, err := a.CreateNamespace(t.Context(), &configv1.CreateNamespaceRequest{NamespaceId: "bad", Namespace: &configv1.Namespace{Schema: schema}})
		refused(t, why, err, codes.InvalidArgument, "SCHEMA_INVALID")
	}
}

// Versions are destroyed, and numbers never used again.
func TestSecretVersions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, data, ctx := r.as("operator"), apiOf(r.gateway()), t.Context()
	r.namespace(r.as("owner"), "portal", secretive)
	const name, document = "tenants/acme/config/portal/secrets/stripe", "tenants/acme/config/portal"
	r.seal(a, name, "one")
	r.seal(a, name, "two")
	r.set(a, document, `{"key":`+refersTo("stripe", 1)+`}`)
	_, err := a.DestroySecretVersion(ctx, &configv1.DestroySecretVersionRequest{Name: name, Version: 1})
	refused(t, "what is referred to", err, codes.FailedPrecondition, "SECRET_IN_USE")
	_, err = a.DeleteSecret(ctx, &configv1.DeleteSecretRequest{Name: name})
	refused(t, "a secret that is referred to", err, codes.FailedPrecondition, "SECRET_IN_USE")
	destroyed, err := a.DestroySecretVersion(ctx, &configv1.DestroySecretVersionRequest{Name: name, Version: 1, Force: true})
	must(t, err)
	if v := destroyed.GetSecret().GetVersions(); len(v) != 2 || v[1].GetDestroyTime() == nil || v[0].GetDestroyTime() != nil || v[0].GetAuthor() == "" {
		t.Errorf("the versions are %v", v)
	}
	r.reads(data, "acme", "/key", "SECRET_DESTROYED")
	r.set(a, document, `{"key":`+refersTo("stripe", 1)+`,"mail":{"host":"x"}}`) // which it refers to already
	_, err = a.UpdateDocument(ctx, setting(document, `{"mail":{"password":`+refersTo("stripe", 1)+`}}`))
	refused(t, "what is destroyed", err, codes.FailedPrecondition, "SECRET_UNKNOWN")
	r.set(a, document, `{"key":`+refersTo("stripe", 2)+`}`)
	r.reads(data, "acme", "/key", "two")
	r.set(a, document, `{}`)
	_, err = a.DeleteSecret(ctx, &configv1.DeleteSecretRequest{Name: name})
	must(t, err)
	var keys int
	must(t, r.db.Owner(t).QueryRow(ctx, `SELECT count(*) FROM secret.data_key`).Scan(&keys))
	if keys != 0 {
		t.Errorf("%d data keys are left that seal nothing", keys)
	}
	list, err := a.ListSecrets(ctx, &configv1.ListSecretsRequest{Parent: document})
	must(t, err)
	if len(list.GetSecrets()) != 0 {
		t.Errorf("a deleted secret is listed: %v", list)
	}
	_, err = a.DeleteSecret(ctx, &configv1.DeleteSecretRequest{Name: name})
	refused(t, "a deleted secret", err, codes.NotFound, fault.ReasonResourceNotFound)
	if got := r.seal(a, name, "three"); got != 3 {
		t.Errorf("a new secret of that name begins with version %d: an old reference means another value", got)
	}
	_, err = r.as("owner").DeleteNamespace(ctx, &configv1.DeleteNamespaceRequest{Name: "namespaces/portal"})
	refused(t, "a namespace in use", err, codes.FailedPrecondition, "NAMESPACE_IN_USE")
	_, err = a.DeleteDocument(ctx, &configv1.DeleteDocumentRequest{Name: document})
	must(t, err)
	_, err = r.as("owner").DeleteNamespace(ctx, &configv1.DeleteNamespaceRequest{Name: "namespaces/portal"})
	refused(t, "a namespace with a secret", err, codes.FailedPrecondition, "NAMESPACE_IN_USE")
	_, err = a.DeleteSecret(ctx, &configv1.DeleteSecretRequest{Name: name})
	must(t, err)
	_, err = r.as("owner").DeleteNamespace(ctx, &configv1.DeleteNamespaceRequest{Name: "namespaces/portal"})
	must(t, err)
}

func TestSecretsHaveBounds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("operator"), t.Context()
	r.namespace(r.as("owner"), "portal", secretive)
	const name = "tenants/acme/config/portal/secrets/stripe"
	for _, size := range []int{0, 64<<10 + 1} {
		_, err := a.PutSecret(ctx, &configv1.PutSecretRequest{Name: name, Value: make([]byte, size)})
		refused(t, fmt.Sprint(size, " bytes"), err, codes.InvalidArgument, fault.ReasonInvalidField)
	}
	_, err := a.PutSecret(ctx, &configv1.PutSecretRequest{Name: name, Value: make([]byte, 64<<10)})
	must(t, err)
	_, err = r.db.Owner(t).Exec(ctx, `INSERT INTO secret.version (secret_uid, version, data_key_uid, sealed, author, create_time)
		SELECT v.secret_uid, n, v.data_key_uid, v.sealed, '', now() FROM secret.version v, generate_series(2, 100) n`)
	must(t, err)
	_, err = a.PutSecret(ctx, &configv1.PutSecretRequest{Name: name, Value: []byte("x")})
	refused(t, "version 101", err, codes.ResourceExhausted, "SECRET_LIMIT")
	_, err = r.db.Owner(t).Exec(ctx, `INSERT INTO secret.secret (uid, namespace_uid, layer, layer_id, id, create_time, update_time)
		SELECT gen_random_uuid(), s.namespace_uid, s.layer, s.layer_id, 's' || n, now(), now() FROM secret.secret s, generate_series(2, 100) n`)
	must(t, err)
	_, err = a.PutSecret(ctx, &configv1.PutSecretRequest{Name: name + "2", Value: []byte("x")})
	refused(t, "secret 101", err, codes.ResourceExhausted, "SECRET_LIMIT")
	_, err = a.PutSecret(ctx, &configv1.PutSecretRequest{Name: "tenants/none/config/portal/secrets/x", Value: []byte("x")})
	refused(t, "no tenant", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = a.PutSecret(ctx, &configv1.PutSecretRequest{Name: "tenants/acme/config/none/secrets/x", Value: []byte("x")})
	refused(t, "no namespace", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = a.PutSecret(ctx, &configv1.PutSecretRequest{Name: name + strings.Repeat("x", 60), Value: []byte("x")})
	refused(t, "a long id", err, codes.InvalidArgument, fault.ReasonInvalidField)
	_, err = r.as("viewer").PutSecret(ctx, &configv1.PutSecretRequest{Name: name, Value: []byte("x")})
	refused(t, "a viewer", err, codes.PermissionDenied, fault.ReasonPermissionMissing)
}

// A repeat gives the first answer, also through another replica, and is refused with another value although that is in no
// record.
func TestPutSecretIsRepeated(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("operator")
	r.namespace(r.as("owner"), "portal", secretive)
	req := &configv1.PutSecretRequest{Name: "tenants/acme/environments/staging/config/portal/secrets/stripe", Value: []byte("one"), RequestId: newID()}
	first, err := a.PutSecret(t.Context(), req)
	must(t, err)
	second := r.twin(t).as("operator")
	again, err := second.PutSecret(t.Context(), req)
	must(t, err)
	if !proto.Equal(first, again) {
		t.Errorf("the repeat gives %v, first was %v", again, first)
	}
	other, _ := proto.Clone(req).(*configv1.PutSecretRequest) // a message's clone has its type
	other.Value = []byte("two")
	_, err = second.PutSecret(t.Context(), other)
	refused(t, "another value", err, codes.InvalidArgument, fault.ReasonRequestIDReused)
	_, err = a.PutSecret(t.Context(), &configv1.PutSecretRequest{Name: req.GetName(), Value: []byte("dry"), ValidateOnly: true})
	must(t, err)
	list, err := second.ListSecrets(t.Context(), &configv1.ListSecretsRequest{Parent: "tenants/acme/environments/staging/config/portal"})
	must(t, err)
	if n := len(list.GetSecrets()[0].GetVersions()); n != 1 {
		t.Errorf("there are %d versions", n)
	}
	_, err = a.DestroySecretVersion(t.Context(), &configv1.DestroySecretVersionRequest{Name: req.GetName(), Version: 1})
	must(t, err)
	if _, err := a.PutSecret(t.Context(), req); err != nil {
		t.Errorf("a repeat after the value was destroyed: %v", err)
	}
}

// twin runs a second replica over the same database, with keys of its own file if there is one named "twin.kek".
func (r *rig) twin(t *testing.T) *rig {
	t.Helper()
	other := *r
	other.config.State, other.config.Replica = yamlfile.Path(t.TempDir()), "config-2"
	if _, err := os.Stat(r.path("twin.kek")); err == nil {
		other.config.KEK = yamlfile.Path(r.path("twin.kek"))
	}
	other.start()
	return &other
}

// The key-encryption key is replaced while replicas run: both keys open, then all is wrapped anew, then the old one goes.
func TestTheKeyEncryptionKeyIsRotated(t *testing.T) {
	t.Parallel()
	r, to := newHookRig(t)
	a, data := r.as("owner"), apiOf(r.gateway())
	r.namespace(a, "portal", secretive)
	for id := range plans() {
		r.seal(a, "tenants/"+id+"/config/portal/secrets/stripe", "of "+id)
		r.set(a, "tenants/"+id+"/config/portal", `{"key":`+refersTo("stripe", 1)+`}`)
	}
	hook, _ := r.hook(a, to, "tenants/acme/webhooks/mine", &configv1.Webhook{EventTypes: []string{"webhook.test"}})
	old, err := os.ReadFile(r.path("config.kek"))
	must(t, err)
	fresh := make([]byte, keyfile.SecretSize)
	_, err = rand.Read(fresh)
	must(t, err)
	line := hex.EncodeToString(fresh) + "\n"
	r.write("twin.kek", line+string(old))
	twin := r.twin(t)
	b := twin.as("owner")
	r.seal(b, "tenants/acme/config/portal/secrets/late", "of the twin")
	dry, err := b.RewrapSecrets(t.Context(), &configv1.RewrapSecretsRequest{Parent: "platform", ValidateOnly: true})
	must(t, err)
	done, err := b.RewrapSecrets(t.Context(), &configv1.RewrapSecretsRequest{Parent: "platform"})
	must(t, err)
	if done.GetRewrapped() != 5 || done.GetRemaining() != 0 || dry.GetRewrapped() != 5 {
		t.Errorf("rewrapped is %v, and would be %v; want four data keys and a webhook's", done, dry)
	}
	for id := range plans() {
		twin.reads(apiOf(twin.gateway()), id, "/key", "of "+id)
		r.reads(data, id, "/key", fault.ReasonInternal) // it has the old key alone
	}
	twin.stop()
	r.stop()
	r.write("config.kek", line)
	r.start()
	data = apiOf(r.gateway())
	for id := range plans() {
		r.reads(data, id, "/key", "of "+id)
	}
	_, err = r.as("operator").TestWebhook(t.Context(), &configv1.TestWebhookRequest{Name: hook.GetName()})
	must(t, err)
	to.await(t, "/tenants/acme/webhooks/mine", 1)
}

// A data key is replaced when it is old or used up, and what it sealed still opens.
func TestDataKeysAreReplaced(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, data := r.as("owner"), apiOf(r.gateway())
	r.namespace(a, "portal", secretive)
	const name = "tenants/acme/config/portal/secrets/stripe"
	count := func() (n int) {
		must(t, r.db.Owner(t).QueryRow(t.Context(), `SELECT count(*) FROM secret.data_key`).Scan(&n))
		return n
	}
	for i, age := range []string{`uses = 0`, `create_time = now() - interval '90 days'`, `uses = 1 << 24`, `uses = (1 << 24) - 1`} {
		_, err := r.db.Owner(t).Exec(t.Context(), `UPDATE secret.data_key SET `+age)
		must(t, err)
		r.seal(a, name, fmt.Sprint("v", i+1))
		if want := []int{1, 2, 3, 3}[i]; count() != want {
			t.Errorf("after %s there are %d data keys, want %d", age, count(), want)
		}
	}
	for version := range int32(4) {
		r.set(a, "tenants/acme/config/portal", `{"key":`+refersTo("stripe", version+1)+`}`)
		r.reads(data, "acme", "/key", fmt.Sprint("v", version+1))
	}
	// Two replicas that begin at once make one data key.
	twin := r.twin(t).as("owner")
	errs := make(chan error, 8)
	for i := range cap(errs) {
		by := []api{a, twin}[i%2]
		go func() {
			_, err := by.PutSecret(t.Context(), &configv1.PutSecretRequest{Name: fmt.Sprintf("tenants/globex/config/portal/secrets/s%d", i), Value: []byte("x")})
			errs <- err
		}()
	}
	for range cap(errs) {
		must(t, <-errs)
	}
	if count() != 4 {
		t.Errorf("%d data keys after two replicas began at once, want 4", count())
	}
}

// Without a key in its configuration config has no secrets, and says so.
func TestWithoutAKeyThereAreNoSecrets(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, func(c *config.Config) { c.KEK = "" })
	a := r.as("owner")
	r.namespace(a, "portal", secretive)
	_, err := a.PutSecret(t.Context(), &configv1.PutSecretRequest{Name: "platform/config/portal/secrets/x", Value: []byte("x")})
	refused(t, "put", err, codes.FailedPrecondition, "SECRETS_OFF")
	_, err = a.RewrapSecrets(t.Context(), &configv1.RewrapSecretsRequest{Parent: "platform"})
	refused(t, "rewrap", err, codes.FailedPrecondition, "SECRETS_OFF")
	_, err = apiOf(r.gateway()).ReadSecret(r.in("acme"), &configv1.ReadSecretRequest{Namespace: "portal", Pointer: "/key"})
	refused(t, "read", err, codes.NotFound, fault.ReasonResourceNotFound)
}

// fieldsOf are the violations of a refusal.
func fieldsOf(err error) []fault.FieldViolation {
	refusal, ok := fault.As(tenantgrpc.FromStatus(err))
	if !ok {
		return nil
	}
	return refusal.Fields
}

// What config keeps for a deleted tenant is erased, and for no other; its webhooks wait until then.
func TestADeletedTenantIsErased(t *testing.T) {
	t.Parallel()
	r, to := newHookRig(t)
	a, op, ctx := r.as("owner"), r.as("operator"), t.Context()
	r.namespace(a, "portal", secretive)
	for _, id := range []string{"acme", gone} {
		r.seal(a, "tenants/"+id+"/config/portal/secrets/stripe", "of "+id)
		r.seal(a, "tenants/"+id+"/environments/staging/config/portal/secrets/stripe", "of "+id)
		r.hook(op, to, "tenants/"+id+"/webhooks/mine", &configv1.Webhook{})
		digest := sha256.Sum256([]byte(id))
		_, err := op.CreateClientKey(ctx, &configv1.CreateClientKeyRequest{Parent: "tenants/" + id, ClientKey: &configv1.ClientKey{
			KeySha256: digest[:], Kind: configv1.ClientKeyKind_CLIENT_KEY_KIND_SERVER, Environment: "staging",
		}})
		must(t, err)
		_, err = op.UpdateBrandDraft(ctx, draft("tenants/"+id+"/brandDraft", `{"name":"x"}`))
		must(t, err)
	}
	for _, id := range []string{gone, "acme"} {
		_, err := op.TestWebhook(ctx, &configv1.TestWebhookRequest{Name: "tenants/" + id + "/webhooks/mine"})
		must(t, err)
	}
	to.await(t, "/tenants/acme/webhooks/mine", 1)
	eventually(t, "the webhook of the deleted tenant is parked", func() bool {
		var parked bool
		must(t, r.db.Owner(t).QueryRow(ctx, `SELECT due_time > now() + interval '5 seconds' AND due_time < 'infinity' FROM webhook.endpoint
			WHERE tenant_uid = $1`, tenanttest.UID(gone).String()).Scan(&parked))
		return parked
	})
	if n := len(to.at("/tenants/" + gone + "/webhooks/mine")); n != 0 {
		t.Errorf("a deleted tenant's webhook was told %d times", n)
	}

	erase := &configv1.EraseTenantRequest{Name: "tenants/" + gone, Reason: "the contract ended", RequestId: newID()}
	_, err := op.EraseTenant(ctx, erase)
	refused(t, "an operator", err, codes.PermissionDenied, fault.ReasonPermissionMissing)
	_, err = a.EraseTenant(ctx, &configv1.EraseTenantRequest{Name: "tenants/acme", Reason: erase.GetReason()})
	refused(t, "a tenant that is served", err, codes.FailedPrecondition, fault.ReasonWrongState)
	_, err = a.EraseTenant(ctx, &configv1.EraseTenantRequest{Name: "tenants/none", Reason: erase.GetReason()})
	refused(t, "no tenant", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = a.EraseTenant(ctx, &configv1.EraseTenantRequest{Name: erase.GetName(), Reason: "short"})
	refused(t, "a short reason", err, codes.InvalidArgument, fault.ReasonInvalidField)
	want := &configv1.EraseTenantResponse{Secrets: 2, DataKeys: 1, Webhooks: 1, ClientKeys: 1, BrandDrafts: 1}
	for range 2 { // the second is a repeat
		got, err := a.EraseTenant(ctx, erase)
		must(t, err)
		if !proto.Equal(got, want) {
			t.Errorf("erased is %v, want %v", got, want)
		}
	}
	again, err := a.EraseTenant(ctx, &configv1.EraseTenantRequest{Name: erase.GetName(), Reason: erase.GetReason()})
	must(t, err)
	if !proto.Equal(again, &configv1.EraseTenantResponse{}) {
		t.Errorf("there was more: %v", again)
	}
	var left int
	must(t, r.db.Owner(t).QueryRow(ctx, `SELECT (SELECT count(*) FROM secret.version) + (SELECT count(*) FROM secret.data_key)
		+ (SELECT count(*) FROM webhook.endpoint) + (SELECT count(*) FROM settings.client_key) + (SELECT count(*) FROM settings.brand_draft)
		+ (SELECT count(*) FROM kernel.feed_state WHERE feed = 'clientkeys')`).Scan(&left))
	if left != 7 {
		t.Errorf("%d rows are left, want the 7 of the other tenant", left)
	}
}

// canary is a value that must be in nothing but its answer.
const canary = "canary-5f2b91c6e0"

// TestASecretIsNowhere puts, changes, reads and destroys secrets by every call that there is, and then looks for their
// bytes in all that was left behind: the database as text, the log, frames of the feed, the copy on disk, messages of
// webhooks and every answer and refusal.
func TestASecretIsNowhere(t *testing.T) {
	t.Parallel()
	r, to := newHookRig(t)
	a, data, ctx := r.as("owner"), apiOf(r.gateway()), t.Context()
	r.namespace(a, "portal", secretive)
	r.hook(a, to, "tenants/acme/webhooks/mine", &configv1.Webhook{})
	dir := t.TempDir()
	keys, err := keyfile.Public(r.path("feed.pub"))
	must(t, err)
	store := &settings.Store{Trust: families(t)}
	f, err := settings.Follow(ctx, settings.FollowConfig{
		Config: r.gateway(), FeedKeys: keys, Replica: "app", Store: store, Dir: dir, Log: slog.New(slog.DiscardHandler),
	})
	must(t, err)
	t.Cleanup(f.Close)
	var said strings.Builder
	const name, document = "tenants/acme/config/portal/secrets/stripe", "tenants/acme/config/portal"
	say := func(m any, err error) {
		fmt.Fprintln(&said, m, err, fieldsOf(err))
	}
	id := newID()
	for range 2 { // and again
		say(a.PutSecret(ctx, &configv1.PutSecretRequest{Name: name, Value: []byte(canary), RequestId: id}))
	}
	say(a.PutSecret(ctx, &configv1.PutSecretRequest{Name: name, Value: []byte(canary + "-other"), RequestId: id}))
	say(a.PutSecret(ctx, &configv1.PutSecretRequest{Name: name, Value: []byte(canary), RequestId: newID(), ValidateOnly: true}))
	say(a.PutSecret(ctx, &configv1.PutSecretRequest{Name: "tenants/none/config/portal/secrets/x", Value: []byte(canary), RequestId: newID()}))
	say(r.as("viewer").PutSecret(ctx, &configv1.PutSecretRequest{Name: name, Value: []byte(canary), RequestId: newID()}))
	for _, inClear := range []string{`{"key":"` + canary + `"}`, `{"key":{"$secret":"` + canary + `","version":0}}`} {
		req := setting(document, inClear)
		req.RequestId = newID()
		say(a.UpdateDocument(ctx, req))
	}
	r.set(a, document, `{"key":`+refersTo("stripe", 1)+`}`)
	say(a.ListSecrets(ctx, &configv1.ListSecretsRequest{Parent: document}))
	say(a.ExplainSettings(ctx, &configv1.ExplainSettingsRequest{Name: document}))
	say(a.GetDocument(ctx, &configv1.GetDocumentRequest{Name: document}))
	say(data.GetSettings(r.in("acme"), &configv1.GetSettingsRequest{Namespace: "portal", Provenance: true}))
	say(a.RewrapSecrets(ctx, &configv1.RewrapSecretsRequest{Parent: "platform"}))
	r.reads(data, "acme", "/key", canary)
	eventually(t, "the reference in the copy", func() bool { return strings.Contains(folder(t, dir), `"stripe"`) })
	to.await(t, "/tenants/acme/webhooks/mine", 1)
	for _, m := range to.at("/tenants/acme/webhooks/mine") {
		fmt.Fprintln(&said, string(m.body), m.header)
	}
	places := map[string]string{
		"answers": said.String(), "log": r.log.String(), "copy on disk": folder(t, dir), "state of config": folder(t, r.dir), "database": r.dump(t),
	}
	if !strings.Contains(places["database"], `"stripe"`) || !strings.Contains(places["state of config"], "peers") {
		t.Error("the places that are searched are empty")
	}
	for place, text := range places {
		for how, needle := range map[string]string{
			"in clear": canary, "in hex": hex.EncodeToString([]byte(canary)), "in base64": base64.StdEncoding.EncodeToString([]byte(canary))[:16],
		} {
			if i := strings.Index(text, needle); i >= 0 {
				t.Errorf("%s: the secret stands there %s: %q", place, how, text[max(0, i-200):min(len(text), i+40)])
			}
		}
	}
}

// folder is all files below a folder, one after the other.
func folder(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil //nolint:nilerr // a file that is being replaced
		}
		content, err := os.ReadFile(path)
		if err == nil {
			fmt.Fprintln(&b, path, string(content))
		}
		return nil
	}))
	return b.String()
}

// dump is all rows of the service's database as text, bytes in hex.
func (r *rig) dump(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for table, text := range r.tables(t) {
		fmt.Fprintln(&b, table, text)
	}
	return b.String()
}

// tables are all tables of the service's database that have rows, as text.
func (r *rig) tables(t *testing.T) map[string]string {
	t.Helper()
	owner, ctx := r.db.Owner(t), t.Context()
	rows, err := owner.Query(ctx, `SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
		WHERE schemaname NOT IN ('pg_catalog', 'information_schema')`)
	must(t, err)
	var tables []string
	var table string
	for rows.Next() {
		must(t, rows.Scan(&table))
		tables = append(tables, table)
	}
	must(t, rows.Err())
	out := make(map[string]string)
	for _, table := range tables {
		var text *string
		must(t, owner.QueryRow(ctx, `SELECT string_agg(t::text, E'\n') FROM `+table+` t`).Scan(&text))
		if text != nil {
			out[table] = *text
		}
	}
	return out
}

// An app reads secrets by the SDK: kept for a while, obeyed at once when the reference changes, used on while config is
// away.
func TestAppsReadSecrets(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "portal", secretive)
	r.seal(a, "plans/business/config/portal/secrets/stripe", "one")
	r.seal(a, "plans/business/config/portal/secrets/stripe", "two")
	r.set(a, "plans/business/config/portal", `{"key":`+refersTo("stripe", 1)+`}`)
	store := &settings.Store{Trust: families(t)}
	r.follow(t, store)
	var asked int
	now := time.Now()
	conn := counted{r.gateway(), &asked}
	secrets := settings.NewSecrets(settings.SecretsConfig{Config: conn, Store: store, Clock: func() time.Time { return now }})
	read := func() string {
		t.Helper()
		ctx, cancel := context.WithTimeout(r.in("acme"), 5*time.Second)
		defer cancel()
		s, err := settings.SecretFor(ctx, secrets, "portal", "/key")
		if err != nil {
			return fault.ReasonOf(err)
		}
		if shown := fmt.Sprintf("%v %+v %#v %s %q %x %d", s, s, s, s, s, s, s); strings.Contains(shown, "one") || strings.Contains(shown, "two") {
			t.Errorf("it shows itself: %s", shown)
		}
		return string(s.Reveal())
	}
	eventually(t, "the first version", func() bool { return read() == "one" })
	before := asked
	for range 10 {
		read()
	}
	if asked != before {
		t.Errorf("config was asked %d times for what is kept", asked-before)
	}
	if now = now.Add(6 * time.Minute); read() != "one" || asked != before+1 {
		t.Errorf("after a while config was asked %d times", asked-before)
	}
	r.set(a, "plans/business/config/portal", `{"key":`+refersTo("stripe", 2)+`}`)
	eventually(t, "the second version", func() bool { return read() == "two" })
	v, err := settings.For[struct{ Key settings.Reference }](r.in("acme"), store, "portal")
	if err != nil || v.Key != (settings.Reference{Name: "stripe", Version: 2}) {
		t.Errorf("For reads %v, %v", v, err)
	}
	if _, err := settings.SecretFor(r.in("acme"), secrets, "portal", "/mail/password"); fault.ReasonOf(err) != fault.ReasonResourceNotFound {
		t.Errorf("what is not set: %v", err)
	}
	if _, err := settings.SecretFor(t.Context(), secrets, "portal", "/key"); fault.ReasonOf(err) != fault.ReasonContextMissing {
		t.Errorf("without a tenant: %v", err)
	}
	away := settings.SecretsConfig{Config: counted{r.dead(t), &asked}, Store: store, Clock: func() time.Time { return now }}
	if _, err := settings.SecretFor(r.in("acme"), settings.NewSecrets(away), "portal", "/key"); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("config is away, and nothing is kept: %v", err)
	}
	r.stop()
	if now = now.Add(30 * time.Minute); read() != "two" {
		t.Error("config is away for half an hour, and what was kept is not used")
	}
	if now = now.Add(time.Hour); read() == "two" {
		t.Error("what was kept is used for ever")
	}
}

// An app whose settings stood still while the document went on to another version uses what it has, and reads no other.
func TestAnAppThatIsBehind(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), r.in("acme")
	r.namespace(a, "portal", secretive)
	r.seal(a, "plans/business/config/portal/secrets/stripe", "one")
	r.seal(a, "plans/business/config/portal/secrets/stripe", "two")
	r.set(a, "plans/business/config/portal", `{"key":`+refersTo("stripe", 1)+`}`)
	store := &settings.Store{Trust: families(t)}
	stop := r.follow(t, store).Close
	now := time.Now()
	cfg := settings.SecretsConfig{Config: r.gateway(), Store: store, Clock: func() time.Time { return now }}
	secrets := settings.NewSecrets(cfg)
	eventually(t, "the first version", func() bool {
		s, err := settings.SecretFor(ctx, secrets, "portal", "/key")
		return err == nil && string(s.Reveal()) == "one"
	})
	stop()
	r.set(a, "plans/business/config/portal", `{"key":`+refersTo("stripe", 2)+`}`)
	now = now.Add(6 * time.Minute)
	for range 2 {
		if s, err := settings.SecretFor(ctx, secrets, "portal", "/key"); err != nil || string(s.Reveal()) != "one" {
			t.Errorf("it does not use what it has: %v", err)
		}
	}
	if _, err := settings.SecretFor(ctx, settings.NewSecrets(cfg), "portal", "/key"); fault.ReasonOf(err) != fault.ReasonEtagMismatch {
		t.Errorf("one that has nothing reads another version than its settings say: %v", err)
	}
}

// counted counts unary calls, which fail at once when nobody answers.
type counted struct {
	grpc.ClientConnInterface

	n *int
}

func (c counted) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	*c.n++
	return c.ClientConnInterface.Invoke(ctx, method, args, reply, append(opts, grpc.WaitForReady(false))...)
}

// dead is a connection to nobody.
func (r *rig) dead(t *testing.T) *grpc.ClientConn {
	t.Helper()
	other := *r
	other.address = "127.0.0.1:1"
	return other.gateway()
}
