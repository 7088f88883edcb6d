package tenantgrpc_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/test/bufconn"

	"github.com/rowhouse-platform/rowhouse/sdk/readtoken"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

// committer commits when it is asked to, and fails after it when it is asked so.
type committer struct {
	grpc_health_v1.UnimplementedHealthServer
	saw []string // the tokens with which it was called; "none" without
}

func (c *committer) Check(ctx context.Context, req *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	token, kept := readtoken.FromContext(ctx)
	if !kept {
		token = "none"
	}
	c.saw = append(c.saw, token)
	if commit, ok := strings.CutPrefix(req.GetService(), "commit "); ok {
		readtoken.Note(ctx, token, commit)
	}
	if strings.HasSuffix(req.GetService(), "fail") {
		return nil, errors.New("as asked")
	}
	return &grpc_health_v1.HealthCheckResponse{}, nil
}

func TestReadTokensTravel(t *testing.T) {
	t.Parallel()
	service := &committer{}
	server := grpc.NewServer(tenantgrpc.ServeReadTokens())
	grpc_health_v1.RegisterHealthServer(server, service)
	listener := bufconn.Listen(1 << 16)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() { server.Stop(); <-served }()
	dial := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) })
	conn, err := grpc.NewClient("passthrough:test", dial, grpc.WithTransportCredentials(insecure.NewCredentials()), tenantgrpc.ForwardReadTokens())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := grpc_health_v1.NewHealthClient(conn)
	session := readtoken.NewContext(t.Context(), "")
	long := readtoken.NewContext(t.Context(), strings.Repeat("x", readtoken.MaxLen+1))
	for _, step := range []struct {
		ctx              context.Context
		ask, saw, then   string
		fails, keepsNone bool
	}{
		{ctx: t.Context(), ask: "commit one", saw: "none", keepsNone: true},
		{ctx: session, ask: "", saw: "", then: ""},
		{ctx: session, ask: "commit two", saw: "", then: "two"},
		{ctx: session, ask: "", saw: "two", then: "two"},
		{ctx: session, ask: "commit fail", saw: "two", then: "fail", fails: true},
		{ctx: session, ask: "", saw: "fail", then: "fail"},
		{ctx: long, ask: "", saw: readtoken.Unknown, then: strings.Repeat("x", readtoken.MaxLen+1)},
	} {
		_, err := client.Check(step.ctx, &grpc_health_v1.HealthCheckRequest{Service: step.ask})
		if (err != nil) != step.fails {
			t.Fatalf("%q: %v", step.ask, err)
		}
		if last := service.saw[len(service.saw)-1]; last != step.saw {
			t.Errorf("%q: the service saw %q, want %q of %q", step.ask, last, step.saw, slices.Clone(service.saw))
		}
		if token, kept := readtoken.FromContext(step.ctx); kept == step.keepsNone || token != step.then {
			t.Errorf("%q: then the caller keeps %q, %t; want %q", step.ask, token, kept, step.then)
		}
	}
}
