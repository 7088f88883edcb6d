package tenantotel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/bridges/otelslog"
	"go.opentelemetry.io/contrib/instrumentation/runtime"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/credentials"
)

const (
	scopeName = "github.com/rowhouse-platform/rowhouse/sdk/tenantotel"
	// queueSize bounds what waits for a collector; more is dropped and counted.
	queueSize = 2048
	// seriesLimit bounds the label sets of one instrument.
	seriesLimit   = 2000
	exportTimeout = 5 * time.Second
	flushTimeout  = 5 * time.Second
)

// Config says where telemetry goes. The zero value writes JSON logs to standard
// error, serves metrics, and exports nothing.
type Config struct {
	// Service names the process, such as "tenancy". Required.
	Service string
	// Version is the build's version; may be empty.
	Version string
	// Endpoint is the host:port of an OTLP gRPC collector. Empty: the standard
	// variables OTEL_EXPORTER_OTLP_ENDPOINT and its kin decide; without them
	// nothing is exported.
	Endpoint string
	// TLS is used for Endpoint; nil speaks plain text, for a collector on the same
	// host.
	TLS *tls.Config
	// Sampler decides which traces are recorded. Default: all, or what
	// OTEL_TRACES_SAMPLER says; none when nothing is exported.
	Sampler sdktrace.Sampler
	// MetricInterval is the time between two exports of metrics. Default: 15 s.
	MetricInterval time.Duration
	// Log receives the JSON log. Default: standard error.
	Log io.Writer
	// Level is the least level that is logged. Default: info.
	Level slog.Leveler
}

// Telemetry is a process's tracer, meters and log. It is safe for concurrent use.
type Telemetry struct {
	traces     *sdktrace.TracerProvider
	meters     *sdkmetric.MeterProvider
	logs       *sdklog.LoggerProvider // nil when nothing is exported
	logger     *slog.Logger
	registry   *prometheus.Registry
	propagator propagation.TextMapPropagator
	tracer     trace.Tracer
	duration   metric.Float64Histogram
}

// Setup starts telemetry. It connects to no one before it returns and never
// waits for a collector. The caller calls Shutdown once, at the end.
func Setup(ctx context.Context, cfg Config) (*Telemetry, error) {
	if cfg.Service == "" {
		return nil, errors.New("telemetry needs the service's name")
	}
	cfg = cfg.withDefaults()
	res, err := newResource(ctx, cfg)
	if err != nil {
		return nil, err
	}
	t := &Telemetry{registry: prometheus.NewRegistry(), propagator: propagation.TraceContext{}}
	if err := errors.Join(t.startTraces(ctx, cfg, res), t.startMetrics(ctx, cfg, res), t.startLogs(ctx, cfg, res)); err != nil {
		return nil, errors.Join(err, t.Shutdown(ctx))
	}
	t.tracer = t.traces.Tracer(scopeName)
	t.duration, err = t.meters.Meter(scopeName).Float64Histogram("http.server.request.duration",
		metric.WithUnit("s"), metric.WithDescription("Time that an HTTP request took."))
	if err == nil {
		err = runtime.Start(runtime.WithMeterProvider(t.meters))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start telemetry: %w", err), t.Shutdown(ctx))
	}
	return t, nil
}

// TracerProvider returns where others get tracers from.
func (t *Telemetry) TracerProvider() trace.TracerProvider { return t.traces }

// MeterProvider returns where others get meters from. Labels must not grow with
// tenants; tenant keys are filtered off all but observable counters.
func (t *Telemetry) MeterProvider() metric.MeterProvider { return t.meters }

// Logger returns the process's log: JSON lines, exported too where that is
// configured, with the tenant and trace of the context logged in.
func (t *Telemetry) Logger() *slog.Logger { return t.logger }

// Metrics returns the handler of /metrics.
func (t *Telemetry) Metrics() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// Shutdown exports what waits and stops. It takes five seconds at most, less
// when ctx ends. An error means that some telemetry was lost.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	var errs []error
	if t.traces != nil {
		errs = append(errs, t.traces.Shutdown(ctx))
	}
	if t.meters != nil {
		errs = append(errs, t.meters.Shutdown(ctx))
	}
	if t.logs != nil {
		errs = append(errs, t.logs.Shutdown(ctx))
	}
	return errors.Join(errs...)
}

func (cfg Config) withDefaults() Config {
	if cfg.Log == nil {
		cfg.Log = os.Stderr
	}
	if cfg.Level == nil {
		cfg.Level = slog.LevelInfo
	}
	if cfg.MetricInterval == 0 {
		cfg.MetricInterval = 15 * time.Second
	}
	return cfg
}

// exports reports whether signal ("TRACES", "METRICS", "LOGS") has somewhere to go.
func (cfg Config) exports(signal string) bool {
	return cfg.Endpoint != "" || os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" ||
		os.Getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") != ""
}

func newResource(ctx context.Context, cfg Config) (*resource.Resource, error) {
	attrs := []attribute.KeyValue{attribute.String("service.name", cfg.Service)}
	if cfg.Version != "" {
		attrs = append(attrs, attribute.String("service.version", cfg.Version))
	}
	res, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithAttributes(attrs...), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("describe the process: %w", err)
	}
	return res, nil
}

