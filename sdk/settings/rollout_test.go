package settings_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// rolloutEntry is the feed's entry of a rollout of the document with this key in the namespace "n".
func rolloutEntry(tb testing.TB, key, content string, step, share int32, canaries ...string) feed.Entry {
	tb.Helper()
	uid := uidOf("rollout")
	r := &configv1.RolloutEntry{Id: uid[:], DocumentKey: key, SharePercent: share, Step: step}
	for _, c := range canaries {
		canary := uidOf(c)
		r.Canaries = append(r.Canaries, canary[:])
	}
	return feed.Entry{
		Key: settings.RolloutKey("n"), Value: encode(tb, &configv1.SettingsEntry{Content: content, Revision: 1000, Rollout: r}),
	}
}

// TestSidesGrow lets rollouts grow: nobody who has the new content loses it, about as many have it as the share says, and
// each rollout begins with other tenants.
func TestSidesGrow(t *testing.T) {
	t.Parallel()
	const tenants = 20_000
	first := make(map[string]int)
	for n := range 3 {
		r := &settings.Rollout{ID: uidOf(fmt.Sprintf("rollout-%d", n)), Canaries: map[tenant.UID]bool{uidOf("canary"): true}}
		had := make(map[int]bool)
		for share := range 101 {
			r.Share = share
			count := 0
			for i := range tenants {
				uid := uidOf(fmt.Sprintf("tenant-%d", i))
				switch has := r.Has(uid); {
				case has:
					count++
					had[i] = true
				case had[i]:
					t.Fatalf("tenant %d had it and has it no longer at %d %%", i, share)
				}
			}
			if want := tenants * share / 100; count < want-300 || count > want+300 || (share == 0 || share == 100) && count != want {
				t.Errorf("%d of %d tenants at %d %%", count, tenants, share)
			}
			if !r.Has(uidOf("canary")) {
				t.Errorf("the canary lacks it at %d %%", share)
			}
			if share == 1 {
				first[fmt.Sprint(had)]++
			}
		}
	}
	if len(first) != 3 {
		t.Error("two rollouts begin with the same tenants")
	}
}

// TestStoreRolls takes a rollout through its life in a store: who has the new content sees it, explained as such and under
// a version of its own, and everybody has the old one again when it ends.
func TestStoreRolls(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ key, concerned, other string }{
		"platform":   {settings.PlatformKey("n"), "trying", ""},
		"plan":       {settings.PlanKey("n", "free"), "acme", "paying"},
		"new plan":   {settings.PlanKey("n", "trial"), "trying", "acme"},
		"region":     {settings.RegionKey("n", "eu"), "acme", "overseas"},
		"new region": {settings.RegionKey("n", "us"), "overseas", "acme"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			readers := map[string]settings.Reader{
				"acme": {Plan: "free", Region: "eu"}, "paying": {Plan: "business", Region: "eu"}, "trying": {Plan: "trial", Region: "eu"},
				"overseas": {Plan: "free", Region: "us"},
			}
			var s settings.Store
			apply(t, &s, feed.Change{Reset: true, Entries: []feed.Entry{
				schemaEntry(t, "n", `{}`), docEntry(t, settings.PlatformKey("n"), `{"v":"platform","p":1}`, 1),
				docEntry(t, settings.PlanKey("n", "free"), `{"v":"old"}`, 2), docEntry(t, settings.RegionKey("n", "eu"), `{"r":"old"}`, 3),
				docEntry(t, settings.TenantKey("n", uidOf("acme-own").String()), `{"own":true}`, 4),
			}})
			look := func(as, id string) settings.Effective {
				r := readers[as]
				r.UID = uidOf(id)
				e, ok := s.Holds(r, "n")
				if !ok {
					t.Fatal("not known")
				}
				return e
			}
			ids := []string{as(c.concerned, 0), as(c.concerned, 1), as(c.concerned, 2), "acme-own"}
			before := make(map[string]string)
			for _, id := range ids {
				before[id] = look(c.concerned, id).Version
			}
			for step, share := range []int32{0, 50, 100} {
				var canaries []string
				if step > 0 {
					canaries = ids[:1]
				}
				apply(t, &s, feed.Change{Entries: []feed.Entry{rolloutEntry(t, c.key, `{"v":"new"}`, int32(step), share, canaries...)}})
				running := &settings.Rollout{ID: uidOf("rollout"), Share: int(share), Canaries: map[tenant.UID]bool{}}
				for _, canary := range canaries {
					running.Canaries[uidOf(canary)] = true
				}
				for _, id := range ids {
					e, has := look(c.concerned, id), running.Has(uidOf(id))
					if got := e.Object["v"] == "new"; got != has || (e.Version != before[id]) != has {
						t.Errorf("%d %%: %s reads %v, version changed: %t, has it: %t", share, id, e.Object, e.Version != before[id], has)
					}
					for _, o := range e.Origins {
						if o.Pointer == "/v" && (o.Rollout == uidOf("rollout").String()) != has {
							t.Errorf("%d %%: %s: %+v", share, id, o)
						}
					}
				}
				if c.other != "" && look(c.other, "somebody").Object["v"] == "new" {
					t.Errorf("%d %%: whom it does not concern has it", share)
				}
			}
			apply(t, &s, feed.Change{Entries: []feed.Entry{{Key: settings.RolloutKey("n"), Deleted: true}}})
			for _, id := range ids {
				if e := look(c.concerned, id); e.Version != before[id] {
					t.Errorf("after the halt %s reads %v", id, e.Object)
				}
			}
		})
	}
}

