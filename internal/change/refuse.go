package change

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	"github.com/rowhouse-platform/rowhouse/internal/audit"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

const (
	// refusalsPerMinute bounds the events that refused calls of one principal and method leave.
	refusalsPerMinute = 100
	// maxRefusalKeys bounds the memory that hostile callers can take; beyond it all share one budget.
	maxRefusalKeys = 4096
	refusalTimeout = 2 * time.Second
)

// Denied records a call that was refused before its handler ran. It returns nothing, because the call is refused
// either way; what cannot be recorded is logged.
func (k *Kernel) Denied(ctx context.Context, call rule.Call, err error) {
	k.refuse(ctx, call, err)
}

// Suppressed returns how many refused calls left no event because their callers had used up their budget.
func (k *Kernel) Suppressed() int64 { return k.refused.suppressed() }

// refuse records that call was answered with err, in a transaction of its own.
func (k *Kernel) refuse(ctx context.Context, call rule.Call, err error) {
	if !audited(call) || fault.KindOf(err) == fault.Unavailable {
		return
	}
	if !k.refused.allow(call.Principal.Name, call.Method, k.clock()) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refusalTimeout)
	defer cancel()
	if werr := k.recordRefusal(ctx, call, err); werr != nil {
		k.log.ErrorContext(ctx, "cannot record a refused call", "method", call.Method, "error", werr)
	}
}

func (k *Kernel) recordRefusal(ctx context.Context, call rule.Call, err error) error {
	return pg.Tx(ctx, k.pool, pg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
		var now time.Time
		if err := tx.QueryRow(ctx, `SELECT now()`).Scan(&now); err != nil {
			return err
		}
		e := k.event(call, now.UTC())
		e.Outcome, e.ReasonCode = auditv1.Outcome_OUTCOME_FAILED, fault.ReasonOf(err)
		switch fault.KindOf(err) {
		case fault.PermissionDenied, fault.Unauthenticated:
			e.Outcome = auditv1.Outcome_OUTCOME_DENIED
		}
		if e.ReasonCode == "" {
			e.ReasonCode = reasonInternal
		}
		return audit.Append(ctx, tx, cmp.Or(actingTenant(ctx, call), audit.Platform), e)
	})
}

// refusals counts refused calls by principal and method, one minute at a time.
type refusals struct {
	mu      sync.Mutex
	minute  time.Time
	counts  map[refusalKey]int
	dropped int64
}

type refusalKey struct{ principal, method string }

func newRefusals() *refusals { return &refusals{counts: make(map[refusalKey]int)} }

func (r *refusals) allow(principal, method string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := now.Truncate(time.Minute); !m.Equal(r.minute) {
		r.minute = m
		clear(r.counts)
	}
	key := refusalKey{principal, method}
	if _, ok := r.counts[key]; !ok && len(r.counts) >= maxRefusalKeys {
		key = refusalKey{}
	}
	r.counts[key]++
	if r.counts[key] <= refusalsPerMinute {
		return true
	}
	r.dropped++
	return false
}

func (r *refusals) suppressed() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dropped
}
