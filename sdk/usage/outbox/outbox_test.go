package outbox_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/fstest"

	"google.golang.org/grpc"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
	"github.com/rowhouse-platform/rowhouse/sdk/usage"
	"github.com/rowhouse-platform/rowhouse/sdk/usage/outbox"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// quota counts by tenant and id, and fails as often as it is told to, after it has counted.
type quota struct {
	quotav1.MeterServiceClient
	counted map[string]int64
	fail    int
}

func (q *quota) RecordUsage(ctx context.Context, req *quotav1.RecordUsageRequest, _ ...grpc.CallOption) (*quotav1.RecordUsageResponse, error) {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return nil, err
	}
	resp := &quotav1.RecordUsageResponse{}
	for _, e := range req.GetEvents() {
		o := quotav1.EventOutcome_EVENT_OUTCOME_COUNTED
		if e.GetMeter() == "none" {
			o = quotav1.EventOutcome_EVENT_OUTCOME_UNKNOWN_METER
		} else {
			q.counted[tc.ID().String()+"/"+e.GetId()] = e.GetQuantity()
		}
		resp.Outcomes = append(resp.Outcomes, o)
	}
	if q.fail--; q.fail >= 0 {
		return nil, errors.New("lost")
	}
	return resp, nil
}

// What a transaction commits counts once, through failures; what it takes back does not count.
func TestOutbox(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t, dbtest.Migrations(fstest.MapFS{"0001_outbox.sql": {Data: []byte(outbox.Migration)}}))
	acme, globex := d.In(t, "acme"), d.In(t, "globex")
	record := func(ctx context.Context, meter string, quantity int64, fail error) {
		err := d.DB.Tx(ctx, func(tx *tenantdb.Tx) error {
			if err := outbox.RecordTx(ctx, tx, usage.Event{Meter: meter, Quantity: quantity}); err != nil {
				return err
			}
			return fail
		})
		if !errors.Is(err, fail) {
			t.Fatal(err)
		}
	}
	for i := range 1200 {
		record(acme, "bytes", int64(i), nil)
	}
	record(acme, "bytes", 1_000_000, errors.New("taken back"))
	record(acme, "none", 1, nil)
	record(globex, "bytes", 5_000_000, nil)
	q := &quota{counted: map[string]int64{}, fail: 2}
	var refused []outbox.Refused
	for range 5 {
		r, err := outbox.Relay(acme, d.DB, q)
		if refused = append(refused, r...); err == nil {
			break
		}
	}
	sum := int64(0)
	for _, n := range q.counted {
		sum += n
	}
	if len(q.counted) != 1200 || sum != 1199*1200/2 {
		t.Errorf("%d in %d events", sum, len(q.counted))
	}
	if len(refused) != 1 || refused[0].Event.GetMeter() != "none" {
		t.Errorf("%v", refused)
	}
	var left int
	if err := d.DB.QueryRow(acme, tenantdb.Stmt(`SELECT count(*) FROM app.usage_outbox`)).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d are left: %v", left, err)
	}
	if _, err := outbox.Relay(globex, d.DB, q); err != nil || len(q.counted) != 1201 {
		t.Errorf("the other tenant's: %d, %v", len(q.counted), err)
	}
}
