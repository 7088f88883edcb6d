package worker_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/change/changetest"
	"github.com/rowhouse-platform/rowhouse/internal/seal"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/worker"
)

var cluster *changetest.Cluster

func TestMain(m *testing.M) { changetest.Main(m, &cluster) }

// fakeCells is a cell in memory. before may fail or stop a write, after is told that it happened.
type fakeCells struct {
	mu            sync.Mutex
	states        map[string]store.Debt
	installed     map[string]tenant.SealKey
	before, after func(store.Debt) error
	broken        bool
	asked         int        // for installations
	away          tenant.UID // of one DATABASE tenant whose database is down
}

func (f *fakeCells) Place(_ context.Context, d store.Debt) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.before != nil {
		if err := f.before(d); err != nil {
			return err
		}
	}
	key := d.App + "/" + d.UID.String()
	if f.states[key].Revision <= d.Revision {
		f.states[key] = d
	}
	if f.after != nil {
		return f.after(d)
	}
	return nil
}

func (f *fakeCells) Install(_ context.Context, i store.Install, key tenant.SealKey) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.broken || !i.Tenant.IsZero() && i.Tenant == f.away {
		return errors.New("away")
	}
	database := ""
	if !i.Tenant.IsZero() {
		database = i.Tenant.String()
	}
	f.installed[fmt.Sprint(i.App, database, i.Key.Cell, i.Key.KID)] = key
	return nil
}

func (f *fakeCells) knows(uid tenant.UID) store.Debt {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.states["notes/"+uid.String()]
}

type bench struct {
	t      *testing.T
	pool   *pgxpool.Pool
	super  *pgxpool.Pool
	cells  *fakeCells
	homes  *fakeHomes
	config worker.Config
	now    time.Time
}

