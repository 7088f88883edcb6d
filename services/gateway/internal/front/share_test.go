package front_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/fair"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/edge"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/front"
)

// busy is a street whose app holds what comes to /work until it is told to go on, one after the other.
type busy struct {
	*street
	reader *sdkmetric.ManualReader
	begun  chan string // the tenant's host of each that began
	goOn   chan struct{}
	mu     sync.Mutex
	used   []usage
}

type usage struct {
	tenant string
	front.Usage
}

func newBusy(t *testing.T, c fair.Config) *busy {
	t.Helper()
	b := &busy{reader: sdkmetric.NewManualReader(), begun: make(chan string, 100), goOn: make(chan struct{})}
	meter := sdkmetric.NewMeterProvider(sdkmetric.WithReader(b.reader)).Meter("test")
	b.street = newStreet(t, func(config *front.Config) {
		config.Share, config.Meter = &c, meter
		config.Used = func(tc tenant.Context, u front.Usage) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.used = append(b.used, usage{tc.ID().String(), u})
		}
	})
	b.app.on("/work", func(w http.ResponseWriter, r *http.Request) {
		b.begun <- r.Host
		select {
		case <-b.goOn:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, "done")
	})
	return b
}

// send asks for /work at the tenant's host, in a time of its own.
func (b *busy) send(host string) (answered <-chan answer) {
	b.Helper()
	client, got := b.client(h1, ""), make(chan answer, 1)
	go func() { got <- b.ask(client, http.MethodGet, "http://"+host+"/work", nil) }()
	return got
}

// gauge returns a measure of the queues.
func (b *busy) gauge(name string) (sum int64) {
	b.Helper()
	var all metricdata.ResourceMetrics
	need(b, b.reader.Collect(b.Context(), &all))
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if g, ok := m.Data.(metricdata.Gauge[int64]); ok && m.Name == "rowhouse.gateway.share."+name {
				for _, point := range g.DataPoints {
					sum += point.Value
				}
			}
		}
	}
	return sum
}

// until waits for a measure.
func (b *busy) until(name string, want int64) {
	b.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for b.gauge(name) != want {
		select {
		case <-tick.C:
		case <-deadline:
			b.Fatalf("%s is %d, want %d", name, b.gauge(name), want)
		}
	}
}

// A tenant's flood waits for itself: another tenant's request is next, and what is too much of the flood is refused with 503 and a
// time to come back.
func TestFloodWaitsForItself(t *testing.T) {
	t.Parallel()
	b := newBusy(t, fair.Config{Width: 1, Queue: 3, Wait: time.Minute})
	flood := []<-chan answer{b.send("acme.localhost")}
	<-b.begun
	for i := range 3 {
		flood = append(flood, b.send("acme.localhost"))
		b.until("waiting", int64(i+1))
	}
	refused := b.get(h1, "acme.localhost", "/work", nil)
	if refused.status != http.StatusServiceUnavailable || refused.problem.Reason != fault.ReasonCapacityReduced ||
		refused.problem.Type != "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity" ||
		refused.header.Get("Retry-After") == "" {
		t.Errorf("%d %v %+v", refused.status, refused.header, refused.problem)
	}
	page := b.get(h1, "acme.localhost", "/work", http.Header{"Accept": {"text/html"}})
	if page.status != http.StatusServiceUnavailable || !strings.Contains(page.body, "CAPACITY_REDUCED") {
		t.Errorf("%d %s", page.status, page.body)
	}
	quiet := b.send("globex.localhost")
	b.until("waiting", 4)
	b.goOn <- struct{}{}
	if next := <-b.begun; next != "globex.localhost" {
		t.Errorf("%s is next", next)
	}
	for range 4 {
		b.goOn <- struct{}{}
	}
	for i, f := range flood {
		if a := <-f; a.status != http.StatusOK {
			t.Errorf("of the flood, %d: %d %s", i, a.status, a.body)
		}
	}
	if a := <-quiet; a.status != http.StatusOK || a.body != "done" {
		t.Errorf("the quiet tenant: %d %s", a.status, a.body)
	}
	b.until("held", 0)
	b.mu.Lock()
	defer b.mu.Unlock()
	var refusals, delayed, out int64
	for _, u := range b.used {
		if u.Refused {
			refusals++
		}
		if u.tenant == "acme" && u.Delayed > 0 {
			delayed++
		}
		out += u.Out
	}
	if refusals != 2 || delayed != 1 || out != 5*int64(len("done")) || len(b.used) != 7 {
		t.Errorf("%d refusals, %d delayed, %d bytes: %+v", refusals, delayed, out, b.used)
	}
}

