package worker_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/worker"
)

// fakeHomes are homes in memory: "app/uid" and the version at which each stands.
type fakeHomes struct {
	mu     sync.Mutex
	made   map[string]string
	fails  tenant.UID // whose migrations fail
	absent string     // an app that has no database in the cell
	during func()     // run in the middle of Make
	now    int        // how many migrate
	most   int        // how many migrated at a time
}

func homeKey(h store.Home) string { return h.App + "/" + h.UID.String() }

func (f *fakeHomes) version(u tenant.UID) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.made["notes/"+u.String()]
}

func (f *fakeHomes) Make(ctx context.Context, h store.Home, wanted func(context.Context) error) error {
	if f.during != nil {
		f.during()
	}
	if err := wanted(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if h.App == f.absent {
		return worker.ErrNoDatabase
	}
	if _, there := f.made[homeKey(h)]; !there {
		f.made[homeKey(h)] = ""
	}
	return nil
}

func (f *fakeHomes) Migrate(_ context.Context, h store.Home, migrations []registry.Migration) error {
	f.mu.Lock()
	f.now++
	f.most = max(f.most, f.now)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.now--
		f.mu.Unlock()
	}()
	f.mu.Lock()
	defer f.mu.Unlock()
	at, there := f.made[homeKey(h)]
	switch {
	case h.App == f.absent:
		return worker.ErrNoDatabase
	case !there:
		return worker.ErrNoHome
	case h.UID == f.fails:
		return fault.New(fault.FailedPrecondition, registry.ReasonMigrationFailed, "it fails").WithDomain(registry.Domain)
	}
	for _, m := range migrations {
		at = max(at, m.Version)
	}
	f.made[homeKey(h)] = at
	return nil
}

func (f *fakeHomes) Drop(_ context.Context, h store.Home) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.made, homeKey(h))
	return nil
}

// crashingHomes die before a call or behind it.
type crashingHomes struct {
	crash *crasher
	inner worker.Homes
}

func (c crashingHomes) around(fn func() error) error {
	if err := c.crash.tick(); err != nil {
		return err
	}
	return errors.Join(fn(), c.crash.tick())
}

func (c crashingHomes) Make(ctx context.Context, h store.Home, wanted func(context.Context) error) error {
	return c.around(func() error { return c.inner.Make(ctx, h, wanted) })
}

func (c crashingHomes) Migrate(ctx context.Context, h store.Home, m []registry.Migration) error {
	return c.around(func() error { return c.inner.Migrate(ctx, h, m) })
}

func (c crashingHomes) Drop(ctx context.Context, h store.Home) error {
	return c.around(func() error { return c.inner.Drop(ctx, h) })
}

// register adds migrations to an app's, as RegisterMigrations does.
func (b *bench) register(app string, versions ...string) {
	b.t.Helper()
	var all []registry.Migration
	for _, v := range versions {
		all = append(all, registry.NewMigration(v, "SELECT '"+v+"'"))
	}
	b.must(errors.Join(
		store.InsertMigrations(b.t.Context(), b.pool, app, all, b.now), store.OweHomes(b.t.Context(), b.pool, app),
		store.WakeCreations(b.t.Context(), b.pool, app, worker.VerbCreate),
	))
}

// made makes a tenant that is served.
func (b *bench) made(w *worker.Worker, model tenant.Model, id string) tenant.UID {
	b.t.Helper()
	u, o := b.createAs(model, id)
	b.must(w.Inline(b.t.Context(), o))
	if b.state(u) != registry.StateActive {
		b.t.Fatalf("tenant %s is %s: %v", id, b.state(u), b.operation(o).Meta)
	}
	return u
}