func newBench(t *testing.T) *bench {
	t.Helper()
	db := cluster.Database(t, store.Migrations())
	b := &bench{t: t, pool: db.Pool, super: db.Connect(t, "postgres"), cells: &fakeCells{states: map[string]store.Debt{}, installed: map[string]tenant.SealKey{}}, homes: &fakeHomes{made: map[string]string{}}}
	b.now = time.Now()
	holder, err := identity.Service("rowhouse.localhost", "cell-1", "tenancy")
	b.must(err)
	box, err := seal.New(make([]byte, seal.KeySize))
	b.must(err)
	_, root, err := ed25519.GenerateKey(rand.Reader)
	b.must(err)
	b.config = worker.Config{
		Pool: db.Pool, Kernel: change.New(change.Config{Pool: db.Pool, Service: "tenancy"}), Cells: b.cells, Homes: b.homes, Box: box, Root: root,
		Holder: holder, Clock: func() time.Time { return b.now }, Random: rand.Reader, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError + 1})),
	}
	b.furnish()
	return b
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func uid(t *testing.T) tenant.UID {
	t.Helper()
	id, err := tenant.NewUID(time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (b *bench) furnish() {
	ctx := b.t.Context()
	now := timestamppb.Now()
	five := durationpb.New(5 * time.Second)
	shared := []tenancyv1.IsolationModel{tenancyv1.IsolationModel_ISOLATION_MODEL_SHARED}
	b.must(store.InsertPlan(ctx, b.pool, "free", &tenancyv1.Plan{
		Uid: uid(b.t).String(), AllowedModels: shared, DefaultModel: shared[0], StatementTimeout: five, LockTimeout: five,
		IdleTransactionTimeout: five, Retention: durationpb.New(time.Hour), LossPolicy: 1, Weight: 100, CreateTime: now,
	}))
	b.must(store.InsertCell(ctx, b.pool, "cell-1", &tenancyv1.Cell{
		Uid: uid(b.t).String(), Region: "local", CredentialsRef: "x", Models: shared, Capacity: 1000, State: 1, CreateTime: now,
	}))
	b.must(store.InsertApp(ctx, b.pool, "notes", &tenancyv1.App{
		Uid: uid(b.t).String(), CreateTime: now,
		Upstreams: []*tenancyv1.AppUpstream{{Cell: "cells/cell-1", GrpcAddress: "h:1", SpiffeId: "spiffe://x"}},
	}))
}

// create stores a SHARED tenant that is being made, and its operation.
func (b *bench) create(id string) (tenant.UID, string) {
	b.t.Helper()
	return b.createAs(tenant.ModelShared, id)
}

// createAs is create for any model.
func (b *bench) createAs(model tenant.Model, id string) (tenant.UID, string) {
	b.t.Helper()
	ctx := b.t.Context()
	parsed, err := tenant.ParseID(id)
	b.must(err)
	u, o := uid(b.t), uuid.Must(uuid.NewV7()).String()
	_, err = store.TakeRoom(ctx, b.pool, "cell-1")
	b.must(err)
	b.must(store.InsertTenant(ctx, b.pool, registry.Tenant{
		UID: u, ID: parsed, Plan: "free", State: registry.StateCreating, Generation: 1, CreateTime: b.now,
		Placement: registry.Placement{Model: model, Cell: "cell-1", Generation: 1},
	}))
	b.must(store.InsertOperation(ctx, b.pool, store.Operation{
		ID: o, Target: "tenants/" + id, Verb: worker.VerbCreate, Input: []byte(u.String()),
		Meta: &apiv1.OperationMetadata{Phase: apiv1.OperationPhase_OPERATION_PHASE_RUNNING, Steps: worker.Steps(worker.VerbCreate, model)},
	}, "", 0))
	return u, o
}

func (b *bench) state(u tenant.UID) registry.State {
	b.t.Helper()
	t, err := store.ReadTenant(b.t.Context(), b.pool, store.TenantKey{UID: u})
	b.must(err)
	return t.State
}

// expire ends all leases, as time would.
func (b *bench) expire() {
	b.t.Helper()
	_, err := b.super.Exec(b.t.Context(), `UPDATE kernel.operations SET lease_until = now() - interval '1 s', next_time = now() WHERE end_time IS NULL`)
	b.must(err)
}

// TestCrashAtAnyStepResumes kills the worker at every statement and every call of a cell in a creation in turn, before it
// and behind it, and lets another worker finish it: in each model the tenant has one home and is published once.
func TestCrashAtAnyStepResumes(t *testing.T) {
	t.Parallel()
	for model, least := range map[tenant.Model]int{tenant.ModelShared: 8, tenant.ModelSchema: 18, tenant.ModelDatabase: 20} {
		t.Run(model.String(), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.must(worker.New(b.config).Upkeep(t.Context()))
			b.register("notes", "0001_notes", "0002_more")
			crashes := 0
			for n := 0; b.crash(model, n); n++ {
				crashes++
			}
			if crashes < least {
				t.Errorf("only %d places to crash were found", crashes)
			}
		})
	}
}

// crash makes a tenant, crashes at the n-th place and has another worker go on. It reports whether it came to that.
func (b *bench) crash(model tenant.Model, n int) (crashed bool) {
	b.t.Helper()
	ctx := b.t.Context()
	u, o := b.createAs(model, fmt.Sprintf("tenant-%d", n))
	config, crash := b.config, &crasher{left: n}
	config.Pool = b.crashing(crash)
	config.Cells, config.Homes = crash.cells(b.cells), crashingHomes{crash, b.homes}
	config.Kernel = change.New(change.Config{Pool: config.Pool, Service: "tenancy", Log: config.Log})
	_ = worker.New(config).Inline(ctx, o)
	if crash.dead {
		b.expire()
		b.must(worker.New(b.config).Inline(ctx, o))
		if _, ok, err := store.ClaimOperationByID(ctx, b.pool, o, time.Second); err != nil || ok {
			b.t.Fatalf("after a crash at place %d the operation has not ended: %v", n, err)
		}
	}
	if b.state(u) != registry.StateActive || b.cells.knows(u).State != registry.StateCreating {
		b.t.Fatalf("after a crash at place %d the tenant is %s and the cell knows %+v", n, b.state(u), b.cells.knows(u))
	}
	var published int
	b.must(b.super.QueryRow(ctx, `SELECT count(*) FROM kernel.change_log WHERE key = $1`, "tenant/"+u.String()).Scan(&published))
	if published != 2 {
		b.t.Fatalf("after a crash at place %d the tenant was published %d times to two feeds", n, published)
	}
	want := map[tenant.Model]string{tenant.ModelSchema: "0002_more", tenant.ModelDatabase: "0002_more"}[model]
	if got := b.homes.version(u); got != want {
		b.t.Fatalf("after a crash at place %d the home stands at %q, want %q", n, got, want)
	}
	key, keyed := b.cells.installed["notes"+u.String()+"cell-11"]
	if keyed != (model == tenant.ModelDatabase) || keyed && key != b.cells.installed["notescell-11"] {
		b.t.Fatalf("after a crash at place %d the tenant's own database has a key: %v", n, keyed)
	}
	meta := b.operation(o).Meta
	for _, s := range meta.GetSteps() {
		if s.GetState() != apiv1.OperationPhase_OPERATION_PHASE_SUCCEEDED || s.GetEndTime() == nil {
			b.t.Fatalf("after a crash at place %d a step is %v", n, s)
		}
	}
	return crash.dead
}

func (b *bench) operation(id string) store.Operation {
	b.t.Helper()
	o, err := store.ReadOperation(b.t.Context(), b.pool, id)
	b.must(err)
	return o
}

func TestPausedHolderIsFenced(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx := t.Context()
	u, o := b.create("acme")
	paused, ok, err := store.ClaimOperationByID(ctx, b.pool, o, time.Hour)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if _, ok, err := store.ClaimOperationByID(ctx, b.pool, o, time.Hour); err != nil || ok {
		t.Fatalf("an operation is held twice: %v", err)
	}
	b.expire()
	b.must(worker.New(b.config).Inline(ctx, o))
	if b.state(u) != registry.StateActive {
		t.Fatalf("the tenant is %s", b.state(u))
	}
	paused.Meta.Phase = apiv1.OperationPhase_OPERATION_PHASE_FAILED
	for what, write := range map[string]func() error{
		"release": func() error { return store.ReleaseOperation(ctx, b.pool, paused, 0) },
		"finish":  func() error { return store.FinishOperation(ctx, b.pool, paused) },
	} {
		if err := write(); !errors.Is(err, store.ErrFenced) {
			t.Errorf("%s by a holder that slept: %v", what, err)
		}
	}
}

// TestDebtThatGrowsMeanwhileStaysOwed changes the tenant while the cell is being told.
func TestDebtThatGrowsMeanwhileStaysOwed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx := t.Context()
	u, o := b.create("acme")
	b.cells.after = func(d store.Debt) error {
		if d.Revision == 1 {
			return store.OweTenant(ctx, b.pool, u)
		}
		return nil
	}
	b.must(worker.New(b.config).Inline(ctx, o))
	debts, err := store.Debts(ctx, b.pool, u)
	b.must(err)
	if len(debts) != 1 || debts[0].Revision != 2 {
		t.Errorf("owed: %+v", debts)
	}
}

