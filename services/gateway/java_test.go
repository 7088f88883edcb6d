package gateway_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	evaluationv1 "buf.build/gen/go/open-feature/flagd/protocolbuffers/go/flagd/evaluation/v1"
	syncv1 "buf.build/gen/go/open-feature/flagd/protocolbuffers/go/flagd/sync/v1"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// The tests of this file say to the front door, byte by byte over TLS, what the providers for Java say: flagd 0.14.0 (both
// resolvers, on grpc-netty 1.82) and ofrep 0.0.2 (on the JDK's HTTP client and Jackson), as their sources have it. They
// are transcripts: no Java runs here.

const javaFlags = `{"metadata":{"team":"house"},"flags":{
	"a/mark":{"state":"ENABLED","variants":{"it":"of acme"},"defaultVariant":"it"},
	"bool":{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"on","metadata":{"owner":"ann","weight":2.5,"beta":true}},
	"text":{"state":"ENABLED","variants":{"it":"größe \"1\""},"defaultVariant":"it"},
	"int":{"state":"ENABLED","variants":{"it":42},"defaultVariant":"it"},
	"huge":{"state":"ENABLED","variants":{"it":9000000000},"defaultVariant":"it"},
	"float":{"state":"ENABLED","variants":{"it":3.14},"defaultVariant":"it"},
	"whole":{"state":"ENABLED","variants":{"it":3.0},"defaultVariant":"it"},
	"object":{"state":"ENABLED","variants":{"it":{"a":{"b":[1,"x",true]}}},"defaultVariant":"it"},
	"off":{"state":"DISABLED","variants":{"on":true},"defaultVariant":"on"},
	"adult":{"state":"ENABLED","variants":{"yes":true,"no":false},"defaultVariant":"no","targeting":{"if":[{">=":[{"var":"age"},18]},"yes","no"]}},
	"known":{"state":"ENABLED","variants":{"yes":true,"no":false},"defaultVariant":"no","targeting":{"if":[{"==":[{"var":"targetingKey"},"user-1"]},"yes","no"]}},
	"deep":{"state":"ENABLED","variants":{"yes":true,"no":false},"defaultVariant":"no","targeting":{"if":[{"in":["x",{"var":"nested.list"}]},"yes","no"]}}}}`

// javaHouse is a gateway with acme's flags, and keys of acme and globex.
func (r *rig) javaHouse() (g *running, keys map[string]string) {
	r.Helper()
	keys = r.furnishFlags()
	r.setFlags(settings.TenantKey(settings.FlagsNamespace, tenanttest.UID("acme").String()), &configv1.SettingsEntry{Content: javaFlags, Revision: 2})
	r.serveControl()
	g = r.start()
	r.served(r.browser(g), "acme", keys["acme"])
	return g, keys
}

// wire is a connection that a test writes itself.
type wire struct {
	*rig
	conn   *tls.Conn
	framer *http2.Framer
	block  bytes.Buffer
	fields *hpack.Encoder
	last   uint32 // stream
}

// dialAs opens a TLS connection to a tenant's host and offers protocols.
func (r *rig) dialAs(g *running, host string, protocols ...string) *tls.Conn {
	r.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(r.ca.RootsPEM())
	conn, err := tls.Dial("tcp", g.https, &tls.Config{RootCAs: pool, ServerName: host, NextProtos: protocols})
	r.need(err)
	r.Cleanup(func() { _ = conn.Close() })
	r.need(conn.SetDeadline(time.Now().Add(30 * time.Second)))
	return conn
}

// dialHTTP2 begins as grpc-netty does.
func (r *rig) dialHTTP2(g *running, host string) *wire {
	r.Helper()
	w := &wire{rig: r, conn: r.dialAs(g, host, "h2"), last: 1}
	_, err := io.WriteString(w.conn, http2.ClientPreface)
	r.need(err)
	w.framer = http2.NewFramer(w.conn, w.conn)
	w.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	w.fields = hpack.NewEncoder(&w.block)
	const window, most = 1 << 20, 8192
	r.need(w.framer.WriteSettings(
		http2.Setting{ID: http2.SettingEnablePush, Val: 0}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}, http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: most},
	))
	r.need(w.framer.WriteWindowUpdate(0, window-65535))
	return w
}

