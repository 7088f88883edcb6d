package gateway

import (
	"context"
	"html/template"

	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/limits"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/faces"
)

// looks are what quota and config say about tenants.
type looks struct {
	limiter *limits.Limiter
	// settings holds the brands, among others; feed keeps it up to date.
	settings settings.Store
	feed     *feed.Feed
}

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
	return nil
}

// brand returns a tenant's look, or nil.
func (l *looks) brand(uid tenant.UID, plan string) *faces.Brand {
	b, ok := l.settings.Brand(uid, plan)
	if !ok {
		return nil
	}
	return &faces.Brand{
		Name: b.Name,
		CSS:  template.CSS(b.CSS()), //nolint:gosec // colours that were checked, by names of ours
		Logo: template.URL(b.Logo),  //nolint:gosec // a data URI of a checked PNG image
	}
}
