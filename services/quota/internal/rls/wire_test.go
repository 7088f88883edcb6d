package rls

import (
	"math"
	"math/rand/v2"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// seeds are requests as encoders write them.
func seeds() []*rlsv3.RateLimitRequest {
	return []*rlsv3.RateLimitRequest{
		{},
		{Domain: "edge", HitsAddend: math.MaxUint32, Descriptors: []*common.RateLimitDescriptor{
			{Entries: []*common.RateLimitDescriptor_Entry{{Key: "a", Value: "b"}, {Key: "ä"}, {}}},
			{},
			{
				Entries: []*common.RateLimitDescriptor_Entry{{Key: "a", Value: "b"}}, HitsAddend: wrapperspb.UInt64(math.MaxUint64), IsNegativeHits: true,
				Limit: &common.RateLimitDescriptor_RateLimitOverride{
					RequestsPerUnit: 7, Unit: typev3.RateLimitUnit_MONTH, UnitMultiplier: wrapperspb.UInt32(0),
				},
			},
			{HitsAddend: wrapperspb.UInt64(0), Limit: &common.RateLimitDescriptor_RateLimitOverride{}},
		}},
	}
}

// sameRequest wants our reading of bytes to be the generated code's.
func sameRequest(t *testing.T, b []byte) {
	t.Helper()
	want := new(rlsv3.RateLimitRequest)
	wantErr := proto.Unmarshal(b, want)
	var got request
	err := got.read(b)
	if (err != nil) != (wantErr != nil) {
		t.Fatalf("%x: %v, the generated code says %v", b, err, wantErr)
	}
	if err != nil {
		return
	}
	if diff := cmp.Diff(want, got.message(), protocmp.Transform(), protocmp.IgnoreUnknown()); diff != "" {
		t.Fatalf("%x: %s", b, diff)
	}
}

// message is the request as the generated type.
func (r *request) message() *rlsv3.RateLimitRequest {
	out := &rlsv3.RateLimitRequest{Domain: r.domain, HitsAddend: r.hits}
	for _, d := range r.descriptors {
		m := &common.RateLimitDescriptor{IsNegativeHits: d.negative}
		for _, e := range d.entries {
			m.Entries = append(m.Entries, &common.RateLimitDescriptor_Entry{Key: e.Key, Value: e.Value})
		}
		if d.counted {
			m.HitsAddend = wrapperspb.UInt64(d.hits)
		}
		if d.overridden {
			m.Limit = &common.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: d.override.requests, Unit: typev3.RateLimitUnit(d.override.unit)}
			if d.override.multiplied {
				m.Limit.UnitMultiplier = wrapperspb.UInt32(d.override.multiplier)
			}
		}
		out.Descriptors = append(out.Descriptors, m)
	}
	return out
}

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Requests are read as the generated code reads them: whole, with fields of later versions, in parts, and of wrong types.
func TestRequestsAreReadAsGenerated(t *testing.T) {
	t.Parallel()
	for _, m := range seeds() {
		b := encode(t, m)
		sameRequest(t, b)
		sameRequest(t, append(b, b...))
		sameRequest(t, protowire.AppendVarint(protowire.AppendTag(b, 99, protowire.VarintType), 1))
		sameRequest(t, protowire.AppendVarint(protowire.AppendTag(b, requestDomain, protowire.VarintType), 1))
		sameRequest(t, protowire.AppendString(protowire.AppendTag(b, requestDomain, protowire.BytesType), "\xff"))
		for i := range b {
			sameRequest(t, b[:i])
		}
	}
	twice := encode(t, &common.RateLimitDescriptor{HitsAddend: wrapperspb.UInt64(3)})
	twice = append(twice, encode(t, &common.RateLimitDescriptor{HitsAddend: wrapperspb.UInt64(0)})...)
	sameRequest(t, protowire.AppendBytes(protowire.AppendTag(nil, requestDescriptors, protowire.BytesType), twice))
}

// A request is read anew over what the one before left.
func TestRequestIsReadAnew(t *testing.T) {
	t.Parallel()
	var r request
	for _, m := range append(seeds(), seeds()...) {
		if err := r.read(encode(t, m)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, r.message(), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
	}
}

func FuzzRequest(f *testing.F) {
	for _, m := range seeds() {
		f.Add(encode(f, m))
	}
	f.Fuzz(func(t *testing.T, b []byte) { sameRequest(t, b) })
}

// Answers are written as the generated code reads them, and as long as they are said to be.
func TestAnswersAreWrittenAsGenerated(t *testing.T) {
	t.Parallel()
	limit := &rlsv3.RateLimitResponse_RateLimit{Name: "api", RequestsPerUnit: 100, Unit: rlsv3.RateLimitResponse_RateLimit_WEEK}
	encoded, err := encodeLimit("api", 100, int32(rlsv3.RateLimitResponse_RateLimit_WEEK), nil)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		a, want := answer{over: random.IntN(2) == 0}, &rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OK}
		if a.over {
			want.OverallCode = rlsv3.RateLimitResponse_OVER_LIMIT
		}
		for range random.IntN(5) {
			s := status{over: random.IntN(2) == 0, remaining: random.Uint32N(3) * 1000, reset: random.Int64N(3) * 1000}
			w := &rlsv3.RateLimitResponse_DescriptorStatus{Code: rlsv3.RateLimitResponse_Code(code(s.over)), LimitRemaining: s.remaining}
			if s.reset > 0 {
				w.DurationUntilReset = durationpb.New(0)
				w.DurationUntilReset.Seconds = s.reset
			}
			if random.IntN(2) == 0 {
				s.limit, w.CurrentLimit = encoded, limit
			}
			a.statuses, want.Statuses = append(a.statuses, s), append(want.GetStatuses(), w)
		}
		for range random.IntN(3) {
			a.headers = append(a.headers, header{"RateLimit", `"api";r=1`})
			want.ResponseHeadersToAdd = append(want.GetResponseHeadersToAdd(), &corev3.HeaderValue{Key: "RateLimit", Value: `"api";r=1`})
		}
		if random.IntN(2) == 0 {
			a.body, want.RawBody = []byte("{}"), []byte("{}")
		}
		b, err := a.append(nil)
		if err != nil {
			t.Fatal(err)
		}
		got := new(rlsv3.RateLimitResponse)
		if err := proto.Unmarshal(b, got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Fatal(diff)
		}
		if len(b) > a.size()+8 {
			t.Fatalf("%d bytes, said to be %d", len(b), a.size())
		}
	}
}
