package contextcheck_test

import (
	"fmt"
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
func tokens(b *testing.B, issuer *tenanttest.Issuer) []string {
	b.Helper()
	out := make([]string, tenants)
	for i := range out {
		out[i] = issuer.Token(b, fmt.Sprintf("tenant-%d", i))
	}
	return out
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
	token := strings.Clone(all[tenants/2])
	b.ReportAllocs()
	defer reportCPU(b, cpuTime(b))
	for b.Loop() {
		if _, err := verifier.Verify(token, gateway); err != nil {
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
	token := strings.Clone(all[tenants/2])
	b.ReportAllocs()
	defer reportCPU(b, cpuTime(b))
	for b.Loop() {
		if known[token] == nil {
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
