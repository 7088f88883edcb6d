package store_test

import (
	"context"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change/changetest"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
)

var cluster *changetest.Cluster

func TestMain(m *testing.M) { changetest.Main(m, &cluster) }

// bench is a registry with the plan "free", the cell "cell-1" and the app "notes" in it.
type bench struct {
	t           *testing.T
	pool, super *pgxpool.Pool
}

func newBench(t *testing.T) *bench {
	t.Helper()
	db := cluster.Database(t, store.Migrations())
	b := &bench{t: t, pool: db.Pool, super: db.Connect(t, "postgres")}
	shared := []tenancyv1.IsolationModel{tenancyv1.IsolationModel_ISOLATION_MODEL_SHARED}
	five := durationpb.New(5 * time.Second)
	b.must(store.InsertPlan(t.Context(), b.pool, "free", &tenancyv1.Plan{
		Uid: b.uid().String(), AllowedModels: shared, DefaultModel: shared[0], StatementTimeout: five, LockTimeout: five,
		IdleTransactionTimeout: five, Retention: durationpb.New(time.Hour), LossPolicy: 1, Weight: 100, CreateTime: timestamppb.Now(),
	}))
	b.must(store.InsertCell(t.Context(), b.pool, "cell-1", &tenancyv1.Cell{
		Uid: b.uid().String(), Region: "local", CredentialsRef: "x", Models: shared, Capacity: 10, State: 1, CreateTime: timestamppb.Now(),
	}))
	b.must(b.insertApp(t.Context(), b.pool, "notes"))
	return b
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) uid() tenant.UID {
	b.t.Helper()
	uid, err := tenant.NewUID(time.Now(), rand.Reader)
	b.must(err)
	return uid
}

func (b *bench) insertApp(ctx context.Context, q store.Querier, id string) error {
	err := store.InsertApp(ctx, q, id, &tenancyv1.App{
		Uid: b.uid().String(), CreateTime: timestamppb.Now(),
		Upstreams: []*tenancyv1.AppUpstream{{Cell: "cells/cell-1", GrpcAddress: "h:1", SpiffeId: "spiffe://x"}},
	})
	if err != nil {
		return err
	}
	return store.OweApp(ctx, q, id)
}

// withdrawApp takes the app out of all cells.
func (b *bench) withdrawApp(ctx context.Context, q store.Querier) error {
	app, err := store.LockApp(ctx, q, "notes")
	if err != nil {
		return err
	}
	app.Upstreams = nil
	if err := store.UpdateApp(ctx, q, "notes", app); err != nil {
		return err
	}
	return store.OweApp(ctx, q, "notes")
}

func (b *bench) insertTenant(ctx context.Context, q store.Querier) error {
	return b.insertTenantAs(ctx, q, tenant.ModelShared)
}

func (b *bench) insertTenantAs(ctx context.Context, q store.Querier, model tenant.Model) error {
	id, err := tenant.ParseID("acme")
	if err != nil {
		return err
	}
	if _, err := store.TakeRoom(ctx, q, "cell-1"); err != nil {
		return err
	}
	return store.InsertTenant(ctx, q, registry.Tenant{
		UID: b.uid(), ID: id, Plan: "free", State: registry.StateCreating, Generation: 1, CreateTime: time.Now(),
		Placement: registry.Placement{Model: model, Cell: "cell-1", Generation: 1},
	})
}

// step is what one of two transactions does.
type step func(ctx context.Context, q store.Querier) error

// race begins first, begins second before first has committed, and returns when both have.
func (b *bench) race(first, second step) {
	b.t.Helper()
	ctx := b.t.Context()
	one, err := b.pool.Begin(ctx)
	b.must(err)
	b.must(first(ctx, one))
	done := make(chan error, 1)
	go func() { done <- pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error { return second(ctx, tx) }) }()
	ended := b.waits(done)
	b.must(one.Commit(ctx))
	if !ended {
		b.must(<-done)
	}
}

