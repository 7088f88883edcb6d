// Package otlptest is a collector in memory, for tests that ask what a process
// really exports: it receives traces, metrics and logs over OTLP gRPC on
// loopback.
//
// Start at [Start], point the process at [Receiver.Endpoint], flush it, and read
// [Receiver.Spans], [Receiver.Metrics] and [Receiver.Logs].
package otlptest

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"

	collectorlogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// Span is a span with the service that exported it.
type Span struct {
	*spans.Span
	Service string
}

// Metric is a metric with the service that exported it.
type Metric struct {
	*metrics.Metric
	Service string
}

// Log is a log record with the service that exported it.
type Log struct {
	*logs.LogRecord
	Service string
}

// Attr returns the string value of the attribute key; "" when there is none.
func (s Span) Attr(key string) string { return Attr(s.Attributes, key) }

// Attr returns the string value of the attribute key; "" when there is none.
func (l Log) Attr(key string) string { return Attr(l.Attributes, key) }

// Attr returns the string value of key in attributes; "" when there is none.
func Attr(attributes []*common.KeyValue, key string) string {
	for _, a := range attributes {
		if a.GetKey() == key {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

// Receiver is a running collector. It is safe for concurrent use.
type Receiver struct {
	endpoint string

	mu      sync.Mutex
	spans   []Span
	metrics []Metric
	logs    []Log
	arrived chan struct{} // closed when something arrives
}

// Start runs a collector until the test ends.
func Start(tb testing.TB) *Receiver {
	tb.Helper()
	listener, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	r := &Receiver{endpoint: listener.Addr().String(), arrived: make(chan struct{})}
	server := grpc.NewServer()
	collectortrace.RegisterTraceServiceServer(server, traceService{r: r})
	collectormetrics.RegisterMetricsServiceServer(server, metricsService{r: r})
	collectorlogs.RegisterLogsServiceServer(server, logsService{r: r})
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	tb.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			tb.Errorf("collector: %v", err)
		}
	})
	return r
}

// Endpoint returns host:port of the collector; it speaks plain text.
func (r *Receiver) Endpoint() string { return r.endpoint }

// Spans returns all spans so far.
func (r *Receiver) Spans() []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.spans)
}

// Metrics returns all exported metrics so far, each export by itself.
func (r *Receiver) Metrics() []Metric {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.metrics)
}

// Logs returns all log records so far.
func (r *Receiver) Logs() []Log {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.logs)
}

// Wait returns when enough reports true; it asks now and whenever something
// arrives. It returns ctx's error when that comes first.
func (r *Receiver) Wait(ctx context.Context, enough func(*Receiver) bool) error {
	for {
		r.mu.Lock()
		arrived := r.arrived
		r.mu.Unlock()
		if enough(r) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-arrived:
		}
	}
}

func (r *Receiver) add(store func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	store()
	close(r.arrived)
	r.arrived = make(chan struct{})
}

type traceService struct {
	collectortrace.UnimplementedTraceServiceServer
	r *Receiver
}

// Export implements the OTLP trace service.
func (s traceService) Export(
	_ context.Context, req *collectortrace.ExportTraceServiceRequest,
) (*collectortrace.ExportTraceServiceResponse, error) {
	s.r.add(func() {
		for _, of := range req.GetResourceSpans() {
			service := Attr(of.GetResource().GetAttributes(), "service.name")
			for _, scope := range of.GetScopeSpans() {
				for _, span := range scope.GetSpans() {
					s.r.spans = append(s.r.spans, Span{Span: span, Service: service})
				}
			}
		}
	})
	return &collectortrace.ExportTraceServiceResponse{}, nil
}

type metricsService struct {
	collectormetrics.UnimplementedMetricsServiceServer
	r *Receiver
}

// Export implements the OTLP metrics service.
func (s metricsService) Export(
	_ context.Context, req *collectormetrics.ExportMetricsServiceRequest,
) (*collectormetrics.ExportMetricsServiceResponse, error) {
	s.r.add(func() {
		for _, of := range req.GetResourceMetrics() {
			service := Attr(of.GetResource().GetAttributes(), "service.name")
			for _, scope := range of.GetScopeMetrics() {
				for _, m := range scope.GetMetrics() {
					s.r.metrics = append(s.r.metrics, Metric{Metric: m, Service: service})
				}
			}
		}
	})
	return &collectormetrics.ExportMetricsServiceResponse{}, nil
}

type logsService struct {
	collectorlogs.UnimplementedLogsServiceServer
	r *Receiver
}

// Export implements the OTLP logs service.
func (s logsService) Export(
	_ context.Context, req *collectorlogs.ExportLogsServiceRequest,
) (*collectorlogs.ExportLogsServiceResponse, error) {
	s.r.add(func() {
		for _, of := range req.GetResourceLogs() {
			service := Attr(of.GetResource().GetAttributes(), "service.name")
			for _, scope := range of.GetScopeLogs() {
				for _, record := range scope.GetLogRecords() {
					s.r.logs = append(s.r.logs, Log{LogRecord: record, Service: service})
				}
			}
		}
	})
	return &collectorlogs.ExportLogsServiceResponse{}, nil
}
