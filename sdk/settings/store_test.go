package settings_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

func encode(tb rapid.TB, e *configv1.SettingsEntry) []byte {
	tb.Helper()
	b, err := proto.Marshal(e)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func schemaEntry(tb rapid.TB, namespace, schema string) feed.Entry {
	tb.Helper()
	return feed.Entry{Key: settings.NamespaceKey(namespace), Value: encode(tb, &configv1.SettingsEntry{Schema: schema})}
}

func docEntry(tb rapid.TB, key, content string, revision int64) feed.Entry {
	tb.Helper()
	return feed.Entry{Key: key, Value: encode(tb, &configv1.SettingsEntry{Content: content, Revision: revision})}
}

func apply(tb rapid.TB, s *settings.Store, change feed.Change) {
	tb.Helper()
	if err := s.Apply(change); err != nil {
		tb.Fatal(err)
	}
}

func uidOf(id string) tenant.UID { return tenanttest.UID(id) }

func TestStoreLayers(t *testing.T) {
	t.Parallel()
	var s settings.Store
	acme, globex := uidOf("acme"), uidOf("globex")
	id, err := tenant.ParseID("acme")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Effective(acme, "free", id, "notes"); ok {
		t.Error("an empty store knows a namespace")
	}
	apply(t, &s, feed.Change{Reset: true, Entries: []feed.Entry{
		schemaEntry(t, "notes", `{"properties":{"size":{"default":1},"colour":{"default":"red"}}}`),
		docEntry(t, settings.PlatformKey("notes"), `{"size":2}`, 4),
		docEntry(t, settings.PlanKey("notes", "free"), `{"size":3}`, 5),
		docEntry(t, settings.TenantKey("notes", acme.String()), `{"size":4}`, 6),
		docEntry(t, settings.PlatformKey("unknown"), `{"a":1}`, 7),
	}})
	for _, c := range []struct {
		uid  tenant.UID
		plan string
		want string
		from string
	}{
		{acme, "free", `{"colour":"red","size":4}`, "tenants/acme"},
		{globex, "free", `{"colour":"red","size":3}`, "plans/free"},
		{globex, "business", `{"colour":"red","size":2}`, "platform"},
	} {
		e, ok := s.Effective(c.uid, c.plan, id, "notes")
		if got := string(settings.Canonical(e.Object)); !ok || got != c.want || e.Origins[1].Layer != c.from {
			t.Errorf("%v on %s: %s from %v, want %s", c.uid, c.plan, got, e.Origins, c.want)
		}
	}
	if _, ok := s.Effective(acme, "free", id, "unknown"); ok {
		t.Error("a namespace without a schema is known")
	}
	unnamed, _ := s.Effective(acme, "free", tenant.ID{}, "notes")
	if unnamed.Origins[1].Layer != "tenants/"+acme.String() {
		t.Errorf("without an id: %v", unnamed.Origins)
	}
	apply(t, &s, feed.Change{Entries: []feed.Entry{{Key: settings.NamespaceKey("notes"), Deleted: true}}})
	if _, ok := s.Effective(acme, "free", id, "notes"); ok {
		t.Error("a deleted namespace is known")
	}
}

// TestStoreReadsSixLayers takes one layer after the other away, the nearest first.
func TestStoreReadsSixLayers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	child := w.tenants[0]
	child.Parent = w.tenants[1].UID
	if err := w.trust.SetTenant(child); err != nil {
		t.Fatal(err)
	}
	s := &settings.Store{Trust: w.trust, Environment: "staging"}
	apply(t, s, feed.Change{Reset: true, Entries: []feed.Entry{schemaEntry(t, "n", `{}`)}})
	keys := []string{
		settings.PlatformKey("n"), settings.PlanKey("n", "p"), settings.RegionKey("n", tenanttest.Region), settings.TenantKey("n", child.Parent.String()),
		settings.TenantKey("n", child.UID.String()), settings.EnvironmentKey("n", child.UID.String(), "staging"),
	}
	for i, key := range keys {
		apply(t, s, feed.Change{Entries: []feed.Entry{docEntry(t, key, `{"a":"`+key+`"}`, int64(i+1))}})
	}
	layers := []string{"platform", "plans/p", "regions/" + tenanttest.Region, "parent", "tenants/acme", "tenants/acme/environments/staging"}
	for i, key := range slices.Backward(keys) {
		e, ok := s.Effective(child.UID, "p", child.ID, "n")
		if !ok || e.Object["a"] != key || len(e.Origins) != 1 || e.Origins[0].Layer != layers[i] || len(e.Origins[0].Shadowed) != i {
			t.Errorf("with %d layers: %t %v %v", i+1, ok, e.Object, e.Origins)
		}
		apply(t, s, feed.Change{Entries: []feed.Entry{{Key: key, Deleted: true}}})
	}
}