func TestSealKeysTurnOver(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx, w := t.Context(), worker.New(b.config)
	current := func() uint8 {
		kid, err := store.CurrentSealKID(ctx, b.pool, "cell-1")
		b.must(err)
		return kid
	}
	b.must(w.Upkeep(ctx))
	if current() != 1 || len(b.cells.installed) != 1 {
		t.Fatalf("key %d is in use, %d installed", current(), len(b.cells.installed))
	}
	b.must(w.Upkeep(ctx))
	if current() != 1 || len(b.cells.installed) != 1 {
		t.Errorf("upkeep without need: key %d is in use, %d installed", current(), len(b.cells.installed))
	}
	b.cells.broken = true
	b.now = b.now.Add(25 * time.Hour)
	b.must(w.Upkeep(ctx))
	if current() != 1 {
		t.Error("a key is used that a database lacks")
	}
	b.cells.broken = false
	b.now = b.now.Add(time.Minute)
	b.must(w.Upkeep(ctx))
	if current() != 2 || len(b.cells.installed) != 2 {
		t.Errorf("a day later key %d is in use, %d installed", current(), len(b.cells.installed))
	}
	if b.cells.installed["notescell-11"] == b.cells.installed["notescell-12"] {
		t.Error("two keys are equal")
	}
	b.now = b.now.Add(worker.SealLife + 25*time.Hour)
	b.must(w.Upkeep(ctx))
	keys, err := store.SealKeys(ctx, b.pool, []string{"cell-1"}, b.now)
	b.must(err)
	if len(keys) != 1 || keys[0].KID != 3 || current() != 3 {
		t.Errorf("keys left: %+v", keys)
	}
}

func TestExpiredContextKeysLeaveTheFeeds(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx, w := t.Context(), worker.New(b.config)
	inFeed := func() (n int) {
		b.must(b.super.QueryRow(ctx, `SELECT count(*) FROM kernel.feed_state WHERE feed = 'tenants' AND key LIKE 'key/%'`).Scan(&n))
		return n
	}
	b.must(w.Upkeep(ctx))
	if inFeed() != 1 {
		t.Fatalf("%d keys are in the feed", inFeed())
	}
	b.must(w.Upkeep(ctx))
	if inFeed() != 1 {
		t.Fatalf("upkeep without need: %d keys are in the feed", inFeed())
	}
	b.now = b.now.Add(tenant.MaxKeyLife + time.Hour)
	b.must(w.Upkeep(ctx))
	if inFeed() != 1 {
		t.Errorf("two days later %d keys are in the feed", inFeed())
	}
}

