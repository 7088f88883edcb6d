package config_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/services/config"
)

const (
	stepCreate   = configv1.HookStep_HOOK_STEP_TENANT_CREATE
	stepDocument = configv1.HookStep_HOOK_STEP_DOCUMENT_PUBLISH
	stepBrand    = configv1.HookStep_HOOK_STEP_BRAND_PUBLISH
	failOpen     = configv1.HookFailure_HOOK_FAILURE_OPEN
	failClosed   = configv1.HookFailure_HOOK_FAILURE_CLOSED
)

// veto registers a hook at the path that its id is.
func (r *rig) veto(to *receiver, id string, failure configv1.HookFailure, steps ...configv1.HookStep) (*configv1.Hook, string) {
	r.tb.Helper()
	resp, err := r.as("owner").CreateHook(r.tb.Context(), &configv1.CreateHookRequest{
		HookId: id, Hook: &configv1.Hook{Url: to.url + "/" + id, Steps: steps, Failure: failure},
	})
	must(r.tb, err)
	return resp.GetHook(), resp.GetSecret()
}

func says(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }
}

// known waits until config itself knows of a hook of documents: it learns of it by its own feed.
func (r *rig) known(a api, id string) {
	r.tb.Helper()
	eventually(r.tb, "config asks "+id, func() bool {
		_, err := a.UpdateDocument(r.tb.Context(), setting("platform/config/portal", `{"probe":true}`))
		return fault.ReasonOf(tenantgrpc.FromStatus(err)) == "HOOK_DENIED"
	})
}

func TestHooksMayRefuseWhatIsPublished(t *testing.T) {
	t.Parallel()
	r, to := newHookRig(t)
	a, owner := r.as("operator"), r.as("owner")
	r.namespace(owner, "portal", `{}`)
	before := r.set(a, "tenants/acme/config/portal", `{"x":1}`)
	to.answer("/freeze", says(`{"allow":false,"reason":"frozen until\u0007 Monday"}`))
	_, secret := r.veto(to, "freeze", failClosed, stepDocument)
	r.known(a, "freeze")

	asked := len(to.at("/freeze"))
	req := setting("tenants/acme/config/portal", `{"x":2}`)
	req.RequestId, req.Reason = newID(), "ticket 4711"
	_, err := a.UpdateDocument(t.Context(), req)
	refused(t, "UpdateDocument", err, codes.FailedPrecondition, "HOOK_DENIED")
	if !strings.Contains(err.Error(), "hooks/freeze refused the step: frozen until Monday") {
		t.Errorf("it says %v", err)
	}
	got := to.at("/freeze")[asked:]
	if len(got) != 1 {
		t.Fatalf("it was asked %d times", len(got))
	}
	verifier, err := standardwebhooks.NewWebhook(secret)
	must(t, err)
	must(t, verifier.Verify(got[0].body, got[0].header))
	var body struct {
		Type string
		Data map[string]string
	}
	must(t, json.Unmarshal(got[0].body, &body))
	if body.Type != "document.publish" || body.Data["document"] != "tenants/acme/config/portal" || body.Data["tenant"] != "acme" ||
		body.Data["caller"] != "operator:operator@static" || body.Data["reason"] != "ticket 4711" {
		t.Errorf("it was asked %s", got[0].body)
	}
	if strings.Contains(string(got[0].body), `"x"`) {
		t.Errorf("it was told of the content: %s", got[0].body)
	}

	// A repeat does not ask again.
	_, err = a.UpdateDocument(t.Context(), req)
	refused(t, "a repeat", err, codes.FailedPrecondition, "HOOK_DENIED")
	if n := len(to.at("/freeze")) - asked; n != 1 {
		t.Errorf("with the repeat it was asked %d times", n)
	}

	// What takes back or stops is never asked about; the data plane and brands have steps of their own or none.
	asked = len(to.at("/freeze"))
	_, err = a.RollbackDocument(t.Context(), &configv1.RollbackDocumentRequest{
		Name: "tenants/acme/config/portal", Revision: before.GetRevision(), Reason: "rolled back",
	})
	must(t, err)
	r.set(a, "tenants/acme/config/brand", `{"name":"Acme"}`)
	if n := len(to.at("/freeze")) - asked; n != 0 {
		t.Errorf("it was asked %d times about what it has no say in", n)
	}

	// That a document is gone publishes what the layers below it say.
	gone := &configv1.DeleteDocumentRequest{Name: "tenants/acme/config/portal"}
	_, err = a.DeleteDocument(t.Context(), gone)
	refused(t, "DeleteDocument", err, codes.FailedPrecondition, "HOOK_DENIED")
	if got := a.content(t, gone.GetName()); got != `{"x":1}` {
		t.Errorf("%s is live", got)
	}
	gone.SkipHooks = "the freeze has a hole"
	_, err = owner.DeleteDocument(t.Context(), gone)
	must(t, err)
}

