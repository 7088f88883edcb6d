package config_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/identity"
)

// crowd is a service and many clients of it in another process, as [clients] says.
type crowd struct {
	*rig

	a     api
	child *exec.Cmd
	tell  io.WriteCloser
	hear  *json.Decoder
	cpu   time.Duration // of the clients, when they had applied the newest write
}

// gather starts the service and n clients, as many of which as share says have a connection together, and sets the documents of
// the rig's tenants.
func gather(tb testing.TB, n, share int) *crowd {
	tb.Helper()
	r := newRig(tb)
	c := &crowd{rig: r, a: r.as("owner")}
	r.namespace(c.a, "notes", `{"properties":{"n":{"type":"number"}}}`)
	for id := range plans() {
		r.set(c.a, "tenants/"+id+"/config/notes", `{"n":0,"text":"`+fmt.Sprintf("%0360d", 0)+`"}`)
	}
	pair, err := r.ca.Issue(identity.Leaf{ID: r.issuer.Gateway()})
	must(tb, err)
	must(tb, pair.Write(r.path("clients")))
	task, err := json.Marshal(clients{
		N: n, Share: share, Address: r.address, Service: r.service("config").String(), Identity: r.path("clients"), FeedKeys: r.path("feed.pub"),
	})
	must(tb, err)
	c.child = exec.CommandContext(tb.Context(), os.Args[0], "-test.run=^TestClients$", "-test.count=1")
	c.child.Env, c.child.Stderr = append(os.Environ(), envClients+"="+string(task)), os.Stderr
	c.tell, err = c.child.StdinPipe()
	must(tb, err)
	out, err := c.child.StdoutPipe()
	must(tb, err)
	c.hear = json.NewDecoder(out)
	must(tb, c.child.Start())
	tb.Cleanup(func() {
		_ = c.tell.Close()
		_, _ = io.Copy(io.Discard, out)
		_ = c.child.Wait()
	})
	c.next(tb)
	return c
}

// next is what the clients say next.
func (c *crowd) next(tb testing.TB) answer {
	tb.Helper()
	var said answer
	if err := c.hear.Decode(&said); err != nil {
		tb.Fatalf("the clients are gone: %v", err)
	}
	return said
}

// write changes one document and waits until all clients have applied it. It returns how long the call itself took, and what
// each client needed, from the call on.
func (c *crowd) write(tb testing.TB, name string, n int) (call time.Duration, took []time.Duration) {
	tb.Helper()
	_, err := io.WriteString(c.tell, "await\n")
	must(tb, err)
	c.next(tb)
	start := time.Now()
	c.set(c.a, name, fmt.Sprintf(`{"n":%d,"text":"%0360d"}`, n, n))
	call = time.Since(start)
	said := c.next(tb)
	c.cpu = said.CPU
	if said.Read != float64(n) {
		tb.Fatalf("a client reads %v after write %d", said.Read, n)
	}
	return call, since(start, said.At)
}

// resend is the same write for clients that get everything again: each opens its stream anew once the write is done, and reads
// the snapshot. They are answer at once, which costs a real system some more.
func (c *crowd) resend(tb testing.TB, n int) []time.Duration {
	tb.Helper()
	call, _ := c.write(tb, "tenants/acme/config/notes", n)
	start := time.Now()
	_, err := io.WriteString(c.tell, "again\n")
	must(tb, err)
	took := since(start, c.next(tb).At)
	for i := range took {
		took[i] += call
	}
	return took
}

func since(start time.Time, at []int64) []time.Duration {
	took := make([]time.Duration, len(at))
	for i, ns := range at {
		took[i] = time.Unix(0, ns).Sub(start.Round(0))
	}
	return took
}

// BenchmarkFanout writes until 1,000 clients have applied it, one write after the other: clients that share connections, as those
// of one process do, and clients with a connection each, whose TLS then takes most of the time. Run it once: -benchtime=1x.
func BenchmarkFanout(b *testing.B) {
	const clients, writes, resends = 1000, 100, 1
	const longest = 10 * time.Second // on a machine that is busy with other work
	for _, kind := range []struct {
		name  string
		share int
	}{{"Shared", 100}, {"Apart", 1}} {
		b.Run(kind.name, func(b *testing.B) {
			c := gather(b, clients, kind.share)
			var each, last, calls, again []float64
			for i, began := 0, time.Now(); i < writes && time.Since(began) < longest; i++ {
				call, all := c.write(b, "tenants/acme/config/notes", i+1)
				calls = append(calls, ms(call))
				for _, took := range all {
					each = append(each, ms(took))
				}
				last = append(last, ms(slices.Max(all)))
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
		})
	}
}

// BenchmarkDelivery tells the CPU time that one delivery takes of the service and of a client with a connection of its own, which
// other work on the machine disturbs little. A hundred clients are few enough for bookmarks not to count.
func BenchmarkDelivery(b *testing.B) {
	const clients, warm, longest = 100, 20, 20 * time.Second
	c := gather(b, clients, 1)
	writes := 0
	var service, client time.Duration
	for began := time.Now(); writes < 500 && time.Since(began) < longest; writes++ {
		if writes == warm {
			service, client = cpu(b), c.cpu
		}
		c.write(b, "tenants/acme/config/notes", writes+1)
	}
	report := func(used time.Duration, unit string) {
		b.ReportMetric(float64(used.Microseconds())/float64(clients*(writes-warm)), unit)
	}
	report(cpu(b)-service, "cpu-us/service")
	report(c.cpu-client, "cpu-us/client")
}

// cpu is the CPU time of this process.
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
