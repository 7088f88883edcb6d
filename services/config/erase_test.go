package config_test

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// ofTheGone is in all that a tenant wrote that will be erased.
const ofTheGone = "canary7d04e8a1b2"

// holding are the tables in which some bytes stand.
func (r *rig) holding(t *testing.T, needle string) (found []string) {
	t.Helper()
	for table, text := range r.tables(t) {
		if strings.Contains(text, needle) || strings.Contains(text, hex.EncodeToString([]byte(needle))) {
			found = append(found, table)
		}
	}
	slices.Sort(found)
	return found
}

// fillErased has the tenant that is gone write its canary wherever a tenant's content can stand.
func (r *rig) fillErased(t *testing.T, to *receiver) {
	t.Helper()
	a, ctx := r.as("owner"), t.Context()
	r.namespace(a, "portal", `{}`)
	const name, content = "tenants/" + gone + "/config/portal", `{"x":"` + ofTheGone + `"}`
	req := setting(name, content)
	req.RequestId = newID()
	_, err := a.UpdateDocument(ctx, req)
	must(t, err)
	r.set(a, "tenants/"+gone+"/environments/staging/config/portal", content)
	r.set(a, "tenants/acme/config/portal", `{"x":"of acme"}`)
	r.hook(a, to, "tenants/"+gone+"/webhooks/mine", &configv1.Webhook{Description: ofTheGone})
	_, err = a.CreateClientKey(ctx, &configv1.CreateClientKeyRequest{Parent: "tenants/" + gone, ClientKey: &configv1.ClientKey{
		KeySha256: make([]byte, 32), Kind: configv1.ClientKeyKind_CLIENT_KEY_KIND_BROWSER, Environment: "staging",
		Origins: []string{"https://" + ofTheGone + ".example"},
	}})
	must(t, err)
	_, err = a.UpdateBrandDraft(ctx, draft("tenants/"+gone+"/brandDraft", `{"name":"`+ofTheGone+`"}`))
	must(t, err)
	r.put(a, "tenants/"+gone, "text/css", []byte(".rh-"+ofTheGone+"{color:#b91c1c}"))

	for id, edits := range map[string][]*configv1.ChangeEdit{
		"live":  {patches(name, `{"y":"`+ofTheGone+`"}`)},
		"mixed": {patches(name, `{"z":"`+ofTheGone+`"}`), patches("tenants/acme/config/portal", `{"z":1}`)},
	} {
		_, err := a.CreateChange(ctx, &configv1.CreateChangeRequest{
			ChangeId: id, Change: &configv1.Change{Reason: why, Edits: edits}, RequestId: newID(),
		})
		must(t, err)
	}
	_, err = a.publish(t, "live")
	must(t, err)
	must(t, a.schedule(t, "mixed", later()))
}

// rollErased has a rollout of its document run.
func (r *rig) rollErased(t *testing.T) {
	t.Helper()
	// A tenant has rollouts if it has children, and this one has none: it gets a plan's.
	r.begin(r.as("owner"), rolling("plans/free/config/portal", `{"x":"`+ofTheGone+`"}`))
	_, err := r.db.Owner(t).Exec(t.Context(), `UPDATE settings.rollout SET layer = 'tenant', layer_id = $1`, tenanttest.UID(gone).String())
	must(t, err)
}

// rollBeside has the tenant be a canary of others, as before it was deleted: of a rollout that runs, and of a change.
func (r *rig) rollBeside(t *testing.T) {
	t.Helper()
	a, name := r.as("owner"), "tenants/"+gone
	r.namespace(a, "notes", `{}`)
	req := rolling("plans/free/config/notes", `{"x":1}`)
	req.Rollout.Steps = []int32{5, 100}
	req.Rollout.Canaries = []string{"tenants/acme", name}
	running := r.begin(a, req)
	r.advance(a, running.GetName())
	r.namespace(a, "pages", `{}`)
	_, err := a.CreateChange(t.Context(), &configv1.CreateChangeRequest{ChangeId: "rolled", Change: &configv1.Change{
		Reason: why, Edits: []*configv1.ChangeEdit{patches("plans/business/config/pages", `{"z":1}`)},
		Rollout: &configv1.ChangeRollout{Steps: []int32{0, 100}, Canaries: []string{name, "tenants/globex"}},
	}})
	must(t, err)
}

// naming are the tables in which the tenant stands, by its name or its uid in any form. Records keep it, and requests for a day.
func (r *rig) naming(t *testing.T) (found []string) {
	t.Helper()
	uid := tenanttest.UID(gone)
	needles := []string{"tenants/" + gone, hex.EncodeToString([]byte("tenants/" + gone)), uid.String(), hex.EncodeToString([]byte(uid.String())),
		hex.EncodeToString(uid[:])}
	for table, text := range r.tables(t) {
		if !strings.HasPrefix(table, "audit.") && table != "kernel.request_log" &&
			slices.ContainsFunc(needles, func(n string) bool { return strings.Contains(text, n) }) {
			found = append(found, table)
		}
	}
	slices.Sort(found)
	return found
}

