package provider_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/open-feature/go-sdk/openfeature"
	"github.com/open-feature/go-sdk/openfeature/isolated"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/provider"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// follower is a feed as far as the provider sees it.
type follower struct {
	ready chan struct{}

	mu     sync.Mutex
	status feed.Status
}

func (f *follower) Ready() <-chan struct{} { return f.ready }

func (f *follower) Status() feed.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status
}

func (f *follower) heard(at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.LastBookmark = at
}

func put(t *testing.T, s *settings.Store, key string, e *configv1.SettingsEntry) {
	t.Helper()
	b, err := proto.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(feed.Change{Entries: []feed.Entry{{Key: key, Value: b}}}); err != nil {
		t.Fatal(err)
	}
}

func document(t *testing.T, s *settings.Store, key, content string) {
	t.Helper()
	put(t, s, key, &configv1.SettingsEntry{Content: content, Revision: 1})
}

func furnish(t *testing.T, s *settings.Store) {
	t.Helper()
	put(t, s, settings.NamespaceKey(settings.FlagKillsNamespace), &configv1.SettingsEntry{Schema: flags.KillSchema()})
	put(t, s, settings.NamespaceKey(settings.FlagsNamespace), &configv1.SettingsEntry{Schema: flags.Schema()})
	document(t, s, settings.PlatformKey(settings.FlagsNamespace), `{"metadata":{"team":"core"},"flags":{
		"on":{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"on"},
		"off":{"state":"DISABLED","variants":{"on":true,"off":false},"defaultVariant":"on"},
		"text":{"state":"ENABLED","variants":{"a":"x","b":"y"},"defaultVariant":"a",
			"targeting":{"if":[{"and":[{"==":[{"var":"targetingKey"},"ann"]},{"==":[{"var":"since"},"2026-01-02T00:00:00Z"]}]},"b"]}},
		"pi":{"state":"ENABLED","variants":{"v":3.14},"defaultVariant":"v"},
		"object":{"state":"ENABLED","variants":{"v":{"a":1}},"defaultVariant":"v"},
		"broken":{"state":"ENABLED","variants":{"v":true},"defaultVariant":"v","targeting":{"frob":[1]}}}}`)
}

// one is an answer of the SDK's, whatever its type.
type one struct {
	Value   any
	Variant string
	Reason  openfeature.Reason
	Code    openfeature.ErrorCode
	Team    any
}

func TestProviderAnswersForTheTenant(t *testing.T) {
	t.Parallel()
	var store settings.Store
	furnish(t, &store)
	reader := sdkmetric.NewManualReader()
	client, err := flags.New(flags.Config{Store: &store, Metrics: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))})
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{ready: make(chan struct{})}
	close(f.ready)
	api := isolated.NewAPI()
	if err := api.SetProviderAndWait(t.Context(), provider.New(provider.Config{Flags: client, Feed: f})); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = api.Shutdown(context.WithoutCancel(t.Context())) }()
	c := api.NewClient()
	acme := tenanttest.NewIssuer(t, nil).In(t.Context(), t, "acme")
	ann := openfeature.NewEvaluationContext("ann", map[string]any{"since": time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)})
	globex := openfeature.NewEvaluationContext("ann", map[string]any{"tenant": "globex"})
	nobody := openfeature.EvaluationContext{}
	boolean := func(ctx context.Context, key string, e openfeature.EvaluationContext) one {
		d, _ := c.BooleanValueDetails(ctx, key, true, e)
		return one{d.Value, d.Variant, d.Reason, d.ErrorCode, d.FlagMetadata["team"]}
	}
	text := func(e openfeature.EvaluationContext) one {
		d, _ := c.StringValueDetails(acme, "text", "d", e)
		return one{d.Value, d.Variant, d.Reason, d.ErrorCode, d.FlagMetadata["team"]}
	}
	integer, _ := c.IntValueDetails(acme, "pi", 7, nobody)
	float, _ := c.FloatValueDetails(acme, "pi", 7, nobody)
	object, _ := c.ObjectValueDetails(acme, "object", "d", nobody)
	for what, x := range map[string]struct{ got, want one }{
		"static":         {boolean(acme, "on", nobody), one{true, "on", "STATIC", "", "core"}},
		"disabled":       {boolean(acme, "off", nobody), one{true, "", "DISABLED", "", "core"}},
		"not found":      {boolean(acme, "none", nobody), one{true, "", "ERROR", "FLAG_NOT_FOUND", nil}},
		"broken":         {boolean(acme, "broken", nobody), one{true, "", "ERROR", "PARSE_ERROR", "core"}},
		"no tenant":      {boolean(t.Context(), "on", ann), one{true, "", "ERROR", "INVALID_CONTEXT", nil}},
		"another tenant": {text(globex), one{"d", "", "ERROR", "INVALID_CONTEXT", nil}},
		"by default":     {text(nobody), one{"x", "a", "DEFAULT", "", "core"}},
		"targeting":      {text(ann), one{"y", "b", "TARGETING_MATCH", "", "core"}},
		"3.14, integer":  {one{integer.Value, "", "", integer.ErrorCode, nil}, one{int64(7), "", "", "TYPE_MISMATCH", nil}},
		"3.14":           {one{float.Value, "", "", float.ErrorCode, nil}, one{3.14, "", "", "", nil}},
		"object":         {one{object.Value, "", "", object.ErrorCode, nil}, one{map[string]any{"a": 1.0}, "", "", "", nil}},
	} {
		if diff := cmp.Diff(x.want, x.got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", what, diff)
		}
	}
	var counted metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &counted); err != nil {
		t.Fatal(err)
	}
	codes := map[string]int64{}
	for _, m := range counted.ScopeMetrics[0].Metrics {
		for _, p := range m.Data.(metricdata.Sum[int64]).DataPoints {
			code, _ := p.Attributes.Value("code")
			codes[code.AsString()] = p.Value
		}
	}
	if diff := cmp.Diff(map[string]int64{"FLAG_NOT_FOUND": 1, "PARSE_ERROR": 1, "INVALID_CONTEXT": 2, "TYPE_MISMATCH": 1}, codes); diff != "" {
		t.Errorf("counted (-want +got)\n%s", diff)
	}
}

