package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
)

// DraftName is the resource name of an owner's draft.
func DraftName(p Place) string { return p.Owner.String() + "/brandDraft" }

func (p Place) stampDraft(d *configv1.BrandDraft, revision int64, at time.Time) {
	d.Revision, d.UpdateTime = revision, timestamppb.New(at)
	d.Etag = etag.Of("draft/"+string(p.Owner.Kind)+"/"+p.ID, revision)
}

// ReadDraft returns an owner's draft. A missing one is a fault RESOURCE_NOT_FOUND.
func ReadDraft(ctx context.Context, q Querier, p Place) (*configv1.BrandDraft, error) {
	var at time.Time
	var revision int64
	d := &configv1.BrandDraft{Name: DraftName(p)}
	err := q.QueryRow(ctx, `SELECT content, base, author, reason, update_time, revision FROM settings.brand_draft
		WHERE layer = $1 AND layer_id = $2`, string(p.Owner.Kind), p.ID).
		Scan(&d.Content, &d.BaseRevision, &d.Author, &d.Reason, &at, &revision)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, notFound(d.GetName())
	}
	if err != nil {
		return nil, fmt.Errorf("read a draft: %w", err)
	}
	p.stampDraft(d, revision, at)
	return d, nil
}

// PutDraft writes an owner's draft.
func PutDraft(ctx context.Context, q Querier, p Place, d *configv1.BrandDraft, revision int64, at time.Time) error {
	p.stampDraft(d, revision, at)
	_, err := q.Exec(ctx, `INSERT INTO settings.brand_draft (layer, layer_id, content, base, author, reason, update_time, revision)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (layer, layer_id) DO UPDATE SET content = excluded.content, base = excluded.base, author = excluded.author,
			reason = excluded.reason, update_time = excluded.update_time, revision = excluded.revision`,
		string(p.Owner.Kind), p.ID, d.GetContent(), d.GetBaseRevision(), d.GetAuthor(), d.GetReason(), at, revision)
	if err != nil {
		return fmt.Errorf("write a draft: %w", err)
	}
	return nil
}

// DeleteDraft drops an owner's draft.
func DeleteDraft(ctx context.Context, q Querier, p Place) error {
	_, err := q.Exec(ctx, `DELETE FROM settings.brand_draft WHERE layer = $1 AND layer_id = $2`, string(p.Owner.Kind), p.ID)
	if err != nil {
		return fmt.Errorf("delete a draft: %w", err)
	}
	return nil
}