func TestStoreRefuses(t *testing.T) {
	t.Parallel()
	good := encode(t, &configv1.SettingsEntry{Content: `{"a":1}`, Schema: `{}`})
	for name, e := range map[string]feed.Entry{
		"key of nothing":      {Key: "x/y", Value: good},
		"no namespace":        {Key: "namespace/", Value: good},
		"doc without a layer": {Key: "doc/notes", Value: good},
		"unknown layer":       {Key: "doc/notes/moon/eu", Value: good},
		"no plan":             {Key: "doc/notes/plan/", Value: good},
		"no region":           {Key: "doc/notes/region/", Value: good},
		"no environment":      {Key: "doc/notes/environment/" + uidOf("acme").String() + "/", Value: good},
		"nobody's":            {Key: "doc/notes/environment/acme/staging", Value: good},
		"no uid":              {Key: "doc/notes/tenant/acme", Value: good},
		"more":                {Key: "doc/notes/platform/x", Value: good},
		"not a message":       {Key: "doc/notes/platform", Value: []byte{0xff}},
		"broken document":     {Key: "doc/notes/platform", Value: encode(t, &configv1.SettingsEntry{Content: `{"a":1,"a":2}`})},
		"empty document":      {Key: "doc/notes/platform", Value: encode(t, &configv1.SettingsEntry{Schema: `{}`})},
		"broken schema":       {Key: "namespace/notes", Value: encode(t, &configv1.SettingsEntry{Schema: `{`})},
	} {
		var s settings.Store
		apply(t, &s, feed.Change{Entries: []feed.Entry{schemaEntry(t, "notes", `{}`)}})
		err := s.Apply(feed.Change{Entries: []feed.Entry{docEntry(t, "doc/notes/plan/p", `{"b":1}`, 1), e}})
		if err == nil {
			t.Errorf("%s was taken", name)
		}
		if got, _ := s.Effective(uidOf("acme"), "p", tenant.ID{}, "notes"); len(got.Object) > 0 {
			t.Errorf("%s: half of a revision was applied", name)
		}
	}
}

// world draws changes of everything that decides what holds for whom.
type world struct {
	trust    *tenant.Trust
	tenants  []tenant.TenantState
	keys     []string
	state    map[string]feed.Entry
	revision int64
}

func newWorld(tb rapid.TB) *world {
	tb.Helper()
	w := &world{trust: tenant.NewTrust(time.Now), state: make(map[string]feed.Entry)}
	for _, name := range []string{"acme", "globex", "initech"} {
		id, err := tenant.ParseID(name)
		if err != nil {
			tb.Fatal(err)
		}
		w.tenants = append(w.tenants, tenant.TenantState{
			UID: uidOf(name), ID: id, Generation: 1, PlacementGeneration: 1, State: tenant.StateActive, Region: tenanttest.Region,
		})
		if err := w.trust.SetTenant(w.tenants[len(w.tenants)-1]); err != nil {
			tb.Fatal(err)
		}
	}
	for _, n := range []string{"n", "m"} {
		w.keys = append(w.keys, settings.NamespaceKey(n), settings.PlatformKey(n), settings.PlanKey(n, "p"), settings.PlanKey(n, "q"),
			settings.RegionKey(n, tenanttest.Region), settings.RegionKey(n, "elsewhere"))
		for _, t := range w.tenants[:2] {
			uid := t.UID.String()
			w.keys = append(w.keys, settings.TenantKey(n, uid), settings.EnvironmentKey(n, uid, "staging"), settings.EnvironmentKey(n, uid, "dev"))
		}
		w.keys = append(w.keys, settings.RolloutKey(n))
	}
	w.keys = append(w.keys, settings.NamespaceKey(settings.KillsNamespace), settings.PlatformKey(settings.KillsNamespace),
		settings.PlanKey(settings.KillsNamespace, "p"), settings.TenantKey(settings.KillsNamespace, w.tenants[0].UID.String()))
	return w
}