// home returns what the registry knows of a tenant's home in notes.
func (b *bench) home(u tenant.UID) (h store.Home, owed bool, reason string) {
	b.t.Helper()
	var failure []byte
	err := b.super.QueryRow(b.t.Context(), `SELECT tenant_uid, version, ready, owed, error FROM registry.home WHERE tenant_uid = $1 AND app = 'notes'`,
		[16]byte(u)).Scan((*[16]byte)(&h.UID), &h.Version, &h.Ready, &owed, &failure)
	if errors.Is(err, pgx.ErrNoRows) {
		return store.Home{}, false, ""
	}
	b.must(err)
	return h, owed, reasonOf(b.t, failure)
}

func reasonOf(t *testing.T, status []byte) string {
	t.Helper()
	s := new(spb.Status)
	if err := proto.Unmarshal(status, s); err != nil {
		t.Fatal(err)
	}
	if s.GetCode() == int32(codes.OK) {
		return ""
	}
	return s.GetMessage()
}

func TestCreationWaitsForMigrations(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx, w := t.Context(), worker.New(b.config)
	u, o := b.createAs(tenant.ModelSchema, "acme")
	b.must(w.Inline(ctx, o))
	meta := b.operation(o).Meta
	if b.state(u) != registry.StateCreating || meta.GetPhase() != apiv1.OperationPhase_OPERATION_PHASE_BACKING_OFF ||
		!strings.Contains(meta.GetLastError().GetMessage(), "apps/notes has registered no migrations") {
		t.Fatalf("without migrations the tenant is %s: %v", b.state(u), meta)
	}
	if got := meta.GetSteps()[0]; got.GetState() != apiv1.OperationPhase_OPERATION_PHASE_SUCCEEDED || meta.GetProgressPercent() != 25 {
		t.Errorf("the step before is %v, progress %d", got, meta.GetProgressPercent())
	}
	b.register("notes", "0001_notes")
	b.run()
	b.eventually("the tenant is served", func() bool { return b.state(u) == registry.StateActive })
	if h, owed, _ := b.home(u); !h.Ready || owed || h.Version != "0001_notes" || b.homes.version(u) != "0001_notes" {
		t.Errorf("home %+v, owed %v", h, owed)
	}
}

// TestMigrationsReachEveryHome registers a migration that fails in one home: the others have it, the tenants of all are
// told what they are owed, and the one has it when it fails no more.
func TestMigrationsReachEveryHome(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx, w := t.Context(), worker.New(b.config)
	b.register("notes", "0001_notes")
	var all []tenant.UID
	for i := range 12 {
		all = append(all, b.made(w, []tenant.Model{tenant.ModelSchema, tenant.ModelDatabase}[i%2], "tenant-"+string(rune('a'+i))))
	}
	b.made(w, tenant.ModelShared, "shared")
	poor := all[3]
	b.homes.fails = poor
	b.register("notes", "0002_more")
	w = b.run()
	for _, u := range all {
		if u != poor {
			b.eventually("a home is migrated", func() bool { h, owed, _ := b.home(u); return h.Version == "0002_more" && !owed })
		}
	}
	b.eventually("the failure is told", func() bool { _, _, why := b.home(poor); return why == "it fails" })
	if h, owed, _ := b.home(poor); h.Version != "0001_notes" || !owed || !h.Ready {
		t.Errorf("the home where it fails is %+v, owed %v", h, owed)
	}
	b.must(store.OweTenant(ctx, b.pool, poor))
	w.Kick()
	b.eventually("its tenant's state is told all the same", func() bool { return b.cells.knows(poor).Revision == 2 })
	b.homes.mu.Lock()
	b.homes.fails = tenant.UID{}
	b.homes.mu.Unlock()
	b.must(store.OweHomes(ctx, b.pool, "notes"))
	w.Kick()
	b.eventually("the last home follows", func() bool { h, owed, why := b.home(poor); return h.Version == "0002_more" && !owed && why == "" })
}

