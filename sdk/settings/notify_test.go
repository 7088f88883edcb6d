package settings_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// TestNotifyNamesWhoIsConcerned changes each layer and asks whose settings may have changed.
func TestNotifyNamesWhoIsConcerned(t *testing.T) {
	t.Parallel()
	var s settings.Store
	apply(t, &s, feed.Change{Reset: true, Entries: []feed.Entry{schemaEntry(t, "n", `{}`)}})
	got := make(chan settings.Change)
	defer s.Notify("n", func(c settings.Change) { got <- c })()
	defer s.Notify("m", func(settings.Change) { t.Error("another namespace has changed") })()
	acme, child, other := settings.Reader{UID: uidOf("acme"), Plan: "p", Region: "eu"}, settings.Reader{UID: uidOf("child")}, settings.Reader{UID: uidOf("other")}
	for key, want := range map[string][]bool{
		settings.NamespaceKey("n"):                                 {true, true, true},
		settings.PlatformKey("n"):                                  {true, true, true},
		settings.PlanKey("n", "p"):                                 {true, false, false},
		settings.RegionKey("n", "eu"):                              {true, false, false},
		settings.TenantKey("n", acme.UID.String()):                 {true, true, false},
		settings.EnvironmentKey("n", acme.UID.String(), "staging"): {true, true, false},
		settings.TenantKey("n", other.UID.String()):                {false, false, true},
	} {
		apply(t, &s, feed.Change{Entries: []feed.Entry{{Key: key, Value: encode(t, &configv1.SettingsEntry{Schema: `{}`, Content: `{"a":1}`})}}})
		c := <-got
		concerned := []bool{c.Concerns(acme, tenant.UID{}), c.Concerns(child, acme.UID), c.Concerns(other, tenant.UID{})}
		if diff := cmp.Diff(want, concerned); diff != "" {
			t.Errorf("%s (-want +got)\n%s", key, diff)
		}
	}
	apply(t, &s, feed.Change{Reset: true})
	if c := <-got; !c.All {
		t.Errorf("a reset concerns %v", c)
	}
}

// TestBadCallbacksHarmNobody has one callback that never returns and one that panics: changes are applied and read, and
// others are told. Callbacks may read the store.
func TestBadCallbacksHarmNobody(t *testing.T) {
	t.Parallel()
	s := settings.Store{Log: slog.New(slog.DiscardHandler)}
	apply(t, &s, feed.Change{Reset: true, Entries: []feed.Entry{schemaEntry(t, "n", `{}`)}})
	release, stuck := make(chan struct{}), make(chan settings.Change, 2)
	panicked, told := make(chan struct{}), make(chan any)
	s.OnChange(func() { panic("in the way of the feed") })
	stops := []func(){
		s.Notify("n", func(c settings.Change) {
			stuck <- c
			<-release
		}),
		s.Notify("n", func(settings.Change) {
			panicked <- struct{}{}
			panic("for a test")
		}),
		s.Notify("n", func(settings.Change) {
			e, _ := s.Holds(settings.Reader{UID: uidOf("acme")}, "n")
			told <- e.Object["a"]
		}),
	}
	for i := range 3 {
		content := string(settings.Canonical(map[string]any{"a": float64(i)}))
		apply(t, &s, feed.Change{Entries: []feed.Entry{docEntry(t, settings.TenantKey("n", uidOf("acme").String()), content, int64(i+1))}})
		<-panicked
		if a := <-told; a != float64(i) {
			t.Errorf("a callback reads %v after change %d", a, i)
		}
		if i == 0 {
			<-stuck
		}
	}
	close(release)
	if c := <-stuck; len(c.Tenants) != 1 {
		t.Errorf("what happened meanwhile is %v", c)
	}
	for _, stop := range stops {
		stop()
		stop()
	}
	if len(stuck) != 0 {
		t.Error("two changes that came meanwhile were told one by one")
	}
	apply(t, &s, feed.Change{Entries: []feed.Entry{docEntry(t, settings.PlatformKey("n"), `{}`, 9)}}) // nobody listens: it does not block
}

// TestManyTenantsAreAll bounds what piles up for a callback that does not return.
func TestManyTenantsAreAll(t *testing.T) {
	t.Parallel()
	var s settings.Store
	apply(t, &s, feed.Change{Reset: true, Entries: []feed.Entry{schemaEntry(t, "n", `{}`)}})
	got := make(chan settings.Change)
	defer s.Notify("n", func(c settings.Change) { got <- c })()
	var change feed.Change
	for i := range 1025 {
		uid, err := tenant.NewUID(time.UnixMilli(int64(i)), zeros{})
		if err != nil {
			t.Fatal(err)
		}
		change.Entries = append(change.Entries, docEntry(t, settings.TenantKey("n", uid.String()), `{}`, 1))
	}
	apply(t, &s, change)
	if c := <-got; !c.All || len(c.Tenants) != 0 {
		t.Errorf("%t, %d tenants", c.All, len(c.Tenants))
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// TestTypedReadsAllocateNothing holds a read that was made before to no garbage.
func TestTypedReadsAllocateNothing(t *testing.T) { //nolint:paralleltest // it counts allocations
	w := newWorld(t)
	s := &settings.Store{Trust: w.trust}
	apply(t, s, feed.Change{Reset: true, Entries: []feed.Entry{
		schemaEntry(t, "n", `{}`), docEntry(t, settings.TenantKey("n", uidOf("acme").String()), `{"size":1,"colour":"red"}`, 1),
	}})
	issuer := tenanttest.NewIssuer(t, nil)
	for _, name := range []string{"acme", "globex"} {
		ctx := issuer.In(t.Context(), t, name)
		got := testing.AllocsPerRun(100, func() {
			if _, err := settings.For[look](ctx, s, "n"); err != nil {
				t.Fatal(err)
			}
		})
		if got != 0 {
			t.Errorf("%s: %v allocations", name, got)
		}
	}
}
