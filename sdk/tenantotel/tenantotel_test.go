package tenantotel_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/wrapperspb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantotel"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantotel/otlptest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

const (
	whoami = "/test.Notes/Whoami"
	watch  = "/test.Notes/Watch"
	admin  = "/test.Notes/Admin"
)

type text = wrapperspb.StringValue

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is one traced service on mTLS, a traced caller, and their collector.
type world struct {
	*tenanttest.Issuer
	t        *testing.T
	receiver *otlptest.Receiver
	server   *tenantotel.Telemetry
	client   *tenantotel.Telemetry
	traced   *grpc.ClientConn // our client options
	raw      *grpc.ClientConn // nothing of ours
	log      *bytes.Buffer
}

func newWorld(t *testing.T, order ...func(*tenantotel.Telemetry, tenantgrpc.ServerConfig) []grpc.ServerOption) *world {
	t.Helper()
	w := &world{Issuer: tenanttest.NewIssuer(t, nil), t: t, receiver: otlptest.Start(t), log: &bytes.Buffer{}}
	w.server = w.setup("notes", w.log)
	w.client = w.setup("gateway", io.Discard)
	ca, err := identity.NewAuthority(identity.AuthorityConfig{TrustDomain: tenanttest.TrustDomain})
	must(t, err)
	id, err := identity.App(tenanttest.TrustDomain, tenanttest.Cell, "notes")
	must(t, err)
	rules := tenantgrpc.NewRules(tenantgrpc.Table{
		whoami: {Plane: apiv1.Plane_PLANE_DATA}, watch: {Plane: apiv1.Plane_PLANE_DATA}, admin: {Plane: apiv1.Plane_PLANE_ADMIN},
	})
	cfg := tenantgrpc.ServerConfig{Verifier: w.Verifier(t), Rules: rules}
	options := w.server.ServerOptions
	if len(order) > 0 {
		options = func(cfg tenantgrpc.ServerConfig) []grpc.ServerOption { return order[0](w.server, cfg) }
	}
	lis := bufconn.Listen(1 << 20)
	server := grpc.NewServer(append(options(cfg), grpc.Creds(credentials.NewTLS(source(t, ca, id).ServerTLS())))...)
	server.RegisterService(w.desc(), nil)
	served := make(chan error, 1)
	go func() { served <- server.Serve(lis) }()
	dial := func(options ...grpc.DialOption) *grpc.ClientConn {
		conn, err := grpc.NewClient("passthrough:notes", append(options,
			grpc.WithTransportCredentials(credentials.NewTLS(source(t, ca, w.Gateway()).ClientTLS(id))),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))...)
		must(t, err)
		return conn
	}
	w.traced, w.raw = dial(w.client.ClientOptions(tenantgrpc.ClientConfig{Rules: rules})...), dial()
	t.Cleanup(func() {
		_, _ = w.traced.Close(), w.raw.Close()
		server.Stop()
		<-served
	})
	return w
}

func source(t *testing.T, ca *identity.Authority, id identity.ID) *identity.Source {
	t.Helper()
	pair, err := ca.Issue(identity.Leaf{ID: id})
	must(t, err)
	s, err := identity.FromPair(pair, identity.Options{})
	must(t, err)
	return s
}

func (w *world) setup(service string, log io.Writer) *tenantotel.Telemetry {
	w.t.Helper()
	telemetry, err := tenantotel.Setup(w.t.Context(), tenantotel.Config{
		Service: service, Endpoint: w.receiver.Endpoint(), MetricInterval: time.Hour, Log: log,
	})
	must(w.t, err)
	return telemetry
}

// flush exports everything; telemetry is over then.
func (w *world) flush() {
	w.t.Helper()
	must(w.t, w.server.Shutdown(context.WithoutCancel(w.t.Context())))
	must(w.t, w.client.Shutdown(context.WithoutCancel(w.t.Context())))
}

// work is what a handler does: a span and a log line of its own.
func (w *world) work(ctx context.Context) {
	ctx, span := w.server.TracerProvider().Tracer("app").Start(ctx, "work")
	defer span.End()
	w.server.Logger().InfoContext(ctx, "worked")
}

func (w *world) desc() *grpc.ServiceDesc {
	unary := func(name string) grpc.MethodDesc {
		return grpc.MethodDesc{MethodName: name, Handler: func(
			_ any, ctx context.Context, dec func(any) error, ic grpc.UnaryServerInterceptor,
		) (any, error) {
			in := new(text)
			if err := dec(in); err != nil {
				return nil, err
			}
			return ic(ctx, in, &grpc.UnaryServerInfo{FullMethod: "/test.Notes/" + name}, func(ctx context.Context, _ any) (any, error) {
				w.work(ctx)
				return in, nil
			})
		}}
	}
	stream := func(_ any, ss grpc.ServerStream) error {
		w.work(ss.Context())
		return ss.SendMsg(&text{})
	}
	return &grpc.ServiceDesc{
		ServiceName: "test.Notes", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{unary("Whoami"), unary("Admin")},
		Streams: []grpc.StreamDesc{{StreamName: "Watch", Handler: stream, ServerStreams: true}},
	}
}