// After a tenant was erased nothing that it wrote stands in any table, but for an hour in the log that readers catch up by.
func TestNothingOfATenantStays(t *testing.T) {
	t.Parallel()
	r, to := newHookRig(t)
	r.fillErased(t, to)
	r.rollErased(t)
	r.rollBeside(t)
	a, ctx := r.as("owner"), t.Context()
	want := []string{
		"kernel.change_log", "kernel.feed_state", "kernel.request_log", "settings.brand_content", "settings.brand_draft",
		"settings.change_edit", "settings.client_key", "settings.document", "settings.document_revision", "settings.rollout",
		"webhook.endpoint",
	}
	if got := r.holding(t, ofTheGone); !slices.Equal(got, want) {
		t.Fatalf("before, it stands in %v, want %v", got, want)
	}
	erase := &configv1.EraseTenantRequest{Name: "tenants/" + gone, Reason: "the contract ended", RequestId: newID()}
	got, err := a.EraseTenant(ctx, erase)
	must(t, err)
	if got.GetDocuments() != 2 || got.GetChanges() != 3 || got.GetRollouts() != 1 || got.GetBrandAssets() != 1 {
		t.Errorf("erased is %v", got)
	}
	if got := r.holding(t, ofTheGone); !slices.Equal(got, []string{"kernel.change_log"}) {
		t.Errorf("it stands in %v", got)
	}
	owner := r.db.Owner(t)
	eventually(t, "the events of the erasure itself are on their way", func() bool { // within the hour that is made to pass here
		var waiting int
		must(t, owner.QueryRow(ctx, `SELECT count(*) FROM webhook.event`).Scan(&waiting))
		return waiting == 0
	})
	_, err = owner.Exec(ctx, `UPDATE kernel.change_log SET recorded_time = now() - interval '61 minutes'`)
	must(t, err)
	_, err = owner.Exec(ctx, `SELECT kernel.trim_changes('1 hour')`)
	must(t, err)
	if got := r.holding(t, ofTheGone); len(got) > 0 {
		t.Errorf("after an hour it stands in %v", got)
	}
	if got := r.naming(t); len(got) > 0 { // not even who it was
		t.Errorf("after an hour it is named in %v", got)
	}
	var running int
	must(t, owner.QueryRow(ctx, `SELECT count(*) FROM kernel.feed_state WHERE key LIKE 'rollout/%'`).Scan(&running))
	if running != 1 {
		t.Error("readers still have its rollout, or not that of others")
	}
	c, _ := a.change(t, "rolled")
	if c.GetState() != configv1.ChangeState_CHANGE_STATE_CANCELLED || !slices.Equal(c.GetRollout().GetCanaries(), []string{"tenants/globex"}) {
		t.Errorf("the change of others with the tenant as a canary is %v", c)
	}
	again, err := a.EraseTenant(ctx, erase)
	must(t, err)
	if again.GetDocuments() != 2 {
		t.Errorf("a repeat says %v", again)
	}
}

// What others wrote stays, and what was agreed with the tenant's edits in it becomes live no more.
func TestErasingLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	r, to := newHookRig(t)
	r.fillErased(t, to)
	a, ctx := r.as("owner"), t.Context()
	id := newID()
	set := func(content string) error {
		req := setting("tenants/"+gone+"/config/portal", content)
		req.RequestId = id
		_, err := a.UpdateDocument(ctx, req)
		return err
	}
	must(t, set(`{"x":"once"}`))
	_, err := a.EraseTenant(ctx, &configv1.EraseTenantRequest{Name: "tenants/" + gone, Reason: "the contract ended"})
	must(t, err)
	refused(t, "a repeat of what was erased", set(`{"x":"once"}`), codes.InvalidArgument, fault.ReasonRequestIDReused)
	if got := a.content(t, "tenants/acme/config/portal"); got != `{"x":"of acme"}` {
		t.Errorf("acme has %s", got)
	}
	c, _ := a.change(t, "mixed")
	if c.GetState() != configv1.ChangeState_CHANGE_STATE_CANCELLED || len(c.GetEdits()) != 1 ||
		c.GetEdits()[0].GetName() != "tenants/acme/config/portal" {
		t.Errorf("the change with another tenant's edit is %v", c)
	}
	if c, _ := a.change(t, "live"); c.GetState() != isLive || len(c.GetEdits()) != 0 {
		t.Errorf("the change that was live is %v", c)
	}
}
