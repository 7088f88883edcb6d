package rpc

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/usage"
)

// meterService serves MeterService.
type meterService struct {
	quotav1.UnimplementedMeterServiceServer
	Config

	lanes *usage.Lanes
}

// registerMeters registers what counts usage.
func registerMeters(s *grpc.Server, c Config) {
	lanes := usage.NewLanes(rand.Int()) //nolint:gosec // two processes with one number only wait for one another
	quotav1.RegisterMeterServiceServer(s, &meterService{Config: c, lanes: lanes})
	quotav1.RegisterMeterAdminServiceServer(s, &meterAdminService{Config: c})
}

// TendUsage does what usage needs beside calls, until ctx ends.
func TendUsage(c Config) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		usage.Tend(ctx, c.Pool, func(err error) {
			c.Log.ErrorContext(ctx, "usage is not tended; it is tried again in a minute", "error", err)
		})
		return nil
	}
}

// RecordUsage implements rowhouse.quota.v1.MeterService. The tenant comes from the verified context and from nowhere else.
func (s *meterService) RecordUsage(ctx context.Context, req *quotav1.RecordUsageRequest) (*quotav1.RecordUsageResponse, error) {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return nil, err
	}
	events, faults := eventsOf(req.GetEvents())
	results, err := s.lanes.Count(ctx, s.Pool, tc.UID(), events)
	if err != nil {
		return nil, err
	}
	resp := &quotav1.RecordUsageResponse{Outcomes: make([]quotav1.EventOutcome, 0, len(results))}
	for i, r := range results {
		if fault, ok := faults[i]; ok {
			r = fault
		}
		resp.Outcomes = append(resp.Outcomes, quotav1.EventOutcome(r.Outcome)) //nolint:gosec // a few
		if r.Outcome == usage.Invalid {
			resp.Faults = append(resp.Faults, &quotav1.EventFault{
				Index: int32(i), Field: r.Field, Description: r.Fault,
			})
		}
	}
	return resp, nil
}

// eventsOf reads events. One that cannot be read has no id, which nothing is counted for, and is told in faults.
func eventsOf(in []*quotav1.UsageEvent) (events []usage.Event, faults map[int]usage.Result) {
	events, faults = make([]usage.Event, len(in)), map[int]usage.Result{}
	for i, m := range in {
		e, fault := eventOf(m)
		if fault != "" {
			field := "time"
			if fault == faultID || fault == faultForeign {
				field = "id"
			}
			faults[i] = usage.Result{Outcome: usage.Invalid, Field: field, Fault: fault}
			continue
		}
		events[i] = e
	}
	return events, faults
}

const (
	faultID      = "is not a UUID of version 7; ids of other systems need a source"
	faultForeign = "must have 1 to 200 bytes, and its source at most 63"
	faultTime    = "is no time"
	faultNoTime  = "is required with a source"
)

func eventOf(m *quotav1.UsageEvent) (e usage.Event, fault string) {
	e = usage.Event{Meter: m.GetMeter(), Quantity: m.GetQuantity(), Dimensions: m.GetDimensions(), Value: m.GetValue()}
	if m.GetTime() != nil {
		if m.GetTime().CheckValid() != nil {
			return e, faultTime
		}
		e.Time = m.GetTime().AsTime().Truncate(time.Microsecond)
	}
	const maxID, maxSource = 200, 63
	if m.GetSource() != "" {
		switch {
		case len(m.GetSource()) > maxSource || m.GetId() == "" || len(m.GetId()) > maxID:
			return e, faultForeign
		case e.Time.IsZero():
			return e, faultNoTime
		}
		e.ID = usage.ForeignID(m.GetSource(), m.GetId(), e.Time)
		return e, ""
	}
	id, err := uuid.Parse(m.GetId())
	const version7 = 7
	if err != nil || id.Version() != version7 {
		return e, faultID
	}
	e.ID = id
	return e, ""
}

// QueryUsage implements rowhouse.quota.v1.MeterService.
func (s *meterService) QueryUsage(ctx context.Context, req *quotav1.QueryUsageRequest) (*quotav1.QueryUsageResponse, error) {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return nil, err
	}
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.QueryUsageResponse, error) {
		rows, next, err := queryPage(ctx, tx, tc.UID(), pageQuery{req.GetQuery(), req.GetPageSize(), req.GetPageToken()})
		return &quotav1.QueryUsageResponse{Rows: rows, NextPageToken: next}, err
	})
}

