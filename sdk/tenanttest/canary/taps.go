package canary

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// Writer returns a writer for what belongs to no tenant, such as a log. Its writes never fail.
// A secret is found also where two writes meet.
func (w *Watch) Writer(where string) io.Writer { return &writer{watch: w, where: where} }

type writer struct {
	watch *Watch
	where string

	mu   sync.Mutex
	tail []byte // guarded by mu: the end of what was written, where a needle may have begun
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	const longest = 64 // bytes of a secret's piece in its longest spelling
	w.mu.Lock()
	defer w.mu.Unlock()
	data := append(w.tail, p...) //nolint:gocritic // the tail is replaced below
	w.watch.Look("", w.where, data)
	w.tail = bytes.Clone(data[max(0, len(data)-longest):])
	return len(p), nil
}

// Exporter returns an exporter that looks into spans: names, attributes, events, links,
// status, baggage-made attributes, resource. Give it to a tracer provider beside your own,
// with trace.WithSyncer, so that all is seen when the calls have ended.
func (w *Watch) Exporter(where string) trace.SpanExporter { return exporter{w, where} }

type exporter struct {
	watch *Watch
	where string
}

// ExportSpans implements trace.SpanExporter.
func (e exporter) ExportSpans(_ context.Context, spans []trace.ReadOnlySpan) error {
	for _, span := range spans {
		var b bytes.Buffer
		write := func(of []attribute.KeyValue) {
			for _, kv := range of {
				fmt.Fprintln(&b, kv.Key, kv.Value.String())
			}
		}
		fmt.Fprintln(&b, span.Name(), span.Status().Description, span.SpanContext().TraceState())
		write(span.Attributes())
		write(span.Resource().Attributes())
		for _, event := range span.Events() {
			fmt.Fprintln(&b, event.Name)
			write(event.Attributes)
		}
		for _, link := range span.Links() {
			fmt.Fprintln(&b, link.SpanContext.TraceState())
			write(link.Attributes)
		}
		e.watch.Look("", e.where, b.Bytes())
	}
	return nil
}

// Shutdown implements trace.SpanExporter.
func (exporter) Shutdown(context.Context) error { return nil }

// DialOptions returns options of a connection that only reader uses: all that comes back
// on it is looked into.
func (w *Watch) DialOptions(reader string) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(
			ctx context.Context, method string, in, out any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
		) error {
			var header, trailer metadata.MD
			err := invoke(ctx, method, in, out, cc, append(opts, grpc.Header(&header), grpc.Trailer(&trailer))...)
			w.LookAtAnswer(reader, method, err, header, trailer, out)
			return err
		}),
		grpc.WithChainStreamInterceptor(func(
			ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption,
		) (grpc.ClientStream, error) {
			stream, err := open(ctx, desc, cc, method, opts...)
			if err != nil {
				w.LookAtAnswer(reader, method, err, nil, nil, nil)
				return nil, err
			}
			return &watched{ClientStream: stream, watch: w, reader: reader, method: method}, nil
		}),
	}
}

type watched struct {
	grpc.ClientStream

	watch          *Watch
	reader, method string
}

// RecvMsg implements grpc.ClientStream.
func (s *watched) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil {
		header, _ := s.Header() // a stream that failed early has none
		s.watch.LookAtAnswer(s.reader, s.method, err, header, s.Trailer(), nil)
		return err
	}
	s.watch.LookAtAnswer(s.reader, s.method, nil, nil, nil, m)
	return nil
}

// LookAtAnswer looks into all parts of a call's answer. Those that are nil are left out.
func (w *Watch) LookAtAnswer(reader, method string, err error, header, trailer metadata.MD, message any) {
	w.Look(reader, method, AnswerBytes(err, header, trailer, message))
}

// AnswerBytes is all of a call's answer as one text, for [Watch.Search]: messages also as
// they are on the wire, so that unknown fields count.
func AnswerBytes(err error, header, trailer metadata.MD, message any) []byte {
	var b bytes.Buffer
	write := func(m proto.Message) {
		wire, _ := proto.MarshalOptions{AllowPartial: true}.Marshal(m) // bad UTF-8 shows in the text below
		b.Write(wire)
		b.WriteByte('\n')
		b.WriteString(prototext.MarshalOptions{AllowPartial: true, EmitUnknown: true}.Format(m))
		b.WriteByte('\n')
	}
	if err != nil {
		fmt.Fprintln(&b, err)
		write(status.Convert(err).Proto())
		for _, detail := range status.Convert(err).Details() {
			if m, ok := detail.(proto.Message); ok {
				write(m)
			}
		}
	}
	for _, md := range []metadata.MD{header, trailer} {
		for name, values := range md {
			fmt.Fprintf(&b, "%s: %s\n", name, values)
		}
	}
	if m, ok := message.(proto.Message); ok && err == nil {
		write(m)
	}
	return b.Bytes()
}

// Transport returns a transport that only reader uses: headers, trailers and bodies of all
// answers are looked into. Bodies are read whole. Default base: http.DefaultTransport.
func (w *Watch) Transport(reader string, base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	return transport{w, reader, base}
}

type transport struct {
	watch  *Watch
	reader string
	base   http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := t.base.RoundTrip(r)
	where := r.Method + " " + r.URL.Path
	if err != nil {
		t.watch.Look(t.reader, where, []byte(err.Error()))
		return nil, err
	}
	body, err := io.ReadAll(answer.Body)
	if err := answer.Body.Close(); err != nil {
		return nil, fmt.Errorf("close the answer: %w", err)
	}
	answer.Body = io.NopCloser(bytes.NewReader(body))
	t.watch.Look(t.reader, where, fmt.Appendf(nil, "%s\n%s\n%s\n%s", answer.Status, answer.Header, answer.Trailer, body))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return answer, nil
}