// TestSigningKeyTurnsOver holds that there is one key to sign with, that a new one waits until it is known, and that the
// old one is there until its certificate ends.
func TestSigningKeyTurnsOver(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx, w := t.Context(), worker.New(b.config)
	all := func() []store.SigningKey {
		keys, err := store.SigningKeys(ctx, b.pool, b.now)
		b.must(err)
		return keys
	}
	signs := func(cell string) int64 {
		key, ok := worker.SigningKey(all(), cell, b.now)
		if !ok {
			return 0
		}
		signer, err := worker.OpenSigningKey(b.config, key)
		b.must(err)
		if signer.KeyID() != key.ID {
			t.Errorf("key %d opens to another one", key.Number)
		}
		return key.Number
	}
	b.must(w.Upkeep(ctx))
	if len(all()) != 1 || signs("cell-1") != 1 || signs("cell-2") != 0 {
		t.Fatalf("keys: %+v, cell-1 is signed for with %d, cell-2 with %d", all(), signs("cell-1"), signs("cell-2"))
	}
	b.now = b.now.Add(worker.SigningEvery - time.Second)
	b.must(w.Upkeep(ctx))
	if len(all()) != 1 {
		t.Errorf("before its time there are %d keys", len(all()))
	}
	b.now = b.now.Add(time.Second)
	b.must(errors.Join(w.Upkeep(ctx), w.Upkeep(ctx)))
	if len(all()) != 2 || signs("cell-1") != 1 {
		t.Errorf("a new key signs at once: %d keys, %d signs", len(all()), signs("cell-1"))
	}
	b.now = b.now.Add(worker.SigningSettles)
	if signs("cell-1") != 2 {
		t.Errorf("later key %d signs", signs("cell-1"))
	}
	b.must(store.RevokeContextKey(ctx, b.super, all()[0].ID, b.now))
	if signs("cell-1") != 1 {
		t.Errorf("the key before a revoked one does not sign: %d", signs("cell-1"))
	}
	b.now = b.now.Add(worker.SigningEvery)
	b.must(w.Upkeep(ctx))
	if got := all(); len(got) != 2 || got[0].Number != 3 {
		t.Errorf("after the revocation: %+v", got)
	}
	b.now = b.now.Add(tenant.MaxKeyLife)
	b.must(w.Upkeep(ctx))
	if got := all(); len(got) != 1 || got[0].Number != 4 {
		t.Errorf("after the end of all: %+v", got)
	}
}

// TestSigningKeyOfReplicas lets workers make the first key at the same time.
func TestSigningKeyOfReplicas(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var g errgroup.Group
	for range 4 {
		g.Go(func() error { return worker.New(b.config).Upkeep(t.Context()) })
	}
	b.must(g.Wait())
	keys, err := store.ListContextKeys(t.Context(), b.pool, b.now)
	b.must(err)
	if len(keys) != 1 {
		t.Errorf("there are %d keys", len(keys))
	}
}

// TestNewCellHasASigner holds that a new cell's tenants have their contexts renewed at once.
func TestNewCellHasASigner(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx, w := t.Context(), worker.New(b.config)
	b.must(w.Upkeep(ctx))
	_, err := b.super.Exec(ctx, `INSERT INTO registry.cell SELECT (jsonb_populate_record(c, '{"id": "cell-2", "number": 2, "uid": "01890000-0000-7000-8000-000000000002"}')).*
		FROM registry.cell c WHERE id = 'cell-1'`)
	b.must(err)
	b.must(w.Upkeep(ctx))
	keys, err := store.SigningKeys(ctx, b.pool, b.now)
	b.must(err)
	for cell, want := range map[string]int64{"cell-1": 2, "cell-2": 2} {
		if key, ok := worker.SigningKey(keys, cell, b.now.Add(worker.SigningSettles)); !ok || key.Number != want {
			t.Errorf("key %d signs for %s, want %d", key.Number, cell, want)
		}
	}
	if key, ok := worker.SigningKey(keys, "cell-2", b.now); !ok || key.Number != 2 {
		t.Errorf("at once, key %d signs for cell-2", key.Number)
	}
}

