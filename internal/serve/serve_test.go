package serve_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/internal/serve"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	trustDomain = "rowhouse.localhost"
	cell        = "cell-1"
)

// house is what processes find on disk.
type house struct {
	authority *identity.Authority
	dir       string
	token     string
}

func newHouse(t *testing.T) *house {
	t.Helper()
	authority, err := identity.NewAuthority(identity.AuthorityConfig{TrustDomain: trustDomain})
	if err != nil {
		t.Fatal(err)
	}
	h := &house{authority: authority, dir: t.TempDir()}
	token, sum, err := operator.NewToken(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	h.token = token
	h.write(t, "operators.yaml", "operators: [{name: dev, token_sha256: "+sum+", roles: [owner]}]\n")
	h.write(t, "peers.yaml", "peers: [{identity: '"+id(t, "gateway").String()+"', roles: [gateway]}]\n")
	h.issue(t, "tenancy")
	h.issue(t, "gateway")
	return h
}

func (h *house) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (h *house) issue(t *testing.T, name string) {
	t.Helper()
	pair, err := h.authority.Issue(identity.Leaf{ID: id(t, name)})
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Write(filepath.Join(h.dir, name)); err != nil {
		t.Fatal(err)
	}
}

func (h *house) path(parts ...string) yamlfile.Path {
	return yamlfile.Path(filepath.Join(append([]string{h.dir}, parts...)...))
}

func (h *house) config() serve.Config {
	return serve.Config{
		Listen: "127.0.0.1:0", Ops: "127.0.0.1:0", Development: true,
		Identity: serve.IdentityFiles{
			Cert: h.path("tenancy", identity.CertFile), Key: h.path("tenancy", identity.KeyFile),
			Roots: h.path("tenancy", identity.RootsFile),
		},
		Operators: h.path("operators.yaml"), Peers: h.path("peers.yaml"),
	}
}

func id(t *testing.T, name string) identity.ID {
	t.Helper()
	parsed, err := identity.Service(trustDomain, cell, name)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// run is a process under test.
type run struct {
	house     *house
	grpc, ops string
	stop      context.CancelFunc
	ended     chan struct{}
	err       error
	log       *buffer
}

// buffer is a log that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start runs a process until the test ends, and waits until its ports are open or it failed.
func start(t *testing.T, h *house, s *serve.Service, edits ...func(*serve.Config)) *run {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	r := &run{house: h, stop: stop, ended: make(chan struct{}), log: &buffer{}}
	listening := make(chan struct{})
	cfg := h.config()
	for _, edit := range edits {
		edit(&cfg)
	}
	go func() {
		defer close(r.ended)
		r.err = serve.Run(ctx, serve.Options{
			Name: "tenancy", Config: cfg, LogTo: r.log, Listening: func(g, o net.Addr) {
				r.grpc, r.ops = g.String(), o.String()
				close(listening)
			},
		}, func(context.Context, *serve.Process) (*serve.Service, error) { return s, nil })
	}()
	t.Cleanup(func() {
		stop()
		<-r.ended
	})
	select {
	case <-listening:
	case <-r.ended:
	}
	return r
}

func (r *run) end(t *testing.T) error {
	t.Helper()
	r.stop()
	<-r.ended
	return r.err
}

// probe asks the ops port.
func (r *run) probe(t *testing.T, path string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.ops+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(answer.Body)
	if err = errors.Join(err, answer.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, strings.TrimSpace(string(body))
}

// until asks again and again; the deadline of go test ends a wait in vain.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatalf("%s never came", what)
		}
	}
}

