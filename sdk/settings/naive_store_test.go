package settings_test

import (
	"context"
	"reflect"
	"strconv"
	"testing"
	"time"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// kept is a store that follows a scene by the feed's entries, and by the trust for parents. What it kept from earlier reads
// must be what the layers make from nothing.
type kept struct {
	store    settings.Store
	contexts [2][2][2]context.Context // of the tenants, on their plans, in their regions
	state    map[string]string        // the feed's entries, encoded
	parents  [2]int

	schema *settings.Schema
	texts  map[any]string // of layers and of the schema
}

const scenes = "n" // the namespace

func newKept(t *testing.T, w *scene) *kept {
	t.Helper()
	k := &kept{state: map[string]string{}, texts: map[any]string{}, parents: [2]int{-1, -1}}
	k.store.Trust, k.store.Environment = tenant.NewTrust(time.Now), "0"
	issuer := tenanttest.NewIssuer(t, nil)
	for i := range 8 {
		who, plan, region := i/4, i/2%2, i%2
		k.contexts[who][plan][region] = issuer.In(t.Context(), t, "tenant-5-"+strconv.Itoa(who), func(c *tenant.Claims) { //nolint:fatcontext // beside each other
			c.Plan, c.Region = "p"+strconv.Itoa(plan), "r"+strconv.Itoa(region)
		})
	}
	w.change(0)
	k.follow(t, w)
	return k
}

// want are the entries of a scene.
func (k *kept) want(t *testing.T, w *scene) map[string]string {
	t.Helper()
	out := map[string]string{}
	put := func(key string, e *configv1.SettingsEntry) { out[key] = string(encode(t, e)) }
	if w.schema != k.schema {
		k.schema = w.schema
		clear(k.texts)
	}
	once := func(key string, of any, e func() *configv1.SettingsEntry) {
		if k.texts[of] == "" {
			k.texts[of] = string(encode(t, e()))
		}
		out[key] = k.texts[of]
	}
	once(settings.NamespaceKey(scenes), w.schema, func() *configv1.SettingsEntry {
		return &configv1.SettingsEntry{Schema: string(settings.Canonical(w.raw))}
	})
	put(settings.NamespaceKey(settings.KillsNamespace), &configv1.SettingsEntry{Schema: settings.KillSchema()})
	for level, owners := range w.documents {
		for owner, l := range owners {
			for _, key := range keysOf(level, owner) {
				if l != nil {
					once(key, l, func() *configv1.SettingsEntry {
						return &configv1.SettingsEntry{Content: string(settings.Canonical(l.Object)), Revision: l.Revision}
					})
				}
			}
		}
	}
	for i, kills := range w.killed {
		key := []string{settings.PlatformKey(settings.KillsNamespace), settings.PlanKey(settings.KillsNamespace, "p0"), settings.PlanKey(settings.KillsNamespace, "p1")}[i]
		entries, revision := settings.Object{}, int64(0)
		for pointer, kill := range kills {
			entries[pointer], revision = settings.KillEntry(kill.Reason, kill.Author, kill.Time), kill.Revision
		}
		if len(entries) > 0 {
			content := settings.Object{scenes: entries}
			put(key, &configv1.SettingsEntry{Content: string(settings.Canonical(content)), Revision: revision})
		}
	}
	if r := w.rollout; r != nil {
		entry := &configv1.RolloutEntry{
			Id: r.ID[:], DocumentKey: keysOf(w.level, w.owner)[0], SharePercent: int32(r.Share), Step: int32(r.Step),
		}
		for uid := range r.Canaries {
			entry.Canaries = append(entry.Canaries, uid[:])
		}
		put(settings.RolloutKey(scenes), &configv1.SettingsEntry{
			Content: string(settings.Canonical(r.Object)), Revision: r.Revision, Rollout: entry,
		})
	}
	return out
}

// keysOf are those of a document of a scene. Both tenants have what is written for an environment.
func keysOf(level, owner int) []string {
	name := strconv.Itoa(owner)
	switch level {
	case 1:
		return []string{settings.PlatformKey(scenes)}
	case 2:
		return []string{settings.PlanKey(scenes, "p"+name)}
	case 3:
		return []string{settings.RegionKey(scenes, "r"+name)}
	case 4, 5:
		return []string{settings.TenantKey(scenes, tenantOf(level, owner).String())}
	default:
		return []string{
			settings.EnvironmentKey(scenes, tenantOf(5, 0).String(), name), settings.EnvironmentKey(scenes, tenantOf(5, 1).String(), name),
		}
	}
}

// follow brings what changed, as one revision; now and then everything again, as after a loss of the feed.
func (k *kept) follow(t *testing.T, w *scene) {
	t.Helper()
	want := k.want(t, w)
	change := feed.Change{Reset: w.IntN(50) == 0}
	for key, value := range want {
		if change.Reset || k.state[key] != value {
			change.Entries = append(change.Entries, feed.Entry{Key: key, Value: []byte(value)})
		}
	}
	for key := range k.state {
		if _, still := want[key]; !still && !change.Reset {
			change.Entries = append(change.Entries, feed.Entry{Key: key, Deleted: true})
		}
	}
	apply(t, &k.store, change)
	k.state = want
	for i, parent := range w.parents {
		if k.parents[i] == parent {
			continue
		}
		id, err := tenant.ParseID("tenant-5-" + strconv.Itoa(i))
		if err != nil {
			t.Fatal(err)
		}
		if err := k.store.Trust.SetTenant(tenant.TenantState{
			UID: tenantOf(5, i), ID: id, Generation: 1, PlacementGeneration: 1, State: tenant.StateActive, Parent: tenantOf(4, parent),
		}); err != nil {
			t.Fatal(err)
		}
	}
	k.parents = w.parents
}

// compare asks the store twice, the second time for what it has kept, and by a verified context where that is possible.
func (k *kept) compare(t *testing.T, w *scene, want settings.Effective, what string) {
	t.Helper()
	who := w.reader()
	for range 2 {
		got, ok := k.store.Holds(who, scenes)
		if !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the store says %t %+v\nits layers are %+v", what, ok, got, want)
		}
	}
	if who.Environment != k.store.Environment {
		return
	}
	got, err := settings.For[map[string]any](k.contexts[w.picked[5]][w.picked[2]][w.picked[3]], &k.store, scenes)
	if err != nil || string(settings.Canonical(got)) != string(settings.Canonical(want.Object)) {
		t.Errorf("%s: a typed read gives %v, %v; %v holds", what, got, err, want.Object)
	}
}
