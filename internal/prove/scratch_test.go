package prove_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/internal/prove"
	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

// What is made for an attack works as in production, and nothing is left of it on a server
// that is not prove's own.
func TestScratchLeavesNothing(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, pgtest.Template{})
	server := prove.Server{DSN: db.DSN(pgserver.Superuser), Suffix: "-x0123", Secrets: new(prove.Secrets)}
	for _, rung := range []cell.Rung{cell.L2a, cell.L2b} {
		prefix, err := server.TryScratch(t.Context(), rung)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(prefix, "prove_try_l2") {
			t.Errorf("the names begin with %q", prefix)
		}
		var left int
		err = db.Superuser(t).QueryRow(t.Context(), `SELECT (SELECT count(*) FROM pg_database WHERE datname LIKE '%' || $1 || '%')
	+ (SELECT count(*) FROM pg_roles WHERE rolname LIKE '%' || $1 || '%')`, strings.ReplaceAll(prefix, "_", `\_`)).Scan(&left)
		if err != nil || left > 0 {
			t.Errorf("%d databases and roles are left, %v", left, err)
		}
	}
}

// Whatever the form of a connection string, it leads where it shall, with what else it said.
func TestRedirect(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{
		"postgres://admin:secret1@127.0.0.1:5433/first?sslmode=disable&connect_timeout=3",
		"postgresql://admin:secret1@127.0.0.1:5433/first?sslmode=disable&connect_timeout=3",
		"postgres:///first?host=127.0.0.1&port=5433&user=admin&password=secret1&sslmode=disable&connect_timeout=3",
		"host=127.0.0.1 port=5433 user=admin password=secret1 dbname=first sslmode=disable connect_timeout=3",
		"host='127.0.0.1' port=5433 user='admin' password='secret1' dbname=first sslmode=disable connect_timeout=3",
	} {
		for _, test := range []struct{ user, password, database, wantUser, wantPassword, wantDatabase string }{
			{"", "", "", "admin", "secret1", "first"},
			{"", "", "second", "admin", "secret1", "second"},
			{"app", "secret2", "second", "app", "secret2", "second"},
		} {
			text, err := prove.Redirect(dsn, test.user, test.password, test.database)
			if err != nil {
				t.Fatal(err)
			}
			c, err := pgx.ParseConfig(text)
			if err != nil {
				t.Fatal(err)
			}
			if c.User != test.wantUser || c.Password != test.wantPassword || c.Database != test.wantDatabase ||
				c.Host != "127.0.0.1" || c.Port != 5433 || c.ConnectTimeout.Seconds() != 3 || c.TLSConfig != nil {
				t.Errorf("%s for %+v gives %s", dsn, test, text)
			}
		}
	}
	if _, err := prove.Redirect("postgres://u:hunter2@h:port/", "", "", "x"); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("no URL: %v", err)
	}
}
