package rpc

import (
	"context"
	"errors"
	"maps"
	"strings"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/sdk/authority"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/mail"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// brandMailService serves BrandMailService.
type brandMailService struct {
	configv1.UnimplementedBrandMailServiceServer
	Config

	documents *documentService
}

// brand reads a tenant's brand on a host: as it is published, or with the draft in the tenant's place.
func (s *brandMailService) brand(ctx context.Context, tx *change.Tx, req *configv1.PreviewBrandMailRequest) (sdk.Brand, error) {
	tx.Audit(req.GetName())
	owner, isDraft := strings.CutSuffix(req.GetName(), "/brandDraft")
	owner = strings.TrimSuffix(owner, "/config/"+sdk.BrandNamespace)
	o, err := settings.ParseOwner(owner)
	if err != nil || !o.OfTenant() {
		return sdk.Brand{}, badField("name", "is not that of a tenant's brand or draft")
	}
	p, err := s.documents.place(tx, o)
	if err != nil {
		return sdk.Brand{}, err
	}
	n, err := store.ReadNamespace(ctx, tx, sdk.BrandNamespace)
	if err != nil {
		return sdk.Brand{}, err
	}
	p.Namespace, p.NamespaceUID = sdk.BrandNamespace, n.GetUid()
	stack, _, err := stackOf(ctx, tx, n, readerOf(p), p.Tenant.ID)
	if err != nil {
		return sdk.Brand{}, err
	}
	if isDraft {
		d, err := store.ReadDraft(ctx, tx, p)
		if err != nil {
			return sdk.Brand{}, err
		}
		object, err := sdk.Parse([]byte(d.GetContent()))
		if err != nil {
			return sdk.Brand{}, err
		}
		stack.Tenant = &sdk.Layer{Name: sdk.LayerTenant(p.Tenant.ID.String()), Revision: d.GetRevision(), Object: object}
	}
	host := ""
	if req.GetHost() != "" {
		name, err := authority.ParseName(req.GetHost())
		if err != nil {
			return sdk.Brand{}, badField("host", "is not the name of a host")
		}
		host = name.String()
	}
	b, err := sdk.BrandOn(stack.Effective(), host)
	if b.Name == "" {
		b.Name = p.Tenant.ID.String()
	}
	return b, err
}

// PreviewBrandMail implements rowhouse.config.v1.BrandMailService.
func (s *brandMailService) PreviewBrandMail(
	ctx context.Context, req *configv1.PreviewBrandMailRequest,
) (*configv1.PreviewBrandMailResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.PreviewBrandMailResponse, error) {
		b, err := s.brand(ctx, tx, req)
		if err != nil {
			return nil, err
		}
		kind, ok := b.MailKind(req.GetKind())
		if !ok {
			return nil, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "there are no mails of the kind %q; there are %s",
				req.GetKind(), strings.Join(b.MailKindNames(), ", "))
		}
		vars := kind.Sample()
		maps.Copy(vars.Values, req.GetValues())
		m, err := b.Mail(sdk.MailRequest{Kind: req.GetKind(), Locale: req.GetLocale(), Host: req.GetHost(), Vars: vars})
		if errors.Is(err, mail.ErrVars) || errors.Is(err, mail.ErrTooLong) {
			return nil, badField("values", "cannot be taken: "+strings.TrimPrefix(err.Error(), "mail: "))
		}
		if err != nil {
			return nil, err
		}
		out := &configv1.PreviewBrandMailResponse{
			Subject: m.Subject, Text: m.Text, Html: m.HTML, Language: m.Language, Headers: m.Headers, Kinds: b.MailKindNames(),
			Variables: make(map[string]string),
		}
		for name := range vars.Lists {
			out.Variables[name] = "list"
		}
		for name, t := range kind.All() {
			out.Variables[name] = string(t)
		}
		return out, nil
	})
}