// What hooks said of one request says nothing of another with the same request_id, nor of the same one once a hook was changed.
func TestAnAnswerOfHooksIsForOneRequest(t *testing.T) {
	t.Parallel()
	r, to := newHookRig(t)
	a, owner := r.as("operator"), r.as("owner")
	r.namespace(owner, "portal", `{"properties":{"x":{"type":"number"}}}`)
	to.answer("/freeze", says(`{"allow":false}`))
	h, _ := r.veto(to, "freeze", failClosed, stepDocument)
	r.known(a, "freeze")
	to.answer("/freeze", says(`{"allow":true}`))
	asked := len(to.at("/freeze"))
	id := newID()
	update := func(content string) error {
		req := setting("tenants/acme/config/portal", content)
		req.RequestId = id
		_, err := a.UpdateDocument(t.Context(), req)
		return err
	}
	expect := func(what string, n int) {
		t.Helper()
		if got := len(to.at("/freeze")) - asked; got != n {
			t.Errorf("%s: it was asked %d times, want %d", what, got, n)
		}
	}
	for range 2 { // hooks allow it, and the schema does not
		refused(t, "a bad document", update(`{"x":"one"}`), codes.InvalidArgument, "SCHEMA_VIOLATION")
	}
	expect("a repeat", 1)
	_, err := owner.UpdateHook(t.Context(), &configv1.UpdateHookRequest{Hook: &configv1.Hook{Name: h.GetName(), Description: "another"}})
	must(t, err)
	refused(t, "with another hook", update(`{"x":"one"}`), codes.InvalidArgument, "SCHEMA_VIOLATION")
	expect("with a hook that was changed", 2)
	to.answer("/freeze", says(`{"allow":false,"reason":"frozen"}`))
	refused(t, "another document", update(`{"x":1}`), codes.FailedPrecondition, "HOOK_DENIED")
	expect("another document", 3)
}

func TestHooksAreSkippedWithAReason(t *testing.T) {
	t.Parallel()
	r, to := newHookRig(t)
	a, owner := r.as("operator"), r.as("owner")
	r.namespace(owner, "portal", `{}`)
	to.answer("/freeze", says(`{"allow":false}`))
	r.veto(to, "freeze", failClosed, stepDocument)
	r.known(a, "freeze")
	asked := len(to.at("/freeze"))
	req := setting("tenants/acme/config/portal", `{"x":2}`)
	req.SkipHooks = "the freeze has a hole"
	_, err := a.UpdateDocument(t.Context(), req)
	refused(t, "by who may not", err, codes.PermissionDenied, "PERMISSION_MISSING")
	_, err = owner.UpdateDocument(t.Context(), req)
	must(t, err)
	if n := len(to.at("/freeze")) - asked; n != 0 {
		t.Errorf("it was asked %d times", n)
	}
	e := r.lastEvent("UpdateDocument", "acme")
	if e.GetReason() != "hooks skipped: the freeze has a hole" || !slices.Contains(e.GetResources(), "hooks/freeze") ||
		!slices.Contains(e.GetChangedPaths(), "skip_hooks") {
		t.Errorf("audited: %s", e)
	}
	req.SkipHooks = "short"
	_, err = owner.UpdateDocument(t.Context(), req)
	refused(t, "without a reason", err, codes.InvalidArgument, "INVALID_FIELD")
}

func TestASilentHookMeansWhatItDeclared(t *testing.T) {
	t.Parallel()
	r, to := newHookRig(t)
	a, owner := r.as("operator"), r.as("owner")
	r.namespace(owner, "portal", `{}`)
	to.answer("/closed", says(`<html>`))
	h, _ := r.veto(to, "closed", failClosed, stepDocument)
	eventually(t, "config asks it", func() bool {
		_, err := a.UpdateDocument(t.Context(), setting("platform/config/portal", `{"x":1}`))
		return fault.ReasonOf(tenantgrpc.FromStatus(err)) == "HOOK_UNAVAILABLE"
	})
	// It gives an answer now: the same request asks again, since there was none before.
	req := setting("platform/config/portal", `{"x":2}`)
	req.RequestId = newID()
	_, err := a.UpdateDocument(t.Context(), req)
	refused(t, "closed", err, codes.FailedPrecondition, "HOOK_UNAVAILABLE")
	to.answer("/closed", says(`{"allow":true,"warnings":["mind the gap"]}`))
	var trailer metadata.MD
	_, err = a.UpdateDocument(t.Context(), req, grpc.Trailer(&trailer))
	must(t, err)
	if got := trailer.Get("rowhouse-warning-bin"); !slices.Equal(got, []string{"hooks/closed: mind the gap"}) {
		t.Errorf("warnings: %q", got)
	}

	to.answer("/closed", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	_, err = owner.UpdateHook(t.Context(), &configv1.UpdateHookRequest{
		Hook:       &configv1.Hook{Name: h.GetName(), Failure: failOpen, Timeout: durationpb.New(200 * time.Millisecond)},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"failure", "timeout"}},
	})
	must(t, err)
	r.set(a, "platform/config/portal", `{"x":3}`)

	_, err = owner.DeleteHook(t.Context(), &configv1.DeleteHookRequest{Name: h.GetName()})
	must(t, err)
	eventually(t, "nobody is asked", func() bool {
		before := len(to.at("/closed"))
		r.set(a, "platform/config/portal", `{"x":4}`)
		return len(to.at("/closed")) == before
	})
}

