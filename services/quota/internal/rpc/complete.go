package rpc

import (
	"context"
	"fmt"
	"time"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/meter"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/store"
)

// kindOf is a limit's kind, RATE when it says none.
func kindOf(l *quotav1.Limit) quotav1.LimitKind {
	if l.GetKind() == quotav1.LimitKind_LIMIT_KIND_CONCURRENCY {
		return quotav1.LimitKind_LIMIT_KIND_CONCURRENCY
	}
	return quotav1.LimitKind_LIMIT_KIND_RATE
}

const (
	usualCells = 100_000
	minTTL     = time.Second
	maxTTL     = 24 * time.Hour
)

// complete fills in defaults and checks the fields against each other.
func complete(l *quotav1.Limit, layer meter.Layer, id string) error {
	if l.GetPeriod() == nil {
		return badField("limit.period", "is required")
	}
	l.Kind = kindOf(l)
	if l.GetResource() == "" {
		l.Resource = id
	}
	if l.GetOnStoreLoss() == quotav1.StoreLossPolicy_STORE_LOSS_POLICY_UNSPECIFIED {
		l.OnStoreLoss = quotav1.StoreLossPolicy_STORE_LOSS_POLICY_SAFE_RATE
	}
	if l.GetScope() == quotav1.LimitScope_LIMIT_SCOPE_UNSPECIFIED {
		l.Scope = quotav1.LimitScope_LIMIT_SCOPE_TENANT
	}
	if l.GetMode() == quotav1.LimitMode_LIMIT_MODE_UNSPECIFIED {
		l.Mode = quotav1.LimitMode_LIMIT_MODE_ENFORCE
	}
	if l.GetOnChange() == quotav1.LimitChange_LIMIT_CHANGE_UNSPECIFIED {
		l.OnChange = quotav1.LimitChange_LIMIT_CHANGE_KEEP_USED
	}
	if l.GetMaxCells() == 0 {
		l.MaxCells = usualCells
	}
	check := rate
	if l.GetKind() == quotav1.LimitKind_LIMIT_KIND_CONCURRENCY {
		check = concurrency
	}
	if err := check(l); err != nil {
		return err
	}
	if _, err := limits.PolicyOf(l); err != nil {
		return badField("limit", err.Error())
	}
	return shared(l, layer)
}

// rate completes a limit of kind RATE.
func rate(l *quotav1.Limit) error {
	if l.GetBurst() == 0 {
		l.Burst = max(l.GetTokens(), 1)
	}
	if r := l.GetResource(); len(l.GetCosts()) > 0 && (r == limits.BytesIn || r == limits.BytesOut) {
		return badField("limit.costs", "are not for limits of bytes: a byte costs one")
	}
	return nil
}

// concurrency completes a limit of kind CONCURRENCY.
func concurrency(l *quotav1.Limit) error {
	if d := l.GetPeriod().AsDuration(); d < minTTL || d > maxTTL {
		return badField("limit.period", "is 1 s to 24 h of a limit of concurrency: how long a holder may be silent")
	}
	l.Burst = max(l.GetTokens(), 1)
	if len(l.GetCosts()) > 0 {
		return badField("limit.costs", "are not for limits of concurrency")
	}
	return nil
}

// shared checks that nobody shares cells whom the layer is not for.
func shared(l *quotav1.Limit, layer meter.Layer) error {
	switch s := l.GetScope(); {
	case s == quotav1.LimitScope_LIMIT_SCOPE_PLAN && layer == meter.Tenant,
		s == quotav1.LimitScope_LIMIT_SCOPE_PLATFORM && layer != meter.Platform:
		return badField("limit.scope", fmt.Sprintf("is wider than the %s that sets the limit", layer))
	}
	return nil
}

// room refuses one limit too many of a resource: what a call is charged to is decided in
// one step.
func room(ctx context.Context, q store.Querier, resource, id string) error {
	n, err := store.Alike(ctx, q, resource, id)
	if err != nil || n < lease.MaxLevels {
		return err
	}
	return fault.New(fault.FailedPrecondition, fault.ReasonLimitsTooMany, "the resource %q has %d limits already", resource, n).
		WithMetadata("resource", resource)
}
