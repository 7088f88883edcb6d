package rpc

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"net"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/brand/preview"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/hook"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/authority"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// brandDraftService serves BrandDraftService.
type brandDraftService struct {
	configv1.UnimplementedBrandDraftServiceServer
	Config

	documents *documentService
}

// document is the name of the document that a draft may become.
func (s *brandDraftService) document(tx *change.Tx, field, name string) (string, error) {
	tx.Audit(name)
	owner, rest, _ := strings.Cut(name, "/brandDraft")
	if rest != "" {
		return "", badField(field, "is not the name of a draft")
	}
	return owner + "/config/" + sdk.BrandNamespace, nil
}

// open locks the namespace of brands, and returns the write that would publish the draft, with the draft, nil for none.
func (s *brandDraftService) open(ctx context.Context, tx *change.Tx, field, name, given string) (*write, *configv1.BrandDraft, error) {
	document, err := s.document(tx, field, name)
	if err != nil {
		return nil, nil, err
	}
	w, err := s.documents.open(ctx, tx, field, document, "")
	if err != nil {
		return nil, nil, err
	}
	d, err := store.ReadDraft(ctx, tx, w.place)
	if fault.KindOf(err) == fault.NotFound {
		d, err = nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	return w, d, etag.Check(given, d.GetEtag())
}

func missingDraft(w *write) error {
	return fault.New(fault.NotFound, fault.ReasonResourceNotFound, "%s does not exist", store.DraftName(w.place))
}

// GetBrandDraft implements rowhouse.config.v1.BrandDraftService.
func (s *brandDraftService) GetBrandDraft(
	ctx context.Context, req *configv1.GetBrandDraftRequest,
) (*configv1.GetBrandDraftResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.GetBrandDraftResponse, error) {
		document, err := s.document(tx, "name", req.GetName())
		if err != nil {
			return nil, err
		}
		p, _, err := s.documents.named(ctx, tx, "name", document, store.ReadNamespace)
		if err != nil {
			return nil, err
		}
		d, err := store.ReadDraft(ctx, tx, p)
		return &configv1.GetBrandDraftResponse{BrandDraft: d}, err
	})
}

// UpdateBrandDraft implements rowhouse.config.v1.BrandDraftService.
func (s *brandDraftService) UpdateBrandDraft(
	ctx context.Context, req *configv1.UpdateBrandDraftRequest,
) (*configv1.UpdateBrandDraftResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.UpdateBrandDraftResponse, error) {
		w, old, err := s.open(ctx, tx, "brand_draft.name", req.GetBrandDraft().GetName(), req.GetBrandDraft().GetEtag())
		if err != nil {
			return nil, err
		}
		if err := s.there(w.place.Owner); err != nil {
			return nil, err
		}
		d := &configv1.BrandDraft{
			Name: store.DraftName(w.place), BaseRevision: w.document.GetRevision(), Author: tx.Call().Principal.Name, Reason: req.GetReason(),
		}
		var o sdk.Object
		if req.GetMergePatch() {
			before := cmp.Or(old.GetContent(), w.document.GetContent(), "{}")
			o, d.Content, err = settings.Patched(before, req.GetBrandDraft().GetContent())
		} else {
			o, d.Content, err = settings.Content(req.GetBrandDraft().GetContent())
		}
		if err != nil {
			return nil, malformedField("brand_draft.content", err)
		}
		if err := judgeAssets(ctx, tx, w.place, o); err != nil {
			return nil, err
		}
		if err := w.judge(&sdk.Layer{Object: o}); err != nil && fault.ReasonOf(err) != contrast {
			return nil, err
		}
		if tx.Call().ValidateOnly {
			return &configv1.UpdateBrandDraftResponse{BrandDraft: d}, nil
		}
		tx.Audit(d.GetName(), "content")
		revision, err := store.Tick(ctx, tx)
		if err != nil {
			return nil, err
		}
		return &configv1.UpdateBrandDraftResponse{BrandDraft: d}, store.PutDraft(ctx, tx, w.place, d, revision, tx.Now())
	})
}