// ask makes one unary call and one stream.
func (w *world) ask(ctx context.Context, conn *grpc.ClientConn) error {
	if err := conn.Invoke(ctx, whoami, &text{}, &text{}); err != nil {
		return err
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, watch)
	if err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for err == nil {
		err = stream.RecvMsg(&text{})
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// The trap that this package exists for: the span of a call starts before any
// interceptor runs.
func TestEverySpanHasItsTenant(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const rounds = 10
	var wait sync.WaitGroup
	traces := map[string]string{} // trace id → tenant
	for _, id := range []string{"acme", "globex"} {
		for range rounds {
			ctx, span := w.client.TracerProvider().Tracer("test").Start(w.In(t.Context(), t, id), "root")
			traces[span.SpanContext().TraceID().String()] = id
			wait.Go(func() {
				defer span.End()
				if err := w.ask(ctx, w.traced); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wait.Wait()
	w.flush()
	count := map[string]int{}
	for _, s := range w.receiver.Spans() {
		want := traces[hexOf(s.TraceId)]
		if want == "" || s.Attr("tenant.id") != want || s.Attr("rowhouse.tenant.uid") != tenanttest.UID(want).String() ||
			s.Attr("rowhouse.plan") != tenanttest.Plan || s.Attr("rowhouse.cell") != tenanttest.Cell ||
			s.Attr("rowhouse.isolation") != "shared" || s.Attr("rowhouse.principal.kind") != "visitor" {
			t.Errorf("%s %s of %s has %v", s.Service, s.Name, want, s.Attributes)
		}
		count[s.Service+" "+s.Name]++
	}
	for name, want := range map[string]int{
		"gateway root": 2 * rounds, "gateway test.Notes/Whoami": 2 * rounds, "notes test.Notes/Whoami": 2 * rounds,
		"gateway test.Notes/Watch": 2 * rounds, "notes test.Notes/Watch": 2 * rounds, "notes work": 4 * rounds,
	} {
		if count[name] != want {
			t.Errorf("%d spans %q, expected %d; all: %v", count[name], name, want, count)
		}
	}
	w.checkLogs(traces, 4*rounds)
	w.checkMetrics()
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var out strings.Builder
	for _, c := range b {
		out.WriteByte(digits[c>>4])
		out.WriteByte(digits[c&15])
	}
	return out.String()
}

// checkLogs reads the exported log and the written one.
func (w *world) checkLogs(traces map[string]string, want int) {
	w.t.Helper()
	exported := w.receiver.Logs()
	if len(exported) != want {
		w.t.Errorf("%d log records exported, expected %d", len(exported), want)
	}
	for _, l := range exported {
		if id := traces[hexOf(l.TraceId)]; id == "" || l.Attr("tenant.id") != id {
			w.t.Errorf("a record of %q has %v", id, l.Attributes)
		}
	}
	lines := strings.Split(strings.TrimSpace(w.log.String()), "\n")
	if len(lines) != want {
		w.t.Errorf("%d lines, expected %d", len(lines), want)
	}
	for _, line := range lines {
		var record map[string]string
		must(w.t, json.Unmarshal([]byte(line), &record))
		if id := traces[record["trace_id"]]; id == "" || record["tenant.id"] != id || record["rowhouse.plan"] != tenanttest.Plan {
			w.t.Errorf("a line of %q: %s", id, line)
		}
	}
}

// checkMetrics looks for one series per method and plan, none per tenant, and
// for tenants on exemplars.
func (w *world) checkMetrics() {
	w.t.Helper()
	recorder := httptest.NewRecorder()
	request := httptest.NewRequestWithContext(w.t.Context(), http.MethodGet, "/metrics", nil)
	request.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	w.server.Metrics().ServeHTTP(recorder, request)
	exemplars, found := 0, false
	for _, m := range w.receiver.Metrics() {
		if m.Service != "notes" || m.Name != "rpc.server.call.duration" {
			continue
		}
		found = true
		for _, p := range m.GetHistogram().GetDataPoints() {
			if otlptest.Attr(p.Attributes, "tenant.id") != "" || otlptest.Attr(p.Attributes, "rowhouse.plan") != tenanttest.Plan {
				w.t.Errorf("a series has the labels %v", p.Attributes)
			}
			for _, e := range p.Exemplars {
				if otlptest.Attr(e.FilteredAttributes, "tenant.id") != "" {
					exemplars++
				}
			}
		}
		if n := len(m.GetHistogram().GetDataPoints()); n != 2 {
			w.t.Errorf("%d series for two methods and two tenants", n)
		}
	}
	if !found || exemplars == 0 {
		w.t.Errorf("rpc.server.call.duration exported: %v, with %d tenants on exemplars", found, exemplars)
	}
}

// Whatever a caller writes by hand, no span, line or series takes it for a tenant.
func TestSpoofsReachNoSpan(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	forge := func(ctx context.Context) context.Context {
		return metadata.AppendToOutgoingContext(ctx,
			"tenant.id", "evil", "tenant-id", "evil", "x-tenant-id", "evil", "rowhouse-tenant", "evil", "rowhouse-tenant-bin", "evil",
			"baggage", "tenant.id=evil,rowhouse.tenant.uid=evil", "tracestate", "tenant.id=evil",
			"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	}
	must(t, w.ask(forge(w.In(t.Context(), t, "acme")), w.traced))
	must(t, w.raw.Invoke(metadata.AppendToOutgoingContext(t.Context(), "baggage", "tenant.id=evil", "tenant.id", "evil",
		"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), admin, &text{}, &text{}))
	if err := w.raw.Invoke(forge(t.Context()), whoami, &text{}, &text{}); err == nil {
		t.Error("a forged context was accepted")
	}
	if err := w.raw.Invoke(forge(t.Context()), "/test.Notes/evil", &text{}, &text{}); err == nil {
		t.Error("an unknown method was served")
	}
	w.flush()
	acme, nobody := 0, 0
	for _, s := range w.receiver.Spans() {
		s.TraceState = "" // Handed on between services, and nobody reads a tenant from it.
		if strings.Contains(s.String(), "evil") {
			t.Errorf("a spoof reached a span: %v", s)
		}
		switch s.Attr("tenant.id") {
		case "acme":
			acme++
		case "":
			nobody++
		default:
			t.Errorf("%s has the tenant %q", s.Name, s.Attr("tenant.id"))
		}
	}
	// acme: two calls, both ends, and two spans of work. Nobody: the admin call, its
	// work, and the refused call.
	if acme != 6 || nobody != 3 {
		t.Errorf("%d spans of acme and %d of nobody", acme, nobody)
	}
	if strings.Contains(w.log.String(), `"evil"`) {
		t.Errorf("a spoof reached the log: %s", w.log)
	}
	for _, m := range w.receiver.Metrics() {
		if strings.Contains(m.String(), "evil") {
			t.Errorf("a spoof reached a metric: %v", m)
		}
	}
}

// The mistake must not go unnoticed: it would leave all spans without tenants.
func TestWrongOrderIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(telemetry *tenantotel.Telemetry, cfg tenantgrpc.ServerConfig) []grpc.ServerOption {
		options := telemetry.ServerOptions(cfg)
		last := len(options) - 1
		return append([]grpc.ServerOption{options[last]}, options[:last]...)
	})
	if err := w.ask(w.In(t.Context(), t, "acme"), w.traced); err == nil {
		t.Error("telemetry before the tenant is accepted")
	}
	w.flush()
}

func TestEdgeStartsNewTraces(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := httptest.NewRequestWithContext(t.Context(), "BREW", "/t/acme/notes/17", nil)
	r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	r.Header.Set("Tracestate", "vendor=evil")
	r.Header.Set("Baggage", "tenant.id=evil")
	for _, origin := range []tenantotel.Origin{tenantotel.Outside, tenantotel.Inside} {
		ctx, call := w.server.StartHTTP(r.Context(), tenantotel.HTTPRequest{Request: r, Route: "/notes/{note}", Origin: origin})
		ctx = w.In(ctx, t, "acme")
		tenantotel.Stamp(ctx)
		header := http.Header{}
		w.server.Inject(ctx, header)
		if header.Get("Traceparent") == "" || header.Get("Baggage") != "" {
			t.Errorf("passed on: %v", header)
		}
		call.End(ctx, http.StatusBadGateway)
	}
	w.flush()
	spans := w.receiver.Spans()
	if len(spans) != 2 {
		t.Fatalf("%d spans", len(spans))
	}
	slices.SortFunc(spans, func(a, b otlptest.Span) int { return len(a.ParentSpanId) - len(b.ParentSpanId) })
	outside, inside := spans[0], spans[1]
	const caller = "0af7651916cd43dd8448eb211c80319c"
	if hexOf(outside.TraceId) == caller || len(outside.ParentSpanId) != 0 || outside.TraceState != "" || len(outside.Links) != 1 ||
		hexOf(outside.Links[0].TraceId) != caller || outside.Links[0].TraceState != "" {
		t.Errorf("from outside: %v", outside)
	}
	if hexOf(inside.TraceId) != caller {
		t.Errorf("from inside: %v", inside)
	}
	for _, s := range spans {
		if s.Attr("tenant.id") != "acme" || s.Attr("http.request.method") != "_OTHER" || s.Attr("http.route") != "/notes/{note}" {
			t.Errorf("attributes %v", s.Attributes)
		}
	}
}

func TestLogPutsTheTenantFirst(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	issuer := tenanttest.NewIssuer(t, nil)
	log := slog.New(tenantotel.NewHandler(slog.NewJSONHandler(&out, nil))).With("a", 1).WithGroup("g").With("b", 2)
	log.InfoContext(tenantotel.WithRequestID(issuer.In(t.Context(), t, "acme"), "r-1"), "m", "c", 3)
	log.InfoContext(t.Context(), "m")
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var first, second map[string]any
	must(t, json.Unmarshal([]byte(lines[0]), &first))
	must(t, json.Unmarshal([]byte(lines[1]), &second))
	group, _ := first["g"].(map[string]any)
	if first["tenant.id"] != "acme" || first["rowhouse.request.id"] != "r-1" || first["a"] != 1.0 || group["b"] != 2.0 || group["c"] != 3.0 {
		t.Errorf("with a tenant: %s", lines[0])
	}
	if _, ok := second["tenant.id"]; ok || second["a"] != 1.0 {
		t.Errorf("without: %s", lines[1])
	}
}

// A collector that is gone must not hold up a call, nor the end of the process.
func TestDeadCollectorHoldsUpNobody(t *testing.T) {
	t.Parallel()
	lis, err := net.Listen("tcp", "127.0.0.1:0") // accepts, never answers
	must(t, err)
	t.Cleanup(func() { _ = lis.Close() })
	telemetry, err := tenantotel.Setup(t.Context(), tenantotel.Config{Service: "x", Endpoint: lis.Addr().String(), Log: io.Discard})
	must(t, err)
	ctx := tenanttest.NewIssuer(t, nil).In(t.Context(), t, "acme")
	start := time.Now()
	for range 5000 { // more than twice the queue
		_, span := telemetry.TracerProvider().Tracer("x").Start(ctx, "s")
		span.End()
		telemetry.Logger().InfoContext(ctx, "m")
	}
	if took := time.Since(start); took > 10*time.Second { // One export alone may wait for 10 s.
		t.Errorf("5,000 spans and lines took %v", took)
	}
	short, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 100*time.Millisecond)
	defer cancel()
	start = time.Now()
	if err := telemetry.Shutdown(short); err == nil {
		t.Error("losing telemetry is not reported")
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("the end took %v", took)
	}
}

// Ten thousand tenants make as many series as one.
func TestSeriesDoNotGrowWithTenants(t *testing.T) {
	t.Parallel()
	telemetry, err := tenantotel.Setup(t.Context(), tenantotel.Config{Service: "x", Log: io.Discard})
	must(t, err)
	histogram, err := telemetry.MeterProvider().Meter("x").Float64Histogram("work")
	must(t, err)
	for i := range 10000 {
		histogram.Record(t.Context(), 1, metric.WithAttributes(tenantotel.KeyTenantID.String(strconv.Itoa(i))))
	}
	w := httptest.NewRecorder()
	telemetry.Metrics().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	body := w.Body.String()
	if strings.Count(body, "\nwork_count") != 1 || strings.Contains(body, "tenant_id") || strings.Contains(body, "overflow") {
		t.Errorf("%d series", strings.Count(body, "\nwork_count"))
	}
	must(t, telemetry.Shutdown(t.Context()))
}

func TestSetupNeedsAName(t *testing.T) {
	t.Parallel()
	if _, err := tenantotel.Setup(t.Context(), tenantotel.Config{}); err == nil {
		t.Error("a process without a name")
	}
}

// linkSampler keeps the links it was asked about. The exporter drops their trace
// state; a sampler and other exporters would see it.
type linkSampler struct{ links []trace.Link }

func (s *linkSampler) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	s.links = append(s.links, p.Links...)
	return sdktrace.SamplingResult{Decision: sdktrace.RecordAndSample}
}

func (*linkSampler) Description() string { return "links" }

func TestEdgeLinksCarryNoTraceState(t *testing.T) {
	t.Parallel()
	sampler := &linkSampler{}
	telemetry, err := tenantotel.Setup(t.Context(), tenantotel.Config{Service: "x", Log: io.Discard, Sampler: sampler})
	must(t, err)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	r.Header.Set("Tracestate", "vendor=evil")
	ctx, call := telemetry.StartHTTP(t.Context(), tenantotel.HTTPRequest{Request: r, Route: "/"})
	call.End(ctx, http.StatusOK)
	if len(sampler.links) != 1 || sampler.links[0].SpanContext.TraceState().Len() != 0 {
		t.Errorf("links %v", sampler.links)
	}
	must(t, telemetry.Shutdown(t.Context()))
}
