package tenantdb_test

import (
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
)

// BenchmarkTxRead compares a point read with plain pgx autocommit, in turn, in one run:
//
//	go test -run '^$' -bench TxRead -benchtime 300x ./sdk/tenantdb
func BenchmarkTxRead(b *testing.B) {
	c := dbtest.ComparePointRead(b, max(b.N, 3))
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(c.Plain.Nanoseconds()), "plain-ns/read")
	b.ReportMetric(float64(c.Sealed.Nanoseconds()), "sealed-ns/read")
	b.ReportMetric(c.Ratio, "ratio")
	b.ReportMetric(float64(c.RoundTrips), "round-trips")
}

func TestPointReadTakesOneRoundTrip(t *testing.T) {
	t.Parallel()
	if c := dbtest.ComparePointRead(t, 3); c.RoundTrips != 1 {
		t.Errorf("a point read took %d round trips, want 1", c.RoundTrips)
	}
}