func as(id string, n int) string { return fmt.Sprintf("%s-%d", id, n) }

// TestParentsDocumentRolls: children are on sides of their own, and so is the parent.
func TestParentsDocumentRolls(t *testing.T) {
	t.Parallel()
	known := tenant.NewTrust(time.Now)
	parent := uidOf("umbrella")
	for _, name := range []string{"umbrella", "initech", "hooli"} {
		id, err := tenant.ParseID(name)
		if err != nil {
			t.Fatal(err)
		}
		state := tenant.TenantState{
			UID: uidOf(name), ID: id, Generation: 1, PlacementGeneration: 1, State: tenant.StateActive, Plan: "free", Region: tenanttest.Region,
		}
		if name != "umbrella" {
			state.Parent = parent
		}
		if err := known.SetTenant(state); err != nil {
			t.Fatal(err)
		}
	}
	s := settings.Store{Trust: known}
	apply(t, &s, feed.Change{Reset: true, Entries: []feed.Entry{
		schemaEntry(t, "n", `{}`), rolloutEntry(t, settings.TenantKey("n", parent.String()), `{"v":"new"}`, 1, 0, "umbrella", "initech"),
	}})
	for name, want := range map[string]any{"umbrella": "new", "initech": "new", "hooli": nil} {
		e, ok := s.Effective(uidOf(name), "free", tenant.ID{}, "n")
		if !ok || e.Object["v"] != want {
			t.Errorf("%s reads %v, want %v", name, e.Object, want)
		}
	}
	if e, _ := s.Effective(uidOf("initech"), "free", tenant.ID{}, "n"); e.Origins[0].Layer != settings.LayerParent {
		t.Errorf("a child is told %+v", e.Origins)
	}
}

