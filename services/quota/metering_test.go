package quota_test

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// metering is what the app, acting for a tenant, and operators call.
type metering struct {
	quotav1.MeterServiceClient
	admin quotav1.MeterAdminServiceClient
}

// metering returns the calls of a tenant's app at a replica.
func (r *rig) metering(id string, replica int) metering {
	r.Helper()
	in := func(ctx context.Context) context.Context {
		return metadata.AppendToOutgoingContext(ctx, tenant.MetadataKey, r.token(id, "business"))
	}
	conn := r.peer("app", "notes", replica, grpc.WithChainUnaryInterceptor(func(
		ctx context.Context, method string, req, resp any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		return invoke(in(ctx), method, req, resp, cc, opts...)
	}), grpc.WithChainStreamInterceptor(func(
		ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption,
	) (grpc.ClientStream, error) {
		return open(in(ctx), desc, cc, method, opts...)
	})).conn
	return metering{quotav1.NewMeterServiceClient(conn), quotav1.NewMeterAdminServiceClient(r.as("owner").conn)}
}

// newMeter makes a meter.
func (r *rig) newMeter(id string, aggregation quotav1.Aggregation) *quotav1.Meter {
	r.Helper()
	resp, err := quotav1.NewMeterAdminServiceClient(r.as("owner").conn).CreateMeter(r.Context(), &quotav1.CreateMeterRequest{
		MeterId: id, Meter: &quotav1.Meter{Aggregation: aggregation, Unit: "By", Dimensions: []string{"route"}}, RequestId: newID(),
	})
	r.need(err)
	return resp.GetMeter()
}

func usedNow(meter string, quantity int64) *quotav1.UsageEvent {
	return &quotav1.UsageEvent{Id: uuid.Must(uuid.NewV7()).String(), Meter: meter, Quantity: quantity}
}

func sinceYesterday(meter string) *quotav1.UsageQuery {
	return &quotav1.UsageQuery{Meter: meter, StartTime: timestamppb.New(time.Now().Add(-80 * time.Hour)), GroupBy: []string{"route"}}
}

func (r *rig) record(m metering, events ...*quotav1.UsageEvent) []string {
	r.Helper()
	resp, err := m.RecordUsage(r.Context(), &quotav1.RecordUsageRequest{Events: events})
	r.need(err)
	var names []string
	for _, o := range resp.GetOutcomes() {
		names = append(names, strings.TrimPrefix(o.String(), "EVENT_OUTCOME_"))
	}
	return names
}