// TestProviderStates lives through a start without config, its loss and its return.
func TestProviderStates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var store settings.Store
		client, err := flags.New(flags.Config{Store: &store})
		if err != nil {
			t.Fatal(err)
		}
		f := &follower{ready: make(chan struct{})}
		p := provider.New(provider.Config{Flags: client, Feed: f})
		api := isolated.NewAPI()
		c := api.NewClient()
		var mu sync.Mutex
		var seen []string
		for _, kind := range []openfeature.EventType{
			openfeature.ProviderReady, openfeature.ProviderStale, openfeature.ProviderError, openfeature.ProviderConfigChange,
		} {
			tell := func(d openfeature.EventDetails) {
				mu.Lock()
				defer mu.Unlock()
				seen = append(seen, string(kind))
				seen = append(seen, d.FlagChanges...)
			}
			api.AddHandler(kind, &tell)
		}
		expect := func(what string, state openfeature.State, events ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if c.State() != state || !slices.Equal(seen, events) {
				t.Errorf("%s: %s after %v, want %s after %v", what, c.State(), seen, state, events)
			}
			seen = nil
		}
		if err := api.SetProvider(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		expect("before any flags", openfeature.NotReadyState)
		furnish(t, &store)
		close(f.ready) // from the disk: nobody has confirmed it
		expect("the last good copy", openfeature.ReadyState, "PROVIDER_READY")
		<-time.After(4 * time.Second)
		expect("four seconds later", openfeature.ReadyState)
		<-time.After(2 * time.Second)
		expect("six seconds later", openfeature.StaleState, "PROVIDER_STALE")
		acme := tenanttest.NewIssuer(t, nil).In(t.Context(), t, "acme")
		if !c.Boolean(acme, "on", false, openfeature.EvaluationContext{}) {
			t.Error("a stale provider does not answer")
		}
		f.heard(time.Now())
		<-time.After(time.Second)
		expect("config is back", openfeature.ReadyState, "PROVIDER_READY")
		document(t, &store, settings.TenantKey(settings.FlagsNamespace, tenanttest.UID("acme").String()), `{"flags":{"on":{"state":"DISABLED"}}}`)
		expect("a change", openfeature.ReadyState, "PROVIDER_CONFIGURATION_CHANGED", "on")
		document(t, &store, settings.TenantKey(settings.FlagsNamespace, tenanttest.UID("globex").String()), `{"flags":{"off":{"state":"ENABLED"}}}`)
		expect("a change for who never asked", openfeature.ReadyState)
		if err := api.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
	})
}

func TestProviderWithoutFlags(t *testing.T) {
	t.Parallel()
	var store settings.Store
	client, err := flags.New(flags.Config{Store: &store})
	if err != nil {
		t.Fatal(err)
	}
	p := provider.New(provider.Config{Flags: client, Feed: &follower{ready: make(chan struct{})}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.InitWithContext(ctx, openfeature.EvaluationContext{}); err == nil {
		t.Error("it is ready without flags")
	}
	p.Shutdown()
	if err := p.Init(openfeature.EvaluationContext{}); err == nil {
		t.Error("it is ready after its end")
	}
}
