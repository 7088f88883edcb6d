package system

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/apiattack"
)

const meterService = "rowhouse.quota.v1.MeterService"

// usageMark is a quantity that only A has used.
const usageMark = 54321

// meter makes a meter for a case, and returns its id.
func (n neighbours) meter(ctx context.Context, t *testing.T) (string, error) {
	t.Helper()
	id := "of-" + n.a
	_, err := quotav1.NewMeterAdminServiceClient(n.h.operator(t, "quota")).CreateMeter(ctx, &quotav1.CreateMeterRequest{
		MeterId: id, Meter: &quotav1.Meter{Aggregation: quotav1.Aggregation_AGGREGATION_SUM, Dimensions: []string{"route"}},
	})
	return id, err
}

// use records an event of a tenant: quota follows tenancy, a moment later.
func (n neighbours) use(ctx context.Context, t *testing.T, tenant string, e *quotav1.UsageEvent) error {
	t.Helper()
	meters := quotav1.NewMeterServiceClient(n.h.as(t, app, "quota"))
	return poll(ctx, settle, func() error {
		resp, err := meters.RecordUsage(presenting(ctx, n.h.steal(t, app+"."+tenant+".localhost")), &quotav1.RecordUsageRequest{
			Events: []*quotav1.UsageEvent{e},
		})
		if err == nil && resp.GetOutcomes()[0] != quotav1.EventOutcome_EVENT_OUTCOME_COUNTED {
			err = fmt.Errorf("%s of %s: %v", e.GetId(), tenant, resp)
		}
		return err
	})
}

func usageOf(meter string) *quotav1.UsageQuery {
	return &quotav1.UsageQuery{Meter: meter, StartTime: timestamppb.New(time.Now().Add(-time.Hour)), GroupBy: []string{"route"}}
}

// used is what a tenant is told that it used.
func (n neighbours) used(ctx context.Context, t *testing.T, host, meter string) (string, error) {
	t.Helper()
	resp, err := quotav1.NewMeterServiceClient(n.h.as(t, app, "quota")).QueryUsage(presenting(ctx, n.h.steal(t, host)),
		&quotav1.QueryUsageRequest{Query: usageOf(meter)})
	return resp.String(), err
}

// exported is the same as a file.
func (n neighbours) exported(ctx context.Context, t *testing.T, host, meter string) (string, error) {
	t.Helper()
	stream, err := quotav1.NewMeterServiceClient(n.h.as(t, app, "quota")).ExportUsage(presenting(ctx, n.h.steal(t, host)),
		&quotav1.ExportUsageRequest{Query: usageOf(meter)})
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return text.String(), nil
		}
		if err != nil {
			return "", err
		}
		text.Write(piece.GetChunk())
	}
}

// recordsApart has B record an event with the id of one of A's: it counts for B alone, and A's as it did.
func recordsApart(ctx context.Context, t *testing.T, n neighbours) error {
	meter, err := n.meter(ctx, t)
	if err != nil {
		return err
	}
	id := uuid.Must(uuid.NewV7()).String()
	err = n.use(ctx, t, n.a, &quotav1.UsageEvent{Id: id, Meter: meter, Quantity: usageMark})
	if err == nil {
		err = n.use(ctx, t, n.b, &quotav1.UsageEvent{Id: id, Meter: meter, Quantity: 7})
	}
	if err != nil {
		return err
	}
	for tenant, want := range map[string]int64{n.a: usageMark, n.b: 7} {
		resp, err := quotav1.NewMeterServiceClient(n.h.as(t, app, "quota")).QueryUsage(
			presenting(ctx, n.h.steal(t, app+"."+tenant+".localhost")), &quotav1.QueryUsageRequest{Query: usageOf(meter)})
		if err != nil {
			return err
		}
		if len(resp.GetRows()) != 1 || resp.GetRows()[0].GetValue() != want {
			return fmt.Errorf("%w: %s has used %v", errCrossed, tenant, resp)
		}
	}
	return nil
}

// toldApart wants what A used to be told to A alone.
func toldApart(ask func(neighbours, context.Context, *testing.T, string, string) (string, error)) func(context.Context, *testing.T, neighbours) error {
	return func(ctx context.Context, t *testing.T, n neighbours) error {
		meter, err := n.meter(ctx, t)
		if err != nil {
			return err
		}
		err = n.use(ctx, t, n.a, &quotav1.UsageEvent{Id: uuid.Must(uuid.NewV7()).String(), Meter: meter, Quantity: usageMark})
		if err != nil {
			return err
		}
		return n.contrast(ctx, func(host string) (string, error) { return ask(n, ctx, t, host, meter) }, strconv.Itoa(usageMark))
	}
}

// leakUsage has a tenant see what others use: the body of a trigger on its sums.
const leakUsage = `IF NEW.tenant_uid <> '%[1]s' THEN
		INSERT INTO usage.series SELECT '%[1]s', id, meter_uid, dimensions FROM usage.series
			WHERE tenant_uid = NEW.tenant_uid AND id = NEW.series ON CONFLICT DO NOTHING;
		INSERT INTO usage.rollup SELECT '%[1]s', NEW.series, NEW.grain, NEW.bucket, 9, NEW.sum, NEW.count, NEW.max, NEW.last
			ON CONFLICT DO NOTHING;
	END IF;`

// meterTarget is the service as the generated attacks see it: A has used something on a route that is a secret.
func meterTarget(t *testing.T, n neighbours) apiattack.Target {
	target := n.behind(t, "quota", "config")
	meter, err := n.meter(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	target.Fix = func(_ string, request proto.Message) {
		switch r := request.(type) {
		case *quotav1.RecordUsageRequest:
			for _, e := range r.GetEvents() {
				e.Id, e.Source, e.Meter, e.Quantity, e.Time, e.Value = uuid.Must(uuid.NewV7()).String(), "", meter, 1, nil, ""
				for _, value := range e.GetDimensions() {
					e.Dimensions = map[string]string{"route": value}
				}
			}
		case *quotav1.QueryUsageRequest:
			r.Query, r.PageSize, r.PageToken = usageOf(meter), 1000, "" // tokens are never the same twice
		case *quotav1.ExportUsageRequest:
			r.Query = usageOf(meter)
		}
	}
	target.Victim.Plant = func(ctx context.Context, secret string) ([]string, error) {
		e := &quotav1.UsageEvent{
			Id: uuid.Must(uuid.NewV7()).String(), Meter: meter, Quantity: 1, Dimensions: map[string]string{"route": secret},
		}
		return nil, n.use(ctx, t, n.a, e)
	}
	return target
}