// waits returns when a transaction of the database waits for another, or, with true, when the second one has ended.
func (b *bench) waits(done <-chan error) bool {
	b.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		var waiting bool
		b.must(b.super.QueryRow(b.t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waiting))
		if waiting {
			return false
		}
		select {
		case err := <-done:
			b.must(err)
			return true
		case <-tick.C:
		}
	}
}

// TestTenantsAndAppsMadeAtOnce holds that a tenant has a place in exactly the apps of its cell, whatever came first.
func TestTenantsAndAppsMadeAtOnce(t *testing.T) {
	t.Parallel()
	newApp := func(b *bench) step {
		return func(ctx context.Context, q store.Querier) error { return b.insertApp(ctx, q, "tasks") }
	}
	withdrawn := func(b *bench) step { return b.withdrawApp }
	newTenant := func(b *bench) step { return b.insertTenant }
	for name, test := range map[string]struct {
		first, second func(*bench) step
		want          []string
	}{
		"tenant, new app":       {newTenant, newApp, []string{"notes", "tasks"}},
		"new app, tenant":       {newApp, newTenant, []string{"notes", "tasks"}},
		"tenant, withdrawn app": {newTenant, withdrawn, []string{}},
		"withdrawn app, tenant": {withdrawn, newTenant, []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.race(test.first(b), test.second(b))
			var got []string
			b.must(b.super.QueryRow(t.Context(), `SELECT ARRAY(SELECT app FROM registry.placement_app ORDER BY app)`).Scan(&got))
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("places (-want +got):\n%s", diff)
			}
		})
	}
}

// TestAppsWithHomesStay takes an app out of a cell, and deletes it, while a tenant has a place or a home in it.
func TestAppsWithHomesStay(t *testing.T) {
	t.Parallel()
	for model, stays := range map[tenant.Model]bool{tenant.ModelShared: false, tenant.ModelSchema: true, tenant.ModelDatabase: true} {
		for what, leave := range map[string]func(*bench) step{
			"withdraw": func(b *bench) step { return b.withdrawApp },
			"delete": func(*bench) step {
				return func(ctx context.Context, q store.Querier) error { return store.DeleteApp(ctx, q, "notes") }
			},
		} {
			t.Run(what+" "+model.String(), func(t *testing.T) {
				t.Parallel()
				b := newBench(t)
				b.must(b.insertTenantAs(t.Context(), b.pool, model))
				err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error { return leave(b)(t.Context(), tx) })
				if got := fault.ReasonOf(err) == registry.ReasonAppInUse; got != stays || err != nil && !stays {
					t.Errorf("refused %v, want %v: %v", got, stays, err)
				}
			})
		}
	}
}

