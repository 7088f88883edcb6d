package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/brand"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/brands"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// MaxRequest is the most bytes of a request: an upload and what is around it.
const MaxRequest = 5<<20 + 64<<10

// uploadsAtOnce bounds how many uploads are read at a time: a picture may need 300 MB meanwhile.
const uploadsAtOnce = 2

// brandAssetService serves BrandAssetService.
type brandAssetService struct {
	configv1.UnimplementedBrandAssetServiceServer
	Config

	documents *documentService
	// reading has room for the uploads that are being read.
	reading chan struct{}
}

func newBrandAssetService(c Config) *brandAssetService {
	return &brandAssetService{Config: c, documents: &documentService{Config: c}, reading: make(chan struct{}, uploadsAtOnce)}
}

// owned reads the name of an asset.
func (s *brandAssetService) owned(tx *change.Tx, name string) (store.Place, sdk.Asset, error) {
	tx.Audit(name)
	owner, asset, ok := strings.Cut(name, "/brandAssets/")
	a, known := sdk.ParseAsset(asset)
	if !ok || !known {
		return store.Place{}, "", badField("name", "is not the name of an asset")
	}
	p, err := s.owner(tx, "name", owner)
	return p, a, err
}

// owner finds out whose assets are meant.
func (s *brandAssetService) owner(tx *change.Tx, field, name string) (store.Place, error) {
	o, err := settings.ParseOwner(name)
	if err != nil {
		return store.Place{}, badField(field, "is not the platform, a plan or a tenant")
	}
	return s.documents.place(tx, o)
}

// lockBrands keeps everybody else from writing brands and their assets until the transaction ends.
func lockBrands(ctx context.Context, tx *change.Tx, p *store.Place) error {
	n, err := store.LockNamespace(ctx, tx, sdk.BrandNamespace)
	p.Namespace, p.NamespaceUID = sdk.BrandNamespace, n.GetUid()
	return err
}

// CreateBrandAsset implements rowhouse.config.v1.BrandAssetService.
func (s *brandAssetService) CreateBrandAsset(
	ctx context.Context, req *configv1.CreateBrandAssetRequest,
) (*configv1.CreateBrandAssetResponse, error) {
	select { // before there is a transaction: who waits holds no connection
	case s.reading <- struct{}{}:
		defer func() { <-s.reading }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	files, refusal := s.take(ctx, req)
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.CreateBrandAssetResponse, error) {
		tx.Audit(req.GetParent() + "/brandAssets")
		p, err := s.owner(tx, "parent", req.GetParent())
		if err == nil {
			err = s.there(p.Owner)
		}
		if err != nil {
			return nil, err
		}
		if refusal != nil {
			return nil, refusal
		}
		return s.keep(ctx, tx, p, files)
	})
}

// take makes of an upload what may be served. It takes a second of work at worst, so it is done where there is no transaction.
func (s *brandAssetService) take(ctx context.Context, req *configv1.CreateBrandAssetRequest) ([]brands.File, error) {
	o, err := settings.ParseOwner(req.GetParent())
	if err != nil {
		return nil, nil //nolint:nilerr // the unit of work says so
	}
	p, err := s.locate(o)
	if err != nil {
		return nil, err
	}
	own, err := store.OwnAssets(ctx, s.Pool, p)
	if err != nil {
		return nil, pg.Fault(err)
	}
	files, err := brands.Take(brands.Upload{
		MediaType: req.GetMediaType(), Content: req.GetContent(), Icons: req.GetIcons(), Ground: req.GetGround(),
		Own: func(a sdk.Asset) bool { _, has := own[a]; return has },
	})
	if err != nil {
		return nil, refusedUpload(err)
	}
	return files, nil
}

// refusedUpload says what is wrong with an upload.
func refusedUpload(err error) error {
	var refusal *brand.Refusal
	if !errors.As(err, &refusal) {
		return err
	}
	what := refusal.Error()
	return refuse(fault.InvalidArgument, uploadRefused, "the file is refused: %s", what).WithMetadata("rule", refusal.Rule).
		WithField(fault.FieldViolation{Field: "content", Description: what, Reason: constant(refusal.Rule)})
}

// keep stores the files of an upload, within what their owner may have.
func (s *brandAssetService) keep(
	ctx context.Context, tx *change.Tx, p store.Place, files []brands.File,
) (*configv1.CreateBrandAssetResponse, error) {
	if err := lockBrands(ctx, tx, &p); err != nil {
		return nil, err
	}
	own, err := store.OwnAssets(ctx, tx, p)
	if err != nil {
		return nil, err
	}
	out := &configv1.CreateBrandAssetResponse{Patch: brands.Patch(files)}
	for _, f := range files {
		for _, used := range f.Uses {
			if _, has := own[used]; !has { // any more
				return nil, fault.New(fault.Aborted, fault.ReasonEtagMismatch, "%s has lost the asset %s meanwhile", p.Owner, used)
			}
		}
		a, err := store.PutAsset(ctx, tx, p, f, tx.Call().Principal.Name, tx.Now())
		if err != nil {
			return nil, err
		}
		a.Icon = f.Icon
		tx.Audit(a.GetName())
		out.BrandAssets = append(out.BrandAssets, a)
	}
	n, size, err := store.BrandUse(ctx, tx, p)
	if err != nil {
		return nil, err
	}
	if n > brands.MaxAssets || size > brands.MaxBytes {
		return nil, refuse(fault.ResourceExhausted, brandAssetsFull,
			"%s may have %d brand assets of %d MiB together; remove some that no brand names", p.Owner, brands.MaxAssets, brands.MaxBytes>>20)
	}
	return out, nil
}

