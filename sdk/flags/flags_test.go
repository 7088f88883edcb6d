package flags_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// house is a store that a test fills as the feed would.
type house struct {
	testing.TB

	store    settings.Store
	revision int64
}

func newHouse(tb testing.TB) *house {
	tb.Helper()
	h := &house{TB: tb}
	h.furnish()
	return h
}

// furnish makes the namespaces.
func (h *house) furnish() {
	h.Helper()
	entry := func(namespace, schema string) feed.Entry {
		return feed.Entry{Key: settings.NamespaceKey(namespace), Value: h.encode(&configv1.SettingsEntry{Schema: schema})}
	}
	h.apply(entry(settings.FlagsNamespace, flags.Schema()), entry(settings.FlagKillsNamespace, flags.KillSchema()))
}

// client returns a client of the store.
func (h *house) client() *flags.Client {
	h.Helper()
	h.store.Environment = "staging"
	c, err := flags.New(flags.Config{Store: &h.store})
	if err != nil {
		h.Fatal(err)
	}
	return c
}

func (h *house) encode(e *configv1.SettingsEntry) []byte {
	h.Helper()
	b, err := proto.Marshal(e)
	if err != nil {
		h.Fatal(err)
	}
	return b
}

func (h *house) apply(entries ...feed.Entry) {
	h.Helper()
	h.revision++
	if err := h.store.Apply(feed.Change{Revision: h.revision, Entries: entries}); err != nil {
		h.Fatal(err)
	}
}

// set writes a document; "" deletes it.
func (h *house) set(key, content string) {
	h.Helper()
	e := feed.Entry{Key: key, Deleted: content == ""}
	if !e.Deleted {
		e.Value = h.encode(&configv1.SettingsEntry{Content: content, Revision: h.revision + 1})
	}
	h.apply(e)
}

func (h *house) platform(content string) {
	h.set(settings.PlatformKey(settings.FlagsNamespace), content)
}

func (h *house) kill(layer string, content string) {
	h.set("doc/"+settings.FlagKillsNamespace+"/"+layer, content)
}

func (h *house) plan(plan, content string) {
	h.set(settings.PlanKey(settings.FlagsNamespace, plan), content)
}

func (h *house) tenant(id, content string) {
	h.set(settings.TenantKey(settings.FlagsNamespace, tenanttest.UID(id).String()), content)
}

// who is a tenant of the plan "free".
func who(tb testing.TB, id string) flags.Who {
	tb.Helper()
	parsed, err := tenant.ParseID(id)
	if err != nil {
		tb.Fatal(err)
	}
	return flags.Who{UID: tenanttest.UID(id), ID: parsed, Plan: "free", Region: "eu"}
}

const checkout = `{"flags":{"checkout":{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off",
	"targeting":{"if":[{"==":[{"var":"region"},"eu"]},"on"]}}}}`

func TestViewsAreShared(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := h.client()
	acme, globex := who(t, "acme"), who(t, "globex")
	h.platform(checkout)
	a, err := c.For(acme)
	if err != nil {
		t.Fatal(err)
	}
	g, err := c.For(globex)
	if err != nil {
		t.Fatal(err)
	}
	if a.Set != g.Set || a.Version == "" {
		t.Error("two tenants without documents have two sets")
	}
	if r := a.Evaluate("checkout", a.Plain); r.Variant() != "on" {
		t.Errorf("evaluated to %q, %v", r.Variant(), r.Code())
	}
	h.tenant("acme", `{"flags":{"checkout":{"state":"DISABLED"}}}`)
	a, err = c.For(acme)
	if err != nil {
		t.Fatal(err)
	}
	if r := a.Evaluate("checkout", a.Plain); r.HasValue() || r.Reason().String() != "DISABLED" {
		t.Errorf("after the change: %v %v", r.Value(), r.Reason())
	}
	if other, _ := c.For(globex); other.Version != g.Version || other.Version == a.Version {
		t.Error("the version does not follow the content")
	}
	h.tenant("acme", "")
	if again, _ := c.For(acme); again.Version != g.Version {
		t.Error("equal flags have unequal versions")
	}
}