// TestServiceMayNot holds that the service's role cannot do what would break the registry's promises.
func TestServiceMayNot(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.create("acme")
	for _, sql := range []string{
		`UPDATE registry.tenant SET uid = gen_random_uuid()`, `UPDATE registry.tenant SET id = 'other'`,
		`UPDATE registry.tenant SET create_time = now()`, `UPDATE registry.cell SET number = 9`, `UPDATE registry.plan SET uid = gen_random_uuid()`,
		`UPDATE registry.placement SET cell = 'cell-2'`, `UPDATE registry.domain SET host = 'x'`, `UPDATE registry.context_key SET public_key = ''`,
		`UPDATE registry.seal_key SET sealed = ''`, `DELETE FROM registry.cell`, `TRUNCATE registry.tenant CASCADE`, `DROP TABLE registry.domain`,
		`CREATE TABLE registry.x ()`, `DELETE FROM audit.event`, `INSERT INTO registry.counter VALUES ('x', 1)`,
	} {
		if _, err := b.pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("the service may %s", sql)
		}
	}
}

// crasher ends everything at the n-th statement or write to a cell.
type crasher struct {
	mu   sync.Mutex
	left int
	dead bool
}

var errCrash = errors.New("crashed")

func (c *crasher) tick() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return errCrash
	}
	if c.left == 0 {
		c.dead = true
		return errCrash
	}
	c.left--
	return nil
}

// TraceQueryStart has the statement not be sent when the process is dead by then.
func (c *crasher) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if data.SQL == "" || c.tick() == nil {
		return ctx
	}
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}

// TraceQueryEnd does nothing.
func (*crasher) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// crashing returns a pool whose statements die with the crasher.
func (b *bench) crashing(c *crasher) *pgxpool.Pool {
	b.t.Helper()
	config := b.pool.Config()
	config.ConnConfig.Tracer = c
	pool, err := pgxpool.NewWithConfig(b.t.Context(), config)
	b.must(err)
	b.t.Cleanup(pool.Close)
	return pool
}

func (c *crasher) cells(inner *fakeCells) worker.Cells { return crashingCells{c, inner} }

type crashingCells struct {
	crash *crasher
	inner *fakeCells
}

func (c crashingCells) Place(ctx context.Context, d store.Debt) error {
	if err := c.crash.tick(); err != nil {
		return err
	}
	return c.inner.Place(ctx, d)
}

func (c crashingCells) Install(ctx context.Context, i store.Install, key tenant.SealKey) error {
	return c.inner.Install(ctx, i, key)
}

// TestLaggardsAreAwaitedForAWhile has a consumer report for ever that it has applied nothing.
func TestLaggardsAreAwaitedForAWhile(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx, w := t.Context(), worker.New(b.config)
	u, o := b.create("acme")
	b.must(w.Inline(ctx, o))
	b.must(store.StampTenant(ctx, b.pool, u, 7))
	id := uuid.Must(uuid.NewV7()).String()
	b.must(store.InsertOperation(ctx, b.pool, store.Operation{
		ID: id, Target: "tenants/acme", Verb: "suspend", Input: []byte(u.String()),
		Meta: &apiv1.OperationMetadata{Phase: apiv1.OperationPhase_OPERATION_PHASE_RUNNING, Steps: worker.Steps("suspend", tenant.ModelShared)},
	}, "", 0))
	advanced := func() store.Operation {
		_, err := store.PutConsumer(ctx, b.pool, store.Consumer{Feed: "tenants", Identity: "spiffe://x", Replica: "stuck", Revision: 1}, 1, worker.KnownFor)
		b.must(err)
		b.must(w.Inline(ctx, id))
		o, err := store.ReadOperation(ctx, b.pool, id)
		b.must(err)
		if names := o.Meta.GetLaggards(); len(names) != 1 || names[0] != "stuck" {
			t.Errorf("laggards: %v", names)
		}
		return o
	}
	if advanced().Done() {
		t.Fatal("the operation does not wait for a live consumer")
	}
	b.now = b.now.Add(worker.AwaitFor - time.Millisecond)
	if advanced().Done() {
		t.Error("the operation waits too little")
	}
	b.now = b.now.Add(time.Millisecond)
	if o := advanced(); !o.Done() || o.Error != nil {
		t.Errorf("the operation waits for ever: %v", o.Meta)
	}
}
