package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
)

const (
	meterForm         = "meters/{meter}"
	meterAdminService = "rowhouse.quota.v1.MeterAdminService"
)

func meters() noun {
	changing := []flag{
		{path: "meter.display_name", usage: "name for people"},
		{path: "meter.dimensions", usage: "the dimensions that events may have, at most 4"},
	}
	return noun{
		name: "meters", short: "What is counted for every tenant", service: meterAdminService,
		columns: "METER=name@meters NAME=display_name AGGREGATION=aggregation UNIT=unit DIMENSIONS=dimensions CREATED=create_time",
		verbs: []verb{
			{name: "list", rpc: "ListMeters", short: "List meters", example: "rowhouse meters list\nrowhouse meters list -o json"},
			{
				name: "get", rpc: "GetMeter", short: "Show a meter", fields: named(meterForm), wide: true, example: "rowhouse meters get api-calls",
			},
			{
				name: "create", rpc: "CreateMeter", short: "Make a meter; its aggregation and unit are fixed then",
				fields: []field{{"meter_id", "{meter}"}},
				flags: append([]flag{
					{path: "meter.aggregation", usage: "how events become one number"},
					{path: "meter.unit", usage: "what one of the quantity is, as UCUM writes units"},
				}, changing...),
				example: "rowhouse meters create api-calls --aggregation count --dimensions route\n" +
					"rowhouse meters create traffic --aggregation sum --unit By --dimensions region,route",
			},
			{
				name: "update", rpc: "UpdateMeter", short: "Change a meter's name, or declare more dimensions",
				fields: []field{{"meter.name", meterForm}},
				flags:  changing, example: "rowhouse meters update api-calls --display-name \"API calls\" --dimensions route,region",
			},
			{
				name: "delete", rpc: "DeleteMeter", short: "Delete a meter", fields: named(meterForm),
				flags:   []flag{{path: "force", usage: "remove all usage of it too, of every tenant"}},
				example: "rowhouse meters delete traffic --confirm traffic",
			},
		},
	}
}

func tenantsUsage() noun {
	flags := []flag{
		{path: "query.start_time", name: "from", usage: "the first moment (default: where this month begins)"},
		{path: "query.end_time", name: "to", usage: "the moment behind the last (default: now)"},
		{path: "query.grain", usage: "how long buckets are (default day)"},
		{path: "query.group_by", name: "by", usage: "dimensions to tell apart"},
		{path: "query.where", usage: "only events with these values of dimensions: route=/notes"},
	}
	asked := []field{{"parent", tenantForm}, {"query.meter", "{meter}"}}
	return noun{
		name: "usage", short: "What tenants used, counted by meters", service: meterAdminService,
		columns: "START=start_time DIMENSIONS=dimensions VALUE=value EVENTS=events ADJUSTMENTS=adjustments",
		verbs: []verb{
			{
				name: "query", rpc: "QueryTenantUsage", short: "Show a tenant's usage of a meter", fields: asked, flags: flags, before: sinceThisMonth,
				long: "Show a tenant's usage of a meter, bucket by bucket. What came when its bucket was closed stands beside the bucket in\n" +
					"which it came, as an adjustment.",
				example: "rowhouse usage query acme api-calls\nrowhouse usage query acme api-calls --grain hour --by route",
			},
			{
				name: "export", rpc: "ExportTenantUsage", short: "Write a tenant's usage as CSV or NDJSON", fields: asked, before: sinceThisMonth,
				flags:   append([]flag{{path: "format", usage: "how it is written (default csv)"}}, flags...),
				example: "rowhouse usage export acme api-calls --by route > usage.csv\nrowhouse usage export acme api-calls --format ndjson",
			},
		},
	}
}

// sinceThisMonth lets a query without a beginning begin where the month does.
func sinceThisMonth(a *app, _ *cobra.Command, r *call) error {
	m, ok := r.request.(interface{ GetQuery() *quotav1.UsageQuery })
	if !ok {
		return errors.New("usage sends another request")
	}
	if m.GetQuery().GetStartTime() == nil {
		now := a.now().UTC()
		m.GetQuery().StartTime = timestamppb.New(time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC))
	}
	return nil
}

// file writes what a stream sends in pieces.
func (i *invocation) file(ctx context.Context, a *app, c *cobra.Command) error {
	return a.stream(ctx, c, i.call, func(m proto.Message) error {
		piece, ok := m.(interface{ GetChunk() []byte })
		if !ok {
			return errors.New("the service sends no file")
		}
		_, err := c.OutOrStdout().Write(piece.GetChunk())
		return err
	})
}
