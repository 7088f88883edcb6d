package config_test

import (
	"context"
	"crypto/ed25519"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/brand/preview"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/services/config"
)

func draft(name, content string) *configv1.UpdateBrandDraftRequest {
	return &configv1.UpdateBrandDraftRequest{BrandDraft: &configv1.BrandDraft{Name: name, Content: content}}
}

// A draft is seen by its link alone, becomes the brand when it is published, and the way back is a rollback.
func TestDraftPreviewPublishRollback(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, func(c *config.Config) { c.HTTPSPort = 8443 })
	a, ctx := r.as("operator"), t.Context()
	const doc, name = "tenants/acme/config/brand", "tenants/acme/brandDraft"
	r.set(a, "platform/config/brand", `{"locale":"de"}`)
	old := r.set(a, doc, `{"name":"Acme","light":{"primary":"#b91c1c"}}`)
	req := draft(name, `{"light":{"primary":"#0f766e"}}`)
	req.MergePatch, req.Reason = true, "a new look"
	resp, err := a.UpdateBrandDraft(ctx, req)
	must(t, err)
	d := resp.GetBrandDraft()
	if d.GetContent() != `{"light":{"primary":"#0f766e"},"name":"Acme"}` || d.GetBaseRevision() != old.GetRevision() || d.GetEtag() == "" ||
		d.GetAuthor() == "" || d.GetReason() != "a new look" {
		t.Errorf("the draft is %v", d)
	}
	got, err := a.GetDocument(ctx, &configv1.GetDocumentRequest{Name: doc})
	must(t, err)
	if got.GetDocument().GetRevision() != old.GetRevision() {
		t.Error("a draft changed what is published")
	}

	link, err := a.CreateBrandPreview(ctx, &configv1.CreateBrandPreviewRequest{Name: name, Host: "Acme.Example", Ttl: durationpb.New(time.Hour)})
	must(t, err)
	token, ok := strings.CutPrefix(link.GetUri(), "https://acme.example:8443/.well-known/rowhouse/preview/")
	public, err := keyfile.Public(r.path("feed.pub"))
	must(t, err)
	said, err := preview.Read(token, public, time.Now())
	if !ok || err != nil || said.Tenant != tenanttest.UID("acme") || said.Host != "acme.example" || said.Revision != d.GetRevision() ||
		time.Until(said.Expires) > time.Hour {
		t.Errorf("the link is %v: %+v, %v", link, said, err)
	}
	gateway := configv1.NewBrandDraftServiceClient(r.gateway())
	read := func(token string) (string, error) {
		resp, err := gateway.ReadBrandPreview(ctx, &configv1.ReadBrandPreviewRequest{Token: token})
		return resp.GetContent(), err
	}
	content, err := read(token)
	must(t, err)
	if content != `{"light":{"primary":"#0f766e"},"locale":"de","name":"Acme"}` { // with what it inherits
		t.Errorf("the preview is %s", content)
	}
	_, err = a.ReadBrandPreview(ctx, &configv1.ReadBrandPreviewRequest{Token: token})
	refused(t, "an operator", err, codes.Unauthenticated, fault.ReasonCredentialMissing)
	_, forger, err := ed25519.GenerateKey(nil)
	must(t, err)
	_, err = read(said.Sign(forger))
	refused(t, "a forged link", err, codes.NotFound, fault.ReasonResourceNotFound)

	resp2, err := a.PublishBrandDraft(ctx, &configv1.PublishBrandDraftRequest{Name: name, Etag: d.GetEtag()})
	must(t, err)
	if p := resp2.GetDocument(); p.GetContent() != d.GetContent() || p.GetRevision() <= old.GetRevision() || p.GetReason() != "a new look" {
		t.Errorf("published %v", p)
	}
	_, err = read(token)
	refused(t, "a link to what is published", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = a.GetBrandDraft(ctx, &configv1.GetBrandDraftRequest{Name: name})
	refused(t, "the draft after", err, codes.NotFound, fault.ReasonResourceNotFound)
	back, err := a.RollbackDocument(ctx, &configv1.RollbackDocumentRequest{Name: doc, Revision: old.GetRevision()})
	must(t, err)
	if back.GetDocument().GetContent() != old.GetContent() {
		t.Errorf("rolled back to %v", back)
	}
}

func TestDraftsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("operator"), t.Context()
	const doc, name = "tenants/acme/config/brand", "tenants/acme/brandDraft"
	write := func(content string) (*configv1.BrandDraft, error) {
		resp, err := a.UpdateBrandDraft(ctx, draft(name, content))
		return resp.GetBrandDraft(), err
	}
	publish := func() error {
		_, err := a.PublishBrandDraft(ctx, &configv1.PublishBrandDraftRequest{Name: name})
		return err
	}
	refused(t, "publish nothing", publish(), codes.NotFound, fault.ReasonResourceNotFound)
	_, err := a.CreateBrandPreview(ctx, &configv1.CreateBrandPreviewRequest{Name: name, Host: "a.example"})
	refused(t, "preview nothing", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = write(`{`)
	refused(t, "no JSON", err, codes.InvalidArgument, "MALFORMED_DOCUMENT")
	_, err = write(`{"light":{"text":"red"}}`)
	refused(t, "no brand", err, codes.InvalidArgument, "SCHEMA_VIOLATION")
	_, err = write(`{"logos":{"light":"` + strings.Repeat("0", 64) + `.png"}}`)
	refused(t, "nobody's asset", err, codes.InvalidArgument, "SCHEMA_VIOLATION")
	first, err := write(`{"light":{"text":"#777777"}}`) // may be seen, not published
	must(t, err)
	refused(t, "publish grey on white", publish(), codes.FailedPrecondition, "CONTRAST")
	second, err := write(`{"name":"Second"}`)
	must(t, err)
	stale := draft(name, `{}`)
	stale.BrandDraft.Etag = first.GetEtag()
	_, err = a.UpdateBrandDraft(ctx, stale)
	refused(t, "stale", err, codes.Aborted, fault.ReasonEtagMismatch)
	_, err = a.DeleteBrandDraft(ctx, &configv1.DeleteBrandDraftRequest{Name: name, Etag: first.GetEtag()})
	refused(t, "delete stale", err, codes.Aborted, fault.ReasonEtagMismatch)
	for _, host := range []string{"a b", "a.example:443", "x/y"} {
		_, err = a.CreateBrandPreview(ctx, &configv1.CreateBrandPreviewRequest{Name: name, Host: host})
		refused(t, host, err, codes.InvalidArgument, fault.ReasonInvalidField)
	}
	_, err = a.CreateBrandPreview(ctx, &configv1.CreateBrandPreviewRequest{Name: name, Host: "Globex.Example"})
	refused(t, "another tenant's host", err, codes.InvalidArgument, fault.ReasonInvalidField)
	if err == nil || !strings.Contains(err.Error(), "host is no domain of tenants/acme: globex.example") {
		t.Errorf("%v", err)
	}
	_, err = a.CreateBrandPreview(ctx, &configv1.CreateBrandPreviewRequest{Name: name, Host: "untold.example"})
	must(t, err) // gateways refuse it where it is not the tenant's
	_, err = a.CreateBrandPreview(ctx, &configv1.CreateBrandPreviewRequest{Name: name, Host: "a.example", Ttl: durationpb.New(8 * 24 * time.Hour)})
	refused(t, "8 days", err, codes.InvalidArgument, fault.ReasonInvalidField)
	_, err = r.as("viewer").CreateBrandPreview(ctx, &configv1.CreateBrandPreviewRequest{Name: name, Host: "a.example"})
	refused(t, "a viewer", err, codes.PermissionDenied, fault.ReasonPermissionMissing)
	// Of another tenant there is none.
	_, err = a.GetBrandDraft(ctx, &configv1.GetBrandDraftRequest{Name: "tenants/globex/brandDraft"})
	refused(t, "globex's", err, codes.NotFound, fault.ReasonResourceNotFound)
	r.set(a, doc, `{"name":"In between"}`)
	refused(t, "publish over a change", publish(), codes.Aborted, fault.ReasonEtagMismatch)
	_, err = a.DeleteBrandDraft(ctx, &configv1.DeleteBrandDraftRequest{Name: name, Etag: second.GetEtag()})
	must(t, err)
	_, err = a.DeleteBrandDraft(ctx, &configv1.DeleteBrandDraftRequest{Name: name})
	refused(t, "delete twice", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = a.DeleteBrandDraft(ctx, &configv1.DeleteBrandDraftRequest{Name: name, AllowMissing: true})
	must(t, err)
}

// domains stands in for tenancy's: acme has two, and of one nothing is told.
type domains struct {
	tenancyv1.UnimplementedDomainServiceServer
}

// GetDomain implements rowhouse.tenancy.v1.DomainService.
func (domains) GetDomain(_ context.Context, req *tenancyv1.GetDomainRequest) (*tenancyv1.GetDomainResponse, error) {
	switch req.GetName() {
	case "tenants/acme/domains/acme.example", "tenants/acme/domains/a.example":
		return &tenancyv1.GetDomainResponse{}, nil
	case "tenants/acme/domains/untold.example":
		return nil, status.Error(codes.PermissionDenied, "of the release before")
	default:
		return nil, status.Error(codes.NotFound, "there is none")
	}
}

// What hooks said of a draft is not said of the one that was written while they thought, nor of a later one.
func TestHooksAnswerForOneDraft(t *testing.T) {
	t.Parallel()
	r, to := newHookRig(t)
	a, ctx := r.as("operator"), t.Context()
	const doc, name = "tenants/acme/config/brand", "tenants/acme/brandDraft"
	to.answer("/look", says(`{"allow":false,"reason":"not yet"}`))
	r.veto(to, "look", failClosed, stepBrand)
	eventually(t, "config asks look", func() bool {
		_, err := a.UpdateDocument(ctx, setting(doc, `{"name":"Probe"}`))
		return fault.ReasonOf(tenantgrpc.FromStatus(err)) == "HOOK_DENIED"
	})
	before := a.content(t, doc)
	var meanwhile sync.Once
	to.answer("/look", func(w http.ResponseWriter, _ *http.Request) {
		meanwhile.Do(func() {
			if _, err := a.UpdateBrandDraft(ctx, draft(name, `{"name":"Second"}`)); err != nil {
				t.Errorf("while the hook thinks: %v", err)
			}
		})
		_, _ = w.Write([]byte(`{"allow":true}`))
	})
	_, err := a.UpdateBrandDraft(ctx, draft(name, `{"name":"First"}`))
	must(t, err)
	asked, publish := len(to.at("/look")), &configv1.PublishBrandDraftRequest{Name: name, RequestId: newID()}
	_, err = a.PublishBrandDraft(ctx, publish)
	refused(t, "a draft that no hook saw", err, codes.Aborted, fault.ReasonEtagMismatch)
	if got := a.content(t, doc); got != before {
		t.Errorf("%s is live", got)
	}
	for range 2 { // the second is a repeat
		resp, err := a.PublishBrandDraft(ctx, publish)
		must(t, err)
		if got := resp.GetDocument().GetContent(); got != `{"name":"Second"}` {
			t.Errorf("%s is live", got)
		}
	}
	if n := len(to.at("/look")) - asked; n != 2 {
		t.Errorf("it was asked %d times about two drafts", n)
	}
}

// A draft for a plan that was deleted meanwhile would be a brand for nobody.
func TestDraftOfAPlanThatIsGone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("operator"), t.Context()
	_, err := a.UpdateBrandDraft(ctx, draft("plans/free/brandDraft", `{"name":"Free"}`))
	must(t, err)
	_, err = r.db.Owner(t).Exec(ctx, `UPDATE settings.brand_draft SET layer_id = 'gone' WHERE layer = 'plan'`)
	must(t, err)
	_, err = a.PublishBrandDraft(ctx, &configv1.PublishBrandDraftRequest{Name: "plans/gone/brandDraft"})
	refused(t, "publish", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = a.DeleteBrandDraft(ctx, &configv1.DeleteBrandDraftRequest{Name: "plans/gone/brandDraft"})
	must(t, err)
}
