package front

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/rowhouse-platform/rowhouse/sdk/authority"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanthttp"
)

// copyBuffer is the size of the buffers that bodies pass through.
const copyBuffer = 32 << 10

// buffers are reused between requests; each is written before it is read.
var buffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }} //nolint:gochecknoglobals // a pool has to be shared

// forward sends the request to the app and its answer to the client.
func (v *visit) forward() error {
	ctx, span := v.startForward()
	defer span.End()
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	out, err := v.outgoing(ctx)
	if err != nil {
		return err
	}
	address := v.route.Upstream.HTTPAddress
	if v.grpc {
		address = v.route.Upstream.GRPCAddress
	}
	turn, err := v.turn(ctx)
	if err != nil {
		return err
	}
	defer turn.drop() // also after a panic
	began := time.Now()
	res, err := v.h.c.Upstream.RoundTrip(out, address, v.route.Upstream.SPIFFEID, v.grpc)
	v.usage.InFlight = time.Since(began)
	if err != nil {
		v.usage.Delayed = turn.drop()
		return err
	}
	v.usage.Delayed = v.leave(turn, began)
	defer func() { _ = res.Body.Close() }()
	if err := v.spoiled(nil); err != nil { // the app may have answered the half of it
		return err
	}
	if span.IsRecording() {
		span.SetAttributes(attribute.Int("http.response.status_code", res.StatusCode))
	}
	v.measure(res.StatusCode, "")
	if res.ContentLength < 0 {
		defer v.guard(ctx, cut)()
	}
	v.answer(ctx, res)
	return nil
}

// startForward begins the span of the way to the app. A request that is not recorded
// gets none of its own: the app then sees the ids of the request's.
func (v *visit) startForward() (context.Context, trace.Span) {
	ctx := v.r.Context()
	if !v.span.IsRecording() {
		return ctx, noop.Span{}
	}
	return v.h.c.Tracer.Start(ctx, "gateway.upstream", trace.WithSpanKind(trace.SpanKindClient), //nolint:spancheck // forward ends it
		trace.WithAttributes(attribute.String("rowhouse.app", v.route.App.ID)))
}

// outgoing makes the request that the app sees.
func (v *visit) outgoing(ctx context.Context) (*http.Request, error) {
	in := v.r
	nominated, ok := v.h.hygiene.Nominated(in.Header["Connection"])
	if !ok {
		return nil, fault.New(fault.InvalidArgument, fault.ReasonInvalidField, "the Connection field names what it must not")
	}
	out := &http.Request{
		Method: in.Method, Host: v.route.Host.String(), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: in.Body, ContentLength: in.ContentLength, Header: make(http.Header, len(in.Header)+outgoingFields),
	}
	u := *in.URL
	u.Scheme, u.Host, u.User = "https", v.route.Host.String(), nil
	if v.route.Prefix != "" {
		u.Path, u.RawPath = strings.TrimPrefix(in.URL.Path, v.route.Prefix), ""
		if u.Path == "" {
			u.Path = "/"
		}
		if esc := strings.TrimPrefix(in.URL.EscapedPath(), v.route.Prefix); esc != u.Path && esc != "" {
			u.RawPath = esc
		}
	}
	out.URL = &u
	if in.ContentLength == 0 {
		out.Body = nil
	}
	for name, values := range in.Header {
		if v.h.hygiene.Passes(name) && (nominated == nil || !nominated[v.h.hygiene.Fold(name)]) {
			out.Header[name] = values
		}
	}
	if v.h.c.Preview.has(in) {
		if out.Header["Cookie"] = v.h.c.Preview.without(in.Header["Cookie"]); out.Header["Cookie"] == nil {
			delete(out.Header, "Cookie")
		}
	}
	v.identifyUs(ctx, out.Header)
	if v.grpc {
		out.Header["Te"] = []string{"trailers"}
	}
	return out.WithContext(ctx), nil
}

const outgoingFields = 8

// identifyUs sets our fields, after everything that looks like them is gone.
func (v *visit) identifyUs(ctx context.Context, h http.Header) {
	proto := "http"
	if v.r.TLS != nil {
		proto = "https"
	}
	set := fields{h, make([]string, 0, outgoingFields)}
	set.field(headerContext, base64.StdEncoding.EncodeToString([]byte(v.token)))
	set.field(tenanthttp.RequestIDHeader, v.id)
	set.field("X-Forwarded-For", clientIP(v.r))
	set.field("X-Forwarded-Proto", proto)
	set.field("X-Forwarded-Host", v.route.Host.String())
	if v.route.Prefix != "" {
		set.field("X-Forwarded-Prefix", v.route.Prefix)
	}
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		set.field("Traceparent", traceparent(sc))
	}
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = nil // or net/http adds its own
	}
}

