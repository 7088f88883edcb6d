package shares

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"pgregory.net/rapid"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// Counts are never too low, never higher than their error says, and nobody who took more than its part of the total is missing.
func TestCountsAreAsGoodAsTheySay(t *testing.T) {
	t.Parallel()
	issuer := tenanttest.NewIssuer(t, nil)
	var all []tenant.Context
	for i := range 40 {
		all = append(all, issuer.Context(t, "t"+string(rune('a'+i%26))+string(rune('a'+i/26))))
	}
	rapid.Check(t, func(t *rapid.T) {
		room := rapid.IntRange(1, 12).Draw(t, "room")
		top, truth, total := newTop(room), map[tenant.UID]int64{}, int64(0)
		for range rapid.IntRange(0, 300).Draw(t, "calls") {
			i := min(int(rapid.Float64Range(0, 6).Draw(t, "who")*rapid.Float64Range(0, 6).Draw(t, "whom")), len(all)-1)
			n := rapid.Int64Range(-1, 100).Draw(t, "amount")
			top.add(all[i], n)
			truth[all[i].UID()] += max(n, 0)
			total += max(n, 0)
		}
		counted := int64(0)
		for uid, c := range top.known {
			counted += c.amount
			if real := truth[uid]; c.amount < real || c.amount-c.error > real || c.error > total/int64(room) || c.tc.UID() != uid {
				t.Fatalf("%d counted with an error of %d, really %d of %d", c.amount, c.error, real, total)
			}
		}
		for uid, real := range truth {
			if real > total/int64(room) && top.known[uid] == nil {
				t.Fatalf("%d of %d is missing", real, total)
			}
		}
		if counted != total || top.total != total || len(top.heap) > room || len(top.heap) != len(top.known) {
			t.Fatalf("%d counted of %d, %d tenants", counted, total, len(top.heap))
		}
	})
}

// service keeps what it is told.
type service struct {
	mu   sync.Mutex
	told []*quotav1.ReportSharesRequest
	fail error
}

func (s *service) Invoke(_ context.Context, _ string, in, _ any, _ ...grpc.CallOption) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, in.(*quotav1.ReportSharesRequest))
	return s.fail
}

func (s *service) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	panic("no streams")
}

// Reports come every few seconds while there is something to tell, each with its number, and the last one at the end.
func TestReportsEveryFewSeconds(t *testing.T) {
	t.Parallel()
	issuer := tenanttest.NewIssuer(t, nil)
	acme, globex := issuer.Context(t, "acme"), issuer.Context(t, "globex")
	synctest.Test(t, func(t *testing.T) {
		s, m := &service{}, New()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.Report(ctx, Config{Quota: s, Replica: "one"}) }()
		m.Add(acme, Took{Requests, 1}, Took{Bytes, 500}, Took{0, 7}, Took{99, 7})
		m.Add(acme, Took{Requests, 1}, Took{Bytes, 0})
		m.Add(globex, Took{Requests, 1})
		<-time.After(every + time.Second)
		<-time.After(every) // nothing to tell
		m.Add(globex, Took{DBRows, 9})
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if len(s.told) != 2 || s.told[0].GetSequence() != 1 || s.told[1].GetSequence() != 2 || s.told[0].GetRun() != s.told[1].GetRun() {
			t.Fatalf("%v", s.told)
		}
		first := amounts(s.told[0])
		want := map[string]int64{
			"/REQUESTS": 3, "/BYTES": 500, acme.Token() + "/REQUESTS": 2, acme.Token() + "/BYTES": 500, globex.Token() + "/REQUESTS": 1,
		}
		if !maps.Equal(first, want) || len(s.told[0].GetTenants()) != 2 {
			t.Errorf("%v", s.told[0])
		}
		if got := amounts(s.told[1]); !maps.Equal(got, map[string]int64{"/DB_ROWS": 9, globex.Token() + "/DB_ROWS": 9}) {
			t.Errorf("%v", s.told[1])
		}
	})
}

func amounts(in *quotav1.ReportSharesRequest) map[string]int64 {
	all := map[string]int64{}
	put := func(who string, of []*quotav1.ShareAmount) {
		for _, a := range of {
			all[who+"/"+a.GetResource().String()[len("SHARE_RESOURCE_"):]] += a.GetAmount()
		}
	}
	put("", in.GetTotals())
	for _, line := range in.GetTenants() {
		put(string(line.GetTenantContext()), line.GetAmounts())
	}
	return all
}

// A report of as many tenants as there can be is no larger than what quota takes.
func TestLargestReport(t *testing.T) {
	t.Parallel()
	issuer := tenanttest.NewIssuer(t, nil)
	m := New()
	random := rand.New(rand.NewPCG(1, 2))
	names := map[string]bool{}
	for range 300 {
		b := make([]byte, 20)
		for i := range b {
			b[i] = 'a' + byte(random.IntN(26))
		}
		names[string(b)] = true
	}
	for i, name := range slices.Sorted(maps.Keys(names)) {
		m.Add(issuer.Context(t, name), Took{Requests, 1 << 40}, Took{Resource(1 + i%7), int64(1) << 45})
	}
	in := m.take()
	if len(in.GetTenants()) > 2048 || len(in.GetTenants()) < largest {
		t.Errorf("%d tenants", len(in.GetTenants()))
	}
	if m.take() != nil {
		t.Error("what was taken is there again")
	}
}
