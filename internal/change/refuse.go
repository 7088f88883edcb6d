package change

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/protobuf/types/known/timestamppb"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	"github.com/rowhouse-platform/rowhouse/internal/audit"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

const (
	// refusalsPerMinute bounds the events that refused calls of one principal and method leave, of each outcome.
	refusalsPerMinute = 100
	// maxRefusalKeys bounds the memory that hostile callers can take; beyond it all share one budget.
	maxRefusalKeys = 4096
	refusalTimeout = 2 * time.Second
	// meterName is the scope of the kernel's metrics.
	meterName = "github.com/rowhouse-platform/rowhouse/internal/change"
)

// Denied records a call that was refused before its handler ran, on the resource that its request names. It returns
// nothing, because the call is refused either way; what cannot be recorded is logged.
func (k *Kernel) Denied(ctx context.Context, call rule.Call, err error) {
	k.refuse(ctx, call, err, new(Tx))
}

// ReportSuppressed leaves one event, of the method "job/suppressed", that counts the refused calls without an event of
// their own since the last report of this process, and none when there were none. Run calls it every minute; tests may.
func (k *Kernel) ReportSuppressed(ctx context.Context) error {
	n := k.refused.take()
	if n == 0 {
		return nil
	}
	call, _ := rule.CallFrom(NewJob(ctx, k.service, "suppressed"))
	call.Reason = fmt.Sprintf("%d refused calls left no event", n)
	e := k.event(call, time.Time{})
	e.Outcome = auditv1.Outcome_OUTCOME_OK
	err := k.record(ctx, e, []string{audit.Platform})
	if err != nil {
		k.refused.putBack(n)
	}
	return err
}

// refuse records that call was answered with err, in a transaction of its own. tx holds what its unit of work had
// named until then.
func (k *Kernel) refuse(ctx context.Context, call rule.Call, err error, tx *Tx) {
	if !audited(call) || fault.KindOf(err) == fault.Unavailable {
		return
	}
	outcome := outcomeOf(err)
	if !k.refused.allow(refusalKey{call.Principal.Name, call.Method, outcome}, k.clock()) {
		k.suppressed.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", outcomeLabel(outcome))))
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refusalTimeout)
	defer cancel()
	e := k.event(call, time.Time{})
	e.Outcome, e.ReasonCode = outcome, cmp.Or(fault.ReasonOf(err), reasonInternal)
	if e.Resources = tx.resources; len(e.Resources) == 0 && call.Target != "" {
		e.Resources = []string{bounded(call.Target)}
	}
	if werr := k.record(ctx, e, tx.chainsOr(actingTenant(ctx, call))); werr != nil {
		k.log.ErrorContext(ctx, "cannot record a refused call", "method", call.Method, "error", werr)
	}
}

// record appends e, with the time of now, in a transaction of its own.
func (k *Kernel) record(ctx context.Context, e *auditv1.Event, chains []string) error {
	return pg.Tx(ctx, k.pool, pg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
		var now time.Time
		if err := tx.QueryRow(ctx, `SELECT now()`).Scan(&now); err != nil {
			return err
		}
		e.Time = timestamppb.New(now)
		return appendTo(ctx, tx, chains, e)
	})
}

// outcomeOf tells who was not allowed from what could not be done.
func outcomeOf(err error) auditv1.Outcome {
	switch fault.KindOf(err) {
	case fault.PermissionDenied, fault.Unauthenticated:
		return auditv1.Outcome_OUTCOME_DENIED
	default:
		return auditv1.Outcome_OUTCOME_FAILED
	}
}

func outcomeLabel(o auditv1.Outcome) string {
	return strings.ToLower(strings.TrimPrefix(o.String(), "OUTCOME_"))
}

// bounded keeps what a caller wrote short: not every field that names a target has a limit.
func bounded(name string) string {
	if len(name) <= maxKey {
		return name
	}
	return strings.ToValidUTF8(name[:maxKey], "")
}

// newSuppressed makes the counter of refused calls without an event.
func newSuppressed(meters metric.MeterProvider) metric.Int64Counter {
	// An error means a name that is not valid; the counter works all the same.
	counter, _ := meters.Meter(meterName).Int64Counter("rowhouse.audit.suppressed",
		metric.WithUnit("{call}"), metric.WithDescription("Refused calls that left no audit event of their own."))
	return counter
}

// refusals counts refused calls by principal, method and outcome, one minute at a time.
type refusals struct {
	mu      sync.Mutex
	minute  time.Time
	counts  map[refusalKey]int
	dropped int64 // not reported yet
}

// refusalKey has a budget. Calls that fail do not use up that of calls that are denied.
type refusalKey struct {
	principal, method string
	outcome           auditv1.Outcome
}

func newRefusals() *refusals { return &refusals{counts: make(map[refusalKey]int)} }

func (r *refusals) allow(key refusalKey, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := now.Truncate(time.Minute); !m.Equal(r.minute) {
		r.minute = m
		clear(r.counts)
	}
	if _, ok := r.counts[key]; !ok && len(r.counts) >= maxRefusalKeys {
		key = refusalKey{outcome: key.outcome}
	}
	r.counts[key]++
	if r.counts[key] <= refusalsPerMinute {
		return true
	}
	r.dropped++
	return false
}

// take returns how many calls left no event since the last take.
func (r *refusals) take() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.dropped
	r.dropped = 0
	return n
}

func (r *refusals) putBack(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropped += n
}
