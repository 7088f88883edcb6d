package flags_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagset"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// TestCachedEqualsUncached reads between random changes: what a client kept and shared must be what holds when the same
// layers are merged, killed and compiled from nothing, and a subscriber must have been told of every key that differs.
func TestCachedEqualsUncached(t *testing.T) {
	t.Parallel()
	keys := []string{
		settings.PlatformKey(settings.FlagsNamespace), settings.PlanKey(settings.FlagsNamespace, "free"),
		settings.TenantKey(settings.FlagsNamespace, tenanttest.UID("acme").String()), settings.PlatformKey(settings.FlagKillsNamespace),
		settings.TenantKey(settings.FlagKillsNamespace, tenanttest.UID("acme").String()),
	}
	whole := func(key, value string) string {
		return `"` + key + `":{"state":"ENABLED","variants":{"v":` + value + `,"w":0},"defaultVariant":"v"}`
	}
	documents := []string{
		"", `{"flags":{` + whole("a", "1") + `,` + whole("b", "1") + `}}`, `{"flags":{` + whole("a", "2") + `}}`,
		`{"flags":{"a":{"state":"DISABLED"}}}`, `{"flags":{"a":{"defaultVariant":"w"},"b":{"metadata":{"x":1}}}}`,
		`{"flags":{"b":{"targeting":{"if":[{"$ref":"e"},"w"]}}},"$evaluators":{"e":{"==":[{"var":"tenant"},"acme"]}}}`, `{"metadata":{"team":"x"}}`,
	}
	kills := []string{"", `{}`, `{"a":{"reason":"x"}}`, `{"b":{"reason":"x"},"c":{"reason":"x"}}`}
	rapid.Check(t, func(rt *rapid.T) {
		h := newHouse(t)
		c := h.client()
		tenants := []flags.Who{who(t, "acme"), who(t, "globex")}
		told := make(map[flags.Who]*flags.View)
		subscriptions := make(map[flags.Who]*flags.Subscription)
		for _, w := range tenants {
			s, v, err := c.Subscribe(w)
			if err != nil {
				rt.Fatal(err)
			}
			defer s.Close()
			told[w], subscriptions[w] = v, s
		}
		for range rapid.IntRange(1, 10).Draw(rt, "steps") {
			key := rapid.SampledFrom(keys).Draw(rt, "key")
			from := documents
			if strings.Contains(key, settings.FlagKillsNamespace) {
				from = kills
			}
			h.set(key, rapid.SampledFrom(from).Draw(rt, "document"))
			for _, w := range tenants {
				e, _ := h.store.Holds(settings.Reader(w), settings.FlagsNamespace)
				k, _ := h.store.Holds(settings.Reader(w), settings.FlagKillsNamespace)
				naive, err := flagset.Compile(flags.Killed(e.Object, k.Object), time.Now)
				if err != nil {
					rt.Fatal(err)
				}
				v, err := c.For(w)
				if err != nil {
					rt.Fatal(err)
				}
				if naive.Digest() != v.Digest() {
					rt.Fatalf("the digest of %v is not that of its content", w.ID)
				}
				if diff := cmp.Diff(naive.Document(), v.Document()); diff != "" || string(settings.Canonical(naive.Document())) != v.Text() {
					rt.Fatalf("%v (-naive +kept)\n%s", w.ID, diff)
				}
				for _, key := range []string{"a", "b", "c"} {
					if got, want := show(v.Evaluate(key, v.Plain)), show(naive.Evaluate(key, v.Plain)); got != want {
						rt.Fatalf("%s of %v: %s, uncached %s", key, w.ID, got, want)
					}
				}
				if v.Version == told[w].Version {
					continue
				}
				change, err := subscriptions[w].Next(t.Context())
				if err != nil {
					rt.Fatal(err)
				}
				for _, key := range []string{"a", "b", "c"} {
					was, is := show(told[w].Evaluate(key, v.Plain)), show(v.Evaluate(key, v.Plain))
					if was != is && !cmp.Equal(change.Keys, []string{key}) && !strings.Contains(strings.Join(change.Keys, " "), key) {
						rt.Fatalf("%s of %v went from %s to %s, told %v", key, w.ID, was, is, change.Keys)
					}
				}
				told[w] = change.View
			}
		}
	})
}

func show(r flagset.Result) string {
	return fmt.Sprint(r.Value(), r.Variant(), r.Reason(), r.Code(), r.Metadata())
}

// TestTenantsShareWhatDoesNotDiffer bounds what a tenant with three overrides of two hundred flags costs.
func TestTenantsShareWhatDoesNotDiffer(t *testing.T) { //nolint:paralleltest // it measures memory
	const most = 4 << 10
	each := viewBytes(t)
	t.Logf("%d bytes for each tenant that was asked for", each)
	if each > most {
		t.Errorf("%d bytes for each tenant, want at most %d", each, most)
	}
}

// viewBytes is what is kept for a tenant with three overrides of two hundred flags.
func viewBytes(tb testing.TB) int64 {
	tb.Helper()
	const tenants = 1000
	h := newHouse(tb)
	var all strings.Builder
	for i := range 200 {
		fmt.Fprintf(&all, `%s"flag-%d":{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off","targeting":{"if":[{"==":[{"var":"plan"},"x%d"]},"on"]}}`,
			strings.Repeat(",", min(i, 1)), i, i)
	}
	h.platform(`{"flags":{` + all.String() + `}}`)
	entries := make([]feed.Entry, tenants)
	ids := make([]string, tenants)
	for i := range tenants {
		ids[i] = fmt.Sprintf("tenant-%d", i)
		content := fmt.Sprintf(`{"flags":{"flag-%d":{"state":"DISABLED"},"flag-%d":{"defaultVariant":"on"},"flag-%d":{"targeting":{}}}}`,
			i%200, (i+1)%200, (i+7)%200)
		entries[i] = feed.Entry{
			Key:   settings.TenantKey(settings.FlagsNamespace, tenanttest.UID(ids[i]).String()),
			Value: h.encode(&configv1.SettingsEntry{Content: content, Revision: 9}),
		}
	}
	h.apply(entries...)
	c := h.client()
	read := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := read()
	for _, id := range ids {
		if _, err := c.For(who(tb, id)); err != nil {
			tb.Fatal(err)
		}
	}
	each := (int64(read()) - int64(before)) / tenants
	runtime.KeepAlive(c)
	return each
}
