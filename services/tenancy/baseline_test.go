package tenancy_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/services/tenancy"
)

// TestAnOlderBaselineIsRefused starts and migrates on a database that was made with another text of the first migration.
func TestAnOlderBaselineIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.stop()
	_, err := r.super.Exec(t.Context(), `UPDATE public.rowhouse_migration SET sha256 = sha256('another'::bytea) WHERE name = '0101_registry.sql'`)
	r.must(err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // for a service that starts all the same
	defer cancel()
	const want = "migration 0101_registry.sql was changed after it was applied"
	if err := tenancy.Run(ctx, r.config, tenancy.WithLog(r.log)); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the service starts: %v", err)
	}
	conn, err := pgx.Connect(t.Context(), r.db.DSN("postgres"))
	r.must(err)
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if err := tenancy.Migrate(t.Context(), conn, tenancy.DatabaseName); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("it is migrated: %v", err)
	}
}
