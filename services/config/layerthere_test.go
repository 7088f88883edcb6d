package config_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// Nothing is set for a plan or a region that tenancy does not have, and no kill passes for one that holds: a slip of the
// pen is told, with what was probably meant.
func TestNothingIsSetForPlansThatDoNotExist(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", killableSchema)
	r.set(a, "platform/config/flags", `{"flags":{"new":{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"on"}}}`)
	const reason = "it hurts everybody"
	for what, write := range map[string]func(ctx context.Context, layer string) error{
		"document": func(ctx context.Context, layer string) error {
			_, err := a.UpdateDocument(ctx, setting(layer+"/config/notes", `{"size":1}`))
			return err
		},
		"dry run": func(ctx context.Context, layer string) error {
			req := setting(layer+"/config/notes", `{"size":1}`)
			req.ValidateOnly = true
			_, err := a.UpdateDocument(ctx, req)
			return err
		},
		"kill": func(ctx context.Context, layer string) error {
			_, err := a.KillSetting(ctx, &configv1.KillSettingRequest{Name: layer + "/config/notes", Pointer: "/banner", Reason: reason})
			return err
		},
		"flag's kill": func(ctx context.Context, layer string) error {
			_, err := a.KillFlag(ctx, &configv1.KillFlagRequest{Parent: layer, Key: "new", Reason: reason})
			return err
		},
		"change": func(ctx context.Context, layer string) error {
			_, err := a.CreateChange(ctx, &configv1.CreateChangeRequest{ChangeId: "typo", Change: &configv1.Change{
				Reason: reason, Edits: []*configv1.ChangeEdit{replaces("platform/config/notes", `{"size":2}`), replaces(layer+"/config/notes", `{}`)},
			}})
			return err
		},
		"rollout": func(ctx context.Context, layer string) error {
			_, err := a.CreateRollout(ctx, rolling(layer+"/config/notes", `{"size":1}`))
			return err
		},
		"secret": func(ctx context.Context, layer string) error {
			_, err := a.PutSecret(ctx, &configv1.PutSecretRequest{Name: layer + "/config/notes/secrets/key", Value: []byte("v")})
			return err
		},
		"brand's draft": func(ctx context.Context, layer string) error {
			_, err := a.UpdateBrandDraft(ctx, &configv1.UpdateBrandDraftRequest{
				BrandDraft: &configv1.BrandDraft{Name: layer + "/brandDraft", Content: `{"name":"x"}`}, Reason: reason,
			})
			return err
		},
		"brand's file": func(ctx context.Context, layer string) error {
			_, err := a.CreateBrandAsset(ctx, upload(layer, "image/svg+xml", []byte(`<svg xmlns="http://www.w3.org/2000/svg"/>`)))
			return err
		},
	} {
		for layer, near := range map[string]string{
			"plans/fre": "plans/free", "plans/busyness": "plans/business", "regions/elswhere": "regions/elsewhere", "plans/gold-and-silver": "",
		} {
			if strings.HasPrefix(what, "brand's") && strings.HasPrefix(layer, "regions/") {
				continue // regions have no brand
			}
			err := write(t.Context(), layer)
			refused(t, what+" for "+layer, err, codes.NotFound, fault.ReasonResourceNotFound)
			said := status.Convert(err).Message()
			if !strings.Contains(said, layer+" does not exist") || near != "" && !strings.Contains(said, "did you mean "+near+"?") ||
				near == "" && strings.Contains(said, "did you mean") {
				t.Errorf("%s for %s: %s", what, layer, said)
			}
		}
	}
	for _, layer := range []string{"plans/free", "plans/unheard-of", "regions/elsewhere"} { // of which some have no tenants
		if got := a.content(t, layer+"/config/notes"); got != "" {
			t.Errorf("%s has %s", layer, got)
		}
		r.set(a, layer+"/config/notes", `{"size":1}`)
		_, err := a.KillSetting(t.Context(), &configv1.KillSettingRequest{Name: layer + "/config/notes", Pointer: "/banner", Reason: reason})
		must(t, err)
	}
}

// What stands at the layer of a plan that was deleted can be read, brought back, deleted and lifted.
func TestWhatIsLeftOfAPlanCanBeCleared(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	r.namespace(a, "notes", killableSchema)
	const doc, left = "plans/free/config/notes", "plans/gone/config/notes"
	first := r.set(a, doc, `{"size":1}`)
	r.set(a, doc, `{"size":2}`)
	const reason = "it hurts everybody"
	_, err := a.KillSetting(ctx, &configv1.KillSettingRequest{Name: doc, Pointer: "/banner", Reason: reason})
	must(t, err)
	for _, table := range []string{"document", "document_revision"} { // as of a plan that is there no more
		_, err = r.db.Owner(t).Exec(ctx, `UPDATE settings.`+table+` SET layer_id = 'gone' WHERE layer = 'plan'`)
		must(t, err)
	}
	if got := a.content(t, left); got != `{"size":2}` {
		t.Fatalf("the document is %s", got)
	}
	_, err = a.UpdateDocument(ctx, setting(left, `{"size":3}`))
	refused(t, "a write", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = a.KillSetting(ctx, &configv1.KillSettingRequest{Name: left, Pointer: "/banner", Reason: reason})
	refused(t, "what was killed, again", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = a.RollbackDocument(ctx, &configv1.RollbackDocumentRequest{Name: left, Revision: first.GetRevision()})
	must(t, err)
	_, err = a.LiftSetting(ctx, &configv1.LiftSettingRequest{Name: left, Pointer: "/banner", Reason: reason})
	must(t, err)
	_, err = a.propose(t, "clear", removes(left))
	must(t, err)
	_, err = a.DeleteDocument(ctx, &configv1.DeleteDocumentRequest{Name: left})
	must(t, err)
}
