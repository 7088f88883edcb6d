package flagd_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"buf.build/gen/go/open-feature/flagd/connectrpc/go/flagd/evaluation/v1/evaluationv1connect"
	"buf.build/gen/go/open-feature/flagd/connectrpc/go/flagd/evaluation/v2/evaluationv2connect"
	"buf.build/gen/go/open-feature/flagd/connectrpc/go/flagd/sync/v1/syncv1connect"
	v1 "buf.build/gen/go/open-feature/flagd/protocolbuffers/go/flagd/evaluation/v1"
	v2 "buf.build/gen/go/open-feature/flagd/protocolbuffers/go/flagd/evaluation/v2"
	syncv1 "buf.build/gen/go/open-feature/flagd/protocolbuffers/go/flagd/sync/v1"
	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/rowhouse-platform/rowhouse/sdk/flags/doortest"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagd"
)

const document = `{"flags":{
	"on":{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"on"},
	"text":{"state":"ENABLED","variants":{"v":"x"},"defaultVariant":"v"},
	"ten":{"state":"ENABLED","variants":{"v":10.0},"defaultVariant":"v"},
	"pi":{"state":"ENABLED","variants":{"v":3.14},"defaultVariant":"v"},
	"large":{"state":"ENABLED","variants":{"v":9000000000},"defaultVariant":"v"},
	"object":{"state":"ENABLED","variants":{"v":{"a":[1,"b"]}},"defaultVariant":"v"},
	"off":{"state":"DISABLED","variants":{"on":true},"defaultVariant":"on"},
	"code":{"state":"ENABLED","variants":{"on":true},"defaultVariant":null},
	"broken":{"state":"ENABLED","variants":{"on":true},"defaultVariant":"on","targeting":{"nope":[1]}},
	"lost":{"state":"ENABLED","variants":{"on":true},"defaultVariant":"on","targeting":{"if":[true,"gone"]}},
	"who":{"state":"ENABLED","variants":{"acme":"acme","else":"else"},"defaultVariant":"else","targeting":
		{"if":[{"and":[{"==":[{"var":"tenant"},"acme"]},{"==":[{"var":"environment"},"production"]},{"==":[{"var":"level"},"high"]}]},"acme"]}}}}`

// site is acme's host.
type site struct {
	testing.TB
	*doortest.House

	server *httptest.Server
	key    string
}

func newSite(tb testing.TB) *site {
	tb.Helper()
	h := doortest.New(tb)
	h.SetPlatform(document)
	s := &site{TB: tb, House: h, key: h.Key("acme")}
	s.server = httptest.NewUnstartedServer(h.For("acme", flagd.New(flagd.Config{Door: h.Door})))
	s.server.EnableHTTP2 = true
	s.server.StartTLS()
	tb.Cleanup(s.server.Close)
	return s
}

// with sets fields of every request.
func with(fields map[string]string) connect.ClientOption {
	return connect.WithInterceptors(setter(fields))
}

type setter map[string]string

func (s setter) set(h http.Header) {
	for name, value := range s {
		h.Set(name, value)
	}
}

func (s setter) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		s.set(req.Header())
		return next(ctx, req)
	}
}

func (s setter) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		s.set(conn.RequestHeader())
		return conn
	}
}

func (s setter) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// protocols are the ways to ask.
func protocols() map[string]connect.ClientOption {
	return map[string]connect.ClientOption{
		"Connect": connect.WithClientOptions(), "gRPC": connect.WithGRPC(), "gRPC-Web": connect.WithGRPCWeb(), "JSON": connect.WithProtoJSON(),
	}
}

// shown is an answer as a line.
func shown(value, reason any, variant string, err error) string {
	if err != nil {
		return connect.CodeOf(err).String()
	}
	return fmt.Sprint(value, " ", reason, " ", variant)
}

// text is the value of an optional field.
func text[T any](p *T) any {
	if p == nil {
		return "none"
	}
	return *p
}

type asking struct{ flag, kind string }