// send sends a request of fields, "name: value" each, and a body in two frames and an empty last one.
func (w *wire) send(body []byte, fields ...string) (stream uint32) {
	w.Helper()
	w.block.Reset()
	for _, f := range fields {
		name, value, _ := strings.Cut(f[1:], ": ") // pseudo fields begin with a colon
		w.need(w.fields.WriteField(hpack.HeaderField{Name: f[:1] + name, Value: value}))
	}
	stream, w.last = w.last, w.last+2
	w.need(w.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: w.block.Bytes(), EndHeaders: true}))
	half := len(body) / 2
	w.need(w.framer.WriteData(stream, false, body[:half]))
	w.need(w.framer.WriteData(stream, false, body[half:]))
	w.need(w.framer.WriteData(stream, true, nil))
	return stream
}

// next returns the fields or the data that come next on a stream.
func (w *wire) next(stream uint32) (fields map[string]string, data []byte, ended bool) {
	w.Helper()
	for {
		frame, err := w.framer.ReadFrame()
		w.need(err)
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				w.need(w.framer.WriteSettingsAck())
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				w.need(w.framer.WritePing(true, f.Data))
			}
		case *http2.MetaHeadersFrame:
			if f.StreamID == stream {
				fields = make(map[string]string)
				for _, h := range f.Fields {
					fields[h.Name] = h.Value
				}
				return fields, nil, f.StreamEnded()
			}
		case *http2.DataFrame:
			if f.StreamID == stream {
				return nil, bytes.Clone(f.Data()), f.StreamEnded()
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == stream {
				w.Fatalf("the stream was reset: %v", f.ErrCode)
			}
		case *http2.GoAwayFrame:
			w.Fatalf("sent away: %v %s", f.ErrCode, f.DebugData())
		}
	}
}

// grpcJava sends a call as grpc-java does, with the fields that interceptors of the application add.
func (w *wire) grpcJava(host, method, timeout string, m proto.Message, more ...string) (stream uint32) {
	w.Helper()
	b, err := proto.Marshal(m)
	w.need(err)
	fields := []string{
		":authority: " + host + ":443", ":path: /" + method, ":method: POST", ":scheme: https", "content-type: application/grpc",
		"te: trailers", "user-agent: grpc-java-netty/1.82.0",
	}
	fields = append(fields, more...)
	fields = append(fields, "grpc-accept-encoding: gzip", "grpc-timeout: "+timeout)
	return w.send(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...), fields...)
}

// message reads the next message of a stream into m; false is its end, with its status.
func (w *wire) message(stream uint32, buffer *[]byte, m proto.Message) (status string, more bool) {
	w.Helper()
	for {
		if b := *buffer; len(b) >= 5 {
			if n := int(binary.BigEndian.Uint32(b[1:5])); len(b) >= 5+n {
				text := b[5 : 5+n]
				if b[0] == 1 { // it said that it reads gzip
					z, err := gzip.NewReader(bytes.NewReader(text))
					w.need(err)
					text, err = io.ReadAll(z)
					w.need(err)
				}
				w.need(proto.Unmarshal(text, m))
				*buffer = b[5+n:]
				return "", true
			}
		}
		fields, data, ended := w.next(stream)
		*buffer = append(*buffer, data...)
		odd := fields["grpc-encoding"] != "" && fields["grpc-encoding"] != "gzip" && fields["grpc-encoding"] != "identity"
		if fields[":status"] != "" && (fields[":status"] != "200" || odd || !strings.HasPrefix(fields["content-type"], "application/grpc")) {
			w.Fatalf("the answer is %v", fields)
		}
		if ended {
			return fields["grpc-status"] + " " + fields["grpc-message"], false
		}
	}
}

// unary is a call with one answer.
func (w *wire) unary(host, method string, in, out proto.Message, more ...string) (status string) {
	w.Helper()
	stream := w.grpcJava(host, method, "499863u", in, more...) // 500 ms by default, in microseconds
	var buffer []byte
	status, answered := w.message(stream, &buffer, out)
	if !answered {
		return status
	}
	status, again := w.message(stream, &buffer, out)
	if again {
		w.Error("two answers to one call")
	}
	return status
}

// javaContext is an evaluation context as the provider sends it: all numbers are doubles, and a targeting key that nobody
// set, and what it cannot send, are null.
func javaContext(r *rig, fields map[string]any) *structpb.Struct {
	r.Helper()
	if _, ok := fields["targetingKey"]; !ok {
		fields["targetingKey"] = nil
	}
	s, err := structpb.NewStruct(fields)
	r.need(err)
	return s
}

