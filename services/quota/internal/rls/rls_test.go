package rls_test

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rowhouse-platform/rowhouse/services/quota/internal/rls"
)

const edge = `
domain: edge
descriptors:
  - key: path
    value: /login
    rate_limit: {unit: minute, requests_per_unit: 3, name: logins}
  - key: user
    rate_limit: {unit: hour, requests_per_unit: 10}
  - key: free
    rate_limit: {unlimited: true}
  - key: shadowed
    rate_limit: {unit: second, requests_per_unit: 1, name: shadowed}
    shadow_mode: true
  - key: quota
    rate_limit: {unit: minute, requests_per_unit: 1, name: quota}
    quota_mode: true
  - key: closed
    rate_limit: {unit: second, requests_per_unit: 0}
  - key: huge
    rate_limit: {unit: second, requests_per_unit: 4294967295}
  - key: premium
    rate_limit: {unit: minute, requests_per_unit: 100, name: premium, replaces: [{name: logins}]}
  - key: staff
    rate_limit: {unlimited: true, replaces: [{name: logins}]}
  - key: nested
    descriptors:
      - key: deep
        rate_limit: {unit: day, requests_per_unit: 5}
`

// The statuses have the length and order of the descriptors, and say what the configuration does.
func TestAnswerSaysWhatHolds(t *testing.T) {
	t.Parallel()
	r := newRig(t, rls.Bare)
	r.load(edge)
	got := r.ask("edge", of("path", "/login"), of("path", "/none"), of("free", "x"), of("user", "ann"))
	want := &rlsv3.RateLimitResponse{OverallCode: ok, Statuses: []*rlsv3.RateLimitResponse_DescriptorStatus{
		{
			Code: ok, LimitRemaining: 2, DurationUntilReset: durationpb.New(20 * time.Second),
			CurrentLimit: &rlsv3.RateLimitResponse_RateLimit{Name: "logins", RequestsPerUnit: 3, Unit: rlsv3.RateLimitResponse_RateLimit_MINUTE},
		},
		{Code: ok},
		{Code: ok, LimitRemaining: math.MaxUint32},
		{
			Code: ok, LimitRemaining: 9, DurationUntilReset: durationpb.New(6 * time.Minute),
			CurrentLimit: &rlsv3.RateLimitResponse_RateLimit{RequestsPerUnit: 10, Unit: rlsv3.RateLimitResponse_RateLimit_HOUR},
		},
	}}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestUnknownDomainIsUnlimited(t *testing.T) {
	t.Parallel()
	r := newRig(t, rls.Draft)
	r.load(edge)
	want := &rlsv3.RateLimitResponse{OverallCode: ok, Statuses: []*rlsv3.RateLimitResponse_DescriptorStatus{{Code: ok}, {Code: ok}}}
	if diff := cmp.Diff(want, r.ask("other", of("path", "/login"), of("user", "x")), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if n := r.engine.count(); n != 0 {
		t.Errorf("%d cells were charged", n)
	}
}

func TestEmptyRequestsAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, rls.Bare)
	r.load(edge)
	_, err := r.as("envoy").ShouldRateLimit(t.Context(), &rlsv3.RateLimitRequest{Descriptors: []*common.RateLimitDescriptor{of("user", "x")}})
	refusedWith(t, "no domain", err, codes.InvalidArgument, "rate limit domain must not be empty")
	_, err = r.as("envoy").ShouldRateLimit(t.Context(), &rlsv3.RateLimitRequest{Domain: "edge"})
	refusedWith(t, "no descriptors", err, codes.InvalidArgument, "rate limit descriptor list must not be empty")
}

