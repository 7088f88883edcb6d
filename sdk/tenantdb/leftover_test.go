package tenantdb_test

import (
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// What somebody left in the carrier of L2a for the whole session enters nothing in the
// transactions that follow, and is not in their way; in each of them one tenant is entered once.
func TestLeftoversInTheCarrierOfL2a(t *testing.T) {
	t.Parallel()
	d := notes(t, dbtest.Rung(cell.L2a))
	acme, globex := sealOf(t, d, "acme"), sealOf(t, d, "globex")
	conn := d.Login(t)
	var before string // when an earlier transaction began
	if err := conn.QueryRow(t.Context(), "SELECT encode(timestamptz_send(now()), 'hex')").Scan(&before); err != nil {
		t.Fatal(err)
	}
	sealed := hex.EncodeToString(acme)
	for _, left := range []string{"", "x", sealed, sealed + before, "0000000000000000"} {
		if _, err := conn.Exec(t.Context(), "SET rowhouse.seal = '"+left+"'"); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), "SELECT * FROM app.note"); err == nil {
			t.Errorf("carrier %q, left for the session, enters", left)
		}
		var in [16]byte
		err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), "SELECT rowhouse.enter($1)", globex); err != nil {
				return err
			}
			if err := tx.QueryRow(t.Context(), "SELECT rowhouse.tenant_id()").Scan(&in); err != nil {
				return err
			}
			_, err := tx.Exec(t.Context(), "SELECT rowhouse.enter($1)", acme)
			return err
		})
		if state(err) != "RH004" || in != [16]byte(globex[16:32]) {
			t.Errorf("carrier %q: globex enters %x, and then acme: %v, want SQLSTATE RH004", left, in, err)
		}
	}
}

// Behind PgBouncer in transaction mode backends are shared with whoever has the password: what
// one sets for the session, others find. Their calls go on. All of it is gone where the pooler
// makes backends as new.
func TestLeftoversBehindPgBouncer(t *testing.T) {
	t.Parallel()
	for _, reset := range []bool{false, true} {
		t.Run(fmt.Sprintf("reset=%t", reset), func(t *testing.T) {
			t.Parallel()
			leftoversBehindPgBouncer(t, reset)
		})
	}
}

func leftoversBehindPgBouncer(t *testing.T, reset bool) {
	t.Helper()
	onRungs(t, func(t rung, d *dbtest.Database) {
		direct := d.Config.Cells[tenanttest.Cell].DSN
		bounced := pgtest.BouncerOf(t, pgserver.BouncerOptions{Server: direct, Backends: 1, Reset: reset})
		db := reopen(t, d, func(_ *tenantdb.Config, to *tenantdb.Cell) {
			to.DSN, to.Pooler = bounced, tenantdb.TransactionPooler
		})
		config, err := pgx.ParseConfig(bounced)
		if err != nil {
			t.Fatal(err)
		}
		config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
		thief, err := pgx.ConnectConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = thief.Close(t.Context()) })
		acme := d.In(t, "acme")
		settings := []string{
			"SET rowhouse.seal = 'x'", "SET rowhouse.seal = '" + hex.EncodeToString(sealOf(t, d, "globex")) + "'",
			"SET default_transaction_read_only = on", "SET default_transaction_isolation = serializable",
		}
		if reset {
			settings = append(settings, "SET statement_timeout = 1", "SET row_security = off")
		}
		for _, left := range settings {
			var shared, pid int
			if err := thief.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&shared); err != nil {
				t.Fatal(err)
			}
			if _, err := thief.Exec(t.Context(), left); err != nil {
				t.Fatal(err)
			}
			err := db.Tx(acme, func(tx *tenantdb.Tx) error {
				if err := tx.QueryRow(acme, tenantdb.Stmt(`SELECT pg_backend_pid()`)).Scan(&pid); err != nil {
					return err
				}
				_, err := tx.Exec(acme, tenantdb.Stmt(`UPDATE app.note SET title = title`))
				return err
			})
			// The millisecond is DISCARD ALL's too: where that was not enough, the pooler dropped the backend.
			if err != nil || pid != shared && !reset {
				t.Errorf("after %q on backend %d, a call on backend %d ends with %v", left, shared, pid, err)
			}
		}
	}, dbtest.Configure(oneConnection))
}
