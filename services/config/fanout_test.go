package config_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// crowd is many clients of one service, each with a connection and a store of its own.
type crowd struct {
	*rig

	a      api
	conns  []*grpc.ClientConn
	stores []*settings.Store

	began   atomic.Int64 // when the write that is awaited was called, in ns
	waiting atomic.Int64
	took    []time.Duration // by client, of the newest write
	all     chan struct{}   // closed by the last one
}

// gather connects n clients, which follow the feed, and sets the documents of the rig's tenants.
func gather(tb testing.TB, n int) *crowd {
	tb.Helper()
	r := newRig(tb)
	c := &crowd{rig: r, a: r.as("owner"), took: make([]time.Duration, n)}
	r.namespace(c.a, "notes", `{"properties":{"n":{"type":"number"}}}`)
	for id := range plans() {
		r.set(c.a, "tenants/"+id+"/config/notes", `{"n":0,"text":"`+fmt.Sprintf("%0360d", 0)+`"}`)
	}
	keys, err := keyfile.Public(r.path("feed.pub"))
	must(tb, err)
	tls := r.source(r.issuer.Gateway()).ClientTLS(r.service("config"))
	known := families(tb)
	c.conns, c.stores = make([]*grpc.ClientConn, n), make([]*settings.Store, n)
	feeds := make([]*feed.Feed, n)
	for i := range n {
		c.conns[i] = r.dial(append(tenantgrpc.Client(tenantgrpc.ClientConfig{}), grpc.WithTransportCredentials(credentials.NewTLS(tls)))...)
		c.stores[i] = &settings.Store{Trust: known}
		feeds[i], err = settings.Follow(tb.Context(), settings.FollowConfig{
			Config: c.conns[i], FeedKeys: keys, Replica: fmt.Sprintf("client-%d", i), Store: c.stores[i], Log: slog.New(slog.DiscardHandler),
		})
		must(tb, err)
		tb.Cleanup(feeds[i].Close)
	}
	for i, f := range feeds {
		<-f.Ready()
		c.stores[i].OnChange(func() { c.applied(i) })
	}
	return c
}

// applied notes that a client's readers see the newest write.
func (c *crowd) applied(client int) {
	c.took[client] = time.Duration(time.Now().UnixNano() - c.began.Load())
	if c.waiting.Add(-1) == 0 {
		close(c.all)
	}
}

// write changes one document, waits until all clients have applied it and returns how long the call itself took. What
// each client needed, from the call on, is in took.
func (c *crowd) write(tb testing.TB, name string, n int) time.Duration {
	tb.Helper()
	c.all = make(chan struct{})
	c.waiting.Store(int64(len(c.stores)))
	start := time.Now()
	c.began.Store(start.UnixNano())
	c.set(c.a, name, fmt.Sprintf(`{"n":%d,"text":"%0360d"}`, n, n))
	called := time.Since(start)
	select {
	case <-c.all:
	case <-time.After(time.Minute):
		tb.Fatalf("%d clients never apply write %d", c.waiting.Load(), n)
	}
	return called
}

// read checks that a client reads the value.
func (c *crowd) read(tb testing.TB, client, n int) {
	tb.Helper()
	e, ok := c.stores[client].Effective(tenanttest.UID("acme"), plans()["acme"], tenant.ID{}, "notes")
	if !ok || e.Object["n"] != float64(n) {
		tb.Fatalf("client %d reads %v after write %d", client, e.Object["n"], n)
	}
}

// resend is the same write for clients that get everything again: each opens its stream anew once the write is done,
// and reads the snapshot. They are told at once, which costs a real system some more.
func (c *crowd) resend(tb testing.TB, n int) []time.Duration {
	tb.Helper()
	start := time.Now()
	c.write(tb, "tenants/acme/config/notes", n)
	took := make([]time.Duration, len(c.conns))
	waited := slices.Max(c.took) // for the streams, which are another way
	var readers sync.WaitGroup
	for i, conn := range c.conns {
		readers.Go(func() {
			ctx, cancel := context.WithCancel(tb.Context())
			defer cancel()
			stream, err := configv1.NewSettingsServiceClient(conn).WatchSettings(ctx, &configv1.WatchSettingsRequest{Replica: "again"})
			if err != nil {
				tb.Error(err)
				return
			}
			change := feed.Change{Reset: true}
			for {
				res, err := stream.Recv()
				if err != nil {
					tb.Error(err)
					return
				}
				for _, e := range res.GetFrame().GetChunk().GetEntries() {
					if err := settings.Check(e.GetKey(), e.GetValue()); err != nil {
						tb.Error(err)
					}
					change.Entries = append(change.Entries, feed.Entry{Key: e.GetKey(), Value: e.GetValue()})
				}
				if res.GetFrame().GetBookmark() != nil {
					break
				}
			}
			if err := new(settings.Store).Apply(change); err != nil {
				tb.Error(err)
			}
			took[i] = time.Since(start) - waited
		})
	}
	readers.Wait()
	return took
}

// BenchmarkFanout writes until 1,000 clients on connections of their own have applied it, one write after the other.
// Run it once: -benchtime=1x.
func BenchmarkFanout(b *testing.B) {
	const clients, writes, resends = 1000, 100, 1
	const longest = 15 * time.Second // on a machine that is busy with other work
	c := gather(b, clients)
	var each, last, calls, again []float64
	for i, began := 0, time.Now(); i < writes && time.Since(began) < longest; i++ {
		called := c.write(b, "tenants/acme/config/notes", i+1)
		calls = append(calls, ms(called))
		last = append(last, ms(slices.Max(c.took)))
		for _, took := range c.took {
			each = append(each, ms(took))
		}
		c.read(b, i%clients, i+1)
	}
	for i := range resends {
		for _, took := range c.resend(b, writes+i+1) {
			again = append(again, ms(took))
		}
	}
	b.ReportMetric(at(each, 0.5), "ms-p50")
	b.ReportMetric(at(each, 0.99), "ms-p99")
	b.ReportMetric(at(last, 0.5), "ms-last-p50")
	b.ReportMetric(at(last, 0.99), "ms-last-p99")
	b.ReportMetric(at(calls, 0.5), "ms-call-p50")
	b.ReportMetric(at(calls, 0.99), "ms-call-p99")
	b.ReportMetric(at(again, 0.99), "ms-resend-p99")
}

// BenchmarkDelivery tells the CPU time that one delivery takes, of the service and of the client together, which other
// work on the machine disturbs little. A hundred clients are few enough for bookmarks not to count.
func BenchmarkDelivery(b *testing.B) {
	const clients, warm, longest = 100, 20, 20 * time.Second
	c := gather(b, clients)
	writes, used := 0, time.Duration(0)
	for began := time.Now(); writes < 500 && time.Since(began) < longest; writes++ {
		if writes == warm {
			used = cpu(b)
		}
		c.write(b, "tenants/acme/config/notes", writes+1)
	}
	b.ReportMetric(float64((cpu(b)-used).Microseconds())/float64(clients*(writes-warm)), "cpu-us/delivery")
}

// cpu is the CPU time of this process, which has the service and its clients.
func cpu(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	must(tb, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func at(all []float64, share float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[int(share*float64(len(sorted)-1))]
}
