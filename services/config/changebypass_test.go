package config_test

import (
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/flags"
)

// Who may do what with whose change: authors may not approve, whoever wrote any of it is one, and an edit takes all
// approvals away.
func TestFourEyesMatrix(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	people := map[string]api{}
	for _, name := range []string{"viewer", "auditor", "operator", "operator2", "operator3", "owner"} {
		people[name] = r.as(name)
	}
	r.governed(people["owner"], "portal", portal, 2, "plan")
	const doc, id = "plans/free/config/portal", "prices"
	for _, name := range []string{"viewer", "auditor"} {
		a := people[name]
		_, err := a.propose(t, id, patches(doc, `{"price":2}`))
		refused(t, name+" writes", err, codes.PermissionDenied, fault.ReasonPermissionMissing)
	}
	_, err := people["operator"].propose(t, id, patches(doc, `{"price":2}`))
	must(t, err)
	edit := func(name, content string) error {
		_, err := people[name].UpdateChange(ctx, &configv1.UpdateChangeRequest{Change: &configv1.Change{
			Name: "changes/" + id, Edits: []*configv1.ChangeEdit{patches(doc, content)},
		}})
		return err
	}
	must(t, edit("operator2", `{"price":3}`))
	must(t, people["operator"].submit(t, id))
	c, _ := people["viewer"].change(t, id) // a viewer may look
	for name, want := range map[string]string{
		"viewer": fault.ReasonPermissionMissing, "auditor": fault.ReasonPermissionMissing, "operator": "SELF_APPROVAL", "operator2": "SELF_APPROVAL",
	} {
		_, err := people[name].ApproveChange(ctx, &configv1.ApproveChangeRequest{Name: "changes/" + id, Digest: c.GetDigest()})
		refused(t, name+" approves", err, codes.PermissionDenied, want)
	}
	publish := func(name string) error { return second(people[name].publish(t, id)) }
	for range 2 { // once, however often
		must(t, people["operator3"].approve(t, id))
	}
	refused(t, "one of two", publish("owner"), codes.FailedPrecondition, "APPROVAL_REQUIRED")
	must(t, people["owner"].approve(t, id))
	refused(t, "a viewer publishes", publish("viewer"), codes.PermissionDenied, fault.ReasonPermissionMissing)
	// Whoever edits what is approved takes the approvals with them, also when they write what was there.
	must(t, edit("operator", `{"price":4}`))
	must(t, edit("operator", `{"price":3}`))
	refused(t, "edited after approval", publish("operator"), codes.FailedPrecondition, "APPROVAL_REQUIRED")
	must(t, people["operator"].submit(t, id))
	refused(t, "the old approvals", publish("operator"), codes.FailedPrecondition, "APPROVAL_REQUIRED")
	must(t, people["operator3"].approve(t, id))
	must(t, edit("operator3", `{"price":5}`)) // an approver who writes is an author
	must(t, people["operator"].submit(t, id))
	refused(t, "an approver who wrote", people["operator3"].approve(t, id), codes.PermissionDenied, "SELF_APPROVAL")
	must(t, people["owner"].approve(t, id))
	refused(t, "nobody is left", publish("owner"), codes.FailedPrecondition, "APPROVAL_REQUIRED")
	reject := &configv1.RejectChangeRequest{Name: "changes/" + id}
	_, err = people["owner"].RejectChange(ctx, reject)
	refused(t, "no reason", err, codes.InvalidArgument, fault.ReasonInvalidField)
	reject.Reason = "the price is not agreed"
	_, err = people["owner"].RejectChange(ctx, reject)
	must(t, err)
	refused(t, "rejected", publish("owner"), codes.FailedPrecondition, fault.ReasonWrongState)
	if got := people["owner"].content(t, doc); got != "" {
		t.Errorf("%s is live", got)
	}
	_, err = people["operator"].CancelChange(ctx, &configv1.CancelChangeRequest{Name: "changes/" + id})
	must(t, err)
	_, err = people["operator"].propose(t, id, patches(doc, `{"price":2}`))
	refused(t, "an id anew", err, codes.AlreadyExists, fault.ReasonResourceExists)
}