// entry draws what a key may have.
func (w *world) entry(t *rapid.T, key string) *configv1.SettingsEntry {
	e := &configv1.SettingsEntry{Revision: w.revision}
	text := rapid.SampledFrom([]string{
		`{}`, `{"a":1}`, `{"a":{"b":2}}`, `{"a":{"c":null}}`, `{"properties":{"a":{"default":3}}}`,
		`{"properties":{"a":{"x-kill":{"value":"safe"},"properties":{"b":{"x-kill":{"value":"safer"}}}}}}`, `{"properties":{"a":{"x-lock":"plan"}}}`,
	}).Draw(t, "value")
	at := strings.Split(key, "/")
	switch {
	case key == settings.NamespaceKey(settings.KillsNamespace):
		text = settings.KillSchema()
	case at[0] == "doc" && at[1] == settings.KillsNamespace:
		text = rapid.SampledFrom([]string{
			`{}`, `{"n":{"/a":{"reason":"r"}}}`, `{"n":{"/a/b":{}},"m":{"/a":{"by":"ann"}}}`, `{"m":{"/a":{},"/a/b":{},"/gone":{}}}`,
		}).Draw(t, "kills")
	case at[0] == "rollout":
		id := uidOf(rapid.SampledFrom([]string{"rollout-1", "rollout-2"}).Draw(t, "rollout"))
		e.Rollout = &configv1.RolloutEntry{
			Id: id[:], SharePercent: rapid.Int32Range(0, 100).Draw(t, "share"), Step: rapid.Int32Range(0, 4).Draw(t, "step"),
			DocumentKey: rapid.SampledFrom([]string{
				settings.PlatformKey(at[1]), settings.PlanKey(at[1], "p"), settings.PlanKey(at[1], "r"), settings.RegionKey(at[1], "elsewhere"),
				settings.TenantKey(at[1], w.tenants[0].UID.String()), settings.TenantKey(at[1], w.tenants[1].UID.String()),
			}).Draw(t, "rolling"),
		}
		if rapid.Bool().Draw(t, "canary") {
			e.Rollout.Canaries = [][]byte{w.tenants[2].UID[:]}
		}
	}
	e.Schema, e.Content = text, text
	return e
}

func (w *world) change(t *rapid.T) feed.Change {
	c := feed.Change{Reset: rapid.IntRange(0, 19).Draw(t, "reset") == 19}
	if c.Reset {
		clear(w.state)
	}
	for range rapid.IntRange(1, 3).Draw(t, "entries") {
		w.revision++
		e := feed.Entry{Key: rapid.SampledFrom(w.keys).Draw(t, "key"), Deleted: !c.Reset && rapid.IntRange(0, 3).Draw(t, "deleted") == 0}
		e.Value = encode(t, w.entry(t, e.Key))
		if c.Entries = append(c.Entries, e); e.Deleted {
			delete(w.state, e.Key)
		} else {
			w.state[e.Key] = e
		}
	}
	return c
}

// move gives a tenant another parent, or none.
func (w *world) move(t *rapid.T) {
	child := rapid.SampledFrom(w.tenants).Draw(t, "child")
	if parent := rapid.IntRange(-1, len(w.tenants)-1).Draw(t, "parent"); parent >= 0 && w.tenants[parent].UID != child.UID {
		child.Parent = w.tenants[parent].UID
	}
	if err := w.trust.SetTenant(child); err != nil {
		t.Fatal(err)
	}
}