func (s *site) ask1(c evaluationv1connect.ServiceClient, a asking, attributes *structpb.Struct) string {
	ctx := s.Context()
	switch a.kind {
	case "bool":
		res, err := c.ResolveBoolean(ctx, connect.NewRequest(&v1.ResolveBooleanRequest{FlagKey: a.flag, Context: attributes}))
		if err != nil {
			return shown(nil, nil, "", err)
		}
		return shown(res.Msg.GetValue(), res.Msg.GetReason(), res.Msg.GetVariant(), nil)
	case "string":
		res, err := c.ResolveString(ctx, connect.NewRequest(&v1.ResolveStringRequest{FlagKey: a.flag, Context: attributes}))
		if err != nil {
			return shown(nil, nil, "", err)
		}
		return shown(res.Msg.GetValue(), res.Msg.GetReason(), res.Msg.GetVariant(), nil)
	case "int":
		res, err := c.ResolveInt(ctx, connect.NewRequest(&v1.ResolveIntRequest{FlagKey: a.flag, Context: attributes}))
		if err != nil {
			return shown(nil, nil, "", err)
		}
		return shown(res.Msg.GetValue(), res.Msg.GetReason(), res.Msg.GetVariant(), nil)
	case "float":
		res, err := c.ResolveFloat(ctx, connect.NewRequest(&v1.ResolveFloatRequest{FlagKey: a.flag, Context: attributes}))
		if err != nil {
			return shown(nil, nil, "", err)
		}
		return shown(res.Msg.GetValue(), res.Msg.GetReason(), res.Msg.GetVariant(), nil)
	default:
		res, err := c.ResolveObject(ctx, connect.NewRequest(&v1.ResolveObjectRequest{FlagKey: a.flag, Context: attributes}))
		if err != nil {
			return shown(nil, nil, "", err)
		}
		return shown(res.Msg.GetValue().AsMap(), res.Msg.GetReason(), res.Msg.GetVariant(), nil)
	}
}

func (s *site) ask2(c evaluationv2connect.ServiceClient, a asking, attributes *structpb.Struct) string {
	ctx := s.Context()
	switch a.kind {
	case "bool":
		res, err := c.ResolveBoolean(ctx, connect.NewRequest(&v2.ResolveBooleanRequest{FlagKey: a.flag, Context: attributes}))
		if err != nil {
			return shown(nil, nil, "", err)
		}
		return shown(text(res.Msg.Value), res.Msg.GetReason(), fmt.Sprint(text(res.Msg.Variant)), nil)
	case "string":
		res, err := c.ResolveString(ctx, connect.NewRequest(&v2.ResolveStringRequest{FlagKey: a.flag, Context: attributes}))
		if err != nil {
			return shown(nil, nil, "", err)
		}
		return shown(text(res.Msg.Value), res.Msg.GetReason(), fmt.Sprint(text(res.Msg.Variant)), nil)
	case "int":
		res, err := c.ResolveInt(ctx, connect.NewRequest(&v2.ResolveIntRequest{FlagKey: a.flag, Context: attributes}))
		if err != nil {
			return shown(nil, nil, "", err)
		}
		return shown(text(res.Msg.Value), res.Msg.GetReason(), fmt.Sprint(text(res.Msg.Variant)), nil)
	case "float":
		res, err := c.ResolveFloat(ctx, connect.NewRequest(&v2.ResolveFloatRequest{FlagKey: a.flag, Context: attributes}))
		if err != nil {
			return shown(nil, nil, "", err)
		}
		return shown(text(res.Msg.Value), res.Msg.GetReason(), fmt.Sprint(text(res.Msg.Variant)), nil)
	default:
		res, err := c.ResolveObject(ctx, connect.NewRequest(&v2.ResolveObjectRequest{FlagKey: a.flag, Context: attributes}))
		if err != nil {
			return shown(nil, nil, "", err)
		}
		return shown(res.Msg.GetValue().AsMap(), res.Msg.GetReason(), fmt.Sprint(text(res.Msg.Variant)), nil)
	}
}