// DeleteBrandDraft implements rowhouse.config.v1.BrandDraftService.
func (s *brandDraftService) DeleteBrandDraft(
	ctx context.Context, req *configv1.DeleteBrandDraftRequest,
) (*configv1.DeleteBrandDraftResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.DeleteBrandDraftResponse, error) {
		w, d, err := s.open(ctx, tx, "name", req.GetName(), req.GetEtag())
		if err != nil {
			return nil, err
		}
		if d == nil && !req.GetAllowMissing() {
			return nil, missingDraft(w)
		}
		return &configv1.DeleteBrandDraftResponse{}, store.DeleteDraft(ctx, tx, w.place)
	})
}

// PublishBrandDraft implements rowhouse.config.v1.BrandDraftService.
func (s *brandDraftService) PublishBrandDraft(
	ctx context.Context, req *configv1.PublishBrandDraftRequest,
) (*configv1.PublishBrandDraftResponse, error) {
	asked, err := s.ask(ctx, strings.TrimSuffix(req.GetName(), "/brandDraft"))
	if err != nil {
		return nil, err
	}
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.PublishBrandDraftResponse, error) {
		w, d, err := s.open(ctx, tx, "name", req.GetName(), req.GetEtag())
		if err != nil {
			return nil, err
		}
		if d == nil {
			return nil, missingDraft(w)
		}
		if err := asked.settle(tx, d); err != nil {
			return nil, err
		}
		if err := s.there(w.place.Owner); err != nil {
			return nil, err
		}
		if d.GetBaseRevision() != w.document.GetRevision() {
			return nil, fault.New(fault.Aborted, fault.ReasonEtagMismatch,
				"the brand changed since the draft was written; write the draft again")
		}
		w.document.Content = d.GetContent()
		if w.object, err = sdk.Parse([]byte(d.GetContent())); err != nil {
			return nil, malformedField("name", err)
		}
		if err := store.DeleteDraft(ctx, tx, w.place); err != nil {
			return nil, err
		}
		tx.Audit(w.place.String(), "content")
		err = w.put(ctx, tx, cmp.Or(req.GetReason(), d.GetReason()))
		return &configv1.PublishBrandDraftResponse{Document: w.document}, err
	})
}

// askedDraft is what hooks said of a draft as it was then.
type askedDraft struct {
	verdict hook.Verdict
	etag    string // "" where there was no draft
}

// ask asks hooks about the brand that an owner's draft would become.
func (s *brandDraftService) ask(ctx context.Context, owner string) (askedDraft, error) {
	o, err := settings.ParseOwner(owner)
	if err != nil {
		return askedDraft{}, nil //nolint:nilerr // the unit of work says so, audited
	}
	p, err := s.locate(o)
	if err != nil {
		return askedDraft{}, nil //nolint:nilerr // as above
	}
	d, err := store.ReadDraft(ctx, s.Pool, p)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return askedDraft{}, pg.Fault(err)
	}
	// Without a draft the answer may still be that of a repeat, whose first try has published it.
	return askedDraft{s.askDocument(ctx, owner+"/config/"+sdk.BrandNamespace, d.GetEtag()), d.GetEtag()}, nil
}

// settle ends the step if hooks refused it, or were asked about another draft.
func (a askedDraft) settle(tx *change.Tx, d *configv1.BrandDraft) error {
	if a.etag != d.GetEtag() {
		return fault.New(fault.Aborted, fault.ReasonEtagMismatch, "the draft was written anew this moment: read it again")
	}
	return a.verdict.Settle(tx)
}

// defaultPreview is how long a link works unless its maker says otherwise.
const defaultPreview = 24 * time.Hour

// origin is where browsers reach a host.
func (c Config) origin(host string) string {
	const usual = 443
	if c.HTTPSPort == 0 || c.HTTPSPort == usual {
		return "https://" + host
	}
	return "https://" + net.JoinHostPort(host, strconv.Itoa(c.HTTPSPort))
}