// fresh is a store that just got the state.
func (w *world) fresh(t *rapid.T, environment string) *settings.Store {
	s := &settings.Store{Trust: w.trust, Environment: environment}
	whole := feed.Change{Reset: true}
	for _, e := range w.state {
		whole.Entries = append(whole.Entries, e)
	}
	apply(t, s, whole)
	return s
}

type who struct{ name, plan, region string }

// contexts has one of each tenant on each plan in each region.
func contexts(t *testing.T) map[who]context.Context {
	t.Helper()
	issuer, all := tenanttest.NewIssuer(t, nil), make(map[who]context.Context)
	for i := range 3 * 3 * 2 {
		at := who{[]string{"acme", "globex", "initech"}[i%3], []string{"p", "q", "r"}[i/3%3], []string{tenanttest.Region, "elsewhere"}[i/9]}
		all[at] = issuer.In(t.Context(), t, at.name, func(c *tenant.Claims) { c.Plan, c.Region = at.plan, at.region }) //nolint:fatcontext // beside each other
	}
	return all
}

// TestCachedEqualsUncached reads in between random changes: what a store remembers must be what one that just got the
// same state merges, whatever is asked for.
func TestCachedEqualsUncached(t *testing.T) {
	t.Parallel()
	in := contexts(t)
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		s := &settings.Store{Trust: w.trust, Environment: "staging"}
		for n, schema := range map[string]string{ // without these nothing can be read
			"n": `{"properties":{"a":{"x-kill":{"value":0}}}}`, "m": `{}`, settings.KillsNamespace: settings.KillSchema(),
		} {
			key := settings.NamespaceKey(n)
			w.state[key] = feed.Entry{Key: key, Value: encode(t, &configv1.SettingsEntry{Schema: schema})}
			apply(t, s, feed.Change{Entries: []feed.Entry{w.state[key]}})
		}
		for range rapid.IntRange(2, 12).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "move") {
				w.move(t)
			} else {
				apply(t, s, w.change(t))
			}
			fresh := w.fresh(t, "staging")
			for at, ctx := range in {
				namespace := rapid.SampledFrom([]string{"n", "m"}).Draw(t, "namespace")
				got, gotErr := settings.For[map[string]any](ctx, s, namespace)
				want, wantErr := settings.For[map[string]any](ctx, fresh, namespace)
				if (gotErr == nil) != (wantErr == nil) || !cmp.Equal(got, want) {
					t.Fatalf("%v in %s: %v %v, uncached %v %v", at, namespace, got, gotErr, want, wantErr)
				}
				r := settings.Reader{
					UID: uidOf(at.name), Plan: at.plan, Region: at.region, Environment: rapid.SampledFrom([]string{"", "staging", "dev"}).Draw(t, "environment"),
					ID: rapid.SampledFrom([]tenant.ID{{}, w.tenants[0].ID}).Draw(t, "id"),
				}
				e, known := s.Holds(r, namespace)
				uncached, wanted := fresh.Holds(r, namespace)
				if known != wanted || !cmp.Equal(e, uncached) {
					t.Fatalf("%v in %s: %t %v, uncached %t %v", r, namespace, known, e, wanted, uncached)
				}
				if e, _ := s.Effective(r.UID, r.Plan, r.ID, namespace); known && at.region == tenanttest.Region && r.Environment == "staging" && !cmp.Equal(e, uncached) {
					t.Fatalf("%v by its uid: %v, want %v", r, e, uncached)
				}
			}
		}
	})
}