// TestDebtsThatGrowMeanwhileStay pays debts while more is owed: what waited for the other's lock must not take it away.
func TestDebtsThatGrowMeanwhileStay(t *testing.T) {
	t.Parallel()
	t.Run("placement", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		b.must(b.insertTenant(t.Context(), b.pool))
		var debt store.Debt
		b.must(b.super.QueryRow(t.Context(), `SELECT tenant_uid FROM registry.placement`).Scan((*[16]byte)(&debt.UID)))
		debt.App, debt.Revision = "notes", 1
		b.race(func(ctx context.Context, q store.Querier) error { return store.OweTenant(ctx, q, debt.UID) },
			func(ctx context.Context, _ store.Querier) error { return store.Paid(ctx, b.pool, debt, "active") })
		owed, err := store.Debts(t.Context(), b.pool, debt.UID)
		b.must(err)
		if len(owed) != 1 || owed[0].Revision != 2 {
			t.Errorf("owed: %+v", owed)
		}
	})
	t.Run("claimed placement", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		b.must(b.insertTenant(t.Context(), b.pool))
		claim := func(ctx context.Context, q store.Querier) (store.Debt, bool) {
			t.Helper()
			d, ok, err := store.ClaimDebt(ctx, q, store.Untried, time.Hour, []string{})
			b.must(err)
			return d, ok
		}
		d, _ := claim(t.Context(), b.pool)
		b.must(store.OweTenant(t.Context(), b.pool, d.UID))
		// A claim that reads what was, and locks what is, as one that begins before that commits and reaches the row behind it.
		_, err := b.super.Exec(t.Context(), `UPDATE registry.placement_app SET next_time = now() + interval '1 hour'`)
		b.must(errors.Join(err, store.Paid(t.Context(), b.pool, d, "active")))
		if d, ok := claim(t.Context(), b.pool); !ok || d.Revision != 2 {
			t.Errorf("what is left is put off: %v, %+v", ok, d)
		}
	})
	t.Run("home", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		b.must(b.insertTenantAs(t.Context(), b.pool, tenant.ModelSchema))
		h := store.Home{App: "notes", Version: "0001_one"}
		b.must(b.super.QueryRow(t.Context(), `SELECT tenant_uid FROM registry.home`).Scan((*[16]byte)(&h.UID)))
		b.race(func(ctx context.Context, q store.Querier) error {
			if _, err := store.LockApp(ctx, q, "notes"); err != nil {
				return err
			}
			return errors.Join(store.InsertMigrations(ctx, q, "notes", []registry.Migration{registry.NewMigration("0002_two", "")}, time.Now()),
				store.OweHomes(ctx, q, "notes"))
		}, func(ctx context.Context, _ store.Querier) error { return store.HomeDone(ctx, b.pool, h) })
		var owed bool
		b.must(b.super.QueryRow(t.Context(), `SELECT owed FROM registry.home`).Scan(&owed))
		if !owed {
			t.Error("a migration that was registered meanwhile is owed no more")
		}
	})
}

// TestRenewalRevivesNoHold renews the hold of a home that was put down meanwhile and is owed more: others take it at once.
func TestRenewalRevivesNoHold(t *testing.T) {
	t.Parallel()
	for name, put := range map[string]func(*bench, store.Home) error{
		"done":   func(b *bench, h store.Home) error { return store.HomeDone(b.t.Context(), b.pool, h) },
		"failed": func(b *bench, h store.Home) error { return store.HomeFailed(b.t.Context(), b.pool, h, nil, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			ctx := t.Context()
			b.must(b.insertTenantAs(ctx, b.pool, tenant.ModelSchema))
			_, err := b.super.Exec(ctx, `UPDATE registry.tenant SET state = 2`)
			b.must(err)
			h, ok, err := store.ClaimHome(ctx, b.pool, time.Hour, []string{})
			if b.must(err); !ok {
				t.Fatal("no home is due")
			}
			b.must(errors.Join(store.KeepHome(ctx, b.pool, h, time.Hour), put(b, h)))
			if err := store.KeepHome(ctx, b.pool, h, time.Hour); !errors.Is(err, store.ErrFenced) {
				t.Errorf("the hold is renewed: %v", err)
			}
			_, ok, err = store.ClaimHome(ctx, b.pool, time.Hour, []string{})
			if b.must(err); !ok {
				t.Error("nobody can take it")
			}
		})
	}
}

// TestDebtIsPaidOnce has one debt delivered twice: the later delivery, be it a success or a failure, changes nothing.
func TestDebtIsPaidOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx := t.Context()
	b.must(b.insertTenant(ctx, b.pool))
	var debt store.Debt
	b.must(b.super.QueryRow(ctx, `SELECT tenant_uid FROM registry.placement`).Scan((*[16]byte)(&debt.UID)))
	debt.App, debt.Revision = "notes", 1
	row := func() (all string) {
		b.must(b.super.QueryRow(ctx, `SELECT a::text FROM registry.placement_app a`).Scan(&all))
		return all
	}
	b.must(store.Paid(ctx, b.pool, debt, "active"))
	paid := row()
	b.must(errors.Join(store.Paid(ctx, b.pool, debt, "active"), store.Unpaid(ctx, b.pool, debt, time.Hour)))
	if got := row(); got != paid {
		t.Errorf("paid twice: %s, want %s", got, paid)
	}
	b.must(store.OweTenant(ctx, b.pool, debt.UID))
	owed := row()
	b.must(errors.Join(store.Paid(ctx, b.pool, debt, "active"), store.Unpaid(ctx, b.pool, debt, time.Hour)))
	if got := row(); got != owed {
		t.Errorf("an old delivery after a new debt: %s, want %s", got, owed)
	}
}