// Over the wait budget the flood is cut, and not who waited because of it.
func TestFloodIsCutForOthers(t *testing.T) {
	t.Parallel()
	b := newBusy(t, fair.Config{Width: 1, Wait: 200 * time.Millisecond})
	first := b.send("acme.localhost")
	<-b.begun
	quiet := b.send("globex.localhost")
	b.until("waiting", 1)
	for range 3 {
		if a := <-b.send("acme.localhost"); a.status != http.StatusServiceUnavailable || a.problem.Reason != fault.ReasonCapacityReduced {
			t.Errorf("%d %+v", a.status, a.problem)
		}
	}
	b.goOn <- struct{}{}
	if next := <-b.begun; next != "globex.localhost" {
		t.Errorf("%s is next", next)
	}
	b.goOn <- struct{}{}
	for name, ch := range map[string]<-chan answer{"first": first, "quiet": quiet} {
		if a := <-ch; a.status != http.StatusOK {
			t.Errorf("%s: %d %+v", name, a.status, a.problem)
		}
	}
}

// A stream gives its place back when it begins, a long poll when it has had it for long.
func TestStreamsAndPollsHoldNoPlaces(t *testing.T) {
	t.Parallel()
	b := newBusy(t, fair.Config{Width: 1, Wait: time.Minute, Hold: 100 * time.Millisecond})
	open := make(chan struct{})
	b.app.on("/events", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "first")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-open:
		case <-r.Context().Done():
		}
	})
	b.app.on("/quick", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "quick") })
	stream, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://acme.localhost/events", nil)
	need(t, err)
	res, err := b.client(h1, "").Do(stream)
	need(t, err)
	defer func() { _ = res.Body.Close() }()
	if a := b.get(h1, "globex.localhost", "/quick", nil); a.body != "quick" {
		t.Errorf("beside a stream: %d %s", a.status, a.body)
	}
	poll := b.send("acme.localhost")
	<-b.begun
	if a := b.get(h1, "globex.localhost", "/quick", nil); a.body != "quick" {
		t.Errorf("beside a long poll: %d %s", a.status, a.body)
	}
	b.goOn <- struct{}{}
	if a := <-poll; a.status != http.StatusOK {
		t.Errorf("the long poll: %d", a.status)
	}
	close(open)
}

// The weight is the plan's, and changes with it.
func TestWeightIsThePlans(t *testing.T) {
	t.Parallel()
	b := newBusy(t, fair.Config{Width: 1, Wait: time.Minute})
	b.table.SetPlan(edge.Plan{ID: "free", Weight: 1})
	b.table.SetPlan(edge.Plan{ID: "business", Weight: 1000})
	globex := *b.table.Tenant(b.issuer.Tenant(t, "globex").UID)
	globex.Plan = "business"
	b.table.SetTenant(globex)
	b.table.RemovePlan("nobody's")
	answers := []<-chan answer{b.send("acme.localhost")}
	<-b.begun
	for i := range 8 {
		answers = append(answers, b.send([]string{"acme.localhost", "globex.localhost"}[i%2]))
		b.until("waiting", int64(i+1))
	}
	var order []string
	for range 8 {
		b.goOn <- struct{}{}
		order = append(order, <-b.begun)
	}
	b.goOn <- struct{}{}
	for _, a := range answers {
		<-a
	}
	if got := strings.Join(order[:4], " "); got != strings.TrimSpace(strings.Repeat("globex.localhost ", 4)) {
		t.Errorf("the order is %v", order)
	}
}

// gRPC hears UNAVAILABLE, with a time to come back.
func TestFloodOverGRPC(t *testing.T) {
	t.Parallel()
	b := newBusy(t, fair.Config{Width: 1, Queue: 1, Wait: time.Minute})
	first := b.send("acme.localhost")
	<-b.begun
	second := b.send("acme.localhost")
	b.until("waiting", 1)
	_, err := b.invoke(b.dial("acme.localhost", true), tell)
	f, ok := fault.As(tenantgrpc.FromStatus(err))
	if status.Code(err) != codes.Unavailable || !ok || f.Reason != fault.ReasonCapacityReduced || f.RetryAfter < time.Second {
		t.Errorf("%v", err)
	}
	b.goOn <- struct{}{}
	<-b.begun
	b.goOn <- struct{}{}
	<-first
	<-second
}

// A client that goes away while it waits leaves its queue, and nobody is told that the app failed.
func TestClientsLeaveTheQueue(t *testing.T) {
	t.Parallel()
	b := newBusy(t, fair.Config{Width: 1, Wait: time.Minute})
	first := b.send("acme.localhost")
	<-b.begun
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://acme.localhost/work", nil)
	need(t, err)
	gone := make(chan error, 1)
	client := b.client(h1, "")
	go func() {
		res, err := client.Do(r)
		if err == nil {
			_ = res.Body.Close()
		}
		gone <- err
	}()
	b.until("waiting", 1)
	cancel()
	if err := <-gone; err == nil {
		t.Error("it got an answer")
	}
	b.until("waiting", 0)
	b.goOn <- struct{}{}
	if a := <-first; a.status != http.StatusOK {
		t.Errorf("%d", a.status)
	}
}