// TestReadersBesideChanges is for the race detector, and holds that no reader sees half of a revision.
func TestReadersBesideChanges(t *testing.T) {
	t.Parallel()
	var s settings.Store
	apply(t, &s, feed.Change{Reset: true, Entries: []feed.Entry{schemaEntry(t, "n", `{}`)}})
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				e, _ := s.Effective(uidOf("acme"), "p", tenant.ID{}, "n")
				if e.Object["a"] != e.Object["b"] {
					t.Error("half of a revision")
					return
				}
			}
		})
	}
	for i := range int64(500) {
		content := string(settings.Canonical(float64(i)))
		apply(t, &s, feed.Change{Entries: []feed.Entry{
			docEntry(t, settings.PlatformKey("n"), `{"a":`+content+`}`, i+1),
			docEntry(t, settings.TenantKey("n", uidOf("acme").String()), `{"b":`+content+`}`, i+1),
		}})
	}
	close(done)
	readers.Wait()
	e, _ := s.Effective(uidOf("acme"), "p", tenant.ID{}, "n")
	if e.Object["a"] != 499.0 || e.Object["b"] != 499.0 {
		t.Errorf("the last change is not seen: %v", e.Object)
	}
}

type look struct {
	Size   int    `json:"size"`
	Colour string `json:"colour"`
}

