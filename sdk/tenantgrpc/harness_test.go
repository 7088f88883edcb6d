package tenantgrpc_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/wrapperspb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

const (
	whoami = "/test.Notes/Whoami" // unary: the tenant's id; "fail …" fails
	watch  = "/test.Notes/Watch"  // server stream: the tenant's id each time the test asks for it
	chat   = "/test.Notes/Chat"   // bidi: the tenant's id for each message
	purge  = "/test.Notes/Purge"  // unary, TRANSACTION
	write  = "/test.Notes/Write"  // unary, scope notes.write
	export = "/test.Notes/Export" // unary, suspended tenants too
	admin  = "/test.Notes/Admin"  // unary, admin plane
	bare   = "/test.Notes/Bare"   // unary, no rule
	relay  = "/test.Notes/Relay"  // unary: asks the next service's whoami
	scope  = tenant.Scopes(1 << 3)
)

func data(edit func(*apiv1.MethodRule)) *apiv1.MethodRule {
	rule := &apiv1.MethodRule{Plane: apiv1.Plane_PLANE_DATA}
	if edit != nil {
		edit(rule)
	}
	return rule
}

func table() tenantgrpc.Table {
	return tenantgrpc.Table{
		whoami: data(nil), watch: data(nil), chat: data(nil), relay: data(nil),
		purge:  data(func(r *apiv1.MethodRule) { r.Context = apiv1.ContextClass_CONTEXT_CLASS_TRANSACTION }),
		write:  data(func(r *apiv1.MethodRule) { r.Permission = "notes.write" }),
		export: data(func(r *apiv1.MethodRule) { r.AllowSuspended = true }),
		admin:  {Plane: apiv1.Plane_PLANE_ADMIN, Permission: "notes.admin"},
	}
}

type text = wrapperspb.StringValue

// notes is a product service that says for whom it was called.
type notes struct {
	mu      sync.Mutex
	handled int
	forgets bool        // to redeem
	spent   atomic.Bool // the one nonce of the test
	next    *grpc.ClientConn
	emit    map[string]chan struct{}      // watch answers once for each, by tenant
	fail    func(context.Context) error   // whoami's answer when set
	deaf    bool                          // watch does not look at its context
	open    chan context.Context          // watch and chat tell their contexts, when set
	talk    func(grpc.ServerStream) error // what chat does instead, when set
}

func (n *notes) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.handled
}

func (n *notes) enter() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handled++
}

func actor(ctx context.Context) string {
	c, err := tenant.FromContext(ctx)
	if err != nil {
		return "nobody"
	}
	return c.ID().String()
}

func (n *notes) unary(method string) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: method, Handler: func(
		_ any, ctx context.Context, dec func(any) error, ic grpc.UnaryServerInterceptor,
	) (any, error) {
		in := new(text)
		if err := dec(in); err != nil {
			return nil, err
		}
		handle := func(ctx context.Context, _ any) (any, error) { return n.serve(ctx, method) }
		return ic(ctx, in, &grpc.UnaryServerInfo{FullMethod: "/test.Notes/" + method}, handle)
	}}
}

func (n *notes) serve(ctx context.Context, method string) (any, error) {
	n.enter()
	if method == "Relay" {
		out := new(text)
		return out, n.next.Invoke(ctx, whoami, &text{}, out)
	}
	if c, err := tenant.FromContext(ctx); err == nil && c.Class() == tenant.ClassTransaction && !n.forgets {
		fresh := func([16]byte, time.Time) (bool, error) { return !n.spent.Swap(true), nil }
		if err := c.Redeem(tenant.RequestDigest(purge, "1", "x"), fresh); err != nil {
			return nil, err
		}
	}
	if n.fail != nil {
		if err := n.fail(ctx); err != nil {
			return nil, err
		}
	}
	return &text{Value: actor(ctx)}, nil
}

func (n *notes) watch(_ any, ss grpc.ServerStream) error {
	n.enter()
	if err := ss.RecvMsg(new(text)); err != nil {
		return err
	}
	if n.open != nil {
		n.open <- ss.Context()
	}
	for {
		done := ss.Context().Done()
		if n.deaf {
			done = nil
		}
		select {
		case <-done:
			return ss.Context().Err()
		case <-n.emit[actor(ss.Context())]:
			if err := ss.SendMsg(&text{Value: actor(ss.Context())}); err != nil {
				return err
			}
		}
	}
}

func (n *notes) chat(_ any, ss grpc.ServerStream) error {
	n.enter()
	if n.talk != nil {
		return n.talk(ss)
	}
	for {
		err := ss.RecvMsg(new(text))
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ss.SendMsg(&text{Value: actor(ss.Context())}); err != nil {
			return err
		}
	}
}

func (n *notes) desc() *grpc.ServiceDesc {
	d := &grpc.ServiceDesc{ServiceName: "test.Notes", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{
		{StreamName: "Watch", Handler: n.watch, ServerStreams: true},
		{StreamName: "Chat", Handler: n.chat, ServerStreams: true, ClientStreams: true},
	}}
	for _, m := range []string{"Whoami", "Purge", "Write", "Export", "Admin", "Bare", "Relay"} {
		d.Methods = append(d.Methods, n.unary(m))
	}
	return d
}

