package flags_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// settle gives a tenant a parent, or none.
func (h *house) settle(id, parent string) {
	h.Helper()
	state := tenant.TenantState{
		UID: tenanttest.UID(id), ID: who(h, id).ID, Generation: 1, PlacementGeneration: 1, State: tenant.StateActive, Region: "eu",
	}
	if parent != "" {
		state.Parent = tenanttest.UID(parent)
	}
	if err := h.store.Trust.SetTenant(state); err != nil {
		h.Fatal(err)
	}
}

// A change leaves in place what was compiled for whom it does not concern.
func TestChangesDropOnlyWhomTheyConcern(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.store.Trust = tenant.NewTrust(time.Now)
	h.settle("acme", "")
	h.settle("child", "acme")
	h.apply(feed.Entry{Key: settings.NamespaceKey("other"), Value: h.encode(&configv1.SettingsEntry{Schema: `{}`})})
	h.platform(checkout)
	c := h.client()
	tenants := map[string]flags.Who{"acme": who(t, "acme"), "child": who(t, "child"), "globex": who(t, "globex"), "paying": who(t, "paying")}
	paying := tenants["paying"]
	paying.Plan = "business"
	tenants["paying"] = paying
	acme := tenanttest.UID("acme").String()
	off := `{"flags":{"checkout":{"state":"DISABLED"}}}`
	for _, change := range []struct {
		key, content string
		concerned    []string
	}{
		{settings.PlatformKey("other"), `{}`, nil},
		{settings.TenantKey("other", acme), `{}`, nil},
		{settings.TenantKey(settings.FlagsNamespace, tenanttest.UID("nobody").String()), off, nil},
		{settings.TenantKey(settings.FlagsNamespace, acme), off, []string{"acme", "child"}},
		{settings.EnvironmentKey(settings.FlagsNamespace, tenanttest.UID("globex").String(), "staging"), off, []string{"globex"}},
		{settings.PlanKey(settings.FlagsNamespace, "business"), off, []string{"paying"}},
		{settings.TenantKey(settings.FlagKillsNamespace, acme), `{"checkout":{"reason":"x"}}`, []string{"acme", "child"}},
		{settings.PlatformKey(settings.FlagKillsNamespace), `{}`, []string{"acme", "child", "globex", "paying"}},
		{settings.PlatformKey(settings.KillsNamespace), `{}`, []string{"acme", "child", "globex", "paying"}},
	} {
		before := make(map[string]*flags.View)
		for name, w := range tenants {
			v, err := c.For(w)
			if err != nil {
				t.Fatal(err)
			}
			before[name] = v
		}
		h.set(change.key, change.content)
		for name, w := range tenants {
			v, err := c.For(w)
			if err != nil || (v != before[name]) != slices.Contains(change.concerned, name) {
				t.Errorf("after a change of %s, %s has a new view: %t, %v", change.key, name, v != before[name], err)
			}
		}
	}
	kept, err := c.For(tenants["globex"])
	if err != nil {
		t.Fatal(err)
	}
	h.settle("somebody", "acme") // families change, globex's does not
	if v, _ := c.For(tenants["globex"]); v != kept {
		t.Error("a tenant that moves has others' flags compiled again")
	}
}

// world draws what decides over flags, and tells what holds by a client and a store that were just made.
type world struct {
	*house

	state map[string]feed.Entry
}

func (w *world) set(key, content string) {
	w.Helper()
	e := feed.Entry{Key: key, Deleted: content == ""}
	if delete(w.state, key); !e.Deleted {
		e.Value = w.encode(&configv1.SettingsEntry{Content: content, Schema: `{}`, Revision: w.revision + 1})
		w.state[key] = e
	}
	w.apply(e)
}

func (w *world) reset() {
	w.Helper()
	w.revision++
	if err := w.store.Apply(w.whole()); err != nil {
		w.Fatal(err)
	}
}

func (w *world) whole() feed.Change {
	return feed.Change{Reset: true, Revision: w.revision, Entries: slices.Collect(maps.Values(w.state))}
}

// fresh is a client that has made nothing yet, of a store that just got the state.
func (w *world) fresh() *flags.Client {
	w.Helper()
	store := &settings.Store{Trust: w.store.Trust, Environment: w.store.Environment}
	if err := store.Apply(w.whole()); err != nil {
		w.Fatal(err)
	}
	c, err := flags.New(flags.Config{Store: store})
	if err != nil {
		w.Fatal(err)
	}
	return c
}

func (w *world) answers(c *flags.Client, of flags.Who) map[string]string {
	w.Helper()
	v, err := c.For(of)
	if err != nil {
		w.Fatal(err)
	}
	out := map[string]string{"": v.Version}
	for _, key := range []string{"a", "b"} {
		out[key] = show(v.Evaluate(key, v.Plain))
	}
	return out
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{house: &house{TB: t}, state: make(map[string]feed.Entry)}
	w.store.Trust, w.store.Environment = tenant.NewTrust(time.Now), "staging"
	for _, n := range []string{settings.FlagsNamespace, settings.FlagKillsNamespace, settings.KillsNamespace, "other"} {
		w.set(settings.NamespaceKey(n), `{}`)
	}
	for _, id := range []string{"acme", "globex", "child"} {
		w.settle(id, "")
	}
	return w
}

func (w *world) keys() (keys []string) {
	for _, n := range []string{settings.FlagsNamespace, settings.FlagKillsNamespace, "other"} {
		keys = append(keys, settings.PlatformKey(n), settings.PlanKey(n, "free"), settings.PlanKey(n, "business"), settings.RegionKey(n, "eu"))
		for _, id := range []string{"acme", "globex", "child"} {
			keys = append(keys, settings.TenantKey(n, tenanttest.UID(id).String()), settings.EnvironmentKey(n, tenanttest.UID(id).String(), "staging"))
		}
	}
	return keys
}