// One operator with every permission there is tries to change alone what two must agree on.
func TestNobodyGoesAroundApproval(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	enemy, other := r.as("owner"), r.as("operator")
	ctx := t.Context()
	const doc, free = "platform/config/portal", "plans/free/config/portal"
	n := r.governed(enemy, "portal", portal, 2, "platform", "environments/live")
	r.set(enemy, free, `{"price":3}`) // plans are not under the rule
	was := `{"price":1}`
	owner := r.db.Owner(t)
	_, err := owner.Exec(ctx, `INSERT INTO settings.document (namespace_uid, layer, layer_id, content, author, reason, revision_time, revision)
		VALUES ($1, 'platform', '', $2, 'a', '', now(), 1)`, n.GetUid(), was)
	must(t, err)
	update := func(req *configv1.UpdateNamespaceRequest, mask ...string) error {
		req.Namespace.Name, req.UpdateMask = "namespaces/portal", &fieldmaskpb.FieldMask{Paths: mask}
		_, err := enemy.UpdateNamespace(ctx, req)
		return err
	}
	rule := func(count int32, layers ...string) *configv1.UpdateNamespaceRequest {
		return &configv1.UpdateNamespaceRequest{Namespace: &configv1.Namespace{Approval: &configv1.NamespaceApproval{Layers: layers, Count: count}}}
	}
	dry := setting(doc, `{"price":9}`)
	dry.ValidateOnly = true
	for what, err := range map[string]error{
		"write":           second(enemy.UpdateDocument(ctx, setting(doc, `{"price":9}`))),
		"write dry":       second(enemy.UpdateDocument(ctx, dry)),
		"delete":          second(enemy.DeleteDocument(ctx, &configv1.DeleteDocumentRequest{Name: doc})),
		"an environment":  second(enemy.UpdateDocument(ctx, setting("tenants/acme/environments/live/config/portal", `{"price":9}`))),
		"no rule":         update(&configv1.UpdateNamespaceRequest{Namespace: &configv1.Namespace{}}, "approval"),
		"no layers":       update(rule(2), "approval.layers"),
		"fewer layers":    update(rule(2, "platform"), "approval"),
		"fewer people":    update(rule(1, "platform", "environments/live"), "approval.count"),
		"all fields":      update(&configv1.UpdateNamespaceRequest{Namespace: &configv1.Namespace{Schema: portal}}, "*"),
		"another default": update(&configv1.UpdateNamespaceRequest{Namespace: &configv1.Namespace{Schema: `{"properties":{"price":{"default":9}}}`}}, "schema"),
		"delete it all":   second(enemy.DeleteNamespace(ctx, &configv1.DeleteNamespaceRequest{Name: "namespaces/portal"})),
	} {
		refused(t, what, err, codes.FailedPrecondition, "APPROVAL_REQUIRED")
	}
	// A change that takes the rule away is judged by the rule that stands.
	_, err = enemy.propose(t, "both", patches("namespaces/portal", `{"approval":null}`), patches(doc, `{"price":9}`))
	must(t, err)
	must(t, enemy.submit(t, "both"))
	must(t, other.approve(t, "both"))
	_, err = enemy.publish(t, "both")
	refused(t, "one of two", err, codes.FailedPrecondition, "APPROVAL_REQUIRED")
	_, err = enemy.ScheduleChange(ctx, &configv1.ScheduleChangeRequest{Name: "changes/both", NotBefore: later()})
	refused(t, "later", err, codes.FailedPrecondition, "APPROVAL_REQUIRED")
	// Somebody who may not write namespaces may not by a change either.
	_, err = other.propose(t, "schema", patches("namespaces/portal", `{"schema":{"title":"x"}}`))
	refused(t, "an operator's schema", err, codes.PermissionDenied, fault.ReasonPermissionMissing)
	_, err = other.publish(t, "both")
	refused(t, "an operator's publication", err, codes.PermissionDenied, fault.ReasonPermissionMissing)
	if got := enemy.content(t, doc); got != was {
		t.Errorf("%s is live", got)
	}
	// What makes it stricter anybody who may write namespaces does alone; two who agree do anything.
	must(t, update(rule(3, "platform", "plan", "environment"), "approval"))
	_, err = enemy.UpdateDocument(ctx, setting(free, `{"price":4}`))
	refused(t, "a plan, now", err, codes.FailedPrecondition, "APPROVAL_REQUIRED")
	must(t, r.as("operator2").approve(t, "both"))
	_, err = enemy.publish(t, "both")
	refused(t, "two of three", err, codes.FailedPrecondition, "APPROVAL_REQUIRED")
	must(t, r.as("operator3").approve(t, "both"))
	_, err = enemy.publish(t, "both")
	refused(t, "a rule that is another by now", err, codes.Aborted, fault.ReasonEtagMismatch)
	_, err = enemy.propose(t, "agreed", patches("namespaces/portal", `{"approval":null}`), patches(doc, `{"price":9}`))
	must(t, err)
	must(t, enemy.submit(t, "agreed"))
	for _, name := range []string{"operator", "operator2", "operator3"} {
		must(t, r.as(name).approve(t, "agreed"))
	}
	_, err = enemy.publish(t, "agreed")
	must(t, err)
	r.set(enemy, free, `{"price":4}`)
	if got := enemy.content(t, doc); got != `{"price":9}` {
		t.Errorf("%s is live", got)
	}
}