func TestFor(t *testing.T) {
	t.Parallel()
	var s settings.Store
	issuer := tenanttest.NewIssuer(t, nil)
	acme, globex := issuer.In(t.Context(), t, "acme"), issuer.In(t.Context(), t, "globex")
	if _, err := settings.For[look](t.Context(), &s, "notes"); fault.ReasonOf(err) != fault.ReasonContextMissing {
		t.Errorf("without a tenant: %v", err)
	}
	if _, err := settings.For[look](acme, &s, "notes"); fault.ReasonOf(err) != fault.ReasonStarting {
		t.Errorf("before the first state: %v", err)
	}
	apply(t, &s, feed.Change{Reset: true, Entries: []feed.Entry{
		schemaEntry(t, "notes", `{"properties":{"colour":{"default":"red"}}}`),
		docEntry(t, settings.PlanKey("notes", tenanttest.Plan), `{"size":3}`, 1),
		docEntry(t, settings.TenantKey("notes", uidOf("acme").String()), `{"colour":"blue"}`, 2),
		schemaEntry(t, settings.BrandNamespace, settings.BrandSchema()),
		docEntry(t, settings.TenantKey(settings.BrandNamespace, uidOf("acme").String()), `{"name":"Acme"}`, 3),
	}})
	for ctx, want := range map[context.Context]look{acme: {3, "blue"}, globex: {3, "red"}} {
		if got, err := settings.For[look](ctx, &s, "notes"); err != nil || got != want {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	}
	if _, err := settings.For[look](acme, &s, "other"); fault.ReasonOf(err) != fault.ReasonResourceNotFound {
		t.Errorf("an unknown namespace: %v", err)
	}
	if got, err := settings.For[struct{ Size string }](acme, &s, "notes"); err == nil || got.Size != "" {
		t.Errorf("a number as a string: %v, %v", got, err)
	}
	if b, err := settings.BrandFor(acme, &s); err != nil || b.Name != "Acme" {
		t.Errorf("brand %v, %v", b, err)
	}
	if _, err := settings.BrandFor(t.Context(), &s); fault.ReasonOf(err) != fault.ReasonContextMissing {
		t.Errorf("a brand without a tenant: %v", err)
	}
	if b, ok := s.Brand(uidOf("acme"), ""); !ok || b.Name != "Acme" {
		t.Errorf("brand %v, %t", b, ok)
	}
	if b, ok := s.Brand(uidOf("globex"), ""); ok {
		t.Errorf("a brand out of nothing: %v", b)
	}
}

// service is config, as far as a feed of one snapshot goes.
type service struct {
	configv1.UnimplementedSettingsServiceServer

	private ed25519.PrivateKey
	entries []feed.Entry
	more    chan feed.Entry
}

func (s *service) WatchSettings(
	_ *configv1.WatchSettingsRequest, stream grpc.ServerStreamingServer[configv1.WatchSettingsResponse],
) error {
	digest, revision := feed.NewDigest(), int64(1)
	send := func(f *apiv1.FeedFrame) error { return stream.Send(&configv1.WatchSettingsResponse{Frame: f}) }
	bookmark := func() error {
		root := digest.Root()
		b := &apiv1.FeedBookmark{Revision: revision, Root: root[:], ServerTime: timestamppb.Now(), ResumeToken: "x"}
		feed.Sign(s.private, settings.FeedName, b)
		return send(&apiv1.FeedFrame{Kind: &apiv1.FeedFrame_Bookmark{Bookmark: b}})
	}
	wire := func(e feed.Entry) *apiv1.FeedEntry {
		digest.Set(e.Key, e.Value)
		return &apiv1.FeedEntry{Key: e.Key, Value: e.Value}
	}
	chunk := &apiv1.FeedChunk{Revision: revision, Last: true}
	for _, e := range s.entries {
		chunk.Entries = append(chunk.Entries, wire(e))
	}
	err := errors.Join(send(&apiv1.FeedFrame{Kind: &apiv1.FeedFrame_Chunk{Chunk: chunk}}), bookmark())
	for err == nil {
		select {
		case e := <-s.more:
			d := &apiv1.FeedDelta{Revision: revision + 1, PrevRevision: revision, Changes: []*apiv1.FeedEntry{wire(e)}}
			revision++
			err = errors.Join(send(&apiv1.FeedFrame{Kind: &apiv1.FeedFrame_Delta{Delta: d}}), bookmark())
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
	return err
}

func serveFeed(t *testing.T, s *service) *grpc.ClientConn {
	t.Helper()
	listen, server := bufconn.Listen(1<<20), grpc.NewServer()
	configv1.RegisterSettingsServiceServer(server, s)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listen) }()
	t.Cleanup(func() { server.Stop(); <-served })
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listen.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestPoisonHurtsOneTenant sends a document that no reader can take, first in a snapshot and then in a delta.
func TestPoisonHurtsOneTenant(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := func(id string) string { return settings.TenantKey("n", uidOf(id).String()) }
	s := &service{private: private, more: make(chan feed.Entry), entries: []feed.Entry{
		schemaEntry(t, "n", `{}`),
		docEntry(t, settings.PlatformKey("n"), `{"a":0}`, 1),
		docEntry(t, key("acme"), `{"a":1}`, 2),
		docEntry(t, key("globex"), `{"a":1,"a":2}`, 3),
		docEntry(t, key("initech"), `{"a":3}`, 4),
	}}
	var store settings.Store
	dir := t.TempDir()
	follow := func(conn grpc.ClientConnInterface) *feed.Feed {
		t.Helper()
		f, err := settings.Follow(t.Context(), settings.FollowConfig{
			Config: conn, FeedKeys: []ed25519.PublicKey{public}, Replica: "r", Store: &store, Dir: dir, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(f.Close)
		<-f.Ready()
		return f
	}
	f := follow(serveFeed(t, s))
	holds := func(want map[string]float64) {
		t.Helper()
		for id, a := range want {
			if e, _ := store.Effective(uidOf(id), "", tenant.ID{}, "n"); e.Object["a"] != a {
				t.Errorf("%s has %v, want %v", id, e.Object["a"], a)
			}
		}
	}
	holds(map[string]float64{"acme": 1, "globex": 0, "initech": 3})
	s.more <- docEntry(t, key("acme"), `{"a":"\ud800"}`, 5)
	s.more <- docEntry(t, key("initech"), `{"a":6}`, 6)
	s.more <- docEntry(t, key("umbrella"), `{"a":7}`, 7)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for f.Status().Revision < 4 {
		<-tick.C
	}
	f.Close()
	holds(map[string]float64{"acme": 1, "globex": 0, "initech": 6})
	quarantined := f.Status().Quarantined
	if len(quarantined) != 2 || quarantined[key("acme")] == "" || quarantined[key("globex")] == "" {
		t.Errorf("quarantined %v", slices.Collect(func(yield func(string) bool) {
			for k := range quarantined {
				if !yield(k) {
					return
				}
			}
		}))
	}
	// The next process starts from the disk, with config gone.
	store = settings.Store{}
	nobody := bufconn.Listen(1)
	_ = nobody.Close()
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return nobody.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	follow(conn)
	holds(map[string]float64{"initech": 6, "umbrella": 7, "hooli": 0})
}
