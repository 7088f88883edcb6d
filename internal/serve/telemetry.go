package serve

import (
	"context"
	"log/slog"
	"net/http"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"

	"github.com/rowhouse-platform/rowhouse/sdk/identity"
)

// telemetry is the process's exporters.
type telemetry struct {
	log      *slog.Logger
	tracer   trace.TracerProvider
	metrics  http.Handler
	shutdown func(context.Context) error
}

func startTelemetry(_ context.Context, opts Options, _ identity.ID) (*telemetry, error) {
	level, err := opts.Config.Telemetry.level()
	if err != nil {
		return nil, err
	}
	return &telemetry{
		log:      slog.New(slog.NewJSONHandler(opts.LogTo, &slog.HandlerOptions{Level: level})).With("service", opts.Name),
		tracer:   noop.NewTracerProvider(),
		metrics:  http.NotFoundHandler(),
		shutdown: func(context.Context) error { return nil },
	}, nil
}

// serverOptions puts the telemetry of calls behind what names their tenant.
func (*telemetry) serverOptions(tenants []grpc.ServerOption) []grpc.ServerOption { return tenants }

func (*telemetry) dialOptions() []grpc.DialOption { return nil }