// The rpc resolver.
func TestJavaFlagdAsksForFlags(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g, keys := r.javaHouse()
	const host, service = "acme.localhost", "flagd.evaluation.v1.Service/"
	w := r.dialHTTP2(g, host)
	key := "authorization: Bearer " + keys["acme"]
	adult := map[string]any{"age": 18.0, "when": nil, "nested": map[string]any{"list": []any{1.0, "x", nil}}}
	for _, c := range []struct {
		method, flag string
		context      map[string]any
		out          proto.Message
		want         string
	}{
		{"ResolveBoolean", "bool", nil, &evaluationv1.ResolveBooleanResponse{}, `true STATIC on`},
		{"ResolveBoolean", "adult", adult, &evaluationv1.ResolveBooleanResponse{}, `true TARGETING_MATCH yes`},
		{"ResolveBoolean", "deep", adult, &evaluationv1.ResolveBooleanResponse{}, `true TARGETING_MATCH yes`},
		{"ResolveBoolean", "known", nil, &evaluationv1.ResolveBooleanResponse{}, `false TARGETING_MATCH no`},
		{"ResolveBoolean", "known", map[string]any{"targetingKey": "user-1"}, &evaluationv1.ResolveBooleanResponse{}, `true TARGETING_MATCH yes`},
		{"ResolveString", "text", nil, &evaluationv1.ResolveStringResponse{}, `größe "1" STATIC it`},
		{"ResolveInt", "int", nil, &evaluationv1.ResolveIntResponse{}, `42 STATIC it`},
		{"ResolveInt", "huge", nil, &evaluationv1.ResolveIntResponse{}, `9000000000 STATIC it`}, // the provider cuts it to 32 bits
		{"ResolveFloat", "float", nil, &evaluationv1.ResolveFloatResponse{}, `3.14 STATIC it`},
		{"ResolveFloat", "whole", nil, &evaluationv1.ResolveFloatResponse{}, `3 STATIC it`},
		{"ResolveObject", "object", nil, &evaluationv1.ResolveObjectResponse{}, `map[a:map[b:[1 x true]]] STATIC it`},
		// Of no variant and this reason the provider makes the caller's default.
		{"ResolveBoolean", "off", nil, &evaluationv1.ResolveBooleanResponse{}, `false DISABLED `},
		// By these codes: FLAG_NOT_FOUND and TYPE_MISMATCH.
		{"ResolveBoolean", "missing", nil, &evaluationv1.ResolveBooleanResponse{}, `5 `},
		{"ResolveInt", "float", nil, &evaluationv1.ResolveIntResponse{}, `3 `},
		{"ResolveBoolean", "text", nil, &evaluationv1.ResolveBooleanResponse{}, `3 `},
	} {
		if c.context == nil {
			c.context = map[string]any{}
		}
		// The requests of all types have the same two fields.
		in := &evaluationv1.ResolveBooleanRequest{FlagKey: c.flag, Context: javaContext(r, c.context)}
		status := w.unary(host, service+c.method, in, c.out, key)
		got := status
		if status == "0 " {
			got = describeJava(c.out)
		}
		if got != c.want && (!strings.HasPrefix(got, c.want) || strings.HasPrefix(status, "0")) {
			t.Errorf("%s %s: %q, want %q", c.method, c.flag, got, c.want)
		}
	}
	var owned evaluationv1.ResolveBooleanResponse
	w.unary(host, service+"ResolveBoolean", &evaluationv1.ResolveBooleanRequest{FlagKey: "bool", Context: javaContext(r, map[string]any{})}, &owned, key)
	if m := owned.GetMetadata().AsMap(); m["owner"] != "ann" || m["weight"] != 2.5 || m["beta"] != true || m["team"] != "house" {
		t.Errorf("metadata %v", m)
	}
	for what, fields := range map[string][]string{
		"no key": nil, "another's key": {"authorization: Bearer " + keys["globex"]}, "no key at all": {"authorization: Bearer x"},
		"another's flags": {key, "flagd-selector: flagSetId=globex"},
	} {
		status := w.unary(host, service+"ResolveBoolean", &evaluationv1.ResolveBooleanRequest{FlagKey: "bool"}, &evaluationv1.ResolveBooleanResponse{}, fields...)
		if !strings.HasPrefix(status, "7 ") { // which fatalStatusCodes can name
			t.Errorf("%s: %q", what, status)
		}
	}
	// A traced application, and a call that is tried again.
	if status := w.unary(host, service+"ResolveBoolean", &evaluationv1.ResolveBooleanRequest{FlagKey: "bool"}, &owned, key,
		"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "grpc-previous-rpc-attempts: 1"); status != "0 " {
		t.Errorf("again: %q", status)
	}
}

