package tenancy_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
)

// TestBadMigrationsAreRefused registers what cannot run in a new tenant's schema, or may not: it is refused with
// PostgreSQL's words, for real and to validate only, and leaves nothing in the cell.
func TestBadMigrationsAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	r.everyModel(a)
	r.register(a, "0001_notes", noteTable)
	register := func(statements string, only bool) error {
		_, err := a.RegisterMigrations(ctx, &tenancyv1.RegisterMigrationsRequest{
			Parent: "apps/" + r.app, ValidateOnly: only,
			Migrations: []*tenancyv1.MigrationSource{{MigrationId: "0002_bad", Statements: statements}},
		})
		return err
	}
	for statements, said := range map[string]string{
		"CREATE TABEL app.x ()":                                                        "syntax error",
		"ALTER TABLE app.none ADD COLUMN x text":                                       "does not exist",
		"ALTER TABLE app.note ADD COLUMN title text":                                   "already exists", // what is registered ran before it
		"CREATE TABLE app.secret (id int); GRANT SELECT ON app.secret TO rowhouse_app": "tenants' rows are exposed",
		"CREATE TABLE public.x (id int)":                                               "SQLSTATE 42501",
		"COMMIT":                                                                       "EXECUTE of transaction commands",
		"SET ROLE rowhouse_sec":                                                        "SQLSTATE 42501",
		"CREATE ROLE thief":                                                            "permission denied",
		"SELECT pg_read_file('/etc/passwd')":                                           "permission denied",
		"GRANT CREATE ON SCHEMA app TO rowhouse_app":                                   "tenants' rows are exposed",
		"DELETE FROM rowhouse.mac_key":                                                 "permission denied",
		"DO $$BEGIN EXECUTE 'CREATE TABLE ' || 'a' || 'pp.stray (tenant_id uuid)'; END$$": "changed what is not its own",
	} {
		for _, only := range []bool{true, false} {
			err := register(statements, only)
			refused(t, statements, err, codes.FailedPrecondition, "MIGRATION_FAILED")
			if err != nil && (!strings.Contains(err.Error(), "0002_bad") || !strings.Contains(err.Error(), said)) {
				t.Errorf("%s: %v does not say %q", statements, err, said)
			}
		}
	}
	all, err := a.ListMigrations(ctx, &tenancyv1.ListMigrationsRequest{Parent: "apps/" + r.app})
	r.must(err)
	if len(all.GetMigrations()) != 1 {
		t.Errorf("registered: %v", all)
	}
	r.must(register("ALTER TABLE app.note ADD COLUMN body text", true))
	r.must(register("ALTER TABLE app.note ADD COLUMN body text", false))
	var left int
	r.must(r.inCell().QueryRow(ctx, `SELECT (SELECT count(*) FROM pg_namespace WHERE nspname ~ '^t_') + (SELECT count(*) FROM rowhouse.migration)
		+ (SELECT count(*) FROM pg_tables WHERE tablename IN ('x', 'secret', 'stray'))`).Scan(&left))
	if left != 0 {
		t.Errorf("trials left %d things in the cell", left)
	}
	r.must(os.WriteFile(r.path("cells", "away.dsn"), []byte("postgres://u@127.0.0.1:1/x"), 0o600))
	_, err = a.UpdateCell(ctx, &tenancyv1.UpdateCellRequest{Cell: &tenancyv1.Cell{Name: "cells/cell-1", CredentialsRef: "secret://file/away.dsn"}})
	r.must(err)
	r.must(register("ALTER TABLE app.note ADD COLUMN body text", false)) // nothing new
	_, err = a.RegisterMigrations(ctx, &tenancyv1.RegisterMigrationsRequest{
		Parent: "apps/" + r.app, Migrations: []*tenancyv1.MigrationSource{{MigrationId: "0003_more", Statements: "SELECT 1"}},
	})
	refused(t, "a cell that is away", err, codes.Unavailable, "CELL_UNREACHABLE")
}

// TestBadMigrationsAreWithdrawn has new tenants of both models wait for a migration that fails, which nothing tried because
// the cell took none of them, and withdraws it: they go on. What ran, or may have, stays.
func TestBadMigrationsAreWithdrawn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	r.register(a, "0001_notes", noteTable)
	r.register(a, "0002_bad", "CREATE TABEL app.x ()")
	name := func(version string) string { return "apps/" + r.app + "/migrations/" + version }
	withdraw := func(version string) error {
		_, err := a.DeleteMigration(ctx, &tenancyv1.DeleteMigrationRequest{Name: name(version)})
		return err
	}
	r.everyModel(a)
	late, err := a.RegisterMigrations(ctx, &tenancyv1.RegisterMigrationsRequest{
		Parent: "apps/" + r.app, Migrations: []*tenancyv1.MigrationSource{{MigrationId: "0003_late", Statements: "SELECT 1"}},
	})
	r.must(err)
	if late.GetUntried() != "a registered one fails before them: 0002_bad" {
		t.Errorf("behind one that fails: %v", late)
	}
	made := map[string]*tenancyv1.CreateTenantResponse{}
	for id, model := range map[string]tenancyv1.IsolationModel{"acme": inSchema, "globex": inDatabase} {
		made[id] = r.create(a, id, model)
		eventually(t, id+" waits", func() bool { return strings.Contains(r.placement(a, id).GetLastError().GetMessage(), "0002_bad fails") })
		if p := r.placement(a, id); p.GetMigration() != name("0001_notes") {
			t.Errorf("%s is at %v", id, p)
		}
	}
	refused(t, "one that is not the newest", withdraw("0002_bad"), codes.FailedPrecondition, "MIGRATION_OUT_OF_ORDER")
	for _, version := range []string{"0003_late", "0002_bad"} {
		eventually(t, version+" is withdrawn", func() bool { // unless a home is just at it
			err := withdraw(version)
			if err != nil {
				refused(t, version, err, codes.FailedPrecondition, "MIGRATION_IN_USE")
			}
			return err == nil
		})
	}
	for id, o := range made {
		if m := r.wait(a, o.GetOperation()); m.GetState() != tenancyv1.TenantState_TENANT_STATE_ACTIVE {
			t.Errorf("%s: %v", id, m)
		}
		if p := r.placement(a, id); p.GetMigration() != name("0001_notes") || p.GetReconciling() || p.GetLastError() != nil {
			t.Errorf("%s is at %v", id, p)
		}
	}
	refused(t, "one that ran", withdraw("0001_notes"), codes.FailedPrecondition, "MIGRATION_IN_USE")

	r.register(a, "0002_good", "ALTER TABLE app.note ADD COLUMN body text")
	for id := range made {
		eventually(t, id+" has it", func() bool { return r.placement(a, id).GetMigration() == name("0002_good") })
	}
	refused(t, "another that ran", withdraw("0002_good"), codes.FailedPrecondition, "MIGRATION_IN_USE")
}

