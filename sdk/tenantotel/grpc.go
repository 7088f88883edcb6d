package tenantotel

import (
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

// ServerOptions returns the options of a gRPC server whose calls are made for
// tenants and traced: [tenantgrpc.Server] first, so that the tenant is verified
// before the call's span starts. Only methods that exist are traced and measured,
// so that callers cannot make names.
func (t *Telemetry) ServerOptions(cfg tenantgrpc.ServerConfig) []grpc.ServerOption {
	if cfg.Rules == nil {
		cfg.Rules = tenantgrpc.NewRules(nil)
	}
	if cfg.Log == nil {
		cfg.Log = t.logger
	}
	handler := otelgrpc.NewServerHandler(append(t.grpcOptions(),
		otelgrpc.WithFilter(func(info *stats.RPCTagInfo) bool {
			_, ok := cfg.Rules.Find(info.FullMethodName)
			return ok
		}))...)
	return append(tenantgrpc.Server(cfg), grpc.StatsHandler(handler))
}

// ClientOptions returns the options of a connection that forwards the tenant, as
// [tenantgrpc.Client] does, and traces its calls.
func (t *Telemetry) ClientOptions(cfg tenantgrpc.ClientConfig) []grpc.DialOption {
	return append(tenantgrpc.Client(cfg), grpc.WithStatsHandler(otelgrpc.NewClientHandler(t.grpcOptions()...)))
}

func (t *Telemetry) grpcOptions() []otelgrpc.Option {
	return []otelgrpc.Option{
		otelgrpc.WithTracerProvider(t.traces),
		otelgrpc.WithMeterProvider(t.meters),
		otelgrpc.WithPropagators(t.propagator),
		otelgrpc.WithMetricAttributesFn(metricAttributes),
	}
}
