package config_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/webhook"
)

// events is tenancy's feed of events. Each watch begins with a snapshot, as one does whose resume token is too old.
type events struct {
	mu       sync.Mutex
	revision int64
	all      []*apiv1.FeedEntry
	changed  chan struct{}
	cut      chan struct{} // closed to end all watches
}

func newEvents() *events {
	return &events{revision: 1, changed: make(chan struct{}), cut: make(chan struct{})}
}

// happen publishes events in one revision.
func (e *events) happen(tb testing.TB, all ...*tenancyv1.TenancyEvent) {
	tb.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.revision++
	for _, m := range all {
		m.Revision, m.Time = e.revision, timestamppb.Now()
		value, err := proto.Marshal(m)
		must(tb, err)
		e.all = append(e.all, &apiv1.FeedEntry{Key: fmt.Sprintf("%020d/%s/%s", e.revision, m.GetType(), m.GetTenantUid()), Value: value})
	}
	close(e.changed)
	e.changed = make(chan struct{})
}

// forget takes out what is older than the newest n.
func (e *events) forget(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.revision++
	e.all = e.all[len(e.all)-n:]
}

// resync ends all watches, so that they begin anew with a snapshot.
func (e *events) resync() {
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.cut)
	e.cut = make(chan struct{})
}

func (e *events) watch(ctx context.Context, key ed25519.PrivateKey, send func(*apiv1.FeedFrame) error) error {
	e.mu.Lock()
	known, revision, changed, cut := slices.Clone(e.all), e.revision, e.changed, e.cut
	e.mu.Unlock()
	chunk := &apiv1.FeedChunk{Revision: revision, Last: true, Entries: known}
	if err := send(&apiv1.FeedFrame{Kind: &apiv1.FeedFrame_Chunk{Chunk: chunk}}); err != nil {
		return err
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		digest := feed.NewDigest()
		for _, entry := range known {
			digest.Set(entry.GetKey(), entry.GetValue())
		}
		root := digest.Root()
		b := &apiv1.FeedBookmark{Revision: revision, Root: root[:], ServerTime: timestamppb.Now()}
		feed.Sign(key, webhook.TenancyFeed, b)
		if err := send(&apiv1.FeedFrame{Kind: &apiv1.FeedFrame_Bookmark{Bookmark: b}}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-cut:
			return tenantgrpc.Status(fault.New(fault.OutOfRange, fault.ReasonResync, "too old")).Err()
		case <-tick.C:
			continue
		case <-changed:
		}
		e.mu.Lock()
		d := &apiv1.FeedDelta{Revision: e.revision, PrevRevision: revision, Changes: e.all[len(known):]}
		known, revision, changed = slices.Clone(e.all), e.revision, e.changed
		e.mu.Unlock()
		if err := send(&apiv1.FeedFrame{Kind: &apiv1.FeedFrame_Delta{Delta: d}}); err != nil {
			return err
		}
	}
}

// event is something that happens to a tenant.
func event(what, id string) *tenancyv1.TenancyEvent {
	return &tenancyv1.TenancyEvent{
		Type: what, TenantUid: tenanttest.UID(id).String(), TenantId: id, State: tenancyv1.TenantState_TENANT_STATE_SUSPENDED,
		PreviousState: tenancyv1.TenantState_TENANT_STATE_ACTIVE, Plan: "free",
	}
}

// told is the types of what a path was told, with the tenants.
func told(tb testing.TB, got []received) (out []string) {
	tb.Helper()
	for _, m := range got {
		var body struct {
			Type string
			Data struct{ Tenant string }
		}
		must(tb, json.Unmarshal(m.body, &body))
		out = append(out, body.Type+" "+body.Data.Tenant)
	}
	slices.Sort(out)
	return out
}

// What happens to a tenant is told to its own webhooks and to the platform's, once, through restarts of config and snapshots
// of the feed, and nothing that was before the first webhook's config.
func TestEventsOfTenancyAreTold(t *testing.T) {
	t.Parallel()
	r, to := newHookRig(t)
	a := r.as("operator")
	r.hook(a, to, "platform/webhooks/all", &configv1.Webhook{})
	r.hook(a, to, "tenants/acme/webhooks/mine", &configv1.Webhook{})
	r.hook(a, to, "tenants/acme/webhooks/plans", &configv1.Webhook{EventTypes: []string{"tenant.plan_changed"}})
	r.hook(a, to, "tenants/globex/webhooks/mine", &configv1.Webhook{})

	db := r.db.Owner(t)
	r.awaitCursor(db, 1)
	r.events.happen(t, event("tenant.suspended", "acme"), event("tenant.suspended", "globex"))
	to.await(t, "/platform/webhooks/all", 2)
	first := to.await(t, "/tenants/acme/webhooks/mine", 1)[0]
	want := fmt.Sprintf(`{"type":"tenant.suspended","timestamp":%q,"data":{"tenant":"acme","tenantUid":%q,"state":"SUSPENDED",`+
		`"previousState":"ACTIVE","plan":"free","revision":2}}`, first.stamped(t).Timestamp.Format(time.RFC3339Nano), tenanttest.UID("acme"))
	if string(first.body) != want {
		t.Errorf("told\n%s, want\n%s", first.body, want)
	}

	// While config is away things happen, and the feed forgets the oldest; then it starts over from a snapshot.
	r.stop()
	r.events.happen(t, event("tenant.active", "acme"))
	r.events.happen(t, event("tenant.plan_changed", "acme"))
	r.events.forget(2)
	r.start()
	r.events.resync()
	r.events.happen(t, event("tenant.deleted", "globex"))
	to.await(t, "/platform/webhooks/all", 5)
	r.awaitCursor(db, 6)
	to.await(t, "/tenants/acme/webhooks/mine", 3)
	to.await(t, "/tenants/globex/webhooks/mine", 2)
	to.await(t, "/tenants/acme/webhooks/plans", 1)
	for path, want := range map[string][]string{
		"/platform/webhooks/all": {
			"tenant.active acme", "tenant.deleted globex", "tenant.plan_changed acme", "tenant.suspended acme", "tenant.suspended globex",
		},
		"/tenants/acme/webhooks/mine":   {"tenant.active acme", "tenant.plan_changed acme", "tenant.suspended acme"},
		"/tenants/acme/webhooks/plans":  {"tenant.plan_changed acme"},
		"/tenants/globex/webhooks/mine": {"tenant.deleted globex", "tenant.suspended globex"},
	} {
		if got := told(t, to.at(path)); !slices.Equal(got, want) {
			t.Errorf("%s was told %q, want %q", path, got, want)
		}
	}
}

func (m received) stamped(tb testing.TB) (out struct{ Timestamp time.Time }) {
	tb.Helper()
	must(tb, json.Unmarshal(m.body, &out))
	return out
}

// awaitCursor waits until events of tenancy are recorded up to a revision.
func (r *rig) awaitCursor(db *pgxpool.Pool, want int64) {
	r.tb.Helper()
	eventually(r.tb, fmt.Sprintf("all is recorded up to %d", want), func() bool {
		var revision int64
		must(r.tb, db.QueryRow(r.tb.Context(), `SELECT coalesce(max(revision), 0) FROM webhook.cursor`).Scan(&revision))
		return revision == want
	})
}
