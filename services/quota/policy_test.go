package quota_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

func matches(dimension string, values ...string) []*quotav1.LimitMatch {
	return []*quotav1.LimitMatch{{Dimension: dimension, Values: values}}
}

func TestPolicyIsKept(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("operator")
	for _, l := range []*quotav1.Limit{
		{
			Name: "plans/free/limits/writes", Tokens: 5, Period: durationpb.New(time.Minute), Burst: 9, Resource: "requests",
			Kind: quotav1.LimitKind_LIMIT_KIND_RATE, Scope: quotav1.LimitScope_LIMIT_SCOPE_PLAN, Dimensions: []string{"user", "route"},
			Match: matches("method", "POST", "PUT*"), Costs: []*quotav1.LimitCost{{Match: matches("route", "imports"), Cost: 10}},
			Mode: quotav1.LimitMode_LIMIT_MODE_SHADOW, OnChange: quotav1.LimitChange_LIMIT_CHANGE_RESET, MaxCells: 7,
			OnStoreLoss: quotav1.StoreLossPolicy_STORE_LOSS_POLICY_FAIL_OPEN,
			ExpireTime:  timestamppb.New(time.Now().Add(time.Hour).Truncate(time.Second)),
		},
		{Name: "tenants/acme/limits/exports", Tokens: 3, Period: durationpb.New(time.Minute), Kind: quotav1.LimitKind_LIMIT_KIND_CONCURRENCY},
	} {
		made := r.set(a, l)
		got, err := a.GetLimit(t.Context(), &quotav1.GetLimitRequest{Name: l.GetName()})
		r.need(err)
		if !proto.Equal(got.GetLimit(), made) {
			t.Errorf("got\n%v, made\n%v", got.GetLimit(), made)
		}
		want := proto.CloneOf(made)
		want.Uid, want.Etag, want.Revision, want.CreateTime, want.UpdateTime = "", "", 0, nil, nil
		if l.GetResource() == "" {
			l.Resource, l.Burst, l.MaxCells, l.OnStoreLoss, l.Scope, l.Mode, l.OnChange = "exports", 3, 100_000, 1, 1, 1, 1
		}
		if !proto.Equal(want, l) {
			t.Errorf("made\n%v, want\n%v", want, l)
		}
		changed, err := a.UpdateLimit(t.Context(), &quotav1.UpdateLimitRequest{
			Limit: &quotav1.Limit{Name: l.GetName(), Tokens: 4}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"tokens"}},
		})
		if l.GetKind() == quotav1.LimitKind_LIMIT_KIND_CONCURRENCY {
			r.need(err) // what it may burst follows
			if changed.GetLimit().GetKind() != l.GetKind() {
				t.Errorf("changed %v", changed.GetLimit())
			}
		}
		_, err = a.UpdateLimit(t.Context(), &quotav1.UpdateLimitRequest{Limit: &quotav1.Limit{Name: l.GetName(), Kind: 3 - l.GetKind()}})
		refused(t, "another kind", err, codes.InvalidArgument, fault.ReasonImmutableField)
	}
}