// house is one server with its issuer and its authority.
type house struct {
	*tenanttest.Issuer
	t      *testing.T
	ca     *identity.Authority
	notes  *notes
	server *grpc.Server
	lis    *bufconn.Listener
	cfg    tenantgrpc.ServerConfig
	id     identity.ID
	log    *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func app(t *testing.T, name string) identity.ID {
	t.Helper()
	id, err := identity.App(tenanttest.TrustDomain, tenanttest.Cell, name)
	must(t, err)
	return id
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newHouse(t *testing.T, edits ...func(*tenantgrpc.ServerConfig)) *house {
	t.Helper()
	return newHouseOf(t, tenanttest.NewIssuer(t, time.Now), nil, edits...)
}

// newHouseOf shares issuer and, when it is not nil, the authority with another house.
func newHouseOf(t *testing.T, issuer *tenanttest.Issuer, ca *identity.Authority, edits ...func(*tenantgrpc.ServerConfig)) *house {
	t.Helper()
	if ca == nil {
		var err error
		ca, err = identity.NewAuthority(identity.AuthorityConfig{TrustDomain: tenanttest.TrustDomain})
		must(t, err)
	}
	h := &house{Issuer: issuer, t: t, ca: ca, id: app(t, "notes"), log: &lockedBuffer{},
		notes: &notes{emit: map[string]chan struct{}{
			"acme": make(chan struct{}), "globex": make(chan struct{}),
		}}}
	verifier := issuer.Verifier(t, func(c *tenant.VerifierConfig) {
		c.MayPresent = tenant.Presenters(issuer.Gateway(), app(t, "edge"))
	})
	h.cfg = tenantgrpc.ServerConfig{
		Verifier: verifier, Rules: tenantgrpc.NewRules(table()),
		Scopes: map[string]tenant.Scopes{"notes.write": scope},
		Log:    slog.New(slog.NewTextHandler(h.log, nil)),
	}
	for _, edit := range edits {
		edit(&h.cfg)
	}
	h.serve()
	return h
}

// newHouseWith puts options before those of tenantgrpc.
func newHouseWith(t *testing.T, options ...grpc.ServerOption) *house {
	t.Helper()
	h := newHouse(t)
	h.serve(options...)
	return h
}

func (h *house) serve(options ...grpc.ServerOption) {
	h.t.Helper()
	options = append(options, tenantgrpc.Server(h.cfg)...)
	h.server = grpc.NewServer(append(options, grpc.Creds(credentials.NewTLS(h.source(h.id).ServerTLS())))...)
	h.server.RegisterService(h.notes.desc(), nil)
	h.lis = listen(h.t, h.server)
}

// listen serves until the test ends.
func listen(t *testing.T, server *grpc.Server) *bufconn.Listener {
	t.Helper()
	lis := bufconn.Listen(1 << 20)
	served := make(chan error, 1)
	go func() { served <- server.Serve(lis) }()
	t.Cleanup(func() {
		server.Stop()
		<-served
	})
	return lis
}

func (h *house) source(id identity.ID) *identity.Source {
	h.t.Helper()
	pair, err := h.ca.Issue(identity.Leaf{ID: id})
	must(h.t, err)
	source, err := identity.FromPair(pair, identity.Options{})
	must(h.t, err)
	return source
}

// dial connects as id with our client options.
func (h *house) dial(id identity.ID, cfg tenantgrpc.ClientConfig) *grpc.ClientConn {
	h.t.Helper()
	if cfg.Rules == nil {
		cfg.Rules = tenantgrpc.NewRules(table())
	}
	return h.dialWith(id, tenantgrpc.Client(cfg)...)
}

// dialWith connects as id with nothing of ours, as an attacker would.
func (h *house) dialWith(id identity.ID, options ...grpc.DialOption) *grpc.ClientConn {
	h.t.Helper()
	options = append(options,
		grpc.WithTransportCredentials(credentials.NewTLS(h.source(id).ClientTLS(h.id))),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return h.lis.DialContext(ctx) }))
	conn, err := grpc.NewClient("passthrough:notes", options...)
	must(h.t, err)
	h.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (h *house) ctx(id string, edits ...func(*tenant.Claims)) context.Context {
	h.t.Helper()
	return h.In(h.t.Context(), h.t, id, edits...)
}

func call(ctx context.Context, conn *grpc.ClientConn, method string) (string, error) {
	out := new(text)
	err := conn.Invoke(ctx, method, &text{}, out)
	return out.GetValue(), err
}

func open(ctx context.Context, t *testing.T, conn *grpc.ClientConn, method string) grpc.ClientStream {
	t.Helper()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	must(t, err)
	if method == watch {
		must(t, stream.SendMsg(&text{}))
		must(t, stream.CloseSend())
	}
	return stream
}

func receive(stream grpc.ClientStream) (string, error) {
	out := new(text)
	err := stream.RecvMsg(out)
	return out.GetValue(), err
}

// expect fails the test unless err has the kind and the reason.
func expect(t *testing.T, what string, err error, kind fault.Kind, reason string) {
	t.Helper()
	got := tenantgrpc.FromStatus(err)
	if fault.KindOf(got) != kind || fault.ReasonOf(got) != reason {
		t.Errorf("%s: got %v (%v), expected %v %s", what, got, fault.KindOf(got), kind, reason)
	}
}