// describeJava is an answer as the provider reads it: by the names of fields.
func describeJava(m proto.Message) string {
	of := m.ProtoReflect()
	field := func(name protoreflect.Name) any { return of.Get(of.Descriptor().Fields().ByName(name)).Interface() }
	value := field("value")
	if o, ok := m.(*evaluationv1.ResolveObjectResponse); ok {
		value = o.GetValue().AsMap()
	}
	return fmt.Sprint(value) + fmt.Sprintf(" %s %s", field("reason"), field("variant"))
}

// The rpc resolver's stream of events. The provider keeps static answers until their flags are named.
func TestJavaFlagdHearsOfChanges(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g, keys := r.javaHouse()
	const host = "acme.localhost"
	w := r.dialHTTP2(g, host)
	stream := w.grpcJava(host, "flagd.evaluation.v1.Service/EventStream", "599999m", &evaluationv1.EventStreamRequest{},
		"authorization: Bearer "+keys["acme"]) // 10 minutes by default, in milliseconds
	var buffer []byte
	event := func() (kind string, flags []string) {
		var m evaluationv1.EventStreamResponse
		if status, ok := w.message(stream, &buffer, &m); !ok {
			t.Fatalf("the stream ended: %s", status)
		}
		for key := range m.GetData().GetFields()["flags"].GetStructValue().GetFields() {
			flags = append(flags, key)
		}
		slices.Sort(flags)
		return m.GetType(), flags
	}
	if kind, _ := event(); kind != "provider_ready" {
		t.Errorf("the stream begins with %s", kind)
	}
	named := false
	for range 2 {
		kind, flags := event()
		if kind != "configuration_change" {
			t.Errorf("then comes %s", kind)
		}
		named = named || slices.Contains(flags, "bool") && slices.Contains(flags, "off") && len(flags) == 12
	}
	if !named {
		t.Error("nothing names the flags that may have changed while there was no stream")
	}
	r.setFlags(settings.TenantKey(settings.FlagsNamespace, tenanttest.UID("acme").String()),
		&configv1.SettingsEntry{Content: strings.Replace(javaFlags, `"it":42`, `"it":43`, 1), Revision: 3})
	if kind, flags := event(); kind != "configuration_change" || !slices.Equal(flags, []string{"int"}) {
		t.Errorf("a change: %s of %v", kind, flags)
	}
	r.need(w.framer.WriteRSTStream(stream, http2.ErrCodeCancel)) // its shutdown
	if status := w.unary(host, "flagd.evaluation.v1.Service/ResolveInt", &evaluationv1.ResolveIntRequest{FlagKey: "int"}, &evaluationv1.ResolveIntResponse{},
		"authorization: Bearer "+keys["acme"]); status != "0 " {
		t.Errorf("after the stream: %q", status)
	}
	// Its deadline ends a stream as one, and is no failure of ours.
	stream, buffer = w.grpcJava(host, "flagd.evaluation.v1.Service/EventStream", "300m", &evaluationv1.EventStreamRequest{},
		"authorization: Bearer "+keys["acme"]), nil
	for more := true; more; {
		var status string
		if status, more = w.message(stream, &buffer, &evaluationv1.EventStreamResponse{}); !more && !strings.HasPrefix(status, "4 ") {
			t.Errorf("the deadline: %q", status)
		}
	}
	g.stop()
	if strings.Contains(g.log.String(), "protocol failed") {
		t.Error("a caller that leaves counts as a failure")
	}
}