// TestHostIsOfOneKind lets a host become a tenant's domain and an app's shared host at once.
func TestHostIsOfOneKind(t *testing.T) {
	t.Parallel()
	const host = "app.localhost"
	share := func(ctx context.Context, q store.Querier) error {
		if served, err := store.IsServed(ctx, q, host); err != nil || served {
			return err
		}
		app, err := store.LockApp(ctx, q, "notes")
		if err != nil {
			return err
		}
		app.SharedHosts = []string{host}
		return store.UpdateApp(ctx, q, "notes", app)
	}
	serve := func(b *bench) step {
		return func(ctx context.Context, q store.Querier) error {
			if shared, err := store.IsSharedHost(ctx, q, host); err != nil || shared {
				return err
			}
			owner, err := store.ReadTenant(ctx, q, store.TenantKey{ID: "acme"})
			if err != nil {
				return err
			}
			now := timestamppb.Now()
			return store.InsertDomain(ctx, q, owner.UID, &tenancyv1.Domain{
				Uid: b.uid().String(), Host: host, State: tenancyv1.DomainState_DOMAIN_STATE_ACTIVE, CreateTime: now, VerifyTime: now,
			}, "tasks")
		}
	}
	for name, turn := range map[string]bool{"domain, shared host": false, "shared host, domain": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.must(errors.Join(b.insertApp(t.Context(), b.pool, "tasks"), b.insertTenant(t.Context(), b.pool)))
			first, second := serve(b), step(share)
			if turn {
				first, second = second, first
			}
			b.race(first, second)
			var domains, shared int
			b.must(b.super.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM registry.domain), (SELECT count(*) FROM registry.app_shared_host)`).
				Scan(&domains, &shared))
			if domains+shared != 1 {
				t.Errorf("the host is %d tenants' domain and %d apps' shared host", domains, shared)
			}
		})
	}
}

// TestPlanReachesTenantsThatComeToIt changes a plan while a tenant moves to it: either the tenant reads the plan as it is
// now, or it is owed to the feeds.
func TestPlanReachesTenantsThatComeToIt(t *testing.T) {
	t.Parallel()
	const deny = tenancyv1.LossPolicy_LOSS_POLICY_DENY
	for name, planFirst := range map[string]bool{"plan, tenant": true, "tenant, plan": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			_, err := b.super.Exec(t.Context(), `INSERT INTO registry.plan
				SELECT (jsonb_populate_record(p, '{"id": "gold", "uid": "01890000-0000-7000-8000-000000000002"}')).* FROM registry.plan p`)
			b.must(errors.Join(err, b.insertTenant(t.Context(), b.pool)))
			var read tenancyv1.LossPolicy
			move := func(ctx context.Context, q store.Querier) error {
				moving, err := store.LockTenant(ctx, q, store.TenantKey{ID: "acme"})
				if err != nil {
					return err
				}
				plan, err := store.SharePlan(ctx, q, "gold")
				if err != nil {
					return err
				}
				read, moving.Plan, moving.UpdateTime = plan.GetLossPolicy(), "gold", time.Now()
				return store.UpdateTenant(ctx, q, moving)
			}
			change := func(ctx context.Context, q store.Querier) error {
				plan, err := store.LockPlan(ctx, q, "gold")
				if err != nil {
					return err
				}
				plan.LossPolicy = deny
				return errors.Join(store.UpdatePlan(ctx, q, "gold", plan), store.OweFeeds(ctx, q, "gold"))
			}
			first, second := step(move), step(change)
			if planFirst {
				first, second = second, first
			}
			b.race(first, second)
			owed, err := store.FeedsOwed(t.Context(), b.pool)
			b.must(err)
			if !owed && read != deny {
				t.Errorf("the tenant goes on with %v, and is not owed", read)
			}
		})
	}
}