// TestBadRolloutEntries are refused, each by itself.
func TestBadRolloutEntries(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]feed.Entry{
		"content":   rolloutEntry(t, settings.PlatformKey("n"), `{"a":1,"a":2}`, 1, 1),
		"share":     rolloutEntry(t, settings.PlatformKey("n"), `{}`, 1, 101),
		"namespace": rolloutEntry(t, settings.PlatformKey("other"), `{}`, 1, 1),
		"document":  rolloutEntry(t, settings.EnvironmentKey("n", uidOf("acme").String(), "dev"), `{}`, 1, 1),
		"empty":     {Key: settings.RolloutKey("n"), Value: []byte{}},
	} {
		if settings.Check(e.Key, e.Value) == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// Rollouts cost no garbage: neither reads nor observations, while one runs and while none does.
func TestRolloutsCostNoGarbage(t *testing.T) { //nolint:paralleltest // it counts allocations
	issuer := tenanttest.NewIssuer(t, nil)
	s := &settings.Store{Trust: issuer.Trust()}
	ctx := issuer.In(t.Context(), t, "acme")
	apply(t, s, feed.Change{Reset: true, Entries: []feed.Entry{schemaEntry(t, "n", `{}`), docEntry(t, settings.PlatformKey("n"), `{"v":"a"}`, 1)}})
	failure := status.Error(codes.Internal, "x")
	if n := testing.AllocsPerRun(100, func() { s.Observe(ctx, settings.Outcome{Failed: failure != nil}) }); n != 0 {
		t.Errorf("an observation without a rollout allocates %v times", n)
	}
	apply(t, s, feed.Change{Entries: []feed.Entry{rolloutEntry(t, settings.PlatformKey("n"), `{"v":"b"}`, 1, 100)}})
	if n := testing.AllocsPerRun(100, func() { s.Observe(ctx, settings.Outcome{Took: time.Second}) }); n != 0 {
		t.Errorf("an observation allocates %v times", n)
	}
	type read struct{ V string }
	if n := testing.AllocsPerRun(100, func() {
		if v, err := settings.For[read](ctx, s, "n"); err != nil || v.V != "b" {
			t.Fatal(v, err)
		}
	}); n != 0 {
		t.Errorf("a read allocates %v times", n)
	}
}

// Whoever sends as many requests as they like for one tenant neither hides how the others of its side fare nor makes it up;
// and of a tenant that is alone, all is counted.
func TestNoTenantDecidesAlone(t *testing.T) {
	t.Parallel()
	issuer := tenanttest.NewIssuer(t, nil)
	s := &settings.Store{Trust: issuer.Trust()}
	apply(t, s, feed.Change{Reset: true, Entries: []feed.Entry{
		schemaEntry(t, "n", `{}`), docEntry(t, settings.PlatformKey("n"), `{"v":"a"}`, 1),
		rolloutEntry(t, settings.PlatformKey("n"), `{"v":"b"}`, 1, 0, "acme", "hooli"),
	}})
	ask := func(name string, times int, failed bool) {
		ctx := issuer.In(t.Context(), t, name)
		for range times {
			s.Observe(ctx, settings.Outcome{Failed: failed})
		}
	}
	ask("hooli", 1500, true)
	ask("globex", 10, false)
	ask("acme", 100_000, false)
	ask("globex", 5000, true)
	if next, current := s.Tallied(); next != [2]int64{3000, 1500} || current != [2]int64{5010, 5000} {
		t.Errorf("%v and %v", next, current)
	}
	ask("hooli", 500, true)
	if next, _ := s.Tallied(); next != [2]int64{3000, 1500} {
		t.Errorf("%v: more than the others", next)
	}
	ask("umbrella", 2000, false)
	if _, current := s.Tallied(); current != [2]int64{7010, 5000} {
		t.Errorf("%v: another tenant is not counted", current)
	}
}

// TestObservationsBesideChanges is for the race detector: requests are observed, and programs refuse contents, while other
// rollouts come and go.
func TestObservationsBesideChanges(t *testing.T) {
	t.Parallel()
	issuer := tenanttest.NewIssuer(t, nil)
	s := &settings.Store{Trust: issuer.Trust()}
	ctx := issuer.In(t.Context(), t, "acme")
	other := rolloutEntry(t, settings.PlatformKey("m"), `{}`, 1, 50)
	other.Key = settings.RolloutKey("m")
	apply(t, s, feed.Change{Reset: true, Entries: []feed.Entry{
		schemaEntry(t, "n", `{}`), schemaEntry(t, "m", `{}`), docEntry(t, settings.PlatformKey("n"), `{"v":"a"}`, 1),
		rolloutEntry(t, settings.PlatformKey("n"), `{"v":1}`, 1, 100), other,
	}})
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				s.Observe(ctx, settings.Outcome{Took: time.Second})
				_, _ = settings.For[struct{ V string }](ctx, s, "n")
			}
		})
	}
	for step := range int32(200) {
		grown := rolloutEntry(t, settings.PlatformKey("m"), `{}`, step, 50)
		grown.Key = settings.RolloutKey("m")
		apply(t, s, feed.Change{Entries: []feed.Entry{grown}})
		apply(t, s, feed.Change{Entries: []feed.Entry{rolloutEntry(t, settings.PlatformKey("n"), `{"v":1}`, step/10, 100)}})
	}
	close(done)
	readers.Wait()
}

// TestWhatOnlyARolloutBreaksIsReadAsBefore has programs read a content that does not fit what they decode: they get what held
// before, and an error where that does not fit either.
func TestWhatOnlyARolloutBreaksIsReadAsBefore(t *testing.T) {
	t.Parallel()
	issuer := tenanttest.NewIssuer(t, nil)
	s := &settings.Store{Trust: issuer.Trust()}
	ctx := issuer.In(t.Context(), t, "acme")
	apply(t, s, feed.Change{Reset: true, Entries: []feed.Entry{
		schemaEntry(t, "n", `{}`), docEntry(t, settings.PlatformKey("n"), `{"v":"old","w":1}`, 1),
		rolloutEntry(t, settings.PlatformKey("n"), `{"v":1,"w":2}`, 1, 100),
	}})
	if got, err := settings.For[struct{ V string }](ctx, s, "n"); err != nil || got.V != "old" {
		t.Errorf("%v, %v: want what held before", got, err)
	}
	if got, err := settings.For[struct{ W int }](ctx, s, "n"); err != nil || got.W != 2 {
		t.Errorf("%v, %v: want the new content where it fits", got, err)
	}
	if got, err := settings.For[struct{ W string }](ctx, s, "n"); err == nil {
		t.Errorf("%v fits neither", got)
	}
}
