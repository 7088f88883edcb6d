package front_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/limits"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

const (
	tell  = "/test.Notes/Tell"  // unary: what the app saw
	fail  = "/test.Notes/Fail"  // unary: an error with details
	watch = "/test.Notes/Watch" // server stream: three messages, then as long as the call lives
	chat  = "/test.Notes/Chat"  // bidi: echoes
)

type text = wrapperspb.StringValue

// serveGRPC serves the app's gRPC address.
func (a *app) serveGRPC(source *identity.Source) {
	a.s.Helper()
	l := listener(a.s)
	a.grpc = l.Addr().String()
	verifier := a.s.issuer.Verifier(a.s)
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(source.ServerTLS())), grpc.UnknownServiceHandler(func(_ any, ss grpc.ServerStream) error {
		a.asked.Add(1)
		method, _ := grpc.MethodFromServerStream(ss)
		in := new(text)
		if err := ss.RecvMsg(in); err != nil {
			return err
		}
		return a.call(method, verifier, ss, in)
	}))
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	a.s.Cleanup(func() { server.Stop(); serving.Wait() })
}

func (a *app) call(method string, verifier *tenant.Verifier, ss grpc.ServerStream, in *text) error {
	ctx := ss.Context()
	md, _ := metadata.FromIncomingContext(ctx)
	peer, _ := identity.FromPeer(ctx)
	raw := ""
	if tokens := md.Get(tenant.MetadataKey); len(tokens) == 1 {
		raw = tokens[0]
	}
	tc, err := verifier.Verify(raw, peer)
	if err != nil {
		return tenantgrpc.Status(err).Err()
	}
	switch method {
	case fail:
		return tenantgrpc.Status(fault.New(fault.FailedPrecondition, "NOT_NOW", "100 %% äh").WithMetadata("k", "v")).Err()
	case watch:
		for range 3 {
			if err := ss.SendMsg(&text{Value: tc.ID().String()}); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return ctx.Err()
	case chat:
		for {
			if err := ss.SendMsg(in); err != nil {
				return err
			}
			if err := ss.RecvMsg(in); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
	ss.SetTrailer(metadata.Pairs("mood", "good", "rowhouse-secret", "x", "stamp-bin", "\x00\xff"))
	_ = ss.SetHeader(metadata.Pairs("shelf", "3", "server", "notes"))
	deadline, _ := ctx.Deadline()
	told, err := json.Marshal(seenCall{Tenant: tc.ID().String(), Metadata: md, Left: time.Until(deadline), Text: in.GetValue()})
	if err != nil {
		return err
	}
	return ss.SendMsg(&text{Value: string(told)})
}

// seenCall is what the app saw of a call.
type seenCall struct {
	Tenant, Text string
	Metadata     metadata.MD
	Left         time.Duration
}

// dial connects to the front door for a host, with TLS or without.
func (s *street) dial(host string, secure bool) *grpc.ClientConn {
	s.Helper()
	address, creds := s.plain, insecure.NewCredentials()
	if secure {
		address, creds = s.secure, credentials.NewTLS(&tls.Config{RootCAs: s.roots(), ServerName: host})
	}
	return s.connect(address, grpc.WithTransportCredentials(creds), grpc.WithAuthority(host))
}

func (s *street) connect(address string, options ...grpc.DialOption) *grpc.ClientConn {
	s.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, options...)
	need(s, err)
	s.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (s *street) invoke(conn *grpc.ClientConn, method string, pairs ...string) (seenCall, error) {
	s.Helper()
	out := new(text)
	err := conn.Invoke(metadata.AppendToOutgoingContext(s.Context(), pairs...), method, &text{Value: "hello"}, out)
	var told seenCall
	if err == nil {
		need(s, json.Unmarshal([]byte(out.GetValue()), &told))
	}
	return told, err
}

func TestGRPCUnary(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	for _, secure := range []bool{true, false} {
		conn := s.dial("acme.localhost", secure)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		ctx = metadata.AppendToOutgoingContext(ctx, "greeting", "hi", "greeting", "ho", "blob-bin", "\x00\x01")
		out := new(text)
		var head, tail metadata.MD
		need(t, conn.Invoke(ctx, tell, &text{Value: "hello"}, out, grpc.Header(&head), grpc.Trailer(&tail)))
		var told seenCall
		need(t, json.Unmarshal([]byte(out.GetValue()), &told))
		if told.Tenant != "acme" || told.Text != "hello" || told.Left <= 0 || told.Left > 30*time.Second {
			t.Errorf("the app saw %+v", told)
		}
		if got := told.Metadata; !slices.Equal(got.Get("greeting"), []string{"hi", "ho"}) || !slices.Equal(got.Get("blob-bin"), []string{"\x00\x01"}) ||
			!slices.Equal(got.Get(":authority"), []string{"acme.localhost"}) {
			t.Errorf("metadata %v", got)
		}
		if !slices.Equal(head.Get("shelf"), []string{"3"}) || head.Get("server") != nil {
			t.Errorf("head %v", head)
		}
		if !slices.Equal(tail.Get("mood"), []string{"good"}) || !slices.Equal(tail.Get("stamp-bin"), []string{"\x00\xff"}) || tail.Get("rowhouse-secret") != nil {
			t.Errorf("trailer %v", tail)
		}
	}
}

// An error without a message is one frame; its details come through.
func TestGRPCTrailersOnly(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	_, err := s.invoke(s.dial("acme.localhost", true), fail)
	got := status.Convert(err)
	if got.Code() != codes.FailedPrecondition || got.Message() != "100 % äh" || fault.ReasonOf(tenantgrpc.FromStatus(err)) != "NOT_NOW" {
		t.Errorf("%v, details %v", got, got.Details())
	}
}

func TestGRPCStreamAndCancel(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := s.dial("globex.localhost", true).NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, watch)
	need(t, err)
	need(t, stream.SendMsg(&text{}))
	need(t, stream.CloseSend())
	for range 3 {
		out := new(text)
		need(t, stream.RecvMsg(out)) // the app goes on living: what it sent must not wait for its end
		if out.GetValue() != "globex" {
			t.Errorf("got %q", out.GetValue())
		}
	}
	cancel()
	if err := stream.RecvMsg(new(text)); status.Code(err) != codes.Canceled {
		t.Errorf("after cancel: %v", err)
	}
	// The cleanup waits for the app's handler, which ends only when the cancel arrives there.
}

func TestGRPCBothWays(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	stream, err := s.dial("acme.localhost", false).NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, chat)
	need(t, err)
	for _, word := range []string{"a", "b", "c"} {
		need(t, stream.SendMsg(&text{Value: word}))
		out := new(text)
		need(t, stream.RecvMsg(out))
		if out.GetValue() != word {
			t.Errorf("got %q, want %q", out.GetValue(), word)
		}
	}
	need(t, stream.CloseSend())
	if err := stream.RecvMsg(new(text)); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
}

func TestGRPCRefusals(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	for name, tc := range map[string]struct {
		host, method string
		pairs        []string
		code         codes.Code
		reason       string
	}{
		"unknown host":     {"nobody.localhost", tell, nil, codes.NotFound, fault.ReasonResourceNotFound},
		"suspended":        {"hooli.localhost", tell, nil, codes.PermissionDenied, fault.ReasonTenantSuspended},
		"deleted":          {"initech.localhost", tell, nil, codes.PermissionDenied, fault.ReasonTenantDeleted},
		"not ready":        {"umbrella.localhost", tell, nil, codes.Unavailable, fault.ReasonTenantNotReady},
		"another tenant":   {"acme.localhost", tell, []string{"authorization", "Bearer " + s.jwt("globex")}, codes.PermissionDenied, fault.ReasonTenantMismatch},
		"a bad token":      {"acme.localhost", tell, []string{"authorization", "Bearer x"}, codes.Unauthenticated, fault.ReasonCredentialInvalid},
		"unknown service":  {"acme.localhost", "/test.Admin/Tell", nil, codes.Unimplemented, fault.ReasonMethodUnknown},
		"reflection":       {"acme.localhost", "/grpc.reflection.v1.ServerReflection/X", nil, codes.Unimplemented, fault.ReasonMethodUnknown},
		"an escaped slash": {"acme.localhost", "/test.Notes%2fTell", nil, codes.InvalidArgument, fault.ReasonInvalidField},
	} {
		before := s.app.asked.Load()
		_, err := s.invoke(s.dial(tc.host, true), tc.method, tc.pairs...)
		if status.Code(err) != tc.code || fault.ReasonOf(tenantgrpc.FromStatus(err)) != tc.reason {
			t.Errorf("%s: %v, want %v %s", name, err, tc.code, tc.reason)
		}
		if s.app.asked.Load() != before {
			t.Errorf("%s: the app was asked", name)
		}
	}
	misdirected := s.connect(s.secure, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: s.roots(), ServerName: "globex.localhost"})),
		grpc.WithAuthority("globex.localhost"))
	out := new(text)
	err := misdirected.Invoke(t.Context(), tell, &text{}, out, grpc.CallAuthority("acme.localhost"))
	if fault.ReasonOf(tenantgrpc.FromStatus(err)) != fault.ReasonMisdirected {
		t.Errorf("on another tenant's connection: %v", err)
	}
}

func TestGRPCLimit(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	s.limit(1, time.Minute, limits.SafeRate)
	conn := s.dial("acme.localhost", true)
	if _, err := s.invoke(conn, tell); err != nil {
		t.Fatal(err)
	}
	_, err := s.invoke(conn, tell)
	if status.Code(err) != codes.ResourceExhausted {
		t.Fatal(err)
	}
	var retry *errdetails.RetryInfo
	var quota *errdetails.QuotaFailure
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *errdetails.RetryInfo:
			retry = d
		case *errdetails.QuotaFailure:
			quota = d
		}
	}
	if d := retry.GetRetryDelay().AsDuration(); d <= 58*time.Second || d > time.Minute {
		t.Errorf("retry %v", retry)
	}
	if v := quota.GetViolations(); len(v) != 1 || v[0].GetSubject() != "tenants/acme" || v[0].GetQuotaId() != limits.Requests {
		t.Errorf("quota %v", quota)
	}
}