// pageQuery asks for a page.
type pageQuery struct {
	query *quotav1.UsageQuery
	size  int32
	token string
}

// queryPage returns a page of a tenant's usage, in a transaction that from then on sees that tenant's rows.
func queryPage(ctx context.Context, tx *change.Tx, uid tenant.UID, p pageQuery) ([]*quotav1.UsageRow, string, error) {
	q, err := questionOf(ctx, tx, p.query, tx.Now())
	if err != nil {
		return nil, "", err
	}
	filter, err := canonical(p.query)
	if err != nil {
		return nil, "", err
	}
	at, err := tx.Page(ctx, page.Query{Parent: uid.String(), Filter: filter, Size: p.size, Token: p.token})
	if err != nil {
		return nil, "", err
	}
	if err := store.AsTenant(ctx, tx, uid); err != nil {
		return nil, "", err
	}
	found, err := usage.Query(ctx, tx, uid, q, at.After, at.Limit())
	if err != nil {
		return nil, "", err
	}
	keys := make(map[*quotav1.UsageRow][]string, len(found))
	rows := make([]*quotav1.UsageRow, 0, len(found))
	for _, r := range found {
		m := rowOf(r)
		keys[m] = r.Key()
		rows = append(rows, m)
	}
	return page.Cut(at, rows, func(m *quotav1.UsageRow) []string { return keys[m] })
}

// questionOf reads a query. The end is now unless it says otherwise.
func questionOf(ctx context.Context, tx usage.Tx, q *quotav1.UsageQuery, now time.Time) (usage.Question, error) {
	m, err := usage.ReadMeter(ctx, tx, q.GetMeter())
	if err != nil {
		return usage.Question{}, err
	}
	out := usage.Question{
		Meter: m, Start: q.GetStartTime().AsTime(), End: now.Add(time.Minute), Grain: usage.Day, GroupBy: q.GetGroupBy(), Where: q.GetWhere(),
	}
	for _, f := range []struct {
		name string
		at   *timestamppb.Timestamp
	}{{"query.start_time", q.GetStartTime()}, {"query.end_time", q.GetEndTime()}} {
		if f.at != nil && (f.at.CheckValid() != nil || f.at.AsTime().Year() < 1970 || f.at.AsTime().Year() > 9998) {
			return out, badField(f.name, "is no time between 1970 and 9998")
		}
	}
	if q.GetEndTime() != nil {
		out.End = q.GetEndTime().AsTime()
	}
	if !out.End.After(out.Start) {
		return out, badField("query.end_time", "is not after start_time")
	}
	switch q.GetGrain() {
	case quotav1.UsageGrain_USAGE_GRAIN_MINUTE:
		out.Grain = usage.Minute
	case quotav1.UsageGrain_USAGE_GRAIN_HOUR:
		out.Grain = usage.Hour
	case quotav1.UsageGrain_USAGE_GRAIN_MONTH:
		out.Grain = usage.Month
	}
	for _, name := range q.GetGroupBy() {
		if !slices.Contains(m.Dimensions, name) {
			return out, badField("query.group_by", fmt.Sprintf("names %q, which the meter does not declare", name))
		}
	}
	for name := range q.GetWhere() {
		if !slices.Contains(m.Dimensions, name) {
			return out, badField("query.where", fmt.Sprintf("names %q, which the meter does not declare", name))
		}
	}
	return out, nil
}

func rowOf(r usage.Row) *quotav1.UsageRow {
	m := &quotav1.UsageRow{StartTime: timestamppb.New(r.Start), Dimensions: r.Dimensions, Value: r.Value, Events: r.Events}
	for _, a := range r.Adjustments {
		m.Adjustments = append(m.Adjustments, &quotav1.UsageAdjustment{
			OriginalTime: timestamppb.New(a.Original), Value: a.Value, Events: a.Events,
		})
	}
	return m
}

// ExportUsage implements rowhouse.quota.v1.MeterService.
func (s *meterService) ExportUsage(req *quotav1.ExportUsageRequest, stream grpc.ServerStreamingServer[quotav1.ExportUsageResponse]) error {
	tc, err := tenant.FromContext(stream.Context())
	if err != nil {
		return err
	}
	e := export{pool: s.Pool, uid: tc.UID(), query: req.GetQuery(), format: req.GetFormat(), send: func(chunk []byte) error {
		return stream.Send(&quotav1.ExportUsageResponse{Chunk: chunk})
	}}
	return e.run(stream.Context())
}