func TestBadPolicies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("operator")
	for what, edit := range map[string]func(l *quotav1.Limit){
		"a scope above a tenant": func(l *quotav1.Limit) { l.Name, l.Scope = "tenants/acme/limits/x", quotav1.LimitScope_LIMIT_SCOPE_PLAN },
		"a scope above a plan": func(l *quotav1.Limit) {
			l.Name, l.Scope = "plans/free/limits/x", quotav1.LimitScope_LIMIT_SCOPE_PLATFORM
		},
		"an unknown scope":      func(l *quotav1.Limit) { l.Scope = 9 },
		"an unknown mode":       func(l *quotav1.Limit) { l.Mode = 9 },
		"an unknown kind":       func(l *quotav1.Limit) { l.Kind = 9 },
		"no resource":           func(l *quotav1.Limit) { l.Resource = "Bytes Out" },
		"four dimensions":       func(l *quotav1.Limit) { l.Dimensions = []string{"a", "b", "c", "d"} },
		"a dimension twice":     func(l *quotav1.Limit) { l.Dimensions = []string{"a", "a"} },
		"no dimension":          func(l *quotav1.Limit) { l.Dimensions = []string{""} },
		"a match of nothing":    func(l *quotav1.Limit) { l.Match = matches("user") },
		"a cost of nothing":     func(l *quotav1.Limit) { l.Costs = []*quotav1.LimitCost{{Match: matches("user", "a")}} },
		"a cost for every call": func(l *quotav1.Limit) { l.Costs = []*quotav1.LimitCost{{Cost: 2}} },
		"costs of bytes": func(l *quotav1.Limit) {
			l.Resource, l.Costs = "bytes-in", []*quotav1.LimitCost{{Match: matches("user", "a"), Cost: 2}}
		},
		"too many cells":     func(l *quotav1.Limit) { l.MaxCells = 1e9 },
		"slots for a moment": func(l *quotav1.Limit) { l.Kind, l.Period = 2, durationpb.New(time.Millisecond) },
		"slots for days":     func(l *quotav1.Limit) { l.Kind, l.Period = 2, durationpb.New(48*time.Hour) },
		"slots with costs": func(l *quotav1.Limit) {
			l.Kind, l.Costs = 2, []*quotav1.LimitCost{{Match: matches("user", "a"), Cost: 2}}
		},
		"a burst that takes forever": func(l *quotav1.Limit) { l.Tokens, l.Burst, l.Period = 1, 1<<40, durationpb.New(time.Hour) },
	} {
		l := limit("platform/limits/x", 5, time.Minute, 0)
		edit(l)
		_, err := a.UpdateLimit(t.Context(), &quotav1.UpdateLimitRequest{Limit: l, AllowMissing: true})
		refused(t, what, err, codes.InvalidArgument, fault.ReasonInvalidField)
		_, err = a.GetLimit(t.Context(), &quotav1.GetLimitRequest{Name: l.GetName()})
		refused(t, what+" was kept", err, codes.NotFound, fault.ReasonResourceNotFound)
	}
}

// One step decides about all limits of a resource, so there are not too many of them.
func TestResourceHasEightLimits(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("operator")
	named := func(owner string, n int) *quotav1.Limit {
		l := limit(fmt.Sprintf("%s/limits/l%d", owner, n), 5, time.Minute, 0)
		l.Resource = "requests"
		return l
	}
	for n := range 8 {
		r.set(a, named("plans/free", n))
	}
	_, err := a.UpdateLimit(t.Context(), &quotav1.UpdateLimitRequest{Limit: named("tenants/acme", 8), AllowMissing: true})
	refused(t, "the ninth", err, codes.FailedPrecondition, fault.ReasonLimitsTooMany)
	r.set(a, named("tenants/acme", 3)) // which replaces one
	other := named("platform", 9)
	other.Resource = "exports"
	r.set(a, other)
}

// Explain tells what holds now, which of it a call is charged to, and what.
func TestExplainACall(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("operator")
	r.set(a, limit("platform/limits/requests", 5, time.Minute, 0))
	writes := limit("plans/business/limits/writes", 2, time.Minute, 0)
	writes.Resource, writes.Match = "requests", matches("method", "P*")
	writes.Costs = []*quotav1.LimitCost{{Match: matches("route", "imports"), Cost: 10}}
	r.set(a, writes)
	over := limit("tenants/acme/limits/writes", 99, time.Minute, 0)
	over.ExpireTime = timestamppb.New(time.Now().Add(-time.Second))
	r.set(a, over)
	for _, c := range []struct {
		dims map[string]string
		want []string
	}{
		{map[string]string{"method": "GET"}, []string{"platform/limits/requests 1"}},
		{map[string]string{"method": "POST"}, []string{"platform/limits/requests 1", "plans/business/limits/writes 1"}},
		{map[string]string{"method": "PUT", "route": "imports"}, []string{"platform/limits/requests 1", "plans/business/limits/writes 10"}},
	} {
		resp, err := a.ExplainLimits(t.Context(), &quotav1.ExplainLimitsRequest{Parent: "tenants/acme", Resource: "requests", Dimensions: c.dims})
		r.need(err)
		var got []string
		for _, e := range resp.GetLimits() {
			got = append(got, fmt.Sprintf("%s %d", e.GetLimit().GetName(), e.GetCost()))
			if len(e.GetExpired()) > 0 != (e.GetSource() == "plans/business") {
				t.Errorf("%v has ended", e.GetExpired())
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%v: %v, want %v", c.dims, got, c.want)
		}
	}
	// Where the override has ended, quota goes by the plan's again.
	over.ExpireTime = nil
	r.set(a, over)
	resp, err := a.ExplainLimits(t.Context(), &quotav1.ExplainLimitsRequest{Parent: "tenants/acme"})
	if err != nil || len(resp.GetLimits()) != 2 || resp.GetLimits()[1].GetSource() != "tenants/acme" {
		t.Errorf("%v, %v", resp, err)
	}
}
