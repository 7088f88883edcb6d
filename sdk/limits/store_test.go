package limits_test

import (
	"context"
	"errors"
	"math"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/limits"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// entry is one limit as the feed has it.
func entry(t testing.TB, key, name string, tokens int64) feed.Entry {
	t.Helper()
	b, err := proto.Marshal(&quotav1.LimitEntry{Limit: &quotav1.Limit{
		Name: name, Tokens: tokens, Period: durationpb.New(time.Second), Burst: 5, Revision: tokens,
		OnStoreLoss: quotav1.StoreLossPolicy_STORE_LOSS_POLICY_FAIL_CLOSED,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return feed.Entry{Key: key, Value: b}
}

func acmeKey() string { return "tenant/" + tenanttest.UID("acme").String() + "/requests" }

func TestNearestLayerHolds(t *testing.T) {
	t.Parallel()
	s, uid := new(limits.Store), tenanttest.UID("acme")
	check := func(source string, tokens int64) {
		t.Helper()
		p, ok := s.Policy(uid, "free", "requests", time.Now())
		if ok != (source != "") || p.Source != source || p.Limit.Tokens() != tokens {
			t.Errorf("%+v %v, want %d of %q", p, ok, tokens, source)
		}
	}
	apply := func(entries ...feed.Entry) {
		t.Helper()
		if err := s.Apply(feed.Change{Entries: entries}); err != nil {
			t.Fatal(err)
		}
	}
	apply()
	check("", 0)
	apply(entry(t, "platform/requests", "platform/limits/requests", 1), entry(t, "platform/exports", "platform/limits/exports", 9))
	check("platform", 1)
	apply(entry(t, "plan/free/requests", "plans/free/limits/requests", 2), entry(t, "plan/gold/requests", "plans/gold/limits/requests", 9))
	check("plan", 2)
	apply(entry(t, acmeKey(), "tenants/acme/limits/requests", 3))
	check("tenant", 3)
	if p, _ := s.Policy(tenanttest.UID("globex"), "free", "requests", time.Now()); p.Source != "plan" || p.OnLoss != limits.FailClosed || p.Revision != 2 {
		t.Errorf("another tenant has %+v", p)
	}
	apply(feed.Entry{Key: acmeKey(), Deleted: true})
	check("plan", 2)
	apply(feed.Entry{Key: "plan/free/requests", Deleted: true}, feed.Entry{Key: "plan/none/requests", Deleted: true})
	check("platform", 1)
	if err := s.Apply(feed.Change{Reset: true}); err != nil {
		t.Fatal(err)
	}
	check("", 0)
}

func TestBadEntryChangesNothing(t *testing.T) {
	t.Parallel()
	good := entry(t, "platform/requests", "platform/limits/requests", 1)
	for name, bad := range map[string]feed.Entry{
		"not a message":           {Key: "platform/requests", Value: []byte{0xff}},
		"no limit":                {Key: "platform/requests"},
		"no key":                  entry(t, "", "platform/limits/requests", 2),
		"no owner":                entry(t, "requests", "platform/limits/requests", 2),
		"an unknown layer":        entry(t, "cell/x/requests", "cells/x/limits/requests", 2),
		"an empty plan":           entry(t, "plan//requests", "plans//limits/requests", 2),
		"not a uid":               entry(t, "tenant/acme/requests", "tenants/acme/limits/requests", 2),
		"too many parts":          entry(t, "plan/free/requests/x", "plans/free/limits/requests/x", 2),
		"another limit's key":     entry(t, "platform/requests", "platform/limits/exports", 2),
		"another plan's key":      entry(t, "plan/free/requests", "plans/gold/limits/requests", 2),
		"another layer's key":     entry(t, "platform/requests", "plans/free/limits/requests", 2),
		"a plan's name, a tenant": entry(t, acmeKey(), "plans/acme/limits/requests", 2),
		"no rate":                 entry(t, "platform/requests", "platform/limits/requests", -1),
		"too much":                entry(t, "platform/requests", "platform/limits/requests", math.MaxInt64),
	} {
		s := new(limits.Store)
		if err := s.Apply(feed.Change{Entries: []feed.Entry{good}}); err != nil {
			t.Fatal(err)
		}
		for _, reset := range []bool{false, true} {
			first := entry(t, "plan/gold/requests", "plans/gold/limits/requests", 7)
			if err := s.Apply(feed.Change{Reset: reset, Entries: []feed.Entry{first, bad}}); err == nil {
				t.Errorf("%s: accepted", name)
			}
			if p, ok := s.Policy(tenanttest.UID("acme"), "gold", "requests", time.Now()); !ok || p.Limit.Tokens() != 1 {
				t.Errorf("%s: the store changed: %+v", name, p)
			}
		}
	}
}

// A resync must not open a moment without limits.
func TestResetShowsNoGap(t *testing.T) {
	t.Parallel()
	s := new(limits.Store)
	change := feed.Change{Reset: true, Entries: []feed.Entry{entry(t, "platform/requests", "platform/limits/requests", 1)}}
	if err := s.Apply(change); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, ok := s.Policy(tenant.UID{}, "free", "requests", time.Now()); !ok {
				t.Error("there was a moment without the limit")
				return
			}
		}
	})
	for range 3_000 {
		if err := s.Apply(change); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	reader.Wait()
}

func FuzzApply(f *testing.F) {
	f.Add("platform/requests", entry(f, "", "platform/limits/requests", 1).Value, false)
	f.Add("plan/free/requests", entry(f, "", "plans/free/limits/requests", 2).Value, false)
	f.Add(acmeKey(), entry(f, "", "tenants/acme/limits/requests", 3).Value, true)
	f.Add("tenant//", []byte("\xff"), false)
	f.Fuzz(func(t *testing.T, key string, value []byte, deleted bool) {
		s := new(limits.Store)
		s.SetPlatform("untouched", &limits.Policy{Revision: 42})
		err := s.Apply(feed.Change{Entries: []feed.Entry{{Key: key, Value: value, Deleted: deleted}}})
		if p, ok := s.Policy(tenanttest.UID("acme"), "free", "untouched", time.Now()); err != nil && (!ok || p.Revision != 42) {
			t.Errorf("a refused entry changed the store: %+v", p)
		}
		p, ok := s.Policy(tenanttest.UID("acme"), "free", "requests", time.Now())
		if !ok {
			return
		}
		// Whatever was accepted is a limit that can be counted with.
		l := p.Limit
		if l.Burst() < 1 || l.Tokens() < 0 || l.Period() <= 0 {
			t.Errorf("accepted %+v", p)
		}
		if g := l.Grant(0, gcra.At(time.Unix(1_800_000_000, 0)), 1, l.Burst()); g.OK == (l.Tokens() == 0) {
			t.Errorf("an idle limit of %d tokens: %+v", l.Tokens(), g)
		}
	})
}

func TestPolicyOf(t *testing.T) {
	t.Parallel()
	for loss, want := range map[quotav1.StoreLossPolicy]limits.Loss{
		quotav1.StoreLossPolicy_STORE_LOSS_POLICY_UNSPECIFIED: limits.SafeRate,
		quotav1.StoreLossPolicy_STORE_LOSS_POLICY_SAFE_RATE:   limits.SafeRate,
		quotav1.StoreLossPolicy_STORE_LOSS_POLICY_FAIL_OPEN:   limits.FailOpen,
		quotav1.StoreLossPolicy_STORE_LOSS_POLICY_FAIL_CLOSED: limits.FailClosed,
		99: limits.SafeRate,
	} {
		p, err := limits.PolicyOf(&quotav1.Limit{Tokens: 3, Period: durationpb.New(time.Minute), OnStoreLoss: loss, Revision: 8})
		if err != nil || p.OnLoss != want || p.Revision != 8 || p.Limit.Burst() != 3 {
			t.Errorf("%v: %+v, %v", loss, p, err)
		}
	}
	if _, err := limits.PolicyOf(nil); !errors.Is(err, gcra.ErrLimit) {
		t.Errorf("nothing: %v", err)
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	policy := func(period time.Duration) *limits.Policy {
		return &limits.Policy{ID: "requests", Limit: mustLimit(t, 100, period, 50), Source: "plan"}
	}
	for name, tc := range map[string]struct {
		d    limits.Decision
		want map[string]string
	}{
		"allowed": {
			limits.Decision{OK: true, Limited: true, Limit: "requests", Policy: policy(time.Minute), Remaining: 42},
			map[string]string{"Ratelimit-Policy": `"requests";q=100;w=60`, "Ratelimit": `"requests";r=42`},
		},
		"refused": {
			limits.Decision{Limited: true, Limit: "requests", Policy: policy(time.Second), RetryAfter: 1200 * time.Millisecond},
			map[string]string{"Ratelimit-Policy": `"requests";q=100;w=1`, "Ratelimit": `"requests";r=0;t=2`, "Retry-After": "2"},
		},
		"refused for ever": {
			limits.Decision{Limited: true, Limit: "requests", Policy: policy(10 * time.Millisecond)},
			map[string]string{"Ratelimit-Policy": `"requests";q=100`, "Ratelimit": `"requests";r=0`},
		},
		"no limit": {limits.Decision{OK: true}, map[string]string{}},
		"quota away": {
			limits.Decision{OK: true, Limited: true, Degraded: true, Limit: "requests", Policy: policy(time.Second)}, map[string]string{},
		},
	} {
		got := map[string]string{}
		tc.d.Headers(func(k, v string) { got[k] = v })
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		for k := range got {
			if http.CanonicalHeaderKey(k) == "" {
				t.Errorf("%q is not a field", k)
			}
		}
	}
}

func TestFault(t *testing.T) {
	t.Parallel()
	id, err := tenant.ParseID("acme")
	if err != nil {
		t.Fatal(err)
	}
	d := limits.Decision{
		Limited: true, Limit: "requests", RetryAfter: time.Second,
		Policy: &limits.Policy{ID: "requests", Resource: "requests", Limit: mustLimit(t, 7, time.Minute, 9), Source: "plan"},
	}
	f, ok := fault.As(d.Fault(id))
	if !ok || f.Kind != fault.ResourceExhausted || f.Reason != fault.ReasonRateLimitExceeded || f.RetryAfter != time.Second {
		t.Fatalf("%+v", f)
	}
	if q := f.Quotas; len(q) != 1 || q[0].Subject != "tenants/acme" || q[0].ID != "requests" || q[0].Value != 7 {
		t.Errorf("quotas = %+v", q)
	}
	if diff := cmp.Diff(map[string]string{"limit": "requests", "level": "plan"}, f.Metadata); diff != "" {
		t.Error(diff)
	}
	d.Unavailable = true
	if f, _ := fault.As(d.Fault(id)); f.Kind != fault.Unavailable || f.Reason != fault.ReasonDependency || f.RetryAfter == 0 {
		t.Errorf("unavailable: %+v", f)
	}
}

// wire is a connection that answers GrantLeases.
type wire struct {
	grpc.ClientConnInterface
	asked  *quotav1.GrantLeasesRequest
	answer *quotav1.GrantLeasesResponse
	err    error
}

func (w *wire) Invoke(_ context.Context, _ string, in, out any, _ ...grpc.CallOption) error {
	w.asked = in.(*quotav1.GrantLeasesRequest)
	if w.err == nil {
		proto.Merge(out.(proto.Message), w.answer)
	}
	return w.err
}

func TestRemote(t *testing.T) {
	t.Parallel()
	w := &wire{answer: &quotav1.GrantLeasesResponse{Holders: 3, Answers: []*quotav1.LeaseAnswer{
		{Outcome: quotav1.LeaseOutcome_LEASE_OUTCOME_GRANTED, Cells: []*quotav1.LeaseCellAnswer{
			{Ok: true, Tokens: 5, Lifetime: durationpb.New(time.Second), Remaining: 6, LimitRevision: 7, Tat: 8},
		}},
		{Outcome: quotav1.LeaseOutcome_LEASE_OUTCOME_DENIED, Cells: []*quotav1.LeaseCellAnswer{{RetryAfter: durationpb.New(time.Minute)}}},
		{Outcome: quotav1.LeaseOutcome_LEASE_OUTCOME_UNLIMITED},
		{Outcome: quotav1.LeaseOutcome_LEASE_OUTCOME_REFUSED, Reason: "CONTEXT_EXPIRED"},
		{Outcome: 77},
	}}}
	g := limits.Remote(w, "gateway-1")
	policy := &lease.Policy{Name: "requests"}
	one := []lease.CellAsk{{Key: lease.KeyOf(lease.Scope{}, "requests"), Policy: policy, Need: 1, Want: 9}}
	got, holders, err := g.Grant(t.Context(), []lease.Ask{
		{Token: "c", Cells: one}, {Token: "c", Cells: one}, {Token: "c", Cells: one}, {Token: "c", Cells: one}, {Token: "c", Cells: one},
	})
	if err != nil || holders != 3 {
		t.Fatal(holders, err)
	}
	want := []lease.Answer{
		{Outcome: lease.Granted, Cells: []lease.CellAnswer{{OK: true, Tokens: 5, Lifetime: time.Second, Remaining: 6, TAT: 8, Revision: 7}}},
		{Outcome: lease.Denied, Cells: []lease.CellAnswer{{RetryAfter: time.Minute}}},
		{Outcome: lease.Unlimited},
		{Outcome: lease.Refused, Reason: "CONTEXT_EXPIRED"}, {Outcome: lease.Refused},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}
	if a := w.asked.GetAsks(); w.asked.GetHolder() != "gateway-1" || len(a) != 5 ||
		!proto.Equal(a[0], &quotav1.LeaseAsk{TenantContext: []byte("c"), Cells: []*quotav1.LeaseCell{
			{Limit: "requests", Key: one[0].Key[:], Need: 1, Want: 9},
		}}) {
		t.Errorf("asked %v", w.asked)
	}
	w.err = errDown
	if _, _, err := g.Grant(t.Context(), nil); !errors.Is(err, errDown) {
		t.Errorf("%v", err)
	}
}