// lastEvent is the newest audit event of a method in a tenant's chain, or without one in the platform's; the newest come first.
func (r *rig) lastEvent(method, id string) *auditv1.Event {
	r.tb.Helper()
	chain := "platform"
	if id != "" {
		chain = tenanttest.UID(id).String()
	}
	resp, err := r.as("auditor").ListEvents(r.tb.Context(), &auditv1.ListEventsRequest{Parent: "chains/" + chain, PageSize: 1000})
	must(r.tb, err)
	for _, e := range resp.GetEvents() {
		if strings.HasSuffix(e.GetMethod(), "/"+method) {
			return e
		}
	}
	r.tb.Fatalf("the chain of %s has no event of %s", id, method)
	return nil
}

// Other services ask by DecideHooks, as themselves; it is nobody else's to ask.
func TestDecideHooks(t *testing.T) {
	t.Parallel()
	r, to := newHookRig(t)
	to.answer("/a", says(`{"allow":true,"reason":"fine"}`))
	to.answer("/b", says(`{"allow":false,"reason":"no"}`))
	r.veto(to, "a", failOpen, stepCreate, stepBrand)
	r.veto(to, "b", failClosed, stepCreate)
	tenancy := configv1.NewHookServiceClient(r.workload(r.service("tenancy")))
	req := &configv1.DecideHooksRequest{
		Question: &configv1.HookQuestion{Step: stepCreate, Tenant: "soylent", Plan: "free", Caller: "operator:ada"}, RequestId: newID(),
	}
	resp, err := tenancy.DecideHooks(t.Context(), req)
	must(t, err)
	var got []string
	for _, d := range resp.GetDecisions() {
		got = append(got, d.GetHook()+" "+d.GetOutcome().String()+" "+d.GetReason())
	}
	if want := []string{"hooks/a HOOK_OUTCOME_ALLOWED fine", "hooks/b HOOK_OUTCOME_DENIED no"}; !slices.Equal(got, want) {
		t.Errorf("decisions: %q, want %q", got, want)
	}
	if _, err = tenancy.DecideHooks(t.Context(), req); err != nil || len(to.at("/a")) != 1 {
		t.Errorf("a repeat: %v, asked %d times", err, len(to.at("/a")))
	}
	req.RequestId, req.Question.Step = newID(), configv1.HookStep_HOOK_STEP_DOMAIN_ATTACH
	if resp, err = tenancy.DecideHooks(t.Context(), req); err != nil || len(resp.GetDecisions()) != 0 {
		t.Errorf("a step without hooks: %v, %v", resp, err)
	}
	_, err = configv1.NewHookServiceClient(r.gateway()).DecideHooks(t.Context(), req)
	refused(t, "a gateway", err, codes.PermissionDenied, "PERMISSION_MISSING")

	stream, err := tenancy.WatchHooks(t.Context(), &configv1.WatchHooksRequest{Replica: "tenancy-1"})
	must(t, err)
	// The second hook may be in the snapshot or come after it, as the feed reads the log a moment after the call's answer.
	for held := []string{}; !slices.Equal(held, []string{"hooks/a", "hooks/b"}); {
		resp, err := stream.Recv()
		must(t, err)
		for _, e := range append(resp.GetFrame().GetChunk().GetEntries(), resp.GetFrame().GetDelta().GetChanges()...) {
			held = append(held, e.GetKey())
		}
		if len(held) > 2 {
			t.Fatalf("the feed holds %q", held)
		}
	}
}