// TestAppWithoutADatabaseWaitsAlone holds that such an app keeps no tenant from being served, and gets its home later.
func TestAppWithoutADatabaseWaitsAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.lateApp()
	b.homes.absent = "late"
	b.register("notes", "0001_notes")
	w := worker.New(b.config)
	u := b.made(w, tenant.ModelDatabase, "acme")
	var owed bool
	b.must(b.super.QueryRow(t.Context(), `SELECT owed FROM registry.home WHERE app = 'late'`).Scan(&owed))
	if !owed {
		t.Error("a home that was never made is owed no more")
	}
	b.register("late", "0001_late")
	b.homes.absent = ""
	b.run()
	b.eventually("the tenant has its place in the late app", func() bool {
		b.cells.mu.Lock()
		defer b.cells.mu.Unlock()
		return b.cells.states["late/"+u.String()].Revision == 1
	})
}

// lateApp makes another app in the cell.
func (b *bench) lateApp() {
	b.t.Helper()
	_, err := b.super.Exec(b.t.Context(), `INSERT INTO registry.app SELECT (jsonb_populate_record(a, '{"id": "late", "uid": "01890000-0000-7000-8000-000000000003"}')).*
		FROM registry.app a; INSERT INTO registry.app_upstream SELECT 'late', cell, position, grpc_address, http_address, spiffe_id FROM registry.app_upstream`)
	b.must(err)
}

// TestAppThatComesInTheMiddleOfACreation adds one when the homes have been made.
func TestAppThatComesInTheMiddleOfACreation(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx, w := t.Context(), worker.New(b.config)
	u, o := b.createAs(tenant.ModelDatabase, "acme")
	b.must(w.Inline(ctx, o)) // waits for migrations
	b.lateApp()
	b.must(store.OweApp(ctx, b.pool, "late"))
	b.register("notes", "0001_notes")
	b.register("late", "0001_late")
	b.must(w.Inline(ctx, o))
	if got := b.homes.made["late/"+u.String()]; b.state(u) != registry.StateActive || got != "0001_late" {
		t.Errorf("the tenant is %s, its late home stands at %q: %v", b.state(u), got, b.operation(o).Meta)
	}
}

// TestVanishedHomesAreSeen loses what was there: both a migration and a change of the tenant say so.
func TestVanishedHomesAreSeen(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx, w := t.Context(), worker.New(b.config)
	b.register("notes", "0001_notes")
	u := b.made(w, tenant.ModelDatabase, "acme")
	b.homes.mu.Lock()
	clear(b.homes.made)
	b.homes.mu.Unlock()
	for _, lost := range []error{worker.ErrNoHome, worker.ErrNoDatabase} {
		b.cells.before = func(store.Debt) error { return lost }
		b.must(store.OweTenant(ctx, b.pool, u))
		id := uuid.Must(uuid.NewV7()).String()
		b.must(store.InsertOperation(ctx, b.pool, store.Operation{
			ID: id, Target: "tenants/" + id, Verb: "suspend", Input: []byte(u.String()),
			Meta: &apiv1.OperationMetadata{Phase: apiv1.OperationPhase_OPERATION_PHASE_RUNNING, Steps: worker.Steps("suspend", tenant.ModelDatabase)},
		}, "", 0))
		b.must(w.Inline(ctx, id))
		if got := b.operation(id); got.Done() || got.Meta.GetLastError().GetMessage() == "" {
			t.Errorf("%v: the operation says %v", lost, got.Meta)
		}
	}
	b.register("notes", "0002_more")
	b.run()
	b.eventually("the home says so", func() bool {
		_, owed, why := b.home(u)
		return owed && strings.Contains(why, "does not exist any more")
	})
}