// Numbers are not changed, what is off is no error, and what failed has flagd's code, in all versions and protocols.
func TestResolve(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	attributes, err := structpb.NewStruct(map[string]any{"level": "high", "environment": "moon", "targetingKey": "u"})
	if err != nil {
		t.Fatal(err)
	}
	for protocol, option := range protocols() {
		key := with(map[string]string{"Authorization": "Bearer " + s.key})
		first := evaluationv1connect.NewServiceClient(s.server.Client(), s.server.URL, option, key)
		second := evaluationv2connect.NewServiceClient(s.server.Client(), s.server.URL, option, key)
		for a, want := range map[asking][2]string{
			{"on", "bool"}:       {"true STATIC on", ""},
			{"text", "string"}:   {"x STATIC v", ""},
			{"ten", "int"}:       {"10 STATIC v", ""},
			{"ten", "float"}:     {"10 STATIC v", ""},
			{"pi", "int"}:        {"invalid_argument", ""},
			{"pi", "float"}:      {"3.14 STATIC v", ""},
			{"large", "int"}:     {"9000000000 STATIC v", ""},
			{"large", "float"}:   {"9e+09 STATIC v", ""},
			{"object", "object"}: {"map[a:[1 b]] STATIC v", ""},
			{"on", "string"}:     {"invalid_argument", ""},
			{"off", "bool"}:      {"false DISABLED ", "none DISABLED none"},
			{"code", "bool"}:     {"not_found", "none DEFAULT none"},
			{"none", "bool"}:     {"not_found", ""},
			{"broken", "bool"}:   {"data_loss", ""},
			{"lost", "bool"}:     {"internal", ""},
			{"who", "string"}:    {"acme TARGETING_MATCH acme", ""},
		} {
			if want[1] == "" {
				want[1] = want[0]
			}
			if got := s.ask1(first, a, attributes); got != want[0] {
				t.Errorf("%s v1 %v: %s, want %s", protocol, a, got, want[0])
			}
			if got := s.ask2(second, a, attributes); got != want[1] {
				t.Errorf("%s v2 %v: %s, want %s", protocol, a, got, want[1])
			}
		}
		all, err := first.ResolveAll(t.Context(), connect.NewRequest(&v1.ResolveAllRequest{Context: attributes}))
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		for key := range all.Msg.GetFlags() {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		if got := strings.Join(keys, " "); got != "large object on pi ten text who" || all.Msg.GetFlags()["who"].GetStringValue() != "acme" {
			t.Errorf("%s all: %s", protocol, all.Msg)
		}
	}
}

// The credential alone says whose flags are seen; a selector can only agree with it.
func TestCredentialsAndSelectors(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const denied = "permission_denied"
	credentials := map[string]struct {
		value string
		good  bool
	}{
		"server's":  {"Bearer " + s.key, true},
		"password":  {"Basic a2V5Og==", false},
		"browser's": {"Bearer " + s.Key("acme", "https://app.acme.example"), false},
		"another's": {"Bearer " + s.Key("globex"), false},
		"unknown":   {"Bearer rhc_" + strings.Repeat("A", 43), false},
		"none":      {"", false},
	}
	selectors := map[string]bool{"": true, "flagSetId=acme": true, "flagSetId=globex": false, "acme": false, "flagSetId=": false, "source=acme": false}
	for who, credential := range credentials {
		for selector, agrees := range selectors {
			for protocol, option := range protocols() {
				fields := map[string]string{"Authorization": credential.value, "Flagd-Selector": selector}
				for name, code := range s.everyMethod(option, with(fields), "") {
					if want := credential.good && agrees; (code == "ok") != want || !want && code != denied {
						t.Errorf("%s key with selector %q, %s by %s: %s", who, selector, name, protocol, code)
					}
				}
			}
		}
	}
	for selector, agrees := range selectors {
		got := s.everyMethod(connect.WithGRPC(), with(map[string]string{"Authorization": "Bearer " + s.key}), selector)
		for _, name := range []string{"SyncFlags", "FetchAllFlags"} {
			if (got[name] == "ok") != agrees {
				t.Errorf("selector %q in the message of %s: %s", selector, name, got[name])
			}
		}
	}
}

// everyMethod calls one method of each sort and returns their codes.
func (s *site) everyMethod(protocol, credential connect.ClientOption, selector string) map[string]string {
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	out := map[string]string{}
	tell := func(name string, err error) {
		out[name] = "ok"
		if err != nil {
			out[name] = connect.CodeOf(err).String()
		}
	}
	first := evaluationv1connect.NewServiceClient(s.server.Client(), s.server.URL, protocol, credential)
	second := evaluationv2connect.NewServiceClient(s.server.Client(), s.server.URL, protocol, credential)
	syncing := syncv1connect.NewFlagSyncServiceClient(s.server.Client(), s.server.URL, protocol, credential)
	_, err := first.ResolveBoolean(ctx, connect.NewRequest(&v1.ResolveBooleanRequest{FlagKey: "on"}))
	tell("v1", err)
	_, err = first.ResolveAll(ctx, connect.NewRequest(&v1.ResolveAllRequest{}))
	tell("ResolveAll", err)
	_, err = second.ResolveBoolean(ctx, connect.NewRequest(&v2.ResolveBooleanRequest{FlagKey: "on"}))
	tell("v2", err)
	_, err = syncing.FetchAllFlags(ctx, connect.NewRequest(&syncv1.FetchAllFlagsRequest{Selector: selector})) //nolint:staticcheck // still sent
	tell("FetchAllFlags", err)
	_, err = syncing.GetMetadata(ctx, connect.NewRequest(&syncv1.GetMetadataRequest{})) //nolint:staticcheck // still called
	tell("GetMetadata", err)
	events, err := second.EventStream(ctx, connect.NewRequest(&v2.EventStreamRequest{}))
	if err == nil && !events.Receive() {
		err = events.Err()
	}
	tell("EventStream", err)
	stream, err := syncing.SyncFlags(ctx, connect.NewRequest(&syncv1.SyncFlagsRequest{Selector: selector})) //nolint:staticcheck // still sent
	if err == nil && !stream.Receive() {
		err = stream.Err()
	}
	tell("SyncFlags", err)
	return out
}

func TestContextNamesNoOtherTenant(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := evaluationv2connect.NewServiceClient(s.server.Client(), s.server.URL, with(map[string]string{"X-Api-Key": s.key}))
	for name, want := range map[string]string{"acme": "else DEFAULT else", "globex": "permission_denied"} {
		attributes, _ := structpb.NewStruct(map[string]any{"tenant": name})
		if got := s.ask2(c, asking{"who", "string"}, attributes); got != want {
			t.Errorf("tenant %s: %s, want %s", name, got, want)
		}
	}
}

// A stream of events names every flag whose answer may be another, and ends with its key.
func TestEvents(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for protocol, option := range protocols() {
		key := s.Key("acme")
		c := evaluationv1connect.NewServiceClient(s.server.Client(), s.server.URL, option, with(map[string]string{"Authorization": "Bearer " + key}))
		stream, err := c.EventStream(t.Context(), connect.NewRequest(&v1.EventStreamRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		next := func() string {
			if !stream.Receive() {
				return connect.CodeOf(stream.Err()).String()
			}
			var keys []string
			for key := range stream.Msg().GetData().GetFields()["flags"].GetStructValue().GetFields() {
				keys = append(keys, key)
			}
			slices.Sort(keys)
			return stream.Msg().GetType() + " " + strings.Join(keys, ",")
		}
		const all = "broken,code,large,lost,object,off,on,pi,ten,text,who"
		for _, want := range []string{"provider_ready ", "configuration_change ", "configuration_change " + all} {
			if got := next(); got != want {
				t.Errorf("%s: %s, want %s", protocol, got, want)
			}
		}
		s.SetTenant("acme", `{"flags":{"on":{"defaultVariant":"off"},"new":{"state":"ENABLED","variants":{"a":1},"defaultVariant":"a"}}}`)
		if got := next(); got != "configuration_change new,on" {
			t.Errorf("%s, a tenant's change: %s", protocol, got)
		}
		s.SetPlan("free", `{"flags":{"text":{"variants":{"v":"`+protocol+`"}}}}`)
		s.SetTenant("acme", `{"flags":{}}`)
		if got := next(); got != "configuration_change new,on" && got != "configuration_change new,on,text" {
			t.Errorf("%s, two changes: %s", protocol, got)
		}
		s.Revoke(key)
		if got := next(); got != "permission_denied" {
			t.Errorf("%s, revoked: %s", protocol, got)
		}
		_ = stream.Close()
	}
	c := evaluationv1connect.NewServiceClient(s.server.Client(), s.server.URL, with(map[string]string{"Authorization": "Bearer " + s.key}))
	stream, err := c.EventStream(t.Context(), connect.NewRequest(&v1.EventStreamRequest{}))
	if err != nil || !stream.Receive() || !stream.Receive() || !stream.Receive() {
		t.Fatal(err, stream.Err())
	}
	s.End()
	if !stream.Receive() || stream.Msg().GetType() != "provider_shutdown" || stream.Receive() || stream.Err() != nil {
		t.Errorf("at the end: %v %v", stream.Msg(), stream.Err())
	}
}

func TestSync(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := syncv1connect.NewFlagSyncServiceClient(s.server.Client(), s.server.URL, connect.WithGRPC(), with(map[string]string{"Authorization": "Bearer " + s.key}))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream, err := c.SyncFlags(ctx, connect.NewRequest(&syncv1.SyncFlagsRequest{}))
	if err != nil || !stream.Receive() {
		t.Fatal(err, stream.Err())
	}
	all, err := c.FetchAllFlags(ctx, connect.NewRequest(&syncv1.FetchAllFlagsRequest{}))
	if err != nil || all.Msg.GetFlagConfiguration() != stream.Msg().GetFlagConfiguration() || !strings.Contains(all.Msg.GetFlagConfiguration(), `"pi"`) {
		t.Errorf("%v %v", all, err)
	}
	if got := stream.Msg().GetSyncContext().AsMap(); got["tenant"] != "acme" || got["environment"] != "production" || got["plan"] == nil || got["region"] == nil {
		t.Errorf("sync context %v", got)
	}
	s.SetTenant("globex", `{"flags":{"secret":{"state":"ENABLED","variants":{"a":1},"defaultVariant":"a"}}}`)
	s.SetTenant("acme", `{"flags":{"own":{"state":"ENABLED","variants":{"a":1},"defaultVariant":"a"}}}`)
	if !stream.Receive() {
		t.Fatal(stream.Err())
	}
	if got := stream.Msg().GetFlagConfiguration(); !strings.Contains(got, `"own"`) || strings.Contains(got, `"secret"`) {
		t.Errorf("after a change: %s", got)
	}
	s.Revoke(s.key)
	if stream.Receive() || connect.CodeOf(stream.Err()) != connect.CodePermissionDenied {
		t.Errorf("revoked: %v", stream.Err())
	}
}

// What callers' defaults stand in for is counted here as in a process's own evaluations.
func TestFailuresAreCounted(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	option := with(map[string]string{"Authorization": "Bearer " + s.key})
	c1 := evaluationv1connect.NewServiceClient(s.server.Client(), s.server.URL, option)
	c2 := evaluationv2connect.NewServiceClient(s.server.Client(), s.server.URL, option)
	for _, key := range []string{"on", "off", "nothing", "text", "broken"} {
		_, _ = c1.ResolveBoolean(t.Context(), connect.NewRequest(&v1.ResolveBooleanRequest{FlagKey: key}))
		_, _ = c2.ResolveBoolean(t.Context(), connect.NewRequest(&v2.ResolveBooleanRequest{FlagKey: key}))
	}
	want := map[string]int64{"FLAG_NOT_FOUND": 2, "TYPE_MISMATCH": 2, "PARSE_ERROR": 2}
	if got := s.Failures(); !maps.Equal(got, want) {
		t.Errorf("one by one: %v, want %v", got, want)
	}
	if _, err := c1.ResolveAll(t.Context(), connect.NewRequest(&v1.ResolveAllRequest{})); err != nil {
		t.Fatal(err)
	}
	want["PARSE_ERROR"], want["GENERAL"] = 3, 1
	if got := s.Failures(); !maps.Equal(got, want) {
		t.Errorf("and all: %v, want %v", got, want)
	}
}