// TestAnyInterleavingEqualsFresh changes documents, kills and parents and asks in between, with a client that keeps little or
// much: answers are those of a client that was just made, and a watch has named whatever is other than what was answered.
func TestAnyInterleavingEqualsFresh(t *testing.T) {
	t.Parallel()
	flag := func(key, variant string) string {
		return `"` + key + `":{"state":"ENABLED","variants":{"v":1,"w":2},"defaultVariant":"` + variant + `"}`
	}
	documents := []string{
		"", `{}`, `{"flags":{` + flag("a", "v") + `}}`, `{"flags":{` + flag("a", "w") + `,` + flag("b", "v") + `}}`, `{"flags":{"a":{"state":"DISABLED"}}}`,
		`{"flags":{"b":{"targeting":{"if":[{"==":[{"var":"environment"},"staging"]},"w"]}}}}`, `{"a":{"reason":"x"}}`,
	}
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		c := w.client()
		most := rapid.SampledFrom([]int{1, 3, 100}).Draw(rt, "most")
		c.KeepAtMost(most)
		watch := c.Watch()
		defer watch.Close()
		told, named := make(map[flags.Who]map[string]string), make(map[flags.Who]map[string]bool)
		for range rapid.IntRange(1, 15).Draw(rt, "steps") {
			switch how := rapid.IntRange(0, 9).Draw(rt, "how"); how {
			case 0:
				w.reset()
			case 1:
				w.settle("child", rapid.SampledFrom([]string{"", "acme", "globex"}).Draw(rt, "parent"))
				maps.DeleteFunc(told, func(of flags.Who, _ map[string]string) bool { return of.UID == tenanttest.UID("child") }) // heard of when it asks
			default:
				w.set(rapid.SampledFrom(w.keys()).Draw(rt, "key"), rapid.SampledFrom(documents).Draw(rt, "document"))
			}
			pending, fresh := watch.Pending(), w.fresh()
			for of, was := range told {
				is := w.answers(fresh, of)
				for _, key := range pending {
					named[of][key] = true
				}
				for _, key := range []string{"a", "b"} {
					if most < 100 && strings.Contains(was[key], "FLAG_NOT_FOUND") {
						continue // of whom nothing is kept, the flags are named that they had
					}
					if is[key] != was[key] && !named[of][key] {
						rt.Fatalf("%v: %s went from %s to %s, and the watch named %v", of, key, was[key], is[key], pending)
					}
				}
			}
			for range rapid.IntRange(0, 4).Draw(rt, "asks") {
				of := who(t, rapid.SampledFrom([]string{"acme", "globex", "child"}).Draw(rt, "tenant"))
				of.Plan = rapid.SampledFrom([]string{"free", "business"}).Draw(rt, "plan")
				of.Environment = rapid.SampledFrom([]string{"", "staging"}).Draw(rt, "environment")
				is, want := w.answers(c, of), w.answers(fresh, of)
				if !maps.Equal(is, want) {
					rt.Fatalf("%v: %v, a client that was just made says %v", of, is, want)
				}
				told[of], named[of] = is, make(map[string]bool)
			}
		}
	})
}

// TestLittleIsKept bounds the views that are kept, and those that a watch holds while nobody asks it.
func TestLittleIsKept(t *testing.T) {
	t.Parallel()
	const most = 5
	h := newHouse(t)
	h.platform(checkout)
	c := h.client()
	c.KeepAtMost(most)
	watch := c.Watch()
	defer watch.Close()
	for round := range 3 {
		for i := range 20 {
			if _, err := c.For(who(t, fmt.Sprintf("tenant-%d", round*20+i))); err != nil {
				t.Fatal(err)
			}
			if n := c.Kept(); n < 1 || n > most {
				t.Fatalf("%d views are kept", n)
			}
		}
		h.platform(fmt.Sprintf(`{"flags":{"flag-%d":{"state":"ENABLED","variants":{"on":true},"defaultVariant":"on"}}}`, round))
	}
	if n := watch.Retired(); n > most {
		t.Errorf("the watch holds %d views", n)
	}
	if keys := watch.Pending(); !slices.Equal(keys, []string{"checkout", "flag-0", "flag-1", "flag-2"}) {
		t.Errorf("named %v", keys)
	}
}

// A stream whose tenant moves below another parent is told without a change of any document.
func TestSubscriptionHearsOfMoves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.store.Trust = tenant.NewTrust(time.Now)
		h.settle("child", "")
		h.platform(checkout)
		h.tenant("acme", `{"flags":{"checkout":{"state":"DISABLED"}}}`)
		c := h.client()
		s, _, err := c.Subscribe(who(t, "child"))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for _, parent := range []string{"acme", ""} {
			heard := make(chan error, 1)
			go func() {
				change, err := s.Next(ctx)
				if err == nil && !slices.Equal(change.Keys, []string{"checkout"}) {
					err = fmt.Errorf("named %v", change.Keys)
				}
				heard <- err
			}()
			synctest.Wait() // until it waits
			h.settle("child", parent)
			if err := <-heard; err != nil {
				t.Errorf("below %q: %v", parent, err)
			}
		}
	})
}

// What is made of a view is made once.
func TestBoundIsMadeOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.platform(checkout)
	v, err := h.client().For(who(t, "acme"))
	if err != nil {
		t.Fatal(err)
	}
	made := 0
	for range 3 {
		if got := v.Bound(func(v *flags.View) string { made++; return v.Version }); got != v.Version || made != 1 {
			t.Errorf("%q, made %d times", got, made)
		}
	}
}