// fields sets fields of one value each in a header; all values lie in one array.
type fields struct {
	header http.Header
	values []string
}

// field sets a field by its canonical name.
func (f *fields) field(name, value string) {
	f.values = append(f.values, value)
	last := len(f.values)
	f.header[name] = f.values[last-1 : last : last]
}

// headerContext is tenant.MetadataKey in the spelling of net/http.
var headerContext = http.CanonicalHeaderKey(tenant.MetadataKey) //nolint:gochecknoglobals // a constant in all but syntax

// answer sends the app's answer to the client.
func (v *visit) answer(ctx context.Context, res *http.Response) {
	h := v.w.Header()
	nominated, _ := v.h.hygiene.Nominated(res.Header["Connection"])
	for name, values := range res.Header {
		if v.h.hygiene.PassesBack(name) && (nominated == nil || !nominated[v.h.hygiene.Fold(name)]) {
			h[name] = values
		}
	}
	v.rebase(h)
	v.mark(h)
	v.w.WriteHeader(res.StatusCode)
	if err := v.copyBody(ctx, res); err != nil {
		v.span.RecordError(err)
		if f, ok := fault.As(context.Cause(ctx)); ok && v.grpc {
			v.h.faces.WriteTrailer(v.w, f)
			return
		}
		panic(http.ErrAbortHandler) // the client must not take half an answer for a whole one
	}
	for name, values := range res.Trailer {
		if v.h.hygiene.PassesBack(name) {
			h[http.TrailerPrefix+name] = values
		}
	}
}

// rebase puts the tenant's path prefix back into redirects and cookies of an app
// that does not know of it.
func (v *visit) rebase(h http.Header) {
	prefix := v.route.Prefix
	if prefix == "" {
		return
	}
	if l := h.Get("Location"); l != "" {
		h.Set("Location", rebaseLocation(l, v.route.Host, prefix))
	}
	for i, c := range h["Set-Cookie"] {
		h["Set-Cookie"][i] = rebaseCookie(c, prefix)
	}
}

// rebaseLocation prefixes a redirect to a path, or to a URL of the same host.
func rebaseLocation(location string, host authority.Host, prefix string) string {
	u, err := url.Parse(location)
	if err != nil || !strings.HasPrefix(u.Path, "/") {
		return location
	}
	if u.Host != "" {
		if there, err := authority.ParseHost(u.Host); err != nil || there != host {
			return location
		}
	}
	if below(u.EscapedPath(), prefix) {
		return location
	}
	u.Path, u.RawPath = prefix+u.Path, prefix+u.EscapedPath()
	return u.String()
}

// below reports whether a path is the prefix or lies under it.
func below(path, prefix string) bool {
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (rest == "" || rest[0] == '/')
}

// rebaseCookie narrows a cookie to the tenant's part of a shared host.
func rebaseCookie(cookie, prefix string) string {
	pair, attributes, _ := strings.Cut(cookie, ";")
	kept := []string{pair}
	path := prefix
	for a := range strings.SplitSeq(attributes, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(a), "=")
		switch {
		case strings.EqualFold(name, "Path"):
			if path = value; !below(value, prefix) {
				path = prefix + strings.TrimSuffix("/"+strings.TrimPrefix(value, "/"), "/")
			}
		case name == "", strings.EqualFold(name, "Domain"): // a shared host's cookies stay with the host
		default:
			kept = append(kept, strings.TrimSpace(a))
		}
	}
	return strings.Join(append(kept, "Path="+path), "; ")
}

// copyBody sends the body on; what has no known length is sent on as it comes.
func (v *visit) copyBody(ctx context.Context, res *http.Response) error {
	buf, _ := buffers.Get().(*[copyBuffer]byte)
	defer buffers.Put(buf)
	live := res.ContentLength < 0
	flusher := http.NewResponseController(v.w)
	out := pacedWriter{v.w, flusher, v.h.c.Bounds.Stall}
	defer out.done()
	drip := v.drip()
	if live {
		_ = flusher.Flush() // the head of a stream must not wait for its first message
	}
	for {
		n, err := res.Body.Read(buf[:])
		if n > 0 {
			v.usage.Out += int64(n)
			if drip != nil {
				if err := drip(ctx, n); err != nil {
					return fmt.Errorf("wait for the limit of bytes: %w", err)
				}
			}
			if err := out.write(buf[:n]); err != nil {
				return err
			}
			if live {
				_ = flusher.Flush()
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read from the app: %w", err)
		}
	}
}