// TestSlowTrialsRegisterNothing has a registered migration that takes longer than a trial may, which nobody tried: that is no
// reason to take new ones untried.
func TestSlowTrialsRegisterNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.stop()
	r.config.TrialTime = time.Second
	r.start()
	a, ctx := r.furnish(), t.Context()
	register := func(id, statements string) (*tenancyv1.RegisterMigrationsResponse, error) {
		return a.RegisterMigrations(ctx, &tenancyv1.RegisterMigrationsRequest{
			Parent: "apps/" + r.app, Migrations: []*tenancyv1.MigrationSource{{MigrationId: id, Statements: statements}},
		})
	}
	resp, err := register("0001_slow", "SELECT pg_sleep(600)")
	r.must(err)
	if !strings.Contains(resp.GetUntried(), "no cell of the app") {
		t.Errorf("where no cell takes schemas: %v", resp)
	}
	r.everyModel(a)
	_, err = register("0002_notes", noteTable)
	refused(t, "behind a slow one", err, codes.Unavailable, "MIGRATIONS_UNTRIED")
	all, err := a.ListMigrations(ctx, &tenancyv1.ListMigrationsRequest{Parent: "apps/" + r.app})
	r.must(err)
	if len(all.GetMigrations()) != 1 {
		t.Errorf("registered: %v", all)
	}
}

// TestTrialsAreOfWhatIsRegistered replaces a migration while one behind it is tried: that one is not registered on the word of
// a trial behind the old one.
func TestTrialsAreOfWhatIsRegistered(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	r.everyModel(a)
	r.register(a, "0001_notes", noteTable)
	r.register(a, "0002_more", "ALTER TABLE app.note ADD COLUMN body text")
	done := make(chan error, 1)
	go func() {
		_, err := a.RegisterMigrations(ctx, &tenancyv1.RegisterMigrationsRequest{
			Parent: "apps/" + r.app, Migrations: []*tenancyv1.MigrationSource{{
				MigrationId: "0003_gate",
				Statements:  "DO $$BEGIN WHILE obj_description('public'::regnamespace) <> 'open' LOOP PERFORM pg_sleep(0.01); END LOOP; END$$",
			}},
		})
		done <- err
	}()
	eventually(t, "the trial is at its gate", func() bool {
		var there bool
		if len(done) > 0 {
			t.Fatalf("the trial passed its gate: %v", <-done)
		}
		r.must(r.inCell().QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep')`).
			Scan(&there))
		return there
	})
	_, err := a.DeleteMigration(ctx, &tenancyv1.DeleteMigrationRequest{Name: "apps/" + r.app + "/migrations/0002_more"})
	r.must(err)
	r.register(a, "0002_more", "ALTER TABLE app.note ADD COLUMN more text")
	_, err = r.inCell().Exec(ctx, "COMMENT ON SCHEMA public IS 'open'")
	r.must(err)
	refused(t, "what was tried behind another", <-done, codes.Aborted, "CONCURRENT_OPERATION")
}

// TestWhatMayHaveRunStays holds that a migration which a home began is not withdrawn while nobody knows how that ended.
func TestWhatMayHaveRunStays(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	r.everyModel(a)
	r.register(a, "0001_notes", noteTable)
	acme := r.placed(a, "acme", inSchema)
	schema := r.placement(a, "acme").GetSchema()
	blocker, err := r.inCell().Begin(ctx)
	r.must(err)
	defer func() { _ = blocker.Rollback(context.WithoutCancel(ctx)) }()
	_, err = blocker.Exec(ctx, "LOCK TABLE "+schema+".note IN ACCESS SHARE MODE")
	r.must(err)
	r.register(a, "0002_body", "ALTER TABLE app.note ADD COLUMN body text")
	eventually(t, "the home began", func() bool {
		var begun string
		r.must(r.super.QueryRow(ctx, `SELECT begun FROM registry.home WHERE tenant_uid = $1`, acme.GetUid()).Scan(&begun))
		return begun == "0002_body"
	})
	_, err = a.DeleteMigration(ctx, &tenancyv1.DeleteMigrationRequest{Name: "apps/" + r.app + "/migrations/0002_body"})
	refused(t, "one that a home is at", err, codes.FailedPrecondition, "MIGRATION_IN_USE")
	r.must(blocker.Rollback(ctx))
	eventually(t, "it ran", func() bool { return strings.HasSuffix(r.placement(a, "acme").GetMigration(), "0002_body") })
}