// TestParentsFlagsHold moves a tenant below a parent and away again; no document changes meanwhile.
func TestParentsFlagsHold(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.store.Trust = tenant.NewTrust(time.Now)
	c := h.client()
	child := who(t, "child")
	h.platform(checkout)
	h.tenant("acme", `{"flags":{"checkout":{"state":"DISABLED"}}}`)
	for i, parent := range []tenant.UID{{}, tenanttest.UID("acme"), {}} {
		err := h.store.Trust.SetTenant(tenant.TenantState{
			UID: child.UID, ID: child.ID, Generation: 1, PlacementGeneration: 1, State: tenant.StateActive, Parent: parent,
		})
		if err != nil {
			t.Fatal(err)
		}
		v, err := c.For(child)
		if err != nil {
			t.Fatal(err)
		}
		want := "on"
		if i == 1 {
			want = ""
		}
		if got := v.Evaluate("checkout", v.Plain).Variant(); got != want {
			t.Errorf("move %d: %q, want %q", i, got, want)
		}
	}
}

func TestSubscriptionNamesKeys(t *testing.T) {
	t.Parallel()
	h := &house{TB: t}
	c := h.client()
	s, v, err := c.Subscribe(who(t, "acme"))
	if v != nil || fault.ReasonOf(err) != fault.ReasonStarting {
		t.Errorf("before the first state: %v, %v", v, err)
	}
	defer s.Close()
	next := func(want ...string) {
		t.Helper()
		change, err := s.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, change.Keys); diff != "" {
			t.Errorf("keys (-want +got)\n%s", diff)
		}
	}
	h.furnish()
	next()
	flag := func(value string) string {
		return `{"state":"ENABLED","variants":{"v":` + value + `},"defaultVariant":"v"}`
	}
	h.platform(`{"flags":{"a":` + flag("1") + `,"b":` + flag("1") + `,"c":` + flag("1") + `}}`)
	next("a", "b", "c")
	h.plan("business", `{"flags":{"c":{"state":"DISABLED"}}}`) // another plan's
	h.tenant("globex", `{"flags":{"a":{"state":"DISABLED"}}}`) // another tenant's
	h.plan("free", `{"flags":{"a":{"state":"DISABLED"}}}`)
	next("a")
	h.platform(`{"flags":{"a":` + flag("1") + `,"b":` + flag("2") + `,"d":` + flag("1") + `}}`)
	h.plan("free", "")
	next("a", "b", "c", "d") // two revisions, one change
	h.tenant("acme", `{"metadata":{"team":"x"}}`)
	next("a", "b", "d")
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := errors.New("ended")
	cancel(ended)
	if _, err := s.Next(ctx); !errors.Is(err, ended) {
		t.Errorf("after the end: %v", err)
	}
}

func TestKill(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.platform(checkout)
	c := h.client()
	s, v, err := c.Subscribe(who(t, "acme"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	answer := func(v *flags.View) string {
		r := v.Evaluate("checkout", v.Plain)
		return r.Variant() + " " + r.Reason().String()
	}
	if got := answer(v); got != "on TARGETING_MATCH" {
		t.Error(got)
	}
	h.kill("plan/free", `{"checkout":{"reason":"it charges twice"},"nothing":{"reason":"no such flag"}}`)
	change, err := s.Next(t.Context())
	if err != nil || answer(change.View) != " DISABLED" || !slices.Equal(change.Keys, []string{"checkout"}) {
		t.Errorf("killed: %v %v, %v", change.Keys, answer(change.View), err)
	}
	if !strings.Contains(change.View.Text(), `"state":"DISABLED"`) {
		t.Errorf("other evaluators are told %s", change.View.Text())
	}
	business := who(t, "globex")
	business.Plan = "business"
	if other, err := c.For(business); err != nil || other.Version != v.Version {
		t.Errorf("another plan's tenant: %v", err)
	}
	// No layer brings it back but a lift.
	h.tenant("acme", `{"flags":{"checkout":{"state":"ENABLED"}}}`)
	if v, err := c.For(who(t, "acme")); err != nil || answer(v) != " DISABLED" {
		t.Errorf("a tenant's own document undid a kill: %v", err)
	}
	h.kill("plan/free", `{}`)
	if v, err := c.For(who(t, "acme")); err != nil || answer(v) != "on TARGETING_MATCH" {
		t.Errorf("lifted: %v", err)
	}
}
