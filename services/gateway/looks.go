package gateway

import (
	"context"
	"html/template"
	"net/http"
	"time"

	"google.golang.org/grpc"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/limits"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/brands"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/edge"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/faces"
)

// looks are what quota and config say about tenants.
type looks struct {
	limiter *limits.Limiter
	// settings holds the brands, among others; feed keeps it up to date.
	settings settings.Store
	feed     *feed.Feed
	brands   *brands.Brands
}

// maxAsset bounds an answer with an asset in it.
const maxAsset = 6 << 20

// followConfig opens the feed of settings.
func (h *house) followConfig(ctx context.Context) error {
	conn, err := h.dial(ctx, h.c.Settings)
	if err != nil {
		return err
	}
	keys, err := h.c.Settings.feedKeys()
	if err != nil {
		return err
	}
	h.looks.settings.Trust, h.looks.settings.Log = h.trust, h.p.Log
	h.looks.feed, err = settings.Follow(context.WithoutCancel(ctx), settings.FollowConfig{
		Config: conn, FeedKeys: keys, Replica: h.c.Replica, Store: &h.looks.settings, Dir: h.c.in("settings"),
		Clock: h.p.Clock, Log: h.p.Log, Metrics: h.p.Telemetry.MeterProvider(),
	})
	if err != nil {
		return err
	}
	h.close(h.looks.feed.Close)
	client := configv1.NewBrandAssetServiceClient(conn)
	assets, err := brands.OpenAssets(h.c.in("assets"), func(ctx context.Context, sha []byte) ([]byte, error) {
		resp, err := client.ReadBrandAsset(ctx, &configv1.ReadBrandAssetRequest{Sha256: sha}, grpc.MaxCallRecvMsgSize(maxAsset))
		return resp.GetContent(), tenantgrpc.FromStatus(err)
	}, h.p.Log)
	if err != nil {
		return err
	}
	drafts := configv1.NewBrandDraftServiceClient(conn)
	h.looks.brands = brands.New(h.looks.settings.Effective, assets, &brands.Previews{
		Keys: keys, Clock: h.p.Clock, Fetch: func(ctx context.Context, token string) (string, error) {
			resp, err := drafts.ReadBrandPreview(ctx, &configv1.ReadBrandPreviewRequest{Token: token})
			return resp.GetContent(), err
		},
	})
	return nil
}

// observe tells the rollouts of settings how a tenant's request ended.
func (l *looks) observe(tc tenant.Context, status int, took time.Duration) {
	l.settings.ObserveReader(settings.Reader{UID: tc.UID(), Plan: tc.Plan(), Region: tc.Region()}, settings.Outcome{
		Failed: status >= http.StatusInternalServerError, Took: took,
	})
}

// who is the tenant of a route, on its host.
func who(r edge.Route) brands.Who {
	return brands.Who{UID: r.Tenant.UID, ID: r.Tenant.ID, Plan: r.Tenant.Plan, Host: r.Host.String()}
}

// serve answers what is asked of a tenant's brand.
func (l *looks) serve(w http.ResponseWriter, r *http.Request, route edge.Route) (bool, error) {
	return l.brands.Serve(w, r, who(route))
}

// brand returns the look of a route's tenant to whoever asks, or nil.
func (l *looks) brand(q *http.Request, r edge.Route) *faces.Brand {
	look := l.brands.Look(q, who(r))
	if look == nil || look.Brand.Empty() {
		return nil
	}
	b := look.Brand
	face := &faces.Brand{
		Name: b.Name, Say: b.Text, Links: b.Links,
		CSS:  template.CSS(b.CSS()), //nolint:gosec // colours that were checked, by names of ours
		Logo: template.URL(b.Logo),  //nolint:gosec // a data URI of a checked PNG image
	}
	if r.Prefix != "" || len(r.NamedBy) == 0 || r.NamedBy[0] != "host" {
		return face // assets are served on the tenant's own hosts alone
	}
	face.Sheet = settings.BrandPath + "brand.css"
	if path := b.Logos["light"].Path(); path != "" {
		face.Logo, face.LogoDark = template.URL(path), template.URL(b.Logos["dark"].Path()) //nolint:gosec // hashes below a path of ours
	}
	return face
}