// What is opened for the hooks of operators is not for the webhooks of tenants, and the other way about.
func TestHooksHaveAnEgressOfTheirOwn(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, func(c *config.Config) {
		c.Hooks.Egress = config.Egress{Allow: []string{"10.0.0.0/8"}, AllowNames: []string{"corp.internal"}}
		c.Egress = config.Egress{Allow: []string{"192.168.0.0/16"}}
	})
	hook := func(id, url string) error {
		_, err := r.as("owner").CreateHook(t.Context(), &configv1.CreateHookRequest{
			HookId: id, Hook: &configv1.Hook{Url: url, Steps: []configv1.HookStep{stepCreate}, Failure: failOpen},
		})
		return err
	}
	webhook := func(id, url string) error {
		_, err := r.as("operator").CreateWebhook(t.Context(), &configv1.CreateWebhookRequest{
			Parent: "tenants/acme", WebhookId: id, Webhook: &configv1.Webhook{Url: url},
		})
		return err
	}
	const ofHooks, named, ofWebhooks = "https://10.0.0.1/freeze", "https://ops.corp.internal/", "https://192.168.0.1/mine"
	must(t, hook("a", ofHooks))
	must(t, hook("b", named))
	refused(t, "a hook", hook("c", ofWebhooks), codes.InvalidArgument, "WEBHOOK_URL_REFUSED")
	must(t, webhook("a", ofWebhooks))
	refused(t, "a webhook", webhook("b", ofHooks), codes.InvalidArgument, "WEBHOOK_URL_REFUSED")
	refused(t, "a webhook by name", webhook("c", named), codes.InvalidArgument, "WEBHOOK_URL_REFUSED")
	mine := &configv1.Webhook{Name: "tenants/acme/webhooks/a", Url: ofHooks}
	_, err := r.as("operator").UpdateWebhook(t.Context(), &configv1.UpdateWebhookRequest{Webhook: mine})
	refused(t, "a webhook that moves", err, codes.InvalidArgument, "WEBHOOK_URL_REFUSED")
}

func TestHooksAreManaged(t *testing.T) {
	t.Parallel()
	r, to := newHookRig(t)
	a, owner := r.as("operator"), r.as("owner")
	create := func(h *configv1.Hook) error {
		_, err := owner.CreateHook(t.Context(), &configv1.CreateHookRequest{HookId: "h", Hook: h})
		return err
	}
	refused(t, "a private address", create(&configv1.Hook{Url: "https://10.0.0.1/", Steps: []configv1.HookStep{stepCreate}, Failure: failOpen}),
		codes.InvalidArgument, "WEBHOOK_URL_REFUSED")
	refused(t, "no step", create(&configv1.Hook{Url: to.url, Failure: failOpen}), codes.InvalidArgument, "INVALID_FIELD")
	refused(t, "no failure mode", create(&configv1.Hook{Url: to.url, Steps: []configv1.HookStep{stepCreate}}), codes.InvalidArgument, "INVALID_FIELD")
	refused(t, "too patient", create(&configv1.Hook{
		Url: to.url, Steps: []configv1.HookStep{stepCreate}, Failure: failOpen, Timeout: durationpb.New(3 * time.Second),
	}), codes.InvalidArgument, "INVALID_FIELD")
	_, err := a.CreateHook(t.Context(), &configv1.CreateHookRequest{HookId: "h", Hook: &configv1.Hook{Url: to.url}})
	refused(t, "by those it binds", err, codes.PermissionDenied, "PERMISSION_MISSING")

	h, secret := r.veto(to, "h", failOpen, stepCreate)
	if !strings.HasPrefix(secret, "whsec_") || h.GetTimeout().AsDuration() != 2*time.Second {
		t.Errorf("made %s with the secret %q", h, secret)
	}
	rotated, err := owner.RotateHookSecret(t.Context(), &configv1.RotateHookSecretRequest{Name: h.GetName()})
	must(t, err)
	if rotated.GetSecret() == secret || !strings.HasPrefix(rotated.GetSecret(), "whsec_") {
		t.Errorf("rotated to %q", rotated.GetSecret())
	}
	to.answer("/h", says(`{"allow":false,"reason":"only a test"}`))
	test, err := owner.TestHook(t.Context(), &configv1.TestHookRequest{Name: h.GetName()})
	must(t, err)
	got := to.at("/h")
	if d := test.GetDecision(); d.GetReason() != "only a test" || len(got) != 1 || !strings.Contains(string(got[0].body), `"test":true`) {
		t.Errorf("the test: %s, asked %d times", test, len(got))
	}
	for _, s := range []string{secret, rotated.GetSecret()} { // both sign during the overlap
		verifier, err := standardwebhooks.NewWebhook(s)
		must(t, err)
		must(t, verifier.Verify(got[0].body, got[0].header))
	}
	list, err := a.ListHooks(t.Context(), &configv1.ListHooksRequest{})
	must(t, err)
	if len(list.GetHooks()) != 1 || list.GetHooks()[0].GetName() != "hooks/h" {
		t.Errorf("the list: %v", list.GetHooks())
	}
	if strings.Contains(r.log.String(), strings.TrimPrefix(secret, "whsec_")) {
		t.Error("the log has the secret")
	}
}