// What must never wait for an approval does not: kills, rollbacks, and what tenants set themselves. Brands do.
func TestWhatNeedsNoApproval(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	govern := func(namespace string, layers ...string) {
		t.Helper()
		_, err := a.UpdateNamespace(ctx, &configv1.UpdateNamespaceRequest{
			Namespace:  &configv1.Namespace{Name: "namespaces/" + namespace, Approval: &configv1.NamespaceApproval{Layers: layers}},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"approval"}},
		})
		must(t, err)
	}
	r.set(a, "platform/config/flags", `{"flags":{"new":{"state":"ENABLED","variants":{"on":true},"defaultVariant":"on"}}}`)
	govern("flags", "platform", "plan", "region", "tenant", "environment")
	_, err := a.KillFlag(ctx, &configv1.KillFlagRequest{Parent: "platform", Key: "new", Reason: "it hurts everybody"})
	must(t, err)
	_, err = a.LiftFlag(ctx, &configv1.LiftFlagRequest{Parent: "platform", Key: "new", Reason: "repaired in 1.4.2"})
	must(t, err)
	_, err = a.UpdateDocument(ctx, setting("platform/config/flags", `{}`))
	refused(t, "flags", err, codes.FailedPrecondition, "APPROVAL_REQUIRED")
	if flags.Schema() == "" {
		t.Fatal("no flags")
	}

	r.namespace(a, "notes", ownSchema)
	old := r.set(a, "tenants/acme/config/notes", `{"quota":5}`)
	r.set(a, "tenants/acme/config/notes", `{"quota":6}`)
	govern("notes", "tenant")
	_, err = apiOf(r.gateway()).UpdateSettings(r.acting(t, "acme"), &configv1.UpdateSettingsRequest{Namespace: "notes", Content: `{"title":"Ours"}`})
	must(t, err)
	_, err = a.RollbackDocument(ctx, &configv1.RollbackDocumentRequest{Name: "tenants/acme/config/notes", Revision: old.GetRevision(), Reason: "back to what was"})
	must(t, err)
	if got := a.content(t, "tenants/acme/config/notes"); got != `{"quota":5}` {
		t.Errorf("rolled back to %s", got)
	}
	events, err := r.as("auditor").ListEvents(ctx, &auditv1.ListEventsRequest{Parent: "chains/" + r.issuer.Tenant(t, "acme").UID.String()})
	must(t, err)
	unapproved := 0
	for _, e := range events.GetEvents() {
		if slices.Contains(e.GetChangedPaths(), "content.unapproved") {
			unapproved++
		}
	}
	if unapproved != 1 {
		t.Errorf("%d events say that nobody approved, want that of the rollback", unapproved)
	}

	govern("brand", "tenant")
	_, err = a.UpdateBrandDraft(ctx, draft("tenants/acme/brandDraft", `{"name":"Evil"}`))
	must(t, err)
	_, err = a.PublishBrandDraft(ctx, &configv1.PublishBrandDraftRequest{Name: "tenants/acme/brandDraft"})
	refused(t, "a brand's draft", err, codes.FailedPrecondition, "APPROVAL_REQUIRED")
	if got := a.content(t, "tenants/acme/config/brand"); got != "" {
		t.Errorf("the brand is %s", got)
	}
	_, err = a.propose(t, "look", replaces("tenants/acme/config/brand", `{"light":{"text":"#777777"}}`))
	refused(t, "grey on white", err, codes.FailedPrecondition, "CONTRAST")
	_, err = a.propose(t, "look", replaces("tenants/acme/config/brand", `{"logos":{"light":"0000000000000000000000000000000000000000000000000000000000000000.png"}}`))
	refused(t, "nobody's asset", err, codes.InvalidArgument, "SCHEMA_VIOLATION")
}
