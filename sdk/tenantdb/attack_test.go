package tenantdb_test

import (
	"context"
	"testing"
	"testing/fstest"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
)

// A cursor that outlives its transaction shows the rows it was opened with. The SDK has no
// verb for it, and a connection in that state does not come from the SDK; this keeps the
// reason for the verb list in sight.
func TestHeldCursorNeedsAVerbThatIsRefused(t *testing.T) {
	t.Parallel()
	d := notes(t)
	if _, err := d.DB.Query(d.In(t, "acme"), dbtest.Injected("DECLARE c CURSOR WITH HOLD FOR SELECT title FROM app.note")); err == nil {
		t.Error("DECLARE passed the verb list")
	}
	stacked := dbtest.Injected("SELECT 1; DECLARE c CURSOR WITH HOLD FOR SELECT title FROM app.note")
	if _, err := d.DB.Query(d.In(t, "acme"), stacked); err == nil {
		t.Error("a second statement passed")
	}
}

// What one tenant's transaction leaves on a pooled session must not reach the next one's.
func TestPooledSessionKeepsNothing(t *testing.T) {
	t.Parallel()
	onRungs(t, func(t rung, d *dbtest.Database) {
		acme, globex := d.In(t, "acme"), d.In(t, "globex")
		d.Place(t, "acme", func(p *cell.Placement) { p.StatementMS = 1234 })
		carriers := tenantdb.Stmt(`SELECT pg_backend_pid(), current_setting('backtrace_functions'),
			coalesce(current_setting('rowhouse.seal', true), ''), current_setting('statement_timeout')`)
		sessions := map[int]int{}
		for range 20 {
			for _, ctx := range []context.Context{acme, globex} {
				var pid int
				var l2b, l2a, timeout string
				if err := d.DB.QueryRow(ctx, carriers).Scan(&pid, &l2b, &l2a, &timeout); err != nil {
					t.Fatal(err)
				}
				sessions[pid]++
				if want := map[context.Context]string{acme: "1234ms", globex: "30s"}[ctx]; timeout != want {
					t.Errorf("statement_timeout is %s, want %s", timeout, want)
				}
				_ = d.DB.Tx(ctx, func(tx *tenantdb.Tx) error {
					_, err := tx.Exec(ctx, tenantdb.Stmt(`SELECT 1/0`))
					return err
				})
			}
		}
		if len(sessions) != 1 {
			t.Errorf("%d sessions served one caller; nothing was shown", len(sessions))
		}
	}, dbtest.Configure(oneConnection))
}

// LISTEN cannot be revoked; it needs a verb, and it hears nothing of other tenants' rows.
func TestListenHearsNothing(t *testing.T) {
	t.Parallel()
	d := notes(t)
	conn := d.Login(t)
	if _, err := conn.Exec(t.Context(), "LISTEN c"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "SELECT pg_notify('c', 'x')"); state(err) != "42501" {
		t.Errorf("pg_notify: %v", err)
	}
}

// The rows of a tenant reach nobody by a migration that forgets to protect them.
func TestNewTableIsSecured(t *testing.T) {
	t.Parallel()
	files := fstest.MapFS{
		"0001_notes.sql": migrations["0001_notes.sql"],
		"0002_more.sql":  {Data: []byte(`CREATE TABLE app.forgotten (tenant_id uuid, id int, PRIMARY KEY (tenant_id, id))`)},
	}
	d := dbtest.New(t, dbtest.Migrations(files))
	add := tenantdb.Stmt(`INSERT INTO app.forgotten (id) VALUES (1)`)
	var n int
	for _, id := range []string{"acme", "globex"} {
		if _, err := d.DB.Exec(d.In(t, id), add); err != nil {
			t.Fatal(err)
		}
		if err := d.DB.QueryRow(d.In(t, id), tenantdb.Stmt(`SELECT count(*) FROM app.forgotten`)).Scan(&n); err != nil || n != 1 {
			t.Errorf("%s sees %d rows, %v", id, n, err)
		}
	}
}