// The in-process resolver: metadata first, then the set, with the selector as a field and in the message.
func TestJavaFlagdFetchesTheSet(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g, keys := r.javaHouse()
	const host, service, selector = "acme.localhost", "flagd.sync.v1.FlagSyncService/", "flagSetId=acme"
	w := r.dialHTTP2(g, host)
	key, header := "authorization: Bearer "+keys["acme"], "flagd-selector: "+selector
	var meta syncv1.GetMetadataResponse                                                              //nolint:staticcheck // deprecated, and what the provider asks first
	status := w.unary(host, service+"GetMetadata", &syncv1.GetMetadataRequest{}, &meta, key, header) //nolint:staticcheck // as said
	if m := meta.GetMetadata().AsMap(); status != "0 " || m["tenant"] != "acme" || m["environment"] != "production" {
		t.Errorf("metadata: %q %v", status, m)
	}
	ask := &syncv1.SyncFlagsRequest{ProviderId: "java-app", Selector: selector} //nolint:staticcheck // deprecated, and sent
	stream := w.grpcJava(host, service+"SyncFlags", "599999m", ask, key, header)
	var buffer []byte
	set := func() (flags map[string]any, context map[string]any) {
		var m syncv1.SyncFlagsResponse
		if status, ok := w.message(stream, &buffer, &m); !ok {
			t.Fatalf("the stream ended: %s", status)
		}
		var doc struct{ Flags map[string]any }
		r.need(json.Unmarshal([]byte(m.GetFlagConfiguration()), &doc))
		return doc.Flags, m.GetSyncContext().AsMap()
	}
	flags, context := set()
	if len(flags) != 12 || context["tenant"] != "acme" {
		t.Errorf("%d flags, %v", len(flags), context)
	}
	r.setFlags(settings.TenantKey(settings.FlagsNamespace, tenanttest.UID("acme").String()), &configv1.SettingsEntry{Content: flagsOf("new of acme"), Revision: 3})
	if flags, _ = set(); len(flags) != 1 {
		t.Errorf("after a change: %v", flags)
	}
	for what, ask := range map[string]*syncv1.SyncFlagsRequest{
		"another's set": {ProviderId: "java-app", Selector: "flagSetId=globex"}, "a source": {Selector: "flags.json"},
	} {
		stream := w.grpcJava(host, service+"SyncFlags", "599999m", ask, key)
		buffer = nil
		if status, ok := w.message(stream, &buffer, &syncv1.SyncFlagsResponse{}); ok || !strings.HasPrefix(status, "7 ") {
			t.Errorf("%s: %q", what, status)
		}
	}
}

// javaAnswer is what the ofrep provider reads of every answer, whatever its status; of other types it makes PARSE_ERROR.
type javaAnswer struct {
	Value        json.RawMessage `json:"value"`
	Key          string          `json:"key"`
	Variant      string          `json:"variant"`
	Reason       string          `json:"reason"`
	Cacheable    bool            `json:"cacheable"`
	ErrorCode    string          `json:"errorCode"`
	ErrorDetails string          `json:"errorDetails"`
	Metadata     map[string]any  `json:"metadata"`
}

// ofrepJava sends a question as the JDK's client does, over HTTP/1.1 or HTTP/2, and returns what came.
func (r *rig) ofrepJava(g *running, second bool, host, flag, key, body string) (status int, a javaAnswer, h http.Header) {
	r.Helper()
	path := ofrepFlags + "/" + flag
	var text []byte
	if second {
		w := r.dialHTTP2(g, host)
		fields := []string{":method: POST", ":scheme: https", ":authority: " + host, ":path: " + path, fmt.Sprintf("content-length: %d", len(body)), "user-agent: Java-http-client/21.0.5"}
		if key != "" {
			fields = append(fields, "x-api-key: "+key)
		}
		stream := w.send([]byte(body), append(fields, "content-type: application/json; charset=utf-8")...)
		h = http.Header{}
		for ended := false; !ended; {
			var got map[string]string
			var data []byte
			got, data, ended = w.next(stream)
			text = append(text, data...)
			for name, value := range got {
				h.Set(name, value)
			}
		}
		_, err := fmt.Sscan(h.Get(":status"), &status)
		r.need(err)
	} else {
		conn := r.dialAs(g, host, "h2", "http/1.1")
		if conn.ConnectionState().NegotiatedProtocol == "h2" {
			conn = r.dialAs(g, host, "http/1.1")
		}
		credential := ""
		if key != "" {
			credential = "X-API-Key: " + key + "\r\n"
		}
		_, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nContent-Length: %d\r\nHost: %s\r\nUser-Agent: Java-http-client/17.0.13\r\n%s"+
			"Content-Type: application/json; charset=utf-8\r\n\r\n%s", path, len(body), host, credential, body)
		r.need(err)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		r.need(err)
		defer func() { _ = res.Body.Close() }()
		text, err = io.ReadAll(res.Body)
		r.need(err)
		status, h = res.StatusCode, res.Header
	}
	if err := json.Unmarshal(text, &a); err != nil {
		r.Fatalf("the provider cannot read %d %q: %v", status, text, err)
	}
	for name, v := range a.Metadata {
		if v == nil { // its map takes none
			r.Errorf("metadata %s is null in %s", name, text)
		}
	}
	return status, a, h
}

