package crash

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// The environment of an app that is to be killed: its database as itself and as superuser,
// and the number of its first writer.
const envApp, envAdmin, envWriter = "CRASH_TEST_APP", "CRASH_TEST_ADMIN", "CRASH_TEST_WRITER"

// writersOfApp is how many writers one app has.
const writersOfApp = 4

// TestAppIsKilled kills an app in the middle of its writes, again and again. What it said
// that was acknowledged is there; what it left open is gone, and the next one is served.
func TestAppIsKilled(t *testing.T) {
	t.Parallel()
	rounds := 3
	if long() {
		rounds = 30
	}
	const id = "acme"
	h := build(t, tenant.ModelShared)
	said := map[row]bool{}
	for round := range rounds {
		for r := range runApp(t, h, round*writersOfApp) {
			said[r] = true
		}
		h.awaitNoApp(t)
	}
	admin := h.admin(t, app)
	must(t, cell.RetireKey(t.Context(), admin, tenanttest.SealKID)) // each app had its own
	h.installKey(t, admin)
	rows, err := open(t, h.dsn()).Query(h.issuer.In(t.Context(), t, id), readRows)
	must(t, err)
	found := map[row]bool{}
	_, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (one row, err error) {
		one.Tenant = id
		err = r.Scan(&one.Writer, &one.N)
		found[one] = true
		return one, err
	})
	must(t, err)
	t.Logf("%d kills: %d acknowledged, %d found", rounds, len(said), len(found))
	for r := range said {
		if !found[r] {
			t.Errorf("lost: %v was acknowledged", r)
		}
	}
	// Each writer may have committed one entry that it could not tell of.
	if extra := len(found) - len(said); extra > rounds*writersOfApp {
		t.Errorf("%d entries more than were acknowledged", extra)
	}
}

// runApp starts an app, kills it after it has told of some writes, and returns all of which it told.
func runApp(t *testing.T, h *house, writer int) map[row]bool {
	t.Helper()
	const enough = 150
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestApp$")
	cmd.Env = append(os.Environ(), envApp+"="+h.dsn(), envAdmin+"="+h.server.DSN(pgserver.Login{Database: app}),
		fmt.Sprintf("%s=%d", envWriter, writer))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	said := map[row]bool{}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		r := row{Tenant: "acme"}
		if _, err := fmt.Sscanf(lines.Text(), "acknowledged %d %d", &r.Writer, &r.N); err != nil {
			t.Log(lines.Text()) // what package testing says
			continue
		}
		said[r] = true
		if len(said) == enough {
			must(t, cmd.Process.Kill())
		}
	}
	if err := cmd.Wait(); err == nil || len(said) < enough {
		t.Fatalf("the app ended by itself after %d writes: %v", len(said), err)
	}
	return said
}

// awaitNoApp waits until PostgreSQL has noticed that the app is gone. Its locks went with it.
func (h *house) awaitNoApp(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	admin := h.admin(t, "")
	for left := -1; left != 0; {
		const sql = `SELECT (SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'rowhouse_app%')
			+ (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') FROM pg_sleep(0.005)`
		must(t, admin.QueryRow(ctx, sql).Scan(&left))
	}
}

// TestApp is the app that TestAppIsKilled starts and kills.
func TestApp(t *testing.T) {
	t.Parallel()
	if os.Getenv(envApp) == "" {
		return // it is no test of its own
	}
	var first int
	_, err := fmt.Sscan(os.Getenv(envWriter), &first)
	must(t, err)
	issuer := tenanttest.NewIssuer(t, nil)
	admin, err := pgx.Connect(t.Context(), os.Getenv(envAdmin))
	must(t, err)
	must(t, cell.RetireKey(t.Context(), admin, tenanttest.SealKID)) // that of the one before
	must(t, cell.InstallKey(t.Context(), admin, cell.Key{
		ID: tenanttest.SealKID, Cell: tenanttest.CellNumber, Secret: issuer.SealKey(), NotAfter: time.Now().Add(time.Hour),
	}))
	db := open(t, os.Getenv(envApp))
	var say sync.Mutex
	var writers sync.WaitGroup
	for w := range writersOfApp {
		writers.Go(func() {
			for n := 0; ; n++ {
				acme := issuer.In(t.Context(), t, "acme")
				err := db.Tx(acme, func(tx *tenantdb.Tx) error {
					_, err := tx.Exec(acme, enterRow, first+w, n)
					return err
				})
				if err != nil {
					t.Error(err)
					return
				}
				say.Lock()
				fmt.Fprintf(os.Stdout, "acknowledged %d %d\n", first+w, n)
				say.Unlock()
			}
		})
	}
	writers.Wait()
}
