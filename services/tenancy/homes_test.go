package tenancy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/durationpb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

// noteTable is an app's first migration.
const noteTable = `CREATE TABLE app.note (tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(), id uuid NOT NULL, title text, PRIMARY KEY (tenant_id, id))`

// models are the three, and the steps of a creation in each.
func models() map[tenancyv1.IsolationModel]string {
	return map[tenancyv1.IsolationModel]string{
		tenancyv1.IsolationModel_ISOLATION_MODEL_SHARED:   "cells activate",
		tenancyv1.IsolationModel_ISOLATION_MODEL_SCHEMA:   "homes migrations cells activate",
		tenancyv1.IsolationModel_ISOLATION_MODEL_DATABASE: "homes migrations keys cells activate",
	}
}

const (
	inShared   = tenancyv1.IsolationModel_ISOLATION_MODEL_SHARED
	inSchema   = tenancyv1.IsolationModel_ISOLATION_MODEL_SCHEMA
	inDatabase = tenancyv1.IsolationModel_ISOLATION_MODEL_DATABASE
)

// everyModel lets plan and cell take each model, and drops in the end what tenants had for themselves.
func (r *rig) everyModel(a api) {
	r.tb.Helper()
	all := []tenancyv1.IsolationModel{inShared, inSchema, inDatabase}
	_, err := a.UpdatePlan(r.tb.Context(), &tenancyv1.UpdatePlanRequest{Plan: &tenancyv1.Plan{Name: "plans/free", AllowedModels: all}})
	r.must(err)
	_, err = a.UpdateCell(r.tb.Context(), &tenancyv1.UpdateCellRequest{Cell: &tenancyv1.Cell{Name: "cells/cell-1", Models: all}})
	r.must(err)
	r.tb.Cleanup(func() {
		ctx := context.WithoutCancel(r.tb.Context())
		prefix, _, _ := strings.Cut(cell.DatabaseName(r.app, tenant.UID{}), "00000000")
		rows, err := r.super.Query(ctx, `SELECT datname FROM pg_database WHERE starts_with(datname, $1)`, prefix)
		must(r.tb, err)
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		must(r.tb, err)
		for _, name := range names {
			_, err := r.super.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
			must(r.tb, err)
		}
		for _, role := range []string{cell.AppRole(r.app), cell.MigratorRole(r.app), cell.OwnerRole(r.app)} {
			_, err := r.super.Exec(ctx, "DROP ROLE IF EXISTS "+role)
			must(r.tb, err)
		}
	})
}

// register adds a migration to the app's.
func (r *rig) register(a api, id, statements string) {
	r.tb.Helper()
	_, err := a.RegisterMigrations(r.tb.Context(), &tenancyv1.RegisterMigrationsRequest{
		Parent: "apps/" + r.app, Migrations: []*tenancyv1.MigrationSource{{MigrationId: id, Statements: statements}},
	})
	r.must(err)
}

// create begins the creation of a tenant in a model.
func (r *rig) create(a api, id string, model tenancyv1.IsolationModel) *tenancyv1.CreateTenantResponse {
	r.tb.Helper()
	resp, err := a.CreateTenant(r.tb.Context(), &tenancyv1.CreateTenantRequest{
		TenantId: id, RequestId: newID(),
		Tenant: &tenancyv1.Tenant{Placement: &tenancyv1.TenantPlacement{Model: model}},
	})
	r.must(err)
	return resp
}

// placed makes a tenant in a model.
func (r *rig) placed(a api, id string, model tenancyv1.IsolationModel) *tenancyv1.Tenant {
	r.tb.Helper()
	return r.wait(a, r.create(a, id, model).GetOperation())
}

// placement is the tenant's place in the rig's app.
func (r *rig) placement(a api, id string) *tenancyv1.PlacementApp {
	r.tb.Helper()
	resp, err := a.GetPlacement(r.tb.Context(), &tenancyv1.GetPlacementRequest{Name: "tenants/" + id + "/placement"})
	r.must(err)
	if len(resp.GetPlacement().GetApps()) != 1 {
		r.tb.Fatalf("placement of %s: %v", id, resp)
	}
	return resp.GetPlacement().GetApps()[0]
}

// enters is a connection of the app to a tenant's database. It reports what comes of entering with a seal and of
// reading the tenant's notes.
func (r *rig) enters(place *tenancyv1.PlacementApp) func(tenant.Context) error {
	r.tb.Helper()
	dsn := strings.ReplaceAll(r.roleDSN, strings.ReplaceAll(r.app, "-", "_"), place.GetDatabase())
	if place.GetSchema() == "app" && place.GetDatabase() != strings.ReplaceAll(r.app, "-", "_") {
		dsn = strings.ReplaceAll(dsn, cell.AppRole("notes"), cell.AppRole(r.app))
	}
	app, err := pgx.Connect(r.tb.Context(), dsn)
	r.must(err)
	r.tb.Cleanup(func() { _ = app.Close(context.WithoutCancel(r.tb.Context())) })
	return func(c tenant.Context) error {
		seal := c.Seal()
		return pgx.BeginFunc(r.tb.Context(), app, func(tx pgx.Tx) error {
			_, err := tx.Exec(r.tb.Context(), `SELECT rowhouse.enter($1)`, seal[:])
			if err != nil || place.GetMigration() == "" {
				return err
			}
			_, err = tx.Exec(r.tb.Context(), `SELECT count(*) FROM `+place.GetSchema()+`.note`)
			return err
		})
	}
}

