package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/brands"

	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
)

const assetColumns = `sha256, extension, icon, size, width, height, create_time, author`

func (p Place) scanAsset(row pgx.Row) (*configv1.BrandAsset, error) {
	var sha []byte
	var extension string
	var at time.Time
	a := new(configv1.BrandAsset)
	if err := row.Scan(&sha, &extension, &a.Icon, &a.SizeBytes, &a.Width, &a.Height, &at, &a.Author); err != nil {
		return nil, err
	}
	asset := sdk.Asset(hex.EncodeToString(sha) + "." + extension)
	a.Name, a.Path = AssetName(p, asset), asset.Path()
	a.MediaType, a.CreateTime = brands.MediaType(extension), timestamppb.New(at)
	return a, nil
}

// AssetName is the resource name of an owner's asset.
func AssetName(p Place, a sdk.Asset) string { return p.Owner.String() + "/brandAssets/" + string(a) }

// BrandUse tells how many assets an owner has and how large they are together.
func BrandUse(ctx context.Context, q Querier, p Place) (n int, size int64, err error) {
	err = q.QueryRow(ctx, `SELECT count(*), coalesce(sum(size), 0) FROM settings.brand_asset WHERE layer = $1 AND layer_id = $2`,
		string(p.Owner.Kind), p.ID).Scan(&n, &size)
	if err != nil {
		return 0, 0, fmt.Errorf("count assets: %w", err)
	}
	return n, size, nil
}

// PutAsset keeps a file for an owner who does not have it yet, and returns what is kept.
func PutAsset(ctx context.Context, q Querier, p Place, f brands.File, author string, at time.Time) (*configv1.BrandAsset, error) {
	if _, err := q.Exec(ctx, `INSERT INTO settings.brand_content (sha256, bytes) VALUES ($1, $2) ON CONFLICT DO NOTHING`,
		f.SHA256(), f.Content); err != nil {
		return nil, fmt.Errorf("keep content: %w", err)
	}
	uses := make([]string, 0, len(f.Uses))
	for _, a := range f.Uses {
		uses = append(uses, string(a))
	}
	if _, err := q.Exec(ctx, `INSERT INTO settings.brand_asset
			(layer, layer_id, sha256, extension, icon, size, width, height, uses, author, create_time)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING`,
		string(p.Owner.Kind), p.ID, f.SHA256(), f.Asset.Extension(), f.Icon, len(f.Content), f.Width, f.Height, uses, author, at,
	); err != nil {
		return nil, fmt.Errorf("keep an asset: %w", err)
	}
	return ReadAsset(ctx, q, p, f.Asset)
}

// ReadAsset returns an owner's asset. A missing one is a fault RESOURCE_NOT_FOUND.
func ReadAsset(ctx context.Context, q Querier, p Place, a sdk.Asset) (*configv1.BrandAsset, error) {
	found, err := p.scanAsset(q.QueryRow(ctx, `SELECT `+assetColumns+` FROM settings.brand_asset
		WHERE layer = $1 AND layer_id = $2 AND encode(sha256, 'hex') || '.' || extension = $3 AND sha256 = decode(left($3, 64), 'hex')`,
		string(p.Owner.Kind), p.ID, string(a)))
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, notFound(AssetName(p, a))
	}
	if err != nil {
		return nil, fmt.Errorf("read an asset: %w", err)
	}
	return found, nil
}

// ListAssets returns up to n assets of an owner whose hashes, in hex, come after the given one.
func ListAssets(ctx context.Context, q Querier, p Place, after string, n int) ([]*configv1.BrandAsset, error) {
	rows, err := q.Query(ctx, `SELECT `+assetColumns+` FROM settings.brand_asset
		WHERE layer = $1 AND layer_id = $2 AND sha256 > decode($3, 'hex') ORDER BY sha256 LIMIT $4`, string(p.Owner.Kind), p.ID, after, n)
	if err != nil {
		return nil, fmt.Errorf("list assets: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*configv1.BrandAsset, error) { return p.scanAsset(row) })
}

// OwnAssets returns the assets of an owner, each with those that it loads.
func OwnAssets(ctx context.Context, q Querier, p Place) (map[sdk.Asset][]sdk.Asset, error) {
	rows, err := q.Query(ctx, `SELECT encode(sha256, 'hex') || '.' || extension, uses FROM settings.brand_asset
		WHERE layer = $1 AND layer_id = $2`, string(p.Owner.Kind), p.ID)
	if err != nil {
		return nil, fmt.Errorf("read assets: %w", err)
	}
	all := make(map[sdk.Asset][]sdk.Asset)
	var name string
	var uses []string
	if _, err := pgx.ForEachRow(rows, []any{&name, &uses}, func() error {
		loaded := make([]sdk.Asset, 0, len(uses))
		for _, a := range uses {
			loaded = append(loaded, sdk.Asset(a))
		}
		all[sdk.Asset(name)] = loaded
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read assets: %w", err)
	}
	return all, nil
}

// AssetInUse reports whether a document of the namespace, a rollout of it, a draft or a style sheet of the owner names an asset.
func AssetInUse(ctx context.Context, q Querier, p Place, a sdk.Asset) (used bool, err error) {
	err = q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM settings.document
			WHERE namespace_uid = $1 AND layer = $2 AND layer_id = $3 AND position($4 in content) > 0)
		OR EXISTS (SELECT FROM settings.rollout
			WHERE namespace_uid = $1 AND layer = $2 AND layer_id = $3 AND state = 'RUNNING' AND position($4 in content) > 0)
		OR EXISTS (SELECT FROM settings.brand_draft WHERE layer = $2 AND layer_id = $3 AND position($4 in content) > 0)
		OR EXISTS (SELECT FROM settings.brand_asset WHERE layer = $2 AND layer_id = $3 AND $4 = ANY (uses))`,
		p.NamespaceUID, string(p.Owner.Kind), p.ID, string(a)).Scan(&used)
	if err != nil {
		return false, fmt.Errorf("look who uses an asset: %w", err)
	}
	return used, nil
}

// DeleteAsset takes an asset from its owner, and its content where nobody else has it.
func DeleteAsset(ctx context.Context, q Querier, p Place, a sdk.Asset) error {
	sha, err := hex.DecodeString(string(a)[:2*32])
	if err != nil {
		return fmt.Errorf("the name of an asset: %w", err)
	}
	if _, err := q.Exec(ctx, `DELETE FROM settings.brand_asset WHERE layer = $1 AND layer_id = $2 AND sha256 = $3`,
		string(p.Owner.Kind), p.ID, sha); err != nil {
		return fmt.Errorf("delete an asset: %w", err)
	}
	_, err = q.Exec(ctx, `DELETE FROM settings.brand_content c
		WHERE sha256 = $1 AND NOT EXISTS (SELECT FROM settings.brand_asset a WHERE a.sha256 = c.sha256)`, sha)
	if err != nil {
		return fmt.Errorf("delete content: %w", err)
	}
	return nil
}

// ReadContent returns content by its hash. What nobody has is a fault RESOURCE_NOT_FOUND.
func ReadContent(ctx context.Context, q Querier, sha []byte) (content []byte, err error) {
	err = q.QueryRow(ctx, `SELECT bytes FROM settings.brand_content WHERE sha256 = $1`, sha).Scan(&content)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, notFound("the content")
	}
	if err != nil {
		return nil, fmt.Errorf("read content: %w", err)
	}
	return content, nil
}