// Requests and rules match when they are equally deep.
func TestDepthMustBeEqual(t *testing.T) {
	t.Parallel()
	r := newRig(t, rls.Bare)
	r.load(edge)
	for _, d := range []*common.RateLimitDescriptor{of("nested", "x"), of("nested", "x", "deep", "y", "more", "z"), of("deep", "y"), of()} {
		if s := r.ask("edge", d).GetStatuses()[0]; s.GetCurrentLimit() != nil {
			t.Errorf("%v meets %v", d, s)
		}
	}
	if s := r.ask("edge", of("nested", "x", "deep", "y")).GetStatuses()[0]; s.GetCurrentLimit().GetRequestsPerUnit() != 5 {
		t.Errorf("the nested limit is not met: %v", s)
	}
}

// Hits are 1 unless the request or the descriptor says otherwise; an explicit 0 takes nothing.
func TestHits(t *testing.T) {
	t.Parallel()
	r := newRig(t, rls.Bare)
	r.load(edge)
	left := func(req *rlsv3.RateLimitRequest) string {
		req.Domain = "edge"
		resp := r.askAs("envoy", req)
		return fmt.Sprint(codesOf(resp), " ", resp.GetStatuses()[0].GetLimitRemaining())
	}
	user := func() []*common.RateLimitDescriptor { return []*common.RateLimitDescriptor{of("user", "ann")} }
	for i, c := range []struct {
		req  *rlsv3.RateLimitRequest
		want string
	}{
		{&rlsv3.RateLimitRequest{Descriptors: user()}, "O:O 9"},
		{&rlsv3.RateLimitRequest{Descriptors: user(), HitsAddend: 3}, "O:O 6"},
		{&rlsv3.RateLimitRequest{Descriptors: []*common.RateLimitDescriptor{hits(0, of("user", "ann"))}, HitsAddend: 3}, "O:O 6"},
		{&rlsv3.RateLimitRequest{Descriptors: []*common.RateLimitDescriptor{hits(2, of("user", "ann"))}, HitsAddend: 5}, "O:O 4"},
		{&rlsv3.RateLimitRequest{Descriptors: user(), HitsAddend: 5}, "X:X 0"},
		{&rlsv3.RateLimitRequest{Descriptors: user(), HitsAddend: 4}, "O:O 0"},
		{&rlsv3.RateLimitRequest{Descriptors: []*common.RateLimitDescriptor{hits(0, of("user", "ann"))}}, "X:X 0"},
		{&rlsv3.RateLimitRequest{Descriptors: []*common.RateLimitDescriptor{hits(math.MaxUint64, of("user", "bob"))}}, "X:X 0"},
		{&rlsv3.RateLimitRequest{Descriptors: []*common.RateLimitDescriptor{hits(0, of("user", "bob"))}}, "O:O 10"},
	} {
		if got := left(c.req); got != c.want {
			t.Errorf("%d: %s, want %s", i, got, c.want)
		}
	}
}

// Over one limit, no other is charged, wherever it stands.
func TestRefusedChargesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, rls.Bare)
	r.load(edge)
	for range 3 {
		r.ask("edge", of("path", "/login"))
	}
	for i, descriptors := range [][]*common.RateLimitDescriptor{
		{of("user", "ann"), of("path", "/login")}, {of("path", "/login"), of("user", "ann")},
		{of("user", "ann"), of("closed", "x"), of("nested", "x", "deep", "y")},
	} {
		got := r.ask("edge", descriptors...)
		if got.GetOverallCode() != over || strings.Count(codesOf(got), "X") != 2 {
			t.Errorf("%d: %s", i, codesOf(got))
		}
	}
	for _, d := range []*common.RateLimitDescriptor{of("user", "ann"), of("nested", "x", "deep", "y")} {
		s := r.ask("edge", d).GetStatuses()[0]
		if s.GetLimitRemaining() != s.GetCurrentLimit().GetRequestsPerUnit()-1 {
			t.Errorf("%v was charged before: %v", d, s)
		}
	}
}

