package pgtest_test

import (
	"context"
	"os"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// Each test has a copy of the template to itself, and the template is made once.
func TestDatabasesAreSeparateCopies(t *testing.T) {
	t.Parallel()
	var made atomic.Int32
	tmpl := pgtest.Template{Name: "copies", Hash: t.Name() + t.TempDir(), Setup: func(ctx context.Context, dsn string) error {
		made.Add(1)
		conn, err := pgx.Connect(ctx, dsn)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }()
		_, err = conn.Exec(ctx, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
		return err
	}}
	t.Run("group", func(t *testing.T) {
		for range 8 {
			t.Run("copy", func(t *testing.T) {
				t.Parallel()
				pool := pgtest.New(t, tmpl).Pool(t, pgserver.Superuser)
				var rows int
				err := pool.QueryRow(t.Context(), "WITH i AS (INSERT INTO t VALUES (2)) SELECT count(*) FROM t").Scan(&rows)
				if err != nil || rows != 1 {
					t.Errorf("%d rows, %v; want the template's one", rows, err)
				}
			})
		}
	})
	if n := made.Load(); n != 1 {
		t.Errorf("the template was made %d times", n)
	}
}

// Databases are gone after their test.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	var name string
	t.Run("inner", func(t *testing.T) {
		db := pgtest.New(t, pgtest.Template{})
		name = db.Name()
		if err := db.Conn(t, pgserver.Superuser).Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	conn, err := pgx.Connect(t.Context(), pgtest.Server(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var n int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_database WHERE datname = $1", name).Scan(&n); err != nil || n != 0 {
		t.Errorf("%d databases %s, %v", n, name, err)
	}
}

func BenchmarkNew(b *testing.B) {
	pgtest.Server(b)
	for b.Loop() {
		b.Run("db", func(b *testing.B) { pgtest.New(b, pgtest.Template{}) })
	}
}
