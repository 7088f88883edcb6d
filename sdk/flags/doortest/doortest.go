// Package doortest furnishes a door to flags for tests of what is served behind it: settings and client keys that a test
// fills as config's feeds would, and tenants whose contexts are verified.
package doortest

import (
	"context"
	"crypto/rand"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/clientkey"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/door"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// House is a door with what is behind it. Its setters may be called while it serves, by one goroutine at a time.
type House struct {
	// Door is what servers take.
	Door *door.Door

	tb       testing.TB
	issuer   *tenanttest.Issuer
	settings settings.Store
	keys     clientkey.Store
	revision atomic.Int64
	now      atomic.Int64
	ending   chan struct{}
	metrics  *sdkmetric.ManualReader
}

// New returns a house without flags and keys, at a fixed time.
func New(tb testing.TB) *House {
	tb.Helper()
	h := &House{tb: tb, issuer: tenanttest.NewIssuer(tb, nil), ending: make(chan struct{}), metrics: sdkmetric.NewManualReader()}
	h.SetTime(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC))
	client, err := flags.New(flags.Config{
		Store: &h.settings, Clock: h.Now, Metrics: sdkmetric.NewMeterProvider(sdkmetric.WithReader(h.metrics)),
	})
	h.must(err)
	h.apply(feed.Entry{Key: settings.NamespaceKey(settings.FlagsNamespace), Value: h.encode(&configv1.SettingsEntry{Schema: `{}`})})
	h.must(h.keys.Apply(feed.Change{Reset: true}))
	h.Door = &door.Door{Flags: client, Keys: &h.keys, Ending: h.ending, Clock: h.Now}
	return h
}

func (h *House) must(err error) {
	h.tb.Helper()
	if err != nil {
		h.tb.Fatal(err)
	}
}

// Now is the house's time.
func (h *House) Now() time.Time {
	if at := h.now.Load(); at != 0 {
		return time.Unix(at, 0)
	}
	return time.Now()
}

// SetTime makes it stand still at a time.
func (h *House) SetTime(t time.Time) { h.now.Store(t.Unix()) }

// LetTimeRun makes it the time of the process, or of the bubble of testing/synctest.
func (h *House) LetTimeRun() { h.now.Store(0) }

// Revision is that of the settings.
func (h *House) Revision() int64 { return h.revision.Load() }

// Failures is rowhouse.flags.failures, by code.
func (h *House) Failures() map[string]int64 {
	h.tb.Helper()
	var counted metricdata.ResourceMetrics
	h.must(h.metrics.Collect(h.tb.Context(), &counted))
	out := make(map[string]int64)
	for _, scope := range counted.ScopeMetrics {
		for _, m := range scope.Metrics {
			sum, ok := m.Data.(metricdata.Sum[int64])
			for _, p := range sum.DataPoints {
				if code, known := p.Attributes.Value("code"); ok && known && m.Name == "rowhouse.flags.failures" {
					out[code.AsString()] += p.Value
				}
			}
		}
	}
	return out
}

// End ends all streams, as a process does before it ends.
func (h *House) End() { close(h.ending) }

func (h *House) encode(m proto.Message) []byte {
	h.tb.Helper()
	b, err := proto.Marshal(m)
	h.must(err)
	return b
}

func (h *House) apply(e feed.Entry) {
	h.tb.Helper()
	h.must(h.settings.Apply(feed.Change{Revision: h.revision.Add(1), Entries: []feed.Entry{e}}))
}

func (h *House) write(key, document string) {
	h.tb.Helper()
	h.apply(feed.Entry{Key: key, Value: h.encode(&configv1.SettingsEntry{Content: document, Revision: h.revision.Load() + 1})})
}

// SetPlatform sets the flags of the platform, SetPlan those of a plan and SetTenant those of a tenant: documents in
// flagd's format.
func (h *House) SetPlatform(document string) {
	h.tb.Helper()
	h.write(settings.PlatformKey(settings.FlagsNamespace), document)
}

// SetPlan is SetPlatform for a plan.
func (h *House) SetPlan(plan, document string) {
	h.tb.Helper()
	h.write(settings.PlanKey(settings.FlagsNamespace, plan), document)
}

// SetTenant is SetPlatform for a tenant.
func (h *House) SetTenant(id, document string) {
	h.tb.Helper()
	h.write(settings.TenantKey(settings.FlagsNamespace, tenanttest.UID(id).String()), document)
}

// Key makes a client key of a tenant: a server's without origins, else a browser's.
func (h *House) Key(id string, origins ...string) string {
	h.tb.Helper()
	return h.KeyUntil(id, time.Time{}, origins...)
}

// KeyUntil is Key for one that ends by itself.
func (h *House) KeyUntil(id string, end time.Time, origins ...string) string {
	h.tb.Helper()
	key, digest, err := clientkey.New(rand.Reader)
	h.must(err)
	uid := tenanttest.UID(id)
	e := &configv1.ClientKeyEntry{
		Id: clientkey.FeedKey(digest)[:20], TenantUid: uid[:], Kind: configv1.ClientKeyKind_CLIENT_KEY_KIND_SERVER,
		Environment: "production", Origins: origins,
	}
	if len(origins) > 0 {
		e.Kind = configv1.ClientKeyKind_CLIENT_KEY_KIND_BROWSER
	}
	if !end.IsZero() {
		e.ExpireTime = timestamppb.New(end)
	}
	h.must(h.keys.Apply(feed.Change{Entries: []feed.Entry{{Key: clientkey.FeedKey(digest), Value: h.encode(e)}}}))
	return key
}

// Revoke revokes a key.
func (h *House) Revoke(key string) {
	h.tb.Helper()
	digest, ok := clientkey.DigestOf(key)
	if !ok {
		h.tb.Fatal("not a key")
	}
	h.must(h.keys.Apply(feed.Change{Entries: []feed.Entry{{Key: clientkey.FeedKey(digest), Deleted: true}}}))
}

// Who is what a server's key of a tenant asks for.
func (h *House) Who(id, environment string) flags.Who {
	h.tb.Helper()
	tc := h.issuer.Context(h.tb, id)
	return flags.Who{UID: tc.UID(), ID: tc.ID(), Plan: tc.Plan(), Region: tc.Region(), Environment: environment}
}

// In returns a context that holds a tenant's, as verified.
func (h *House) In(ctx context.Context, id string) context.Context {
	h.tb.Helper()
	return h.issuer.In(ctx, h.tb, id)
}

// For serves a handler to a tenant, as the gateway does on the tenant's host. Edits change the tenant's context.
func (h *House) For(id string, handler http.Handler, edits ...func(*tenant.Claims)) http.Handler {
	h.tb.Helper()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r.WithContext(h.issuer.In(r.Context(), h.tb, id, edits...)))
	})
}