// ownHost refuses a host that is no domain of the tenant: on another the link would never work, as gateways see to. So if
// tenancy is away, or is of the release before and does not let config look, the link is made.
func (s *brandDraftService) ownHost(ctx context.Context, tenantName, given string) (authority.Host, error) {
	const patience = 2 * time.Second
	host, err := authority.ParseName(given)
	if err != nil {
		return host, badField("host", "is not the name of a host")
	}
	if s.Domains == nil {
		return host, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err = s.Domains.GetDomain(ctx, &tenancyv1.GetDomainRequest{Name: tenantName + "/domains/" + host.String()})
	if status.Code(err) == codes.NotFound {
		return host, badField("host", "is no domain of "+tenantName+": "+host.String())
	}
	return host, nil
}

// CreateBrandPreview implements rowhouse.config.v1.BrandDraftService.
func (s *brandDraftService) CreateBrandPreview(
	ctx context.Context, req *configv1.CreateBrandPreviewRequest,
) (*configv1.CreateBrandPreviewResponse, error) {
	host, hostErr := s.ownHost(ctx, strings.TrimSuffix(req.GetName(), "/brandDraft"), req.GetHost())
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.CreateBrandPreviewResponse, error) {
		w, d, err := s.open(ctx, tx, "name", req.GetName(), "")
		if err != nil {
			return nil, err
		}
		if d == nil {
			return nil, missingDraft(w)
		}
		uid, err := tenant.ParseUID(w.place.ID)
		if err != nil {
			return nil, badField("name", "is not that of a tenant's draft")
		}
		if hostErr != nil {
			return nil, hostErr
		}
		ttl := defaultPreview
		if req.GetTtl() != nil {
			ttl = req.GetTtl().AsDuration()
		}
		t := preview.Token{Tenant: uid, Revision: d.GetRevision(), Expires: tx.Now().Add(ttl).Truncate(time.Second), Host: host.String()}
		return &configv1.CreateBrandPreviewResponse{
			Uri: s.origin(t.Host) + sdk.BrandPath + "preview/" + t.Sign(s.PreviewKey), ExpireTime: timestamppb.New(t.Expires),
		}, nil
	})
}

// ReadBrandPreview implements rowhouse.config.v1.BrandDraftService.
func (s *brandDraftService) ReadBrandPreview(
	ctx context.Context, req *configv1.ReadBrandPreviewRequest,
) (*configv1.ReadBrandPreviewResponse, error) {
	ended := fault.New(fault.NotFound, fault.ReasonResourceNotFound, "this preview has ended")
	public, _ := s.PreviewKey.Public().(ed25519.PublicKey)
	t, err := preview.Read(req.GetToken(), []ed25519.PublicKey{public}, s.Clock())
	if err != nil {
		return nil, ended
	}
	state, ok := s.Trust.Tenant(t.Tenant)
	if !ok {
		return nil, ended
	}
	p := store.Place{Owner: settings.Owner{Kind: settings.Tenant, Name: state.ID.String()}, ID: t.Tenant.String(), Tenant: state}
	var d *configv1.BrandDraft
	var stack sdk.Stack
	err = s.atOnce(ctx, func(ctx context.Context, q store.Querier) error {
		n, err := store.ReadNamespace(ctx, q, sdk.BrandNamespace)
		if err != nil {
			return err
		}
		d, err = store.ReadDraft(ctx, q, p)
		if fault.KindOf(err) == fault.NotFound || err == nil && d.GetRevision() != t.Revision {
			return ended
		}
		if err == nil {
			stack, _, err = stackOf(ctx, q, n, readerOf(p), state.ID)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	o, err := sdk.Parse([]byte(d.GetContent()))
	if err != nil {
		return nil, err
	}
	stack.Tenant = &sdk.Layer{Name: sdk.LayerTenant(state.ID.String()), Revision: t.Revision, Object: o}
	return &configv1.ReadBrandPreviewResponse{Content: string(sdk.Canonical(stack.Effective().Object))}, nil
}