// What is asked for twice in a request is charged for both, or for none.
func TestSameCellTwice(t *testing.T) {
	t.Parallel()
	r := newRig(t, rls.Bare)
	r.load(edge)
	login := func() *common.RateLimitDescriptor { return of("path", "/login") }
	if got := r.ask("edge", login(), login()); codesOf(got) != "O:OO" || got.GetStatuses()[0].GetLimitRemaining() != 1 {
		t.Errorf("twice: %v", got)
	}
	if got := r.ask("edge", login(), login()); codesOf(got) != "X:XX" {
		t.Errorf("twice of one: %v", got)
	}
	if got := r.ask("edge", login()); codesOf(got) != "O:O" {
		t.Errorf("the one: %v", got)
	}
	many := make([]*common.RateLimitDescriptor, 0, 200)
	for i := range 100 {
		many = append(many, of("user", strconv.Itoa(i)), of("user", strconv.Itoa(i)))
	}
	for i, s := range r.ask("edge", many...).GetStatuses() {
		if s.GetLimitRemaining() != 8 {
			t.Fatalf("%d of many: %v", i, s)
		}
	}
}

// The reset is in whole seconds, rounded up, at least 1, and ticks down between two hits.
func TestResetTicksDown(t *testing.T) {
	t.Parallel()
	r := newRig(t, rls.Bare)
	r.load(edge)
	reset := func(d *common.RateLimitDescriptor) int64 {
		got := r.ask("edge", d).GetStatuses()[0].GetDurationUntilReset()
		if got.GetNanos() != 0 {
			t.Errorf("not whole seconds: %v", got)
		}
		return got.GetSeconds()
	}
	login := func() *common.RateLimitDescriptor { return of("path", "/login") }
	if got := reset(login()); got != 20 {
		t.Errorf("the next token comes in %d s", got)
	}
	r.engine.pass(5500 * time.Millisecond)
	if got := reset(login()); got != 15 {
		t.Errorf("5.5 s later: %d s", got)
	}
	reset(login())
	if got := reset(login()); got != 15 { // over, until this cost fits
		t.Errorf("over: %d s", got)
	}
	if got := reset(hits(2, login())); got != 35 {
		t.Errorf("over by two: %d s", got)
	}
	r.engine.pass(14900 * time.Millisecond)
	if got := reset(hits(9, login())); got != 60 { // more than the limit is never there
		t.Errorf("never: %d s", got)
	}
	if got := reset(of("huge", "x")); got != 1 {
		t.Errorf("at least 1 s: %d", got)
	}
	if got := reset(of("closed", "x")); got != 1 {
		t.Errorf("a closed limit: %d", got)
	}
}

// No window has more than the limit, also across the edge of a minute.
func TestNoBurstAtTheEdge(t *testing.T) {
	t.Parallel()
	r := newRig(t, rls.Bare)
	r.load(edge)
	admitted := 0
	for range 40 {
		if r.ask("edge", of("path", "/login")).GetOverallCode() == ok {
			admitted++
		}
		r.engine.pass(time.Second)
	}
	if admitted != 4 { // three, and one that was earned after 20 s; the next comes at 40 s
		t.Errorf("%d were admitted in 40 s", admitted)
	}
}

