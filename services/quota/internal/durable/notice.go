package durable

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/allowance"
)

// FeedEvents is the feed of notices. Its state is what happened lately, so a follower that was away for longer than the
// change log reaches back misses nothing, and by the revision in each entry is told nothing twice.
const FeedEvents = "quota-events"

// Types of notices.
const (
	ThresholdReached = "quota.threshold_reached"
	LimitForecast    = "quota.limit_forecast"
)

// Publisher is a unit of work as far as feeds go.
type Publisher interface {
	Publish(feed, key string, value proto.Message) error
	OnRevision(fn func(ctx context.Context, revision int64) error)
}

// Notice is what is told about a quota or a meter of a tenant.
type Notice struct {
	// Type is one of those above.
	Type string
	// TenantUID is whose quota it is. The transaction must mean this tenant; see store.AsTenant.
	TenantUID string
	// Quota is the id of the quota, or Meter that of the meter, or both.
	Quota, Meter string
	// Percent is the threshold.
	Percent     int32
	Used, Limit int64
	// PeriodStart and PeriodEnd are the period; zero without one.
	PeriodStart, PeriodEnd time.Time
	// Forecast is when the limit is reached, if that is what the notice is about.
	Forecast time.Time
}

// about is what a notice is about.
func (n Notice) about() string {
	if n.Quota != "" {
		return "quotas/" + n.Quota
	}
	return "meters/" + n.Meter
}

// again is how long a notice about what has no period is not given again.
const again = 24 * time.Hour

// Raise tells of a notice, once for each quota or meter, type, period and percent, in the transaction in which it became
// due. It says whether it was told now. What has no period is told again when it becomes due a day later or more.
func Raise(ctx context.Context, tx Tx, n Notice) (raised bool, err error) {
	start := n.PeriodStart
	if start.IsZero() {
		start = allowance.Always()
	}
	tag, err := tx.Exec(ctx, `INSERT INTO quota.notice AS n (tenant_uid, about, type, period_start, percent, notice_time)
		VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (tenant_uid, about, type, period_start, percent) DO UPDATE SET notice_time = excluded.notice_time
		WHERE n.period_start = 'epoch' AND n.notice_time <= $7`,
		n.TenantUID, n.about(), n.Type, start, n.Percent, tx.Now(), tx.Now().Add(-again))
	if err != nil {
		return false, fmt.Errorf("give a notice: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return false, nil
	}
	m := &quotav1.QuotaEventEntry{
		Type: n.Type, Time: timestamppb.New(tx.Now()), TenantUid: n.TenantUID, Quota: n.Quota, Meter: n.Meter, Percent: n.Percent,
		Used: n.Used, Limit: n.Limit, PeriodStart: stamp(n.PeriodStart), PeriodEnd: stamp(n.PeriodEnd), ForecastTime: stamp(n.Forecast),
	}
	tx.OnRevision(func(_ context.Context, revision int64) error {
		m.Revision = revision
		return tx.Publish(FeedEvents, fmt.Sprintf("%020d/%s:%s/%04d/%s", revision, n.Type, n.about(), n.Percent, n.TenantUID), m)
	})
	return true, nil
}

// stamp is a moment on the wire, none for the zero one and for the start of what has no period.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() || t.Equal(allowance.Always()) {
		return nil
	}
	return timestamppb.New(t)
}

// notify tells of the thresholds that the counters have crossed since they were locked.
func (l *ledger) notify(ctx context.Context, tx Tx) error {
	for _, k := range slices.SortedFunc(maps.Keys(l.counters), compareKeys) {
		c := l.counters[k]
		level, ok := l.levels.by(k.owner, k.quota)
		if !ok || c.Used <= c.before || level.at(tx.Now()) != k {
			continue
		}
		start, end := level.policy.Period.At(tx.Now())
		for _, percent := range c.Crossed(level.policy.Thresholds, c.before) {
			if _, err := Raise(ctx, tx, Notice{
				Type: ThresholdReached, TenantUID: k.owner, Quota: k.quota, Percent: percent, Used: c.Used, Limit: c.Bound(),
				PeriodStart: start, PeriodEnd: end,
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

const (
	// keepEvents is how long a follower may be away without missing a notice, keepNewest how many there may be.
	keepEvents = 7 * 24 * time.Hour
	keepNewest = 100_000
	eventBatch = 500
)

// ForgetEvents takes one batch of notices out of the feed that are too old, or that too many newer ones are there of, and
// says whether there may be more.
func ForgetEvents(ctx context.Context, tx Tx) (more bool, err error) {
	rows, err := tx.Query(ctx, `SELECT key, value FROM kernel.feed_state WHERE feed = $1 ORDER BY key LIMIT $2`, FeedEvents, eventBatch)
	if err != nil {
		return false, fmt.Errorf("find old notices: %w", err)
	}
	type entry struct {
		Key   string
		Value []byte
	}
	oldest, err := pgx.CollectRows(rows, pgx.RowToStructByPos[entry])
	if err != nil {
		return false, fmt.Errorf("find old notices: %w", err)
	}
	var surplus int
	err = tx.QueryRow(ctx, `SELECT count(*) - $2 FROM kernel.feed_state WHERE feed = $1`, FeedEvents, keepNewest).Scan(&surplus)
	if err != nil {
		return false, fmt.Errorf("count notices: %w", err)
	}
	for i, e := range oldest {
		m := new(quotav1.QuotaEventEntry)
		if proto.Unmarshal(e.Value, m) == nil && !m.GetTime().AsTime().Before(tx.Now().Add(-keepEvents)) && i >= surplus {
			return false, nil
		}
		if err := tx.Publish(FeedEvents, e.Key, nil); err != nil {
			return false, err
		}
	}
	return len(oldest) == eventBatch, nil
}

// eraseEvents takes a tenant's notices out of the feed.
func eraseEvents(ctx context.Context, tx Tx, uid string) (int64, error) {
	rows, err := tx.Query(ctx, `SELECT key FROM kernel.feed_state WHERE feed = $1 AND right(key, $3) = $2`, FeedEvents, uid, len(uid))
	if err != nil {
		return 0, err
	}
	keys, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, k := range keys {
		if err := tx.Publish(FeedEvents, k, nil); err != nil {
			return 0, err
		}
	}
	return int64(len(keys)), err
}
