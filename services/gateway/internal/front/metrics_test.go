package front_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/front"
)

// Requests are measured by app, status and reason, and by nothing that outsiders choose.
func TestRequestsAreMeasured(t *testing.T) {
	t.Parallel()
	reader := sdkmetric.NewManualReader()
	meter := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test")
	s := newStreet(t, func(c *front.Config) { c.Meter = meter })
	for range 3 {
		s.get(h1, "acme.localhost", "/", nil)
	}
	s.get(h2TLS, "globex.localhost", "/", nil)
	s.get(h1, "hooli.localhost", "/", nil)
	s.get(h1, "nobody-1.localhost", "/", nil)
	s.get(h1, "nobody-2.localhost", "/", nil)
	var all metricdata.ResourceMetrics
	need(t, reader.Collect(t.Context(), &all))
	counts := map[string]uint64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			histogram, ok := m.Data.(metricdata.Histogram[float64])
			if !ok || m.Name != "http.server.request.duration" {
				t.Fatalf("%s: %T", m.Name, m.Data)
			}
			for _, point := range histogram.DataPoints {
				counts[label(point.Attributes)] += point.Count
			}
		}
	}
	want := map[string]uint64{"200 notes": 4, "403 TENANT_SUSPENDED notes": 1, "404 RESOURCE_NOT_FOUND": 2}
	for k, n := range want {
		if counts[k] != n {
			t.Errorf("%q counted %d times, want %d: %v", k, counts[k], n, counts)
		}
	}
	if len(counts) != len(want) {
		t.Errorf("%v", counts)
	}
}

func label(set attribute.Set) string {
	var words []string
	for _, key := range []attribute.Key{"http.response.status_code", "error.type", "rowhouse.app"} {
		if v, ok := set.Value(key); ok {
			words = append(words, v.String())
		}
	}
	return strings.Join(words, " ")
}

// A flood of refusals does not flood the log.
func TestRefusalsAreSampledInTheLog(t *testing.T) {
	t.Parallel()
	var log lines
	s := newStreet(t, func(c *front.Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	client := s.client(h1, "")
	const many = 300
	for range many {
		s.ask(client, "GET", "http://nobody.localhost/", nil)
	}
	if n := log.count("msg=refused"); n < 20 || n > many/2 {
		t.Errorf("%d lines for %d refusals", n, many)
	}
}

type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), what)
}