func TestShadowAndQuotaModes(t *testing.T) {
	t.Parallel()
	r := newRig(t, rls.Draft)
	r.load(edge)
	asks := []*common.RateLimitDescriptor{of("user", "x"), of("shadowed", "x"), of("quota", "x")}
	if got := r.ask("edge", asks...); codesOf(got) != "O:OOO" || got.GetDynamicMetadata() != nil {
		t.Errorf("first: %v", got)
	}
	got := r.ask("edge", asks...)
	if codesOf(got) != "O:OOO" {
		t.Errorf("second: %s", codesOf(got))
	}
	for _, i := range []int{1, 2} {
		if s := got.GetStatuses()[i]; s.GetLimitRemaining() != 0 || s.GetCurrentLimit() == nil || s.GetDurationUntilReset().GetSeconds() < 1 {
			t.Errorf("%d: %v", i, s)
		}
	}
	want, err := structpb.NewStruct(map[string]any{"quotaModeViolations": []any{2}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.GetDynamicMetadata(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if s := got.GetStatuses()[0]; s.GetLimitRemaining() != 8 {
		t.Errorf("beside shadows the others are charged: %v", s)
	}
	for _, h := range got.GetResponseHeadersToAdd() {
		if strings.Contains(h.GetValue(), "shadowed") || strings.Contains(h.GetValue(), "quota") {
			t.Errorf("a limit that refuses nothing is told of: %v", h)
		}
	}
}

func TestReplaces(t *testing.T) {
	t.Parallel()
	r := newRig(t, rls.Bare)
	r.load(edge)
	for i, other := range []*common.RateLimitDescriptor{of("premium", "x"), of("staff", "x")} {
		for range 5 {
			got := r.ask("edge", of("path", "/login"), other)
			if s := got.GetStatuses()[0]; codesOf(got) != "O:OO" || s.GetCurrentLimit() != nil || s.GetLimitRemaining() != 0 {
				t.Errorf("%d: %v", i, got)
			}
		}
	}
	if s := r.ask("edge", of("path", "/login")).GetStatuses()[0]; s.GetLimitRemaining() != 2 {
		t.Errorf("what is replaced was charged: %v", s)
	}
}

func TestOverride(t *testing.T) {
	t.Parallel()
	r := newRig(t, rls.Bare)
	r.load(edge)
	with := func(n uint32, unit typev3.RateLimitUnit, multiplier *wrapperspb.UInt32Value) *common.RateLimitDescriptor {
		d := of("anything", "x")
		d.Limit = &common.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: n, Unit: unit, UnitMultiplier: multiplier}
		return d
	}
	got := r.ask("edge", with(2, typev3.RateLimitUnit_MINUTE, wrapperspb.UInt32(10))).GetStatuses()[0]
	want := &rlsv3.RateLimitResponse_DescriptorStatus{
		Code: ok, LimitRemaining: 1, DurationUntilReset: durationpb.New(5 * time.Minute),
		CurrentLimit: &rlsv3.RateLimitResponse_RateLimit{
			RequestsPerUnit: 2, Unit: rlsv3.RateLimitResponse_RateLimit_MINUTE, UnitMultiplier: wrapperspb.UInt32(10),
		},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	// Another limit for the same entries keeps what was spent.
	if got := r.ask("edge", with(5, typev3.RateLimitUnit_MINUTE, wrapperspb.UInt32(10))).GetStatuses()[0]; got.GetLimitRemaining() != 3 {
		t.Errorf("a larger limit: %v", got)
	}
	if got := r.ask("edge", with(0, typev3.RateLimitUnit_SECOND, nil)); got.GetOverallCode() != over {
		t.Errorf("nothing at all: %v", got)
	}
	// What the file says of the same entries is another matter.
	mine := of("user", "ann")
	mine.Limit = &common.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: 1, Unit: typev3.RateLimitUnit_DAY}
	r.ask("edge", mine)
	if got := r.ask("edge", of("user", "ann")).GetStatuses()[0]; got.GetLimitRemaining() != 9 {
		t.Errorf("the file's: %v", got)
	}
	for what, d := range map[string]*common.RateLimitDescriptor{
		"UNKNOWN":         with(1, typev3.RateLimitUnit_UNKNOWN, nil),
		"99":              with(1, 99, nil),
		"unit_multiplier": with(1, typev3.RateLimitUnit_SECOND, wrapperspb.UInt32(0)),
		"period":          with(1, typev3.RateLimitUnit_YEAR, wrapperspb.UInt32(math.MaxUint32)),
	} {
		_, err := r.as("envoy").ShouldRateLimit(t.Context(), &rlsv3.RateLimitRequest{Domain: "edge", Descriptors: []*common.RateLimitDescriptor{d}})
		refusedWith(t, what, err, codes.InvalidArgument, what)
	}
}

func TestRefund(t *testing.T) {
	t.Parallel()
	r := newRig(t, rls.Bare)
	r.load(edge)
	left := func(d *common.RateLimitDescriptor) uint32 {
		got := r.ask("edge", d)
		if got.GetOverallCode() != ok {
			t.Errorf("%v: %v", d, got)
		}
		return got.GetStatuses()[0].GetLimitRemaining()
	}
	left(hits(4, of("user", "ann")))
	if got := left(refund(hits(3, of("user", "ann")))); got != 9 {
		t.Errorf("4 of 10 and 3 back: %d", got)
	}
	if got := left(refund(hits(1e9, of("user", "ann")))); got != 10 {
		t.Errorf("back more than was taken: %d", got)
	}
	if got := left(of("user", "ann")); got != 9 {
		t.Errorf("one of a full limit: %d", got)
	}
	// Beside a refusal nothing is given back.
	if got := r.ask("edge", refund(of("user", "ann")), of("closed", "x")); codesOf(got) != "X:OX" {
		t.Errorf("beside a refusal: %v", got)
	}
	if got := left(hits(0, of("user", "ann"))); got != 9 {
		t.Errorf("after it: %d", got)
	}
}

// A peer has no right that is not written down, and what it tries changes nothing.
func TestPeersWithoutRights(t *testing.T) {
	t.Parallel()
	r := newRig(t, rls.Bare)
	r.load(edge, strings.Replace(edge, "domain: edge", "domain: other", 1), "domain: default/eg/http")
	limited := of("user", "ann")
	limited.Limit = &common.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: 1e6, Unit: typev3.RateLimitUnit_SECOND}
	for what, c := range map[string]struct {
		peer string
		req  *rlsv3.RateLimitRequest
	}{
		"override": {"plain", &rlsv3.RateLimitRequest{Domain: "edge", Descriptors: []*common.RateLimitDescriptor{limited}}},
		"refund":   {"plain", &rlsv3.RateLimitRequest{Domain: "edge", Descriptors: []*common.RateLimitDescriptor{refund(of("user", "ann"))}}},
		"domain":   {"plain", &rlsv3.RateLimitRequest{Domain: "other", Descriptors: []*common.RateLimitDescriptor{of("user", "ann")}}},
		"peers":    {"stranger", &rlsv3.RateLimitRequest{Domain: "edge", Descriptors: []*common.RateLimitDescriptor{of("user", "ann")}}},
	} {
		_, err := r.as(c.peer).ShouldRateLimit(t.Context(), c.req)
		refusedWith(t, what, err, codes.PermissionDenied, what)
	}
	if n := r.engine.count(); n != 0 {
		t.Errorf("%d cells changed", n)
	}
	for _, domain := range []string{"edge", "default/eg/http"} {
		if got := r.askAs("plain", &rlsv3.RateLimitRequest{Domain: domain, Descriptors: []*common.RateLimitDescriptor{of("user", "ann")}}); got.GetOverallCode() != ok {
			t.Errorf("%s: %v", domain, got)
		}
	}
}

// Who may name tenants is counted by tenant; for all others the key is one like any other.
func TestTenants(t *testing.T) {
	t.Parallel()
	r := newRig(t, rls.Bare)
	r.load(`
domain: edge
descriptors:
  - key: tenant
    rate_limit: {unit: hour, requests_per_unit: 4}
  - key: all
    rate_limit: {unit: hour, requests_per_unit: 100}
`)
	left := func(peer, id string) string {
		got := r.askAs(peer, &rlsv3.RateLimitRequest{Domain: "edge", Descriptors: []*common.RateLimitDescriptor{of("tenant", id), of("all", "x")}})
		return fmt.Sprint(codesOf(got), got.GetStatuses()[0].GetLimitRemaining())
	}
	for _, c := range []struct{ peer, id, want string }{
		{"tenants", "acme", "O:OO3"},
		{"strict", "acme", "O:OO2"},
		{"tenants", "globex", "O:OO3"},
		{"envoy", "acme", "O:OO3"}, // a value of the domain's
		{"tenants", "nobody", "O:OO3"},
		{"envoy", "nobody", "O:OO2"}, // the same value
		{"strict", "nobody", "X:XO0"},
		{"strict", "No Id", "X:XO0"},
		{"tenants", "acme", "O:OO1"},
	} {
		if got := left(c.peer, c.id); got != c.want {
			t.Errorf("%s about %s: %s, want %s", c.peer, c.id, got, c.want)
		}
	}
}

// Pairs that look alike when they are joined are different cells and different rules.
func TestKeysAreNotJoined(t *testing.T) {
	t.Parallel()
	r := newRig(t, rls.Bare)
	r.load(`
domain: edge
descriptors:
  - key: a_b
    rate_limit: {unit: hour, requests_per_unit: 1}
  - key: a
    rate_limit: {unit: hour, requests_per_unit: 2}
  - key: k
    value: v
    rate_limit: {unit: hour, requests_per_unit: 3}
  - key: x
    descriptors:
      - key: y
        rate_limit: {unit: hour, requests_per_unit: 9}
`)
	limit := func(d *common.RateLimitDescriptor) uint32 {
		s := r.ask("edge", d).GetStatuses()[0]
		if n := s.GetCurrentLimit().GetRequestsPerUnit(); n > 0 && s.GetLimitRemaining() != n-1 {
			t.Errorf("%v has the cell of another: %v", d, s)
		}
		return s.GetCurrentLimit().GetRequestsPerUnit()
	}
	for _, c := range []struct {
		d    *common.RateLimitDescriptor
		want uint32
	}{
		{of("a_b", "c"), 1}, {of("a", "b_c"), 2}, {of("k_v", ""), 0}, {of("k", "v"), 3}, {of("k_", "v"), 0},
		{of("x", "1", "y", "2.y_3"), 9}, {of("x", "1.y_2", "y", "3"), 9}, {of("x", "1", "y", "2"), 9}, {of("x", "", "y", "12"), 9},
	} {
		if got := limit(c.d); got != c.want {
			t.Errorf("%v meets %d, want %d", c.d, got, c.want)
		}
	}
}

// An import changes what holds, and keeps what was spent of a limit that is still there.
func TestImportKeepsWhatIsSpent(t *testing.T) {
	t.Parallel()
	r := newRig(t, rls.Bare)
	r.load(edge)
	r.ask("edge", hits(8, of("user", "ann")))
	r.load(strings.Replace(edge, "requests_per_unit: 10}", "requests_per_unit: 20}", 1))
	if s := r.ask("edge", of("user", "ann")).GetStatuses()[0]; s.GetLimitRemaining() != 11 {
		t.Errorf("20 with 8 spent, and one more: %v", s)
	}
	r.load()
	if s := r.ask("edge", of("user", "ann")).GetStatuses()[0]; s.GetCurrentLimit() != nil {
		t.Errorf("the domain is gone: %v", s)
	}
}

// What the engine cannot decide is unavailable, and Envoy's own setting decides then.
func TestEngineFails(t *testing.T) {
	t.Parallel()
	r := newRig(t, rls.Bare)
	r.load(edge)
	r.engine.fail = errors.New("the database is away")
	_, err := r.as("envoy").ShouldRateLimit(t.Context(), &rlsv3.RateLimitRequest{Domain: "edge", Descriptors: []*common.RateLimitDescriptor{of("user", "x")}})
	refusedWith(t, "no engine", err, codes.Unavailable, "cannot be charged")
	if strings.Contains(err.Error(), "database") {
		t.Errorf("the cause is told: %v", err)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	r := newRig(t, rls.Bare)
	got, err := grpc_health_v1.NewHealthClient(r.dial("plain")).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || got.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("%v, %v", got, err)
	}
	if code, text := r.post("", "/healthcheck", ""); code != 200 || text != "OK" {
		t.Errorf("%d %q", code, text)
	}
}