// GetBrandAsset implements rowhouse.config.v1.BrandAssetService.
func (s *brandAssetService) GetBrandAsset(
	ctx context.Context, req *configv1.GetBrandAssetRequest,
) (*configv1.GetBrandAssetResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.GetBrandAssetResponse, error) {
		p, name, err := s.owned(tx, req.GetName())
		if err != nil {
			return nil, err
		}
		a, err := store.ReadAsset(ctx, tx, p, name)
		return &configv1.GetBrandAssetResponse{BrandAsset: a}, err
	})
}

// ListBrandAssets implements rowhouse.config.v1.BrandAssetService.
func (s *brandAssetService) ListBrandAssets(
	ctx context.Context, req *configv1.ListBrandAssetsRequest,
) (*configv1.ListBrandAssetsResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.ListBrandAssetsResponse, error) {
		tx.Audit(req.GetParent() + "/brandAssets")
		owner, err := s.owner(tx, "parent", req.GetParent())
		if err != nil {
			return nil, err
		}
		p, err := tx.Page(ctx, page.Query{Parent: req.GetParent(), Size: req.GetPageSize(), Token: req.GetPageToken()})
		if err != nil {
			return nil, err
		}
		found, err := store.ListAssets(ctx, tx, owner, last(p), p.Limit())
		if err != nil {
			return nil, err
		}
		found, next, err := page.Cut(p, found, func(a *configv1.BrandAsset) []string {
			_, asset, _ := strings.Cut(a.GetName(), "/brandAssets/")
			return []string{asset[:2*32]}
		})
		return &configv1.ListBrandAssetsResponse{BrandAssets: found, NextPageToken: next}, err
	})
}

// DeleteBrandAsset implements rowhouse.config.v1.BrandAssetService.
func (s *brandAssetService) DeleteBrandAsset(
	ctx context.Context, req *configv1.DeleteBrandAssetRequest,
) (*configv1.DeleteBrandAssetResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.DeleteBrandAssetResponse, error) {
		p, name, err := s.owned(tx, req.GetName())
		if err != nil {
			return nil, err
		}
		if err := lockBrands(ctx, tx, &p); err != nil {
			return nil, err
		}
		_, err = store.ReadAsset(ctx, tx, p, name)
		if fault.KindOf(err) == fault.NotFound && req.GetAllowMissing() {
			return &configv1.DeleteBrandAssetResponse{}, nil
		}
		if err != nil {
			return nil, err
		}
		used, err := store.AssetInUse(ctx, tx, p, name)
		if err != nil {
			return nil, err
		}
		if used {
			return nil, refuse(fault.FailedPrecondition, brandAssetInUse, "a brand, a draft or a style sheet of %s names the asset", p.Owner)
		}
		return &configv1.DeleteBrandAssetResponse{}, store.DeleteAsset(ctx, tx, p, name)
	})
}

// ReadBrandAsset implements rowhouse.config.v1.BrandAssetService.
func (s *brandAssetService) ReadBrandAsset(
	ctx context.Context, req *configv1.ReadBrandAssetRequest,
) (*configv1.ReadBrandAssetResponse, error) {
	content, err := store.ReadContent(ctx, s.Pool, req.GetSha256())
	if err != nil {
		return nil, pg.Fault(err)
	}
	return &configv1.ReadBrandAssetResponse{Content: content}, nil
}

// named are the assets that a document names, wherever it does, each with the places.
func named(o sdk.Object) map[sdk.Asset][]string {
	found := make(map[sdk.Asset][]string)
	var walk func(pointer string, v any)
	walk = func(pointer string, v any) {
		switch v := v.(type) {
		case string:
			if a, ok := sdk.ParseAsset(v); ok {
				found[a] = append(found[a], pointer)
			}
		case sdk.Object:
			for name, below := range v {
				walk(pointer+sdk.Pointer(name), below)
			}
		case []any:
			for i, below := range v {
				walk(pointer+sdk.Pointer(strconv.Itoa(i)), below)
			}
		}
	}
	walk("", o)
	return found
}

// judgeAssets refuses a brand that names assets which its owner does not have, or a style sheet without the assets that the
// sheet loads: gateways serve what a brand names, and nothing else.
func judgeAssets(ctx context.Context, q store.Querier, p store.Place, o sdk.Object) error {
	all := named(o)
	if p.Namespace != sdk.BrandNamespace || len(all) == 0 {
		return nil
	}
	own, err := store.OwnAssets(ctx, q, p)
	if err != nil {
		return err
	}
	refusal := refuse(fault.InvalidArgument, schemaViolation,
		"the brand names assets that %s does not have, or not all that it needs", p.Owner)
	wrong := func(pointers []string, rule, format string, args ...any) {
		slices.Sort(pointers)
		refusal = refusal.WithField(fault.FieldViolation{
			Field: "document.content" + pointers[0], Reason: constant(rule), Description: fmt.Sprintf(format, args...),
		})
	}
	for a, pointers := range all {
		uses, has := own[a]
		if !has {
			wrong(pointers, "asset", "%s has no asset %s", p.Owner, a)
		}
		for _, used := range uses {
			if len(all[used]) == 0 {
				wrong(pointers, "assets", "the style sheet loads %s, which must stand in \"assets\"", used)
			}
		}
	}
	if len(refusal.Fields) == 0 {
		return nil
	}
	slices.SortFunc(refusal.Fields, func(a, b fault.FieldViolation) int {
		return strings.Compare(a.Field+a.Description, b.Field+b.Description)
	})
	return refusal
}
