package tenantgrpc

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// ClientConfig says how a client forwards tenant contexts. The zero value is
// good.
type ClientConfig struct {
	// Rules finds the rules of methods. Default: the linked-in descriptors alone.
	Rules *Rules
	// Refresher renews a SESSION context that has less than five seconds left,
	// before it is forwarded: once for all calls that forward it. A call waits for
	// half a second at most; when there is no new context then, the old one is
	// forwarded. Default: none.
	Refresher Refresher
	// Clock is the time. Default: time.Now.
	Clock func() time.Time
}

// Client returns the options of a connection on which DATA methods act for the
// tenant of the calling context, and for no other: the token comes from
// [tenant.FromContext] alone, and what looks like one in the outgoing metadata is
// removed. A DATA call without a tenant fails as CONTEXT_MISSING, like
// a refusal by the server, before anything is sent; other methods carry no token. Unary calls without a
// deadline get the default one.
func Client(cfg ClientConfig) []grpc.DialOption {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Rules == nil {
		cfg.Rules = NewRules(nil)
	}
	c := &client{cfg: cfg}
	if cfg.Refresher != nil {
		c.successors = &successors{refresher: cfg.Refresher, clock: cfg.Clock, known: map[string]*successor{}}
	}
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(c.unary),
		grpc.WithChainStreamInterceptor(c.stream),
		// A window of a fixed size: grpc-go else answers messages that arrive alone with a ping, to find out how large it
		// should be, and a message on a watch stream then costs both ends three times as much.
		grpc.WithInitialWindowSize(window),
		grpc.WithInitialConnWindowSize(window),
	}
}

// window bounds what a server may send ahead of its reader, on a stream and on a connection. It is as large as the
// largest message, and fills a line of 100 Mbit/s across an ocean.
const window = 4 << 20

type client struct {
	cfg        ClientConfig
	successors *successors // nil without a refresher
}

//nolint:revive // the arguments are grpc.UnaryClientInterceptor's
func (c *client) unary(
	ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	rule, _ := c.cfg.Rules.Find(method)
	ctx, err := c.prepare(ctx, rule)
	if err != nil {
		return err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = withDeadline(ctx, rule, MaxDeadline)
		defer cancel()
	}
	return invoke(ctx, method, req, reply, conn, opts...)
}

func (c *client) stream(
	ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	rule, _ := c.cfg.Rules.Find(method)
	ctx, err := c.prepare(ctx, rule)
	if err != nil {
		return nil, err
	}
	return open(ctx, desc, conn, method, opts...)
}

// prepare returns ctx with the one token that the method may carry.
func (c *client) prepare(ctx context.Context, rule *apiv1.MethodRule) (context.Context, error) {
	ctx = strip(ctx)
	if rule.GetPlane() != apiv1.Plane_PLANE_DATA {
		return ctx, nil
	}
	verified, err := tenant.FromContext(ctx)
	if err != nil {
		return nil, Status(err).Err()
	}
	return metadata.AppendToOutgoingContext(ctx, tenant.MetadataKey, c.token(ctx, verified)), nil
}

func (c *client) token(ctx context.Context, verified tenant.Context) string {
	if c.successors == nil {
		return verified.Token()
	}
	return c.successors.of(ctx, verified)
}

// strip removes what looks like a tenant context from the outgoing metadata:
// user code must not be able to speak for a tenant, nor forward by accident what
// it copied from an incoming call.
func strip(ctx context.Context) context.Context {
	md, ok := metadata.FromOutgoingContext(ctx)
	if !ok {
		return ctx
	}
	found := false
	for key := range md {
		if looksLikeContext(key) {
			delete(md, key)
			found = true
		}
	}
	if !found {
		return ctx
	}
	return metadata.NewOutgoingContext(ctx, md)
}

// looksLikeContext takes "_" and "." for "-", as servers behind CGI and its like do.
func looksLikeContext(key string) bool {
	const name = "rowhouse-tenant"
	if len(key) < len(name) {
		return false
	}
	for i := range len(name) {
		c := key[i]
		switch {
		case c == '_' || c == '.':
			c = '-'
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		}
		if c != name[i] {
			return false
		}
	}
	return true
}
