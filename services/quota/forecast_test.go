package quota_test

import (
	"log/slog"
	"testing"
	"time"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/rpc"
)

// A quota that will be used up before its period ends is told of once, and one that will last is not.
func TestForecastsAreToldOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	service := quotav1.NewQuotaServiceClient(r.as("owner").conn)
	super, ctx := r.db.Superuser(t), t.Context()
	now := time.Now().UTC()
	start := now.Add(-15 * time.Hour).Truncate(time.Hour) // nine hours are left, and a bit
	for id, used := range map[string]int64{"fast": 90, "slow": 10, "spent": 100} {
		made, err := service.UpdateQuota(ctx, &quotav1.UpdateQuotaRequest{AllowMissing: true, Quota: &quotav1.Quota{
			Name: "platform/quotas/" + id, Amount: 100, Period: quotav1.QuotaPeriod_QUOTA_PERIOD_DAY, AnchorHour: int32(start.Hour()),
		}})
		r.need(err)
		for _, tenant := range []string{"acme", "globex"} {
			if tenant == "globex" && id == "fast" {
				used = 20
			}
			_, err = super.Exec(ctx, `INSERT INTO quota.counter (tenant_uid, quota, period_start, used, lim, amount, source)
				VALUES ($1, $2, $3, $4, 100, 100, $5)`, tenanttest.UID(tenant).String(), id, start, used, made.GetQuota().GetUid()+"/1")
			r.need(err)
		}
	}
	pool := r.db.Service(t)
	config := rpc.Config{Pool: pool, Kernel: change.New(change.Config{Pool: pool, Service: "quota"}), Clock: time.Now, Log: slog.Default()}
	for range 2 {
		r.need(rpc.Forecast(ctx, config))
	}
	var notices int
	var tenant, about string
	r.need(super.QueryRow(ctx, `SELECT count(*), min(tenant_uid::text), min(about) FROM quota.notice`).Scan(&notices, &tenant, &about))
	if notices != 1 || tenant != tenanttest.UID("acme").String() || about != "quotas/fast" {
		t.Errorf("%d notices, %s of %s", notices, about, tenant)
	}
	var revision, entries int
	r.need(super.QueryRow(ctx, `SELECT max(revision), count(*) FROM kernel.feed_state WHERE feed = 'quota-events'`).Scan(&revision, &entries))
	if entries != 1 {
		t.Errorf("%d entries in the feed", entries)
	}
}
