package serve

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "google.golang.org/grpc/health" // healthCheckConfig in the service config works by it

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

const (
	clientPing  = 30 * time.Second
	maxAttempts = 3
	maxAnswer   = 4 << 20
	// The pauses between tries to connect, shorter than gRPC's own: services start side by side and follow each other's
	// feeds, and one that is back is to be found before its silence is noticed.
	firstReconnect   = 100 * time.Millisecond
	lastReconnect    = 5 * time.Second
	reconnectGrows   = 1.6
	reconnectJitter  = 0.2
	reconnectTimeout = 20 * time.Second
	requestIDName    = "request_id"
)

// Dial opens a connection to the service that peer names and to nobody else. It does not wait for the connection.
// target is a gRPC target such as "dns:///tenancy:7101" or "127.0.0.1:7101"; all addresses behind it share the load.
//
// Unary methods that declare themselves idempotent are tried up to three times while the service is UNAVAILABLE; a
// request that has a request_id field and no value gets one. Calls without a deadline get the plane's default, DATA
// calls forward the tenant context of their context. extra options come last. The caller closes the connection.
func Dial(
	target string, source *identity.Source, peer identity.ID, extra ...grpc.DialOption,
) (*grpc.ClientConn, error) {
	return dial(target, source, peer, append(tenantgrpc.Client(tenantgrpc.ClientConfig{}), extra...))
}

// Dial is [Dial] as the process itself, with spans for its calls.
func (p *Process) Dial(target string, peer identity.ID, extra ...grpc.DialOption) (*grpc.ClientConn, error) {
	tenants := p.Telemetry.ClientOptions(tenantgrpc.ClientConfig{Clock: p.Clock})
	return dial(target, p.Identity, peer, append(tenants, extra...))
}

func dial(
	target string, source *identity.Source, peer identity.ID, extra []grpc.DialOption,
) (*grpc.ClientConn, error) {
	config, err := serviceConfig(protoregistry.GlobalFiles)
	if err != nil {
		return nil, err
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(source.ClientTLS(peer))),
		grpc.WithDefaultServiceConfig(config),
		grpc.WithDisableServiceConfig(), // what DNS says about retries is nobody's business
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: firstReconnect, Multiplier: reconnectGrows, Jitter: reconnectJitter, MaxDelay: lastReconnect,
			},
			MinConnectTimeout: reconnectTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: clientPing, Timeout: pingTimeout, PermitWithoutStream: true,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithChainUnaryInterceptor(withRequestID),
	}
	conn, err := grpc.NewClient(target, append(options, extra...)...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", peer, err)
	}
	return conn, nil
}

// withRequestID gives a request its identity before the first try, so that every try has the same.
func withRequestID( //nolint:revive // the signature is gRPC's
	ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker,
	opts ...grpc.CallOption,
) error {
	msg, ok := req.(proto.Message)
	if !ok {
		return invoke(ctx, method, req, reply, conn, opts...)
	}
	fd := msg.ProtoReflect().Descriptor().Fields().ByName(requestIDName)
	if fd == nil || fd.Kind() != protoreflect.StringKind || msg.ProtoReflect().Has(fd) {
		return invoke(ctx, method, req, reply, conn, opts...)
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return fmt.Errorf("make a request_id: %w", err)
	}
	named := proto.Clone(msg) // the caller's message stays as it is
	named.ProtoReflect().Set(fd, protoreflect.ValueOfString(id.String()))
	return invoke(ctx, method, named, reply, conn, opts...)
}

// The shape of gRPC's service config, as far as it is used.
type grpcServiceConfig struct {
	LoadBalancingConfig []map[string]struct{} `json:"loadBalancingConfig"`
	HealthCheckConfig   map[string]string     `json:"healthCheckConfig"`
	RetryThrottling     retryThrottling       `json:"retryThrottling"`
	MethodConfig        []methodConfig        `json:"methodConfig,omitempty"`
}

type retryThrottling struct {
	MaxTokens  int     `json:"maxTokens"`
	TokenRatio float64 `json:"tokenRatio"`
}

type methodConfig struct {
	Name        []methodName `json:"name"`
	RetryPolicy retryPolicy  `json:"retryPolicy"`
}

type methodName struct {
	Service string `json:"service"`
	Method  string `json:"method"`
}

type retryPolicy struct {
	MaxAttempts          int      `json:"maxAttempts"`
	InitialBackoff       string   `json:"initialBackoff"`
	MaxBackoff           string   `json:"maxBackoff"`
	BackoffMultiplier    float64  `json:"backoffMultiplier"`
	RetryableStatusCodes []string `json:"retryableStatusCodes"`
}

// serviceConfig is made from the rules of all methods that are linked in.
func serviceConfig(files *protoregistry.Files) (string, error) {
	config := grpcServiceConfig{
		LoadBalancingConfig: []map[string]struct{}{{"round_robin": {}}},
		HealthCheckConfig:   map[string]string{"serviceName": ""},
		RetryThrottling:     retryThrottling{MaxTokens: 10, TokenRatio: 0.1},
	}
	if names := retryable(files); len(names) > 0 {
		config.MethodConfig = []methodConfig{{Name: names, RetryPolicy: retryPolicy{
			MaxAttempts: maxAttempts, InitialBackoff: "0.05s", MaxBackoff: "1s", BackoffMultiplier: 2,
			RetryableStatusCodes: []string{"UNAVAILABLE"},
		}}}
	}
	b, err := json.Marshal(config)
	return string(b), err
}

// retryable lists the unary methods that may be called twice. Streams are not among them: whoever watches resumes.
func retryable(files *protoregistry.Files) []methodName {
	var names []methodName
	files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				md := service.Methods().Get(j)
				declared := rule.RuleOf(md).GetIdempotency() != apiv1.Idempotency_IDEMPOTENCY_UNSPECIFIED
				if declared && !md.IsStreamingServer() && !md.IsStreamingClient() {
					names = append(names, methodName{string(service.FullName()), string(md.Name())})
				}
			}
		}
		return true
	})
	slices.SortFunc(names, func(a, b methodName) int {
		return strings.Compare(a.Service+"/"+a.Method, b.Service+"/"+b.Method)
	})
	return names
}