// operator connects with a token and no certificate.
func (r *run) operator(t *testing.T) (context.Context, *grpc.ClientConn) {
	t.Helper()
	cfg, err := identity.AnonymousClientTLS(r.house.authority.RootsPEM(), id(t, "tenancy"), nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(r.grpc, grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+r.house.token), conn
}

// gateway connects as another service does.
func (r *run) gateway(t *testing.T, peer identity.ID) *grpc.ClientConn {
	t.Helper()
	source, err := identity.Files(string(r.house.path("gateway", identity.CertFile)),
		string(r.house.path("gateway", identity.KeyFile)), string(r.house.path("gateway", identity.RootsFile)), identity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := serve.Dial(r.grpc, source, peer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// tenants is a service whose handlers tests can hold.
type tenants struct {
	tenancyv1.UnimplementedTenantServiceServer
	tenancyv1.UnimplementedRoutingServiceServer
	entered chan string   // hears of each handler
	release chan struct{} // lets GetTenant answer
	leaving func()        // called before it does

	mu  sync.Mutex
	ids []string
}

func newTenants() *tenants {
	return &tenants{entered: make(chan string, 10), release: make(chan struct{}), leaving: func() {}}
}

func (s *tenants) register(server *grpc.Server) {
	tenancyv1.RegisterTenantServiceServer(server, s)
	tenancyv1.RegisterRoutingServiceServer(server, s)
}

func (s *tenants) GetTenant(ctx context.Context, _ *tenancyv1.GetTenantRequest) (*tenancyv1.GetTenantResponse, error) {
	s.entered <- "get"
	select {
	case <-s.release:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.leaving()
	return &tenancyv1.GetTenantResponse{Tenant: &tenancyv1.Tenant{Name: "tenants/acme"}}, nil
}

func (s *tenants) UpdateTenant(
	_ context.Context, r *tenancyv1.UpdateTenantRequest,
) (*tenancyv1.UpdateTenantResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids = append(s.ids, r.GetRequestId())
	if len(s.ids) < 3 {
		return nil, fault.New(fault.Unavailable, fault.ReasonDependency, "away")
	}
	return &tenancyv1.UpdateTenantResponse{}, nil
}

func (s *tenants) WatchTenants(
	_ *tenancyv1.WatchTenantsRequest, stream grpc.ServerStreamingServer[tenancyv1.WatchTenantsResponse],
) error {
	if err := stream.Send(&tenancyv1.WatchTenantsResponse{}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

func TestLife(t *testing.T) {
	t.Parallel()
	service := newTenants()
	var mu sync.Mutex
	var steps []string
	step := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		steps = append(steps, what)
	}
	service.leaving = func() { step("handler ended") }
	r := start(t, newHouse(t), &serve.Service{
		Register: service.register,
		Background: []func(context.Context) error{func(ctx context.Context) error {
			<-ctx.Done()
			step("background ended")
			return ctx.Err()
		}},
		Close: []func(){func() { step("pool closed") }, func() { step("connection closed") }},
	})
	until(t, "the start", func() bool { code, _ := r.probe(t, "/startupz"); return code == http.StatusOK })
	for _, path := range []string{"/livez", "/readyz", "/debug/pprof/cmdline"} {
		if code, body := r.probe(t, path); code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if _, body := r.probe(t, "/metrics"); !strings.Contains(body, "go_goroutine") {
		t.Errorf("/metrics has no goroutines: %.200s", body)
	}
	ctx, conn := r.operator(t)
	watch, err := tenancyv1.NewRoutingServiceClient(r.gateway(t, id(t, "tenancy"))).
		WatchTenants(t.Context(), &tenancyv1.WatchTenantsRequest{Replica: "r"})
	if err == nil {
		_, err = watch.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := tenancyv1.NewTenantServiceClient(conn).GetTenant(ctx, &tenancyv1.GetTenantRequest{Name: "tenants/acme"})
		answered <- err
	}()
	<-service.entered
	r.stop()
	_, err = watch.Recv() // ends although nobody ended it: draining has begun
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the watch ended with %v", err)
	}
	if code, body := r.probe(t, "/readyz"); code != http.StatusServiceUnavailable || body != "draining" {
		t.Errorf("/readyz while draining: %d %s", code, body)
	}
	if code, _ := r.probe(t, "/livez"); code != http.StatusOK {
		t.Errorf("/livez while draining: %d", code)
	}
	close(service.release)
	if err := <-answered; err != nil {
		t.Errorf("the call in flight was lost: %v", err)
	}
	if err := r.end(t); err != nil {
		t.Errorf("Run = %v", err)
	}
	want := []string{"handler ended", "background ended", "connection closed", "pool closed"}
	if diff := cmp.Diff(want, steps); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}

func TestDrainGivesUpOnHandlersThatStay(t *testing.T) {
	t.Parallel()
	service := newTenants()
	r := start(t, newHouse(t), &serve.Service{Register: service.register}, func(c *serve.Config) {
		c.Drain.Timeout = 50 * time.Millisecond
	})
	ctx, conn := r.operator(t)
	answered := make(chan error, 1)
	go func() {
		_, err := tenancyv1.NewTenantServiceClient(conn).GetTenant(ctx, &tenancyv1.GetTenantRequest{Name: "tenants/acme"})
		answered <- err
	}()
	<-service.entered
	if err := r.end(t); err != nil {
		t.Errorf("Run = %v", err)
	}
	if err := <-answered; status.Code(err) != codes.Unavailable { // and not its deadline, much later
		t.Errorf("the call that was cut off: %v", err)
	}
}

func TestReadinessIsMirroredInHealth(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	why := errors.New("the routing table is not loaded")
	r := start(t, newHouse(t), &serve.Service{Register: newTenants().register, Ready: func() error {
		mu.Lock()
		defer mu.Unlock()
		return why
	}})
	if code, body := r.probe(t, "/readyz"); code != http.StatusServiceUnavailable || body != why.Error() && body != "starting" {
		t.Errorf("/readyz: %d %s", code, body)
	}
	_, conn := r.operator(t) // health asks for no credential
	watch, err := grpc_health_v1.NewHealthClient(conn).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want grpc_health_v1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for {
			got, err := watch.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if got.GetStatus() == want {
				return
			}
		}
	}
	expect(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	mu.Lock()
	why = nil
	mu.Unlock()
	expect(grpc_health_v1.HealthCheckResponse_SERVING)
	if code, _ := r.probe(t, "/readyz"); code != http.StatusOK {
		t.Errorf("/readyz: %d", code)
	}
	if err := r.end(t); err != nil {
		t.Errorf("Run = %v: a health watch must not hold up the end", err)
	}
}

func TestBackgroundFailureEndsTheProcess(t *testing.T) {
	t.Parallel()
	planted := errors.New("planted")
	r := start(t, newHouse(t), &serve.Service{
		Register:   newTenants().register,
		Background: []func(context.Context) error{func(context.Context) error { return planted }},
	})
	<-r.ended
	if !errors.Is(r.err, planted) {
		t.Errorf("Run = %v", r.err)
	}
}

func TestWhatKeepsFromStarting(t *testing.T) {
	t.Parallel()
	var lc net.ListenConfig
	taken, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	h := newHouse(t)
	h.write(t, "bad-peers.yaml", "peers: [{identity: 'spiffe://d/cell/c/app/a', permissions: [fly]}]")
	good := newTenants().register
	tests := map[string]struct {
		register func(*grpc.Server)
		edit     func(*serve.Config)
		want     string
	}{
		"port taken":          {good, func(c *serve.Config) { c.Listen = taken.Addr().String() }, "address already in use"},
		"ops port taken":      {good, func(c *serve.Config) { c.Ops = taken.Addr().String() }, "address already in use"},
		"no address":          {good, func(c *serve.Config) { c.Ops = "" }, `ops: "" is not host:port`},
		"no identity":         {good, func(c *serve.Config) { c.Identity.Key = "" }, "identity.key is missing"},
		"development root":    {good, func(c *serve.Config) { c.Development = false }, "made for development"},
		"unknown permission":  {good, func(c *serve.Config) { c.Peers = h.path("bad-peers.yaml") }, `unknown permission "fly"`},
		"log level":           {good, func(c *serve.Config) { c.Telemetry.LogLevel = "loud" }, "log_level"},
		"method without rule": {func(s *grpc.Server) { good(s); reflection.Register(s) }, func(*serve.Config) {}, "declares no rule"},
	}
	for name, test := range tests {
		err := start(t, h, &serve.Service{Register: test.register}, test.edit).end(t)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: Run = %v, want an error with %q", name, err, test.want)
		}
	}
	cfg := h.config()
	if err := cfg.Check(t.Context()); err != nil {
		t.Errorf("Check of a good configuration: %v", err)
	}
	cfg.Operators = "" // its token has no end
	cfg.Peers, cfg.Development = h.path("bad-peers.yaml"), false
	err = cfg.Check(t.Context())
	if err == nil || !strings.Contains(err.Error(), "fly") || !strings.Contains(err.Error(), "development") {
		t.Errorf("Check must name all that is wrong: %v", err)
	}
}

// What a build has opened is closed when the rest of it fails, the last first.
func TestFailedBuildIsClosed(t *testing.T) {
	t.Parallel()
	var closed []string
	failure := errors.New("no key")
	err := serve.Run(t.Context(), serve.Options{Name: "tenancy", Config: newHouse(t).config(), LogTo: io.Discard},
		func(context.Context, *serve.Process) (*serve.Service, error) {
			return &serve.Service{Close: []func(){
				func() { closed = append(closed, "pool") }, func() { closed = append(closed, "connection") },
			}}, failure
		})
	if !errors.Is(err, failure) || strings.Join(closed, ", ") != "connection, pool" {
		t.Errorf("%v, closed: %v", err, closed)
	}
	err = serve.Run(t.Context(), serve.Options{Name: "tenancy", Config: newHouse(t).config(), LogTo: io.Discard},
		func(context.Context, *serve.Process) (*serve.Service, error) { return nil, failure })
	if !errors.Is(err, failure) {
		t.Errorf("with nothing to close: %v", err)
	}
}

func TestDialRetriesWithOneRequestID(t *testing.T) {
	t.Parallel()
	service := newTenants()
	h := newHouse(t)
	h.write(t, "peers.yaml", "peers: [{identity: '"+id(t, "gateway").String()+"', permissions: [tenancy.tenants.update]}]\n")
	r := start(t, h, &serve.Service{Register: service.register})
	client := tenancyv1.NewTenantServiceClient(r.gateway(t, id(t, "tenancy")))
	request := &tenancyv1.UpdateTenantRequest{Tenant: &tenancyv1.Tenant{Name: "tenants/acme", Plan: "plans/free"}}
	if _, err := client.UpdateTenant(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	if len(service.ids) != 3 || service.ids[0] != service.ids[1] || service.ids[1] != service.ids[2] {
		t.Errorf("request ids = %q, want one, three times", service.ids)
	}
	if _, err := uuid.Parse(service.ids[0]); err != nil || request.GetRequestId() != "" {
		t.Errorf("request id %q, the caller's message has %q", service.ids[0], request.GetRequestId())
	}
	const mine = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"
	request.RequestId = mine
	if _, err := client.UpdateTenant(t.Context(), request); err != nil || service.ids[3] != mine {
		t.Errorf("a given request id became %q, %v", service.ids[3], err)
	}
}

func TestDialTrustsOnePeer(t *testing.T) {
	t.Parallel()
	r := start(t, newHouse(t), &serve.Service{Register: newTenants().register})
	stranger := &run{house: newHouse(t), grpc: r.grpc}
	for name, conn := range map[string]*grpc.ClientConn{
		"another service's name": r.gateway(t, id(t, "config")),
		"another authority":      stranger.gateway(t, id(t, "tenancy")),
	} {
		_, err := tenancyv1.NewTenantServiceClient(conn).GetTenant(t.Context(), &tenancyv1.GetTenantRequest{Name: "tenants/acme"})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	r := start(t, newHouse(t), &serve.Service{Register: newTenants().register})
	ctx, conn := r.operator(t)
	for size, want := range map[int]fault.Kind{1<<20 + 100: fault.InvalidArgument, 2 << 20: fault.ResourceExhausted} {
		_, err := tenancyv1.NewTenantServiceClient(conn).
			GetTenant(ctx, &tenancyv1.GetTenantRequest{Name: strings.Repeat("x", size)})
		if got := fault.KindOf(tenantgrpc.FromStatus(err)); got != want {
			t.Errorf("%d bytes: %v, want %v", size, err, want)
		}
	}
	if _, err := tenancyv1.NewTenantServiceClient(conn).
		GetTenant(metadata.AppendToOutgoingContext(ctx, "x", strings.Repeat("x", 20<<10)), &tenancyv1.GetTenantRequest{}); err == nil {
		t.Error("20 KiB of headers were taken")
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	type config struct {
		Serve serve.Config `yaml:"serve"`
		Store struct {
			DSN yamlfile.Path `yaml:"dsn"`
		} `yaml:"store"`
	}
	path := filepath.Join(t.TempDir(), "config.yaml")
	content := `
serve:
  listen: 127.0.0.1:7101
  ops: 127.0.0.1:7201
  identity: {cert: id/cert.pem, key: id/key.pem, roots: id/roots.pem}
  issuers: [{url: https://id.example, audience: rowhouse, algorithm: ES256}]
  drain: {delay: 5s}
store: {dsn: dsn}
`
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := serve.Load[config](path)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	if string(got.Serve.Identity.Roots) != dir+"/id/roots.pem" || string(got.Store.DSN) != dir+"/dsn" ||
		got.Serve.Drain.Delay != 5*time.Second || got.Serve.Issuers[0].Algorithm != "ES256" {
		t.Errorf("loaded %+v", got)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(content, "issuers", "isuers", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	want := path + `:6: unknown key "isuers" in serve; the nearest known key is "issuers"`
	if _, err = serve.Load[config](path); err == nil || err.Error() != want {
		t.Errorf("error = %v, want %s", err, want)
	}
}
