package webhook

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
)

// QuotaFeed is the name of quota's feed of notices.
const QuotaFeed = "quota-events"

// Types of quota's notices.
const (
	QuotaThreshold = "quota.threshold_reached"
	QuotaForecast  = "quota.limit_forecast"
)

// NewQuota returns an Intake of quota's notices, whose Run writes what Apply takes in.
func NewQuota(r Recorder, log *slog.Logger) *Intake {
	return newIntake(SourceQuota, quotaEvent, r, log)
}

// quotaEvent reads an entry.
func quotaEvent(key string, value []byte) (Event, error) {
	m := new(quotav1.QuotaEventEntry)
	if err := proto.Unmarshal(value, m); err != nil {
		return Event{}, err
	}
	body, err := json.Marshal(data{
		TenantUID: m.GetTenantUid(), Quota: m.GetQuota(), Meter: m.GetMeter(), Percent: m.GetPercent(),
		Used: &m.Used, Limit: &m.Limit, //nolint:protogetter // 0 is told, too
		PeriodStart: moment(m.GetPeriodStart()), PeriodEnd: moment(m.GetPeriodEnd()), ForecastTime: moment(m.GetForecastTime()),
	})
	if err != nil {
		return Event{}, err
	}
	_, rest, ok := strings.Cut(key, "/")
	if !ok || m.GetType() == "" || m.GetTenantUid() == "" {
		return Event{}, fmt.Errorf("it is no notice about a tenant: %q", m.GetType())
	}
	return Event{
		Source: SourceQuota, Revision: m.GetRevision(), Key: rest, Type: m.GetType(), Time: m.GetTime().AsTime(), Data: string(body),
	}, nil
}

func moment(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().Format(time.RFC3339)
}