// TestCancelledHomesAreDropped cancels a creation while its home is being made, which a worker that was frozen then goes
// on with.
func TestCancelledHomesAreDropped(t *testing.T) {
	t.Parallel()
	for _, model := range []tenant.Model{tenant.ModelSchema, tenant.ModelDatabase} {
		t.Run(model.String(), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			ctx, w := t.Context(), worker.New(b.config)
			u, o := b.createAs(model, "acme")
			frozen, thaw := make(chan struct{}), make(chan struct{})
			var once sync.Once
			b.homes.during = func() { once.Do(func() { close(frozen); <-thaw }) }
			ended := make(chan error, 1)
			go func() { ended <- w.Inline(ctx, o) }()
			<-frozen
			_, err := store.CancelOperation(ctx, b.pool, o, worker.VerbCreate)
			b.must(err)
			b.expire()
			b.must(w.Inline(ctx, o)) // another one, which undoes
			if b.state(u) != registry.StateFailed {
				t.Fatalf("the tenant is %s", b.state(u))
			}
			known, err := store.KnownInCell(ctx, b.pool, u)
			b.must(err)
			if !known {
				t.Error("the tenant may be forgotten while it has a home")
			}
			b.run()
			b.eventually("the home is forgotten", func() bool { h, _, _ := b.home(u); return h.UID.IsZero() })
			close(thaw)
			b.must(<-ended)
			b.homes.mu.Lock()
			defer b.homes.mu.Unlock()
			if len(b.homes.made) != 0 {
				t.Errorf("homes are left: %v", b.homes.made)
			}
		})
	}
}

// TestDropWaitsForNoLease wants a home dropped while it is made: whoever makes it lets it go at once.
func TestDropWaitsForNoLease(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.register("notes", "0001_notes")
	u := b.made(worker.New(b.config), tenant.ModelSchema, "acme")
	_, err := b.super.Exec(t.Context(), `UPDATE registry.home SET ready = false, owed = true, next_time = now()`)
	b.must(err)
	b.homes.during = sync.OnceFunc(func() {
		if err := store.DropHomes(t.Context(), b.pool, u); err != nil {
			t.Error(err)
		}
	})
	b.run()
	b.within(worker.Lease-worker.StopIn, "the home is forgotten", func() bool { h, _, _ := b.home(u); return h.UID.IsZero() })
}

// TestKeysReachEveryDatabase holds that no key is used before each DATABASE tenant's database has it, for a while: one that
// is down keeps all others from a new key for twelve hours and no longer.
func TestKeysReachEveryDatabase(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx, w := t.Context(), worker.New(b.config)
	b.register("notes", "0001_notes")
	b.must(w.Upkeep(ctx))
	acme, globex := b.made(w, tenant.ModelDatabase, "acme"), b.made(w, tenant.ModelDatabase, "globex")
	b.made(w, tenant.ModelSchema, "initech")
	current := func() uint8 {
		kid, err := store.CurrentSealKID(ctx, b.pool, "cell-1")
		b.must(err)
		return kid
	}
	if current() != 1 || len(b.cells.installed) != 3 {
		t.Fatalf("key %d is in use, %d installed", current(), len(b.cells.installed))
	}
	b.cells.away = globex
	b.now = b.now.Add(25 * time.Hour)
	b.must(w.Upkeep(ctx))
	if _, ok := b.cells.installed["notes"+acme.String()+"cell-12"]; !ok || current() != 1 {
		t.Errorf("key %d is in use while a database lacks one; acme has it: %v", current(), ok)
	}
	b.now = b.now.Add(12*time.Hour + time.Minute)
	b.must(w.Upkeep(ctx))
	if current() != 2 {
		t.Error("a database that is down blocks keys for ever")
	}
	b.cells.away = tenant.UID{}
	b.now = b.now.Add(time.Minute)
	b.must(w.Upkeep(ctx))
	if _, ok := b.cells.installed["notes"+globex.String()+"cell-12"]; !ok {
		t.Error("a database that came back has not got its key")
	}
}

// TestKeyThatNobodyHasIsNotUsed looks for keys to use before one is installed.
func TestKeyThatNobodyHasIsNotUsed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx, w := t.Context(), worker.New(b.config)
	b.must(w.TurnKeys(ctx))
	b.must(w.TurnKeys(ctx))
	kid, err := store.CurrentSealKID(ctx, b.pool, "cell-1")
	b.must(err)
	if kid != 0 {
		t.Errorf("key %d is used that no database has", kid)
	}
}