func (t *Telemetry) startTraces(ctx context.Context, cfg Config, res *resource.Resource) error {
	options := []sdktrace.TracerProviderOption{
		sdktrace.WithResource(res), sdktrace.WithSpanProcessor(SpanProcessor{}),
	}
	sampler := cfg.Sampler
	if cfg.exports("TRACES") {
		exporter, err := otlptracegrpc.New(ctx, traceOptions(cfg)...)
		if err != nil {
			return fmt.Errorf("export traces: %w", err)
		}
		options = append(options, sdktrace.WithBatcher(exporter, sdktrace.WithMaxQueueSize(queueSize)))
	} else if sampler == nil {
		sampler = sdktrace.NeverSample() // Trace ids still name calls in errors and logs.
	}
	if sampler != nil {
		options = append(options, sdktrace.WithSampler(sampler))
	}
	t.traces = sdktrace.NewTracerProvider(options...)
	return nil
}

func (t *Telemetry) startMetrics(ctx context.Context, cfg Config, res *resource.Resource) error {
	reader, err := otelprometheus.New(otelprometheus.WithRegisterer(t.registry), otelprometheus.WithoutScopeInfo())
	if err != nil {
		return fmt.Errorf("serve metrics: %w", err)
	}
	options := []sdkmetric.Option{
		sdkmetric.WithResource(res), sdkmetric.WithReader(reader),
		sdkmetric.WithView(withoutTenants), sdkmetric.WithCardinalityLimit(seriesLimit),
	}
	if cfg.exports("METRICS") {
		exporter, err := otlpmetricgrpc.New(ctx, metricOptions(cfg)...)
		if err != nil {
			return fmt.Errorf("export metrics: %w", err)
		}
		options = append(options, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exporter,
			sdkmetric.WithInterval(cfg.MetricInterval), sdkmetric.WithTimeout(exportTimeout))))
	}
	t.meters = sdkmetric.NewMeterProvider(options...)
	return nil
}

// withoutTenants takes tenants off the labels of what would make a series per
// tenant for ever. Observable counters choose their few tenants themselves.
func withoutTenants(i sdkmetric.Instrument) (sdkmetric.Stream, bool) {
	if i.Kind == sdkmetric.InstrumentKindObservableCounter {
		return sdkmetric.Stream{}, false
	}
	return sdkmetric.Stream{
		Name: i.Name, Description: i.Description, Unit: i.Unit,
		AttributeFilter: attribute.NewDenyKeysFilter(KeyTenantID, KeyTenantUID, KeyTargetTenant, KeyRequestID),
	}, true
}

func (t *Telemetry) startLogs(ctx context.Context, cfg Config, res *resource.Resource) error {
	lines := slog.Handler(slog.NewJSONHandler(cfg.Log, &slog.HandlerOptions{Level: cfg.Level}))
	if cfg.exports("LOGS") {
		exporter, err := otlploggrpc.New(ctx, logOptions(cfg)...)
		if err != nil {
			return fmt.Errorf("export logs: %w", err)
		}
		t.logs = sdklog.NewLoggerProvider(sdklog.WithResource(res),
			sdklog.WithProcessor(sdklog.NewBatchProcessor(exporter, sdklog.WithMaxQueueSize(queueSize))))
		exported := leveled{otelslog.NewHandler(scopeName, otelslog.WithLoggerProvider(t.logs)), cfg.Level}
		lines = both{lines, exported}
	}
	t.logger = slog.New(NewHandler(lines))
	return nil
}

// leveled gives a handler that has no level of its own one.
type leveled struct {
	slog.Handler
	level slog.Leveler
}

// Enabled implements slog.Handler.
func (l leveled) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= l.level.Level() && l.Handler.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (l leveled) WithAttrs(attrs []slog.Attr) slog.Handler {
	return leveled{l.Handler.WithAttrs(attrs), l.level}
}

// WithGroup implements slog.Handler.
func (l leveled) WithGroup(name string) slog.Handler {
	return leveled{l.Handler.WithGroup(name), l.level}
}

func traceOptions(cfg Config) []otlptracegrpc.Option {
	switch {
	case cfg.Endpoint == "":
		return nil
	case cfg.TLS == nil:
		return []otlptracegrpc.Option{otlptracegrpc.WithEndpoint(cfg.Endpoint), otlptracegrpc.WithInsecure()}
	default:
		return []otlptracegrpc.Option{otlptracegrpc.WithEndpoint(cfg.Endpoint),
			otlptracegrpc.WithTLSCredentials(credentials.NewTLS(cfg.TLS))}
	}
}

func metricOptions(cfg Config) []otlpmetricgrpc.Option {
	switch {
	case cfg.Endpoint == "":
		return nil
	case cfg.TLS == nil:
		return []otlpmetricgrpc.Option{otlpmetricgrpc.WithEndpoint(cfg.Endpoint), otlpmetricgrpc.WithInsecure()}
	default:
		return []otlpmetricgrpc.Option{otlpmetricgrpc.WithEndpoint(cfg.Endpoint),
			otlpmetricgrpc.WithTLSCredentials(credentials.NewTLS(cfg.TLS))}
	}
}

func logOptions(cfg Config) []otlploggrpc.Option {
	switch {
	case cfg.Endpoint == "":
		return nil
	case cfg.TLS == nil:
		return []otlploggrpc.Option{otlploggrpc.WithEndpoint(cfg.Endpoint), otlploggrpc.WithInsecure()}
	default:
		return []otlploggrpc.Option{otlploggrpc.WithEndpoint(cfg.Endpoint),
			otlploggrpc.WithTLSCredentials(credentials.NewTLS(cfg.TLS))}
	}
}