// TestEachModelHasItsHome makes tenants in all models and looks at what PostgreSQL, the API and the operation say.
func TestEachModelHasItsHome(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.furnish()
	r.everyModel(a)
	r.register(a, "0001_notes", noteTable)
	names := map[string]bool{}
	for model, steps := range models() {
		id := strings.ToLower(strings.TrimPrefix(model.String(), "ISOLATION_MODEL_"))
		created := r.create(a, id, model)
		m := r.wait(a, created.GetOperation())
		if m.GetState() != tenancyv1.TenantState_TENANT_STATE_ACTIVE || m.GetPlacement().GetModel() != model {
			t.Errorf("%s: %v", model, m)
		}
		o, err := a.GetOperation(t.Context(), &longrunningpb.GetOperationRequest{Name: created.GetOperation().GetName()})
		r.must(err)
		meta := new(apiv1.OperationMetadata)
		r.must(o.GetMetadata().UnmarshalTo(meta))
		var did []string
		for _, s := range meta.GetSteps() {
			did = append(did, s.GetName())
			if s.GetState() != apiv1.OperationPhase_OPERATION_PHASE_SUCCEEDED || s.GetError() != nil {
				t.Errorf("%s: step %v", model, s)
			}
		}
		if strings.Join(did, " ") != steps || meta.GetProgressPercent() != 100 {
			t.Errorf("%s: steps %v, progress %d", model, did, meta.GetProgressPercent())
		}
		place := r.placement(a, id)
		names[place.GetDatabase()+"."+place.GetSchema()] = true
		if place.GetState() != "active" || place.GetReconciling() || place.GetLastError() != nil ||
			(place.GetMigration() == "apps/"+r.app+"/migrations/0001_notes") != (model != inShared) {
			t.Errorf("%s: placement %v", model, place)
		}
	}
	if len(names) != 3 {
		t.Errorf("homes: %v", names)
	}
}

// TestStateReachesEveryHome suspends, resumes and deletes a tenant of each model with contexts and seals as gateways make
// them: what the home's database says follows.
func TestStateReachesEveryHome(t *testing.T) {
	t.Parallel()
	for model := range models() {
		t.Run(model.String(), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			a := r.furnish()
			r.everyModel(a)
			r.register(a, "0001_notes", noteTable)
			acme := r.placed(a, "acme", model)
			known, _ := r.follow(time.Now)
			m := r.minter(time.Now)
			verifier, err := tenant.NewVerifier(tenant.VerifierConfig{
				Trust: known, Audience: tenant.AudienceApp(16), MayPresent: tenant.Presenters(r.id("service", "gateway")),
			})
			r.must(err)
			var c tenant.Context
			token := m.token(t, acme, tenant.AudienceApp(16))
			eventually(t, "the key is trusted", func() bool {
				c, err = verifier.Verify(token, r.id("service", "gateway"))
				return err == nil
			})
			enter := r.enters(r.placement(a, "acme"))
			r.must(enter(c))
			o, err := a.SuspendTenant(t.Context(), &tenancyv1.SuspendTenantRequest{Name: acme.GetName(), Cause: 1, Reason: why})
			r.must(err)
			r.wait(a, o.GetOperation())
			if enter(c) == nil {
				t.Error("a suspended tenant's seal opens its home")
			}
			resumed, err := a.ResumeTenant(t.Context(), &tenancyv1.ResumeTenantRequest{Name: acme.GetName(), Cause: 1})
			r.must(err)
			r.wait(a, resumed.GetOperation())
			r.must(enter(c))
			deleted, err := a.DeleteTenant(t.Context(), &tenancyv1.DeleteTenantRequest{Name: acme.GetName(), Reason: why})
			r.must(err)
			r.wait(a, deleted.GetOperation())
			if enter(c) == nil {
				t.Error("a deleted tenant's seal opens its home")
			}
		})
	}
}