func TestMetersAreManaged(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	admin, ctx := quotav1.NewMeterAdminServiceClient(r.as("owner").conn), t.Context()
	made := r.newMeter("traffic", quotav1.Aggregation_AGGREGATION_SUM)
	if made.GetName() != "meters/traffic" || made.GetRevision() == 0 || made.GetEtag() == "" {
		t.Errorf("%v", made)
	}
	_, err := admin.CreateMeter(ctx, &quotav1.CreateMeterRequest{MeterId: "traffic", Meter: made})
	refused(t, "a second one", err, codes.AlreadyExists, fault.ReasonResourceExists)
	_, err = admin.CreateMeter(ctx, &quotav1.CreateMeterRequest{MeterId: "x", Meter: &quotav1.Meter{}})
	refused(t, "without an aggregation", err, codes.InvalidArgument, fault.ReasonInvalidField)
	update := func(m *quotav1.Meter) (*quotav1.Meter, error) {
		resp, err := admin.UpdateMeter(ctx, &quotav1.UpdateMeterRequest{Meter: m})
		return resp.GetMeter(), err
	}
	changed, err := update(&quotav1.Meter{Name: made.GetName(), DisplayName: "Traffic", Dimensions: []string{"route", "region"}, Etag: made.GetEtag()})
	if err != nil || changed.GetRevision() <= made.GetRevision() || len(changed.GetDimensions()) != 2 {
		t.Errorf("%v, %v", changed, err)
	}
	_, err = update(&quotav1.Meter{Name: made.GetName(), DisplayName: "x", Etag: made.GetEtag()})
	refused(t, "an old etag", err, codes.Aborted, fault.ReasonEtagMismatch)
	_, err = update(&quotav1.Meter{Name: made.GetName(), Aggregation: quotav1.Aggregation_AGGREGATION_MAX})
	refused(t, "another aggregation", err, codes.InvalidArgument, fault.ReasonImmutableField)
	_, err = update(&quotav1.Meter{Name: made.GetName(), Dimensions: []string{"region"}})
	refused(t, "fewer dimensions", err, codes.InvalidArgument, fault.ReasonInvalidField)
	r.newMeter("calls", quotav1.Aggregation_AGGREGATION_COUNT)
	first, err := admin.ListMeters(ctx, &quotav1.ListMetersRequest{PageSize: 1})
	r.need(err)
	second, err := admin.ListMeters(ctx, &quotav1.ListMetersRequest{PageSize: 1, PageToken: first.GetNextPageToken()})
	if err != nil || first.GetMeters()[0].GetName() != "meters/calls" || second.GetMeters()[0].GetName() != "meters/traffic" || second.GetNextPageToken() != "" {
		t.Errorf("%v, %v, %v", first, second, err)
	}
	m := r.metering("acme", 0)
	r.record(m, usedNow("traffic", 1))
	_, err = admin.DeleteMeter(ctx, &quotav1.DeleteMeterRequest{Name: "meters/traffic"})
	refused(t, "a meter that counted", err, codes.FailedPrecondition, fault.ReasonWrongState)
	_, err = admin.DeleteMeter(ctx, &quotav1.DeleteMeterRequest{Name: "meters/traffic", Force: true})
	r.need(err)
	_, err = admin.GetMeter(ctx, &quotav1.GetMeterRequest{Name: "meters/traffic"})
	refused(t, "one that is gone", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = quotav1.NewMeterAdminServiceClient(r.as("viewer").conn).CreateMeter(ctx, &quotav1.CreateMeterRequest{MeterId: "y", Meter: made})
	refused(t, "a viewer", err, codes.PermissionDenied, fault.ReasonPermissionMissing)
}

// Events are told apart one by one, and what is counted is seen at once, at any replica.
func TestUsageIsRecordedAndTold(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.replica("quota-2")
	r.newMeter("traffic", quotav1.Aggregation_AGGREGATION_SUM)
	m, other := r.metering("acme", 0), r.metering("acme", 1)
	one, late := usedNow("traffic", 5), usedNow("traffic", 7)
	one.Dimensions = map[string]string{"route": "/a"}
	late.Time = timestamppb.New(time.Now().Add(-70 * time.Hour))
	order := &quotav1.UsageEvent{Id: "order-1", Source: "shop", Meter: "traffic", Quantity: 11, Time: timestamppb.Now()}
	untimed := &quotav1.UsageEvent{Id: "order-1", Source: "shop", Meter: "traffic", Quantity: 11}
	got := r.record(m, one, late, order, untimed, &quotav1.UsageEvent{Id: "x", Meter: "traffic"}, usedNow("none", 1), one)
	want := []string{"COUNTED", "COUNTED", "COUNTED", "INVALID_EVENT", "INVALID_EVENT", "UNKNOWN_METER", "DUPLICATE"}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if got := r.record(other, order, one, late); !slices.Equal(got, []string{"DUPLICATE", "DUPLICATE", "DUPLICATE"}) {
		t.Errorf("again at another replica: %v", got)
	}
	sum := func(rows []*quotav1.UsageRow) (own, adjusted int64) {
		for _, row := range rows {
			own += row.GetValue()
			for _, a := range row.GetAdjustments() {
				adjusted += a.GetValue()
			}
		}
		return own, adjusted
	}
	told, err := other.QueryUsage(t.Context(), &quotav1.QueryUsageRequest{Query: sinceYesterday("traffic")})
	r.need(err)
	if own, adjusted := sum(told.GetRows()); own != 16 || adjusted != 7 {
		t.Errorf("%d and %d: %v", own, adjusted, told)
	}
	asked, err := m.admin.QueryTenantUsage(t.Context(), &quotav1.QueryTenantUsageRequest{Parent: "tenants/acme", Query: sinceYesterday("traffic")})
	if own, adjusted := sum(asked.GetRows()); err != nil || own != 16 || adjusted != 7 {
		t.Errorf("%v, %v", asked, err)
	}
	page, err := m.QueryUsage(t.Context(), &quotav1.QueryUsageRequest{Query: sinceYesterday("traffic"), PageSize: 1})
	r.need(err)
	query := sinceYesterday("traffic")
	_, err = m.QueryUsage(t.Context(), &quotav1.QueryUsageRequest{Query: query, PageSize: 1, PageToken: page.GetNextPageToken()})
	if page.GetNextPageToken() == "" {
		t.Errorf("one page of %v", told)
	}
	refused(t, "the token of another query", err, codes.InvalidArgument, fault.ReasonPageTokenInvalid)
	if alone, err := r.metering("globex", 0).QueryUsage(t.Context(), &quotav1.QueryUsageRequest{Query: sinceYesterday("traffic")}); err != nil || len(alone.GetRows()) != 0 {
		t.Errorf("another tenant sees %v, %v", alone, err)
	}
	_, err = m.QueryUsage(t.Context(), &quotav1.QueryUsageRequest{Query: sinceYesterday("none")})
	refused(t, "no meter", err, codes.NotFound, fault.ReasonResourceNotFound)
	bad := sinceYesterday("traffic")
	bad.GroupBy = []string{"colour"}
	_, err = m.QueryUsage(t.Context(), &quotav1.QueryUsageRequest{Query: bad})
	refused(t, "no dimension", err, codes.InvalidArgument, fault.ReasonInvalidField)
	_, err = m.RecordUsage(t.Context(), &quotav1.RecordUsageRequest{})
	refused(t, "no events", err, codes.InvalidArgument, fault.ReasonInvalidField)
}

func TestUsageIsExported(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.newMeter("traffic", quotav1.Aggregation_AGGREGATION_SUM)
	m := r.metering("acme", 0)
	var events []*quotav1.UsageEvent
	for i := range 900 {
		e := usedNow("traffic", int64(i))
		e.Dimensions = map[string]string{"route": fmt.Sprintf("/%d, \"quoted\"\n", i%300)}
		events = append(events, e)
	}
	events[0].Time = timestamppb.New(time.Now().Add(-5 * time.Hour))
	for part := range slices.Chunk(events, 300) {
		r.record(m, part...)
	}
	read := func(next func() ([]byte, error)) string {
		var text strings.Builder
		for {
			chunk, err := next()
			if errors.Is(err, io.EOF) {
				return text.String()
			}
			r.need(err)
			text.Write(chunk)
		}
	}
	own, err := m.ExportUsage(t.Context(), &quotav1.ExportUsageRequest{Query: sinceYesterday("traffic")})
	r.need(err)
	records, err := csv.NewReader(strings.NewReader(read(func() ([]byte, error) {
		piece, err := own.Recv()
		return piece.GetChunk(), err
	}))).ReadAll()
	r.need(err)
	if len(records) < 302 || !slices.Equal(records[0], []string{"start_time", "original_time", "route", "value", "events"}) {
		t.Errorf("%d records, %v", len(records), records[0])
	}
	asOwner := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+r.tokens["owner"])
	theirs, err := m.admin.ExportTenantUsage(asOwner, &quotav1.ExportTenantUsageRequest{
		Parent: "tenants/acme", Query: sinceYesterday("traffic"), Format: quotav1.UsageFormat_USAGE_FORMAT_NDJSON,
	})
	r.need(err)
	lines, value, late := json.NewDecoder(strings.NewReader(read(func() ([]byte, error) {
		piece, err := theirs.Recv()
		return piece.GetChunk(), err
	}))), int64(0), 0
	for {
		var line struct {
			Start    time.Time `json:"start_time"`
			Original string    `json:"original_time"`
			Value    int64
		}
		err := lines.Decode(&line)
		if errors.Is(err, io.EOF) {
			break
		}
		r.need(err)
		value += line.Value
		if line.Original != "" {
			late++
		}
	}
	if value != 899*900/2 || late != 1 {
		t.Errorf("%d in all, %d late", value, late)
	}
}