// The ofrep provider. It asks for single flags, without If-None-Match and without Accept.
func TestJavaOFREP(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g, keys := r.javaHouse()
	const empty = `{"context":{}}`
	for _, second := range []bool{false, true} {
		for _, c := range []struct {
			host, flag, key, body string
			want                  string
		}{
			{"acme", "bool", "acme", empty, "200 true STATIC"},
			{"acme", "text", "acme", `{"context":{"targetingKey":""}}`, `200 "größe \"1\"" STATIC`},
			// An Integer has neither point nor exponent, and a Double has: of 3 the provider makes no Double.
			{"acme", "int", "acme", empty, "200 42 STATIC"},
			{"acme", "huge", "acme", empty, "200 9000000000 STATIC"},
			{"acme", "float", "acme", empty, "200 3.14 STATIC"},
			{"acme", "whole", "acme", empty, "200 3 STATIC"},
			{"acme", "object", "acme", empty, `200 {"a":{"b":[1,"x",true]}} STATIC`},
			{"acme", "off", "acme", empty, "200  DISABLED"},
			{"acme", "a/mark", "acme", empty, `200 "of acme" STATIC`}, // it escapes no key
			{"acme", "adult", "acme", `{"context":{"targetingKey":"user-1","age":18}}`, "200 true TARGETING_MATCH"},
			{"acme", "adult", "acme", `{"context":{"age":18.0,"targetingKey":"user-1"}}`, "200 true TARGETING_MATCH"},
			{"acme", "adult", "acme", `{"context":{"age":1.8E1,"big":1.0E10,"small":1.0E-5,"long":9223372036854775807}}`, "200 true TARGETING_MATCH"},
			{"acme", "deep", "acme", `{"context":{"nested":{"list":[1,2.0,"x"],"ok":true}}}`, "200 true TARGETING_MATCH"},
			{"acme", "known", "acme", `{"context":{"targetingKey":"user-1","größe":"ü\u0000"}}`, "200 true TARGETING_MATCH"},
			{"acme", "missing", "acme", empty, "404  FLAG_NOT_FOUND"},
			{"acme", "bool", "acme", `{"context":{"tenant":"globex"}}`, "403  "},
			{"acme", "bool", "acme", `{"context":7}`, "400  INVALID_CONTEXT"},
			{"acme", "bool", "", empty, "401  "},
			{"acme", "bool", "globex", empty, "403  "},
			{"hooli", "bool", "hooli", empty, "403  "}, // suspended
		} {
			status, a, _ := r.ofrepJava(g, second, c.host+".localhost", c.flag, keys[c.key], c.body)
			if got := fmt.Sprintf("%d %s %s%s", status, a.Value, a.Reason, a.ErrorCode); got != c.want {
				t.Errorf("%s of %s with %s, HTTP/2 %v: %q (%s), want %q", c.flag, c.host, c.body, second, got, a.ErrorDetails, c.want)
			}
			if status == http.StatusOK && a.Key != c.flag {
				t.Errorf("%s: the key is %q", c.flag, a.Key)
			}
		}
		_, a, _ := r.ofrepJava(g, second, "acme.localhost", "bool", keys["acme"], empty)
		if a.Metadata["owner"] != "ann" || a.Metadata["weight"] != 2.5 || a.Metadata["beta"] != true || a.Variant != "on" {
			t.Errorf("%+v", a)
		}
	}
	r.starve()
	eventually(t, "a refusal", func() bool {
		status, a, h := r.ofrepJava(g, true, "acme.localhost", "bool", keys["acme"], empty)
		if status == http.StatusOK {
			return false
		}
		var seconds int64 // or a date of RFC 1123
		if _, err := fmt.Sscan(h.Get("Retry-After"), &seconds); status != http.StatusTooManyRequests || err != nil || seconds < 1 || a.ErrorDetails == "" {
			t.Errorf("%d %+v %v", status, a, h)
		}
		return true
	})
}
