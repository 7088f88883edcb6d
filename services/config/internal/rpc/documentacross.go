package rpc

import (
	"context"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// listAcross lists the documents of many layers: of all that are of these kinds, or of the environments of one tenant.
func (s *documentService) listAcross(
	ctx context.Context, tx *change.Tx, req *configv1.ListDocumentsRequest, kinds []settings.Kind, tenantID string,
) (*configv1.ListDocumentsResponse, error) {
	owner := ""
	if tenantID != "" {
		p, err := s.place(tx, settings.Owner{Kind: settings.Tenant, Name: tenantID})
		if err != nil {
			return nil, err
		}
		owner = p.ID
	}
	p, err := tx.Page(ctx, page.Query{Parent: req.GetParent(), Size: req.GetPageSize(), Token: req.GetPageToken()})
	if err != nil {
		return nil, err
	}
	p = few(p)
	rows, err := store.ListAcross(ctx, tx, kinds, owner, p.After, p.Limit())
	if err != nil {
		return nil, err
	}
	found := make([]*configv1.Document, len(rows))
	at := make(map[*configv1.Document]store.Row, len(rows))
	for i, row := range rows {
		found[i], at[row.Document] = row.Document, row
	}
	found, next, err := page.Cut(p, found, func(d *configv1.Document) []string { return at[d].Key() })
	if err != nil {
		return nil, err
	}
	out := &configv1.ListDocumentsResponse{NextPageToken: next}
	for _, d := range found {
		if s.name(tx, at[d]) {
			tx.Audit(d.GetName())
			out.Documents = append(out.Documents, d)
		}
	}
	return out, nil
}

// name gives a document its name, and a tenant's audit chain the record. It has none when its tenant is gone for good.
func (s *documentService) name(tx *change.Tx, row store.Row) bool {
	o := settings.Owner{Kind: row.Kind, Name: row.ID}
	if o.OfTenant() {
		uid, environment := store.CutEnvironment(row.ID)
		t, ok := s.tenant(uid)
		if !ok {
			return false
		}
		tx.Tenant(uid)
		o.Name, o.Environment = t.ID.String(), environment
	}
	row.Document.Name = o.Document(row.Namespace)
	return true
}