// Reading a tenant's usage is in its chain; a tenant is erased once it is deleted, and nothing of it is left.
func TestUsageOfATenantIsErased(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.newMeter("traffic", quotav1.Aggregation_AGGREGATION_SUM)
	m, ctx := r.metering("acme", 0), t.Context()
	r.record(m, usedNow("traffic", 5))
	r.record(r.metering("globex", 0), usedNow("traffic", 6))
	_, err := m.admin.QueryTenantUsage(ctx, &quotav1.QueryTenantUsageRequest{Parent: "tenants/acme", Query: sinceYesterday("traffic")})
	r.need(err)
	erasure := quotav1.NewQuotaServiceClient(r.as("owner").conn)
	erase := func() (*quotav1.EraseTenantResponse, error) {
		return erasure.EraseTenant(ctx, &quotav1.EraseTenantRequest{Name: "tenants/acme", Reason: "the end of a contract", RequestId: newID()})
	}
	_, err = erase()
	refused(t, "a tenant that is served", err, codes.FailedPrecondition, fault.ReasonWrongState)
	r.setTenant("acme", "business", tenancyv1.TenantState_TENANT_STATE_DELETED, 2)
	eventually(t, "acme is erased", func() bool {
		resp, err := erase()
		return err == nil && resp.GetRemoved()["usage.event"] == 1
	})
	uid := tenanttest.UID("acme").String()
	super := r.db.Superuser(t)
	rows, err := super.Query(ctx, `SELECT table_schema || '.' || table_name FROM information_schema.columns
		WHERE column_name = 'tenant_uid' AND table_schema = 'usage'`)
	r.need(err)
	var tables []string
	for rows.Next() {
		var table string
		r.need(rows.Scan(&table))
		tables = append(tables, table)
	}
	for _, table := range tables {
		var left int
		r.need(super.QueryRow(ctx, `SELECT count(*) FROM `+table+` WHERE tenant_uid = $1`, uid).Scan(&left))
		if left != 0 {
			t.Errorf("%d rows of %s are left", left, table)
		}
	}
	if len(tables) < 10 {
		t.Errorf("looked at %v", tables)
	}
	events, err := r.as("owner").ListEvents(ctx, &auditv1.ListEventsRequest{Parent: "chains/" + uid})
	r.need(err)
	var methods []string
	for _, e := range events.GetEvents() {
		methods = append(methods, e.GetMethod()[strings.LastIndex(e.GetMethod(), "/")+1:])
	}
	if !slices.Contains(methods, "QueryTenantUsage") || !slices.Contains(methods, "EraseTenant") {
		t.Errorf("the chain holds %v", methods)
	}
}