// TestLaterMigrationsReachHomes registers one that fails where a tenant's rows stand against it: that tenant alone stays
// behind, its placement says why and holds none of its rows, and it follows when the rows are gone.
func TestLaterMigrationsReachHomes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	r.everyModel(a)
	r.register(a, "0001_notes", noteTable)
	uids := map[string]string{}
	for id, model := range map[string]tenancyv1.IsolationModel{"acme": inSchema, "globex": inDatabase, "initech": inSchema} {
		uids[id] = r.placed(a, id, model).GetUid()
	}
	poor := r.placement(a, "acme")
	row := func(sql string) {
		t.Helper()
		_, err := r.inCell().Exec(ctx, "ALTER TABLE "+poor.GetSchema()+".note NO FORCE ROW LEVEL SECURITY; "+sql+
			"; ALTER TABLE "+poor.GetSchema()+".note FORCE ROW LEVEL SECURITY")
		r.must(err)
	}
	row(`INSERT INTO ` + poor.GetSchema() + `.note VALUES ('` + uids["acme"] + `', gen_random_uuid(), 'the secret word')`)
	r.register(a, "0002_number", `ALTER TABLE app.note ALTER COLUMN title TYPE integer USING title::integer`)
	last := "apps/" + r.app + "/migrations/0002_number"
	for _, id := range []string{"globex", "initech"} {
		eventually(t, id+" follows", func() bool { p := r.placement(a, id); return p.GetMigration() == last && !p.GetReconciling() })
	}
	eventually(t, "the failure is shown", func() bool { return r.placement(a, "acme").GetLastError() != nil })
	if p := r.placement(a, "acme"); p.GetMigration() != "apps/"+r.app+"/migrations/0001_notes" || !p.GetReconciling() ||
		!strings.Contains(p.GetLastError().GetMessage(), "0002_number fails: SQLSTATE 22P02") || strings.Contains(fmt.Sprint(p), "secret") {
		t.Errorf("the place of the tenant where it fails: %v", p)
	}
	created := r.placed(a, "hooli", inSchema)
	if created.GetState() != tenancyv1.TenantState_TENANT_STATE_ACTIVE || r.placement(a, "hooli").GetMigration() != last {
		t.Errorf("a new tenant beside it: %v", created)
	}
	row(`DELETE FROM ` + poor.GetSchema() + `.note`)
	eventually(t, "the last one follows", func() bool { p := r.placement(a, "acme"); return p.GetMigration() == last && p.GetLastError() == nil })
}

// TestHomesSurviveRestarts stops the service while homes cannot be made, and lets it go on.
func TestHomesSurviveRestarts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	r.everyModel(a)
	r.register(a, "0001_notes", noteTable)
	_, err := r.inCell().Exec(ctx, `ALTER TABLE rowhouse.installed RENAME COLUMN rung TO elsewhere`)
	r.must(err)
	var open []*longrunningpb.Operation
	for id, model := range map[string]tenancyv1.IsolationModel{"acme": inSchema, "globex": inDatabase} {
		open = append(open, r.create(a, id, model).GetOperation())
	}
	eventually(t, "both have failed once", func() bool {
		return strings.Count(r.log.String(), "an operation will be tried again") >= 2
	})
	r.stop()
	_, err = r.inCell().Exec(ctx, `ALTER TABLE rowhouse.installed RENAME COLUMN elsewhere TO rung`)
	r.must(err)
	r.start()
	a = r.owner()
	for _, o := range open {
		if m := r.wait(a, o); m.GetState() != tenancyv1.TenantState_TENANT_STATE_ACTIVE {
			t.Errorf("after a restart: %v", m)
		}
	}
}

// TestCancelledHomesAreDropped cancels creations that wait for migrations, and removes the tenants.
func TestCancelledHomesAreDropped(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	r.everyModel(a)
	for id, model := range map[string]tenancyv1.IsolationModel{"acme": inSchema, "globex": inDatabase} {
		o := r.create(a, id, model).GetOperation()
		eventually(t, id+" waits", func() bool { return r.placement(a, id).GetLastError() != nil })
		if p := r.placement(a, id); !strings.Contains(p.GetLastError().GetMessage(), "registered no migrations") {
			t.Errorf("%s waits for %v", id, p.GetLastError())
		}
		exists := func() (n int) {
			place := r.placement(a, id)
			r.must(r.inCell().QueryRow(ctx, `SELECT (SELECT count(*) FROM pg_namespace WHERE nspname = $1) + (SELECT count(*) FROM pg_database WHERE datname = $2)`,
				place.GetSchema(), place.GetDatabase()).Scan(&n))
			return n
		}
		if exists() != 2 {
			t.Fatalf("%s has no home", id)
		}
		_, err := a.CancelOperation(ctx, &longrunningpb.CancelOperationRequest{Name: o.GetName()})
		r.must(err)
		done, err := a.WaitOperation(ctx, &longrunningpb.WaitOperationRequest{Name: o.GetName(), Timeout: durationpb.New(20 * time.Second)})
		r.must(err)
		if !done.GetDone() || done.GetError() == nil {
			t.Fatalf("cancelled: %v", done)
		}
		eventually(t, "the home is dropped", func() bool { return exists() == 1 })
		eventually(t, "the tenant is removed", func() bool {
			_, err := a.DeleteTenant(ctx, &tenancyv1.DeleteTenantRequest{Name: "tenants/" + id, Reason: why})
			return err == nil
		})
	}
}
