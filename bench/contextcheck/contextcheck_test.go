package contextcheck_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// tenants is how many a service is busy with.
const tenants = 1000

// tokens makes a token of each tenant.
func tokens(tb testing.TB, issuer *tenanttest.Issuer) []string {
	tb.Helper()
	out := make([]string, tenants)
	for i := range out {
		out[i] = issuer.Token(tb, fmt.Sprintf("tenant-%d", i))
	}
	return out
}

// requests walks over copies of tokens, in an order that no cache foresees and that is the same each time: a service is
// asked by one tenant after the other, and what one call leaves in the processor's caches must not help the next.
type requests struct {
	tokens []string
	next   int
}

func requestsOf(tokens []string) *requests {
	r := &requests{tokens: make([]string, len(tokens))}
	for to, from := range rand.New(rand.NewPCG(1, 2)).Perm(len(tokens)) {
		r.tokens[to] = strings.Clone(tokens[from])
	}
	return r
}

// token returns that of the next request.
func (r *requests) token() string {
	token := r.tokens[r.next]
	if r.next++; r.next == len(r.tokens) {
		r.next = 0
	}
	return token
}

// Every tenant asks before one asks again.
func TestRequestsWalk(t *testing.T) {
	t.Parallel()
	r, seen := requestsOf(tokens(t, tenanttest.NewIssuer(t, tenant.NewClock()))), map[string]bool{}
	first := r.token()
	seen[first] = true
	for range tenants - 1 {
		seen[r.token()] = true
	}
	if len(seen) != tenants {
		t.Errorf("%d different tokens in %d requests", len(seen), tenants)
	}
	if again := r.token(); again != first {
		t.Error("the walk does not begin anew")
	}
}

func BenchmarkVerify(b *testing.B) {
	issuer := tenanttest.NewIssuer(b, tenant.NewClock())
	verifier, gateway := issuer.Verifier(b), issuer.Gateway()
	all := tokens(b, issuer)
	for _, token := range all {
		if _, err := verifier.Verify(token, gateway); err != nil {
			b.Fatal(err)
		}
	}
	asked := requestsOf(all)
	b.ReportAllocs()
	defer reportCPU(b, cpuTime(b))
	for b.Loop() {
		if _, err := verifier.Verify(asked.token(), gateway); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMapLookup(b *testing.B) {
	known := map[string]*tenant.Claims{}
	all := tokens(b, tenanttest.NewIssuer(b, tenant.NewClock()))
	for _, token := range all {
		known[token] = &tenant.Claims{}
	}
	asked := requestsOf(all)
	b.ReportAllocs()
	defer reportCPU(b, cpuTime(b))
	for b.Loop() {
		if known[asked.token()] == nil {
			b.Fatal("unknown")
		}
	}
}

// reportCPU reports the CPU time of an operation since the start.
func reportCPU(b *testing.B, start time.Duration) {
	b.Helper()
	b.ReportMetric(float64((cpuTime(b)-start).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

// cpuTime is what the process has used.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
