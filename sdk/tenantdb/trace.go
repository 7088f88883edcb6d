package tenantdb

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// tracer stands between pgx and a tracer. It takes arguments, and with them seals, out of
// what the tracer sees, and adds the tenant to the spans that it starts.
type tracer struct {
	query   pgx.QueryTracer
	batch   pgx.BatchTracer
	prepare pgx.PrepareTracer
	connect pgx.ConnectTracer
	used    func(tenant.Context, Use) // told what statements took; may be nil
}

// newTracer returns nil, not a tracer without a target, when there is nothing to call.
func newTracer(to pgx.QueryTracer, used func(tenant.Context, Use)) pgx.QueryTracer {
	if to == nil && used == nil {
		return nil
	}
	t := &tracer{query: to, used: used}
	t.batch, _ = to.(pgx.BatchTracer)
	t.prepare, _ = to.(pgx.PrepareTracer)
	t.connect, _ = to.(pgx.ConnectTracer)
	return t
}

// Where a read went, and why not to a replica.
const (
	keyReadFrom = "rowhouse.read_from"
	keyReason   = "rowhouse.read_from.reason"
)

// describe puts the tenant on the span in ctx, when parent did not have that span already:
// only spans of the tracer are ours to describe.
func describe(parent, ctx context.Context) context.Context {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() || span.SpanContext().Equal(trace.SpanContextFromContext(parent)) {
		return ctx
	}
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return ctx
	}
	// The names and values are those of tenantotel.Attributes, which a test holds them to:
	// importing that package would bring gRPC and the exporters to each user of this one.
	attributes := []attribute.KeyValue{
		attribute.String("tenant.id", tc.ID().String()),
		attribute.String("rowhouse.tenant.uid", tc.UID().String()),
		attribute.String("rowhouse.plan", tc.Plan()),
		attribute.String("rowhouse.cell", tc.Cell()),
		attribute.String("rowhouse.isolation", strings.ToLower(tc.Model().String())),
		attribute.Int64("rowhouse.placement.generation", int64(tc.PlacementGeneration())), //nolint:gosec // counts moves
	}
	if waited, ok := ctx.Value(waitKey{}).(time.Duration); ok {
		attributes = append(attributes, attribute.Float64("rowhouse.db.admission_wait", waited.Seconds()))
	}
	if why, reads := ctx.Value(readFromKey{}).(string); reads {
		from := "replica"
		if why != "" {
			from = "primary"
			attributes = append(attributes, attribute.String(keyReason, why))
		}
		attributes = append(attributes, attribute.String(keyReadFrom, from))
	}
	span.SetAttributes(attributes...)
	return ctx
}

// work is a statement, or several together, under way.
type work struct {
	began time.Time
	rows  int64
}

// workKey is where a statement's context has its work.
type workKey struct{}

// begin notes when a statement was sent, where somebody is told.
func (t *tracer) begin(ctx context.Context) context.Context {
	if t.used == nil {
		return ctx
	}
	return context.WithValue(ctx, workKey{}, &work{began: time.Now()})
}

// end tells what it took.
func (t *tracer) end(ctx context.Context, rows int64) {
	s, ok := ctx.Value(workKey{}).(*work)
	if !ok || s.began.IsZero() {
		return
	}
	if tc, err := tenant.FromContext(ctx); err == nil {
		t.used(tc, Use{Took: time.Since(s.began), Rows: s.rows + rows})
	}
	s.began = time.Time{}
}

// ours reports whether a statement of a batch is not the caller's.
func ours(sql string) bool {
	return sql == enterSQL || sql == awaitSQL || sql == positionSQL
}

// waitKey is where a call's context says how long it waited for a connection.
type waitKey struct{}

func (t *tracer) TraceQueryStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	ctx = t.begin(ctx)
	if t.query == nil {
		return ctx
	}
	data.Args = nil
	return describe(ctx, t.query.TraceQueryStart(ctx, conn, data))
}

func (t *tracer) TraceQueryEnd(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryEndData) {
	t.end(ctx, data.CommandTag.RowsAffected())
	if t.query != nil {
		t.query.TraceQueryEnd(ctx, conn, data)
	}
}

func (t *tracer) TraceBatchStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	ctx = t.begin(ctx)
	if t.batch == nil {
		return ctx
	}
	shown := &pgx.Batch{}
	for _, q := range data.Batch.QueuedQueries {
		shown.Queue(q.SQL)
	}
	data.Batch = shown
	return describe(ctx, t.batch.TraceBatchStart(ctx, conn, data))
}

func (t *tracer) TraceBatchQuery(ctx context.Context, conn *pgx.Conn, data pgx.TraceBatchQueryData) {
	if s, ok := ctx.Value(workKey{}).(*work); ok && !ours(data.SQL) {
		s.rows += data.CommandTag.RowsAffected()
	}
	if t.batch != nil {
		data.Args = nil
		t.batch.TraceBatchQuery(ctx, conn, data)
	}
}

func (t *tracer) TraceBatchEnd(ctx context.Context, conn *pgx.Conn, data pgx.TraceBatchEndData) {
	t.end(ctx, 0)
	if t.batch != nil {
		t.batch.TraceBatchEnd(ctx, conn, data)
	}
}

func (t *tracer) TracePrepareStart(ctx context.Context, conn *pgx.Conn, data pgx.TracePrepareStartData) context.Context {
	if t.prepare == nil {
		return ctx
	}
	return describe(ctx, t.prepare.TracePrepareStart(ctx, conn, data))
}

func (t *tracer) TracePrepareEnd(ctx context.Context, conn *pgx.Conn, data pgx.TracePrepareEndData) {
	if t.prepare != nil {
		t.prepare.TracePrepareEnd(ctx, conn, data)
	}
}

func (t *tracer) TraceConnectStart(ctx context.Context, data pgx.TraceConnectStartData) context.Context {
	if t.connect == nil {
		return ctx
	}
	return t.connect.TraceConnectStart(ctx, data)
}

func (t *tracer) TraceConnectEnd(ctx context.Context, data pgx.TraceConnectEndData) {
	if t.connect == nil {
		return
	}
	told := false
	defer func() { //nolint:contextcheck // its end is not the call's
		if !told && data.Conn != nil { // after a panic nobody gets to know the connection
			terminate(data.Conn)
		}
	}()
	t.connect.TraceConnectEnd(ctx, data)
	told = true
}
