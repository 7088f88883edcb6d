package rule

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantotel"
)

func (e *Enforcer) outerUnary(
	ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (answer any, err error) {
	call, m, err := e.begin(ctx, info.FullMethod)
	ctx = withCall(ctx, call)
	defer func() {
		if p := recover(); p != nil {
			err = e.panicked(ctx, call, p)
		}
		if err != nil {
			answer, err = nil, e.answer(ctx, call, err)
		}
	}()
	if err != nil {
		return nil, err
	}
	ctx, cancel, err := e.deadline(ctx, m)
	if err != nil {
		return nil, err
	}
	defer cancel()
	return handler(ctx, req)
}

func (e *Enforcer) outerStream(
	srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
) (err error) {
	ctx := stream.Context()
	call, _, err := e.begin(ctx, info.FullMethod)
	ctx = withCall(ctx, call)
	defer func() {
		if p := recover(); p != nil {
			err = e.panicked(ctx, call, p)
		}
		err = e.answer(ctx, call, err)
	}()
	if err != nil {
		return err
	}
	return handler(srv, &contextStream{stream, ctx})
}

func (e *Enforcer) innerUnary(
	ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	m := e.method(info.FullMethod)
	call := callOf(ctx)
	if err := e.admit(ctx, m, call); err != nil {
		return nil, err
	}
	msg, ok := req.(proto.Message)
	if !ok {
		return nil, errors.New("the request is no protobuf message")
	}
	if err := e.accept(ctx, m, call, msg); err != nil {
		return nil, err
	}
	if call.RequestID != "" {
		ctx = tenantotel.WithRequestID(ctx, call.RequestID)
	}
	return handler(ctx, req)
}

// innerStream asks who calls before the handler begins, and the rest when the request is read: the handler of a server
// stream gets to run after that.
func (e *Enforcer) innerStream(
	srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
) error {
	m := e.method(info.FullMethod)
	call := callOf(stream.Context())
	if err := e.admit(stream.Context(), m, call); err != nil {
		return err
	}
	if !m.clientStream {
		return handler(srv, &requestStream{ServerStream: stream, enforcer: e, method: m, call: call})
	}
	// The handler of a client stream runs before any request is read, so the permission is decided first.
	if err := e.authorize(stream.Context(), m, call); err != nil {
		return err
	}
	return handler(srv, &requestStream{ServerStream: stream, enforcer: e, method: m, call: call, authorized: true})
}

// admit finds out who calls.
func (e *Enforcer) admit(ctx context.Context, m *method, call *Call) error {
	err := e.authenticate(ctx, m, call)
	if err != nil {
		e.deny(ctx, m, call, err)
	}
	return err
}

// accept judges a request: size, fields, permission, reason, in this order.
func (e *Enforcer) accept(ctx context.Context, m *method, call *Call, msg proto.Message) error {
	if err := e.examine(m, msg); err != nil {
		return err
	}
	m.read(msg, call)
	return e.authorize(ctx, m, call)
}

// callOf returns the record that the outer interceptor made.
func callOf(ctx context.Context) *Call {
	call, _ := ctx.Value(callKey{}).(*Call)
	return call
}

// read takes from the request what the call's record holds.
func (m *method) read(msg proto.Message, call *Call) {
	if call.Request = msg; m.redacts {
		call.Request = withoutSecrets(msg)
	}
	reflected := msg.ProtoReflect()
	if m.requestID != nil {
		call.RequestID = reflected.Get(m.requestID).String()
	}
	if m.reason != nil {
		call.Reason = reflected.Get(m.reason).String()
	}
	if m.validateOnly != nil {
		call.ValidateOnly = reflected.Get(m.validateOnly).Bool()
	}
	for i, fd := range m.target {
		if i == len(m.target)-1 {
			call.Target = reflected.Get(fd).String()
			return
		}
		reflected = reflected.Get(fd).Message()
	}
}

// contextStream is a stream with another context.
type contextStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // a stream is where gRPC keeps the context of a call
}

// Context returns the context of the call.
func (s *contextStream) Context() context.Context { return s.ctx }

// requestStream judges what is received before a handler sees it.
type requestStream struct {
	grpc.ServerStream
	enforcer   *Enforcer
	method     *method
	call       *Call
	authorized bool
}

// RecvMsg receives a request and judges it. Like that of any stream it is called by one goroutine at a time.
func (s *requestStream) RecvMsg(into any) error {
	if err := s.ServerStream.RecvMsg(into); err != nil {
		if errors.Is(err, io.EOF) {
			return io.EOF // the end of a client stream, which handlers compare
		}
		return err
	}
	msg, ok := into.(proto.Message)
	if !ok {
		return errors.New("the request is no protobuf message")
	}
	if s.authorized {
		return s.enforcer.examine(s.method, msg)
	}
	if err := s.enforcer.accept(s.Context(), s.method, s.call, msg); err != nil {
		return err
	}
	s.authorized = true
	return nil
}
