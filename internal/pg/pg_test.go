package pg_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/internal/pg/pgdbtest"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const createThing = `
create table thing (id int primary key, n int not null check (n >= 0));
grant select, insert, update (n) on thing to {{service}};
insert into thing values (1, 0), (2, 0);`

func things() pg.Database {
	return pg.Database{Name: "rh_things", Migrations: folders(folder{"0001_thing.sql": {Data: []byte(createThing)}})}
}

func TestTxCommitsAndRollsBack(t *testing.T) {
	t.Parallel()
	pool := pgdbtest.New(t, things()).Service(t)
	stop := errors.New("stop")
	err := pg.Tx(t.Context(), pool, pg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
		return add(ctx, tx, 1, 5)
	})
	if err != nil || value(t, pool, 1) != 5 {
		t.Errorf("after commit: %v, %d", err, value(t, pool, 1))
	}
	err = pg.Tx(t.Context(), pool, pg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
		return errors.Join(add(ctx, tx, 1, 5), stop)
	})
	if !errors.Is(err, stop) || value(t, pool, 1) != 5 {
		t.Errorf("after rollback: %v, %d", err, value(t, pool, 1))
	}
	func() {
		defer func() { _ = recover() }()
		_ = pg.Tx(t.Context(), pool, pg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
			_ = add(ctx, tx, 1, 5)
			panic("planted")
		})
	}()
	if value(t, pool, 1) != 5 || pool.Stat().AcquiredConns() != 0 {
		t.Errorf("after a panic: %d, %d connections out", value(t, pool, 1), pool.Stat().AcquiredConns())
	}
	err = pg.Tx(t.Context(), pool, pg.TxOptions{ReadOnly: true}, func(ctx context.Context, tx pgx.Tx) error {
		return add(ctx, tx, 1, 5)
	})
	if err == nil || pg.Code(err) != "25006" {
		t.Errorf("a write in a read-only transaction: %v", err)
	}
	ignored := pg.Tx(t.Context(), pool, pg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
		_ = add(ctx, tx, 1, -100) // breaks the check; the transaction is lost
		return nil
	})
	if ignored == nil || fault.ReasonOf(ignored) == fault.ReasonOutcomeUnknown {
		t.Errorf("an ignored failure was committed as %v", ignored)
	}
}

// TestTxRetriesLostRaces makes every transaction of the first round read before any of them writes.
func TestTxRetriesLostRaces(t *testing.T) {
	t.Parallel()
	pool := pgdbtest.New(t, things()).Service(t)
	const writers = 3
	var barrier, done sync.WaitGroup
	barrier.Add(writers)
	var mu sync.Mutex
	tries := 0
	errs := make([]error, writers)
	opts := pg.TxOptions{
		Isolation: pgx.Serializable, Tries: 20, Jitter: func(time.Duration) time.Duration { return time.Millisecond },
	}
	for i := range writers {
		done.Go(func() {
			first := true
			errs[i] = pg.Tx(t.Context(), pool, opts, func(ctx context.Context, tx pgx.Tx) error {
				mu.Lock()
				tries++
				mu.Unlock()
				var n int
				if err := tx.QueryRow(ctx, "select n from thing where id = 1").Scan(&n); err != nil {
					return err
				}
				if first {
					first = false
					barrier.Done()
					barrier.Wait()
				}
				_, err := tx.Exec(ctx, "update thing set n = $1 where id = 1", n+1)
				return err
			})
		})
	}
	done.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if got := value(t, pool, 1); got != writers || tries <= writers {
		t.Errorf("n = %d after %d tries, want %d after more than that", got, tries, writers)
	}
}

func TestTxGivesUpAndRetriesNothingElse(t *testing.T) {
	t.Parallel()
	pool := pgdbtest.New(t, things()).Service(t)
	quick := func(time.Duration) time.Duration { return 1 }
	for code, want := range map[string]struct {
		tries int
		kind  fault.Kind
	}{
		"40001": {3, fault.Unavailable}, "40P01": {3, fault.Unavailable}, "23505": {1, fault.Internal},
		"57014": {1, fault.DeadlineExceeded}, "53100": {1, fault.ResourceExhausted}, "08006": {1, fault.Unavailable},
	} {
		tries := 0
		err := pg.Tx(t.Context(), pool, pg.TxOptions{Tries: 3, Jitter: quick}, func(context.Context, pgx.Tx) error {
			tries++
			return &pgconn.PgError{Code: code, Message: "secret_table"}
		})
		if tries != want.tries || fault.KindOf(err) != want.kind {
			t.Errorf("%s: %d tries, %v; want %+v", code, tries, err, want)
		}
		if f, ok := fault.As(err); ok && strings.Contains(f.Message, "secret") {
			t.Errorf("%s: the message tells %q", code, f.Message)
		}
	}
	mine := fault.New(fault.AlreadyExists, "TENANT_ID_TAKEN", "taken").WithCause(&pgconn.PgError{Code: "23505"})
	err := pg.Tx(t.Context(), pool, pg.TxOptions{}, func(context.Context, pgx.Tx) error { return mine })
	if fault.ReasonOf(err) != "TENANT_ID_TAKEN" {
		t.Errorf("a store's own fault became %v", err)
	}
}

func TestTxEndsStatementsBeforeTheDeadline(t *testing.T) {
	t.Parallel()
	pool := pgdbtest.New(t, things()).Service(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute/2)
	defer cancel()
	var timeout string
	err := pg.Tx(ctx, pool, pg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, "select setting from pg_settings where name = 'statement_timeout'").Scan(&timeout)
	})
	if err != nil {
		t.Fatal(err)
	}
	if d, err := time.ParseDuration(timeout + "ms"); err != nil || d > 30*time.Second || d < 20*time.Second {
		t.Errorf("statement_timeout = %s ms", timeout)
	}
	short, cancelShort := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancelShort()
	err = pg.Tx(short, pool, pg.TxOptions{}, func(context.Context, pgx.Tx) error {
		t.Error("there was no time to begin")
		return nil
	})
	if fault.ReasonOf(err) != fault.ReasonDeadlineTooShort {
		t.Errorf("error = %v", err)
	}
}

func TestLostConnections(t *testing.T) {
	t.Parallel()
	db := pgdbtest.New(t, things())
	pool, super := db.Service(t), db.Pool(t, pgserver.Superuser)
	kill := func(ctx context.Context, tx pgx.Tx) error {
		var pid int
		if err := tx.QueryRow(ctx, "select pg_backend_pid()").Scan(&pid); err != nil {
			return err
		}
		_, err := super.Exec(ctx, "select pg_terminate_backend($1, 5000)", pid)
		return err
	}
	err := pg.Tx(t.Context(), pool, pg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
		if err := kill(ctx, tx); err != nil {
			return err
		}
		return add(ctx, tx, 1, 1)
	})
	if fault.ReasonOf(err) != fault.ReasonDependency || fault.KindOf(err) != fault.Unavailable {
		t.Errorf("lost during a statement: %v", err)
	}
	err = pg.Tx(t.Context(), pool, pg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
		return errors.Join(add(ctx, tx, 1, 1), kill(ctx, tx))
	})
	if fault.ReasonOf(err) != fault.ReasonOutcomeUnknown || fault.KindOf(err) != fault.Unavailable {
		t.Errorf("lost during commit: %v", err)
	}
	if err := pg.Check(t.Context(), pool); err != nil || value(t, pool, 1) != 0 {
		t.Errorf("afterwards: %v, n = %d", err, value(t, pool, 1))
	}
}

func TestOpenNeedsNoDatabase(t *testing.T) {
	t.Parallel()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(path, []byte("postgres://u:hunter2@"+addr+"/d\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	pool, err := pg.Open(t.Context(), pg.Config{DSNFile: path})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	err = pg.Check(t.Context(), pool)
	f, ok := fault.As(err)
	if !ok || f.Reason != fault.ReasonDependency || strings.Contains(f.Message, "127.0.0.1") || f.RetryAfter == 0 {
		t.Errorf("error = %v", err)
	}
}

func TestOpenNeverShowsTheDSN(t *testing.T) {
	t.Parallel()
	for _, cfg := range []pg.Config{
		{}, {DSN: "postgres://a", DSNFile: "/b"}, {DSNFile: "/does/not/exist"}, {DSNFile: os.DevNull},
		{DSN: "postgres://u:hunter2@host:notaport/d"}, {DSN: "password=hunter2 port=x"},
	} {
		_, err := pg.Open(t.Context(), cfg)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

func TestSpansHoldNoArguments(t *testing.T) {
	t.Parallel()
	db := pgdbtest.New(t, things())
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	pool, err := pg.Open(t.Context(), pg.Config{DSN: db.DSN(things().Service()), Name: "rowhouse-test", TracerProvider: provider})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var name string
	ctx, parent := provider.Tracer("test").Start(t.Context(), "call") // queries outside of a call make no spans
	defer parent.End()
	err = pool.QueryRow(ctx, "select current_setting('application_name') where $1 <> ''", "hunter2").Scan(&name)
	if err != nil || name != "rowhouse-test" {
		t.Errorf("application_name = %q, %v", name, err)
	}
	found := false
	for _, span := range spans.Ended() {
		for _, attr := range span.Attributes() {
			found = found || strings.Contains(attr.Value.String(), "application_name")
			if strings.Contains(attr.Value.String(), "hunter2") {
				t.Errorf("span %s holds %s", span.Name(), attr.Value.String())
			}
		}
	}
	if !found {
		t.Error("no span shows the statement")
	}
}

func add(ctx context.Context, tx pgx.Tx, id, n int) error {
	_, err := tx.Exec(ctx, "update thing set n = n + $2 where id = $1", id, n)
	return err
}

func value(t *testing.T, pool *pgxpool.Pool, id int) int {
	t.Helper()
	var n int
	if err := pool.QueryRow(t.Context(), "select n from thing where id = $1", id).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// applied lists what the database says was applied.
func applied(t *testing.T, pool *pgxpool.Pool) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), "select name from rowhouse_migration order by name")
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	d := things()
	db := pgdbtest.New(t, d)
	service := db.Service(t)
	later := d
	later.Migrations = folders(
		folder{"0001_thing.sql": {Data: []byte(createThing)}, "0003_more.sql": {Data: []byte("create table more ()")}},
		folder{"0002_other.sql": {Data: []byte("create function f() returns int language sql as 'select 1'")}},
	)
	if err := pg.Verify(t.Context(), service, later); !errors.Is(err, pg.ErrBehind) || !strings.Contains(err.Error(), "0002_other.sql") {
		t.Errorf("before: %v", err)
	}
	var together sync.WaitGroup
	for range 4 {
		conn := db.Conn(t, d.Migrator())
		together.Go(func() {
			if err := pg.Migrate(t.Context(), conn, later); err != nil {
				t.Error(err)
			}
		})
	}
	together.Wait()
	want := []string{"0001_thing.sql", "0002_other.sql", "0003_more.sql"}
	if diff := cmp.Diff(want, applied(t, service)); diff != "" {
		t.Errorf("applied (-want +got):\n%s", diff)
	}
	if err := errors.Join(pg.Verify(t.Context(), service, later), pg.Verify(t.Context(), service, d)); err != nil {
		t.Errorf("both the new and the old binary must be content: %v", err)
	}
	if err := pg.Migrate(t.Context(), db.Conn(t, d.Migrator()), d); err != nil {
		t.Errorf("the old binary's migrations on the new database: %v", err)
	}
}

func TestMigrationsThatAreRefused(t *testing.T) {
	t.Parallel()
	d := things()
	first := folder{"0001_thing.sql": {Data: []byte(createThing)}}
	with := func(name, sql string) []fs.FS {
		return folders(folder{"0001_thing.sql": first["0001_thing.sql"], name: {Data: []byte(sql)}})
	}
	tests := map[string]struct {
		folders []fs.FS
		want    string
	}{
		"changed":         {folders(folder{"0001_thing.sql": {Data: []byte(createThing + " ")}}), "was changed after it was applied"},
		"before applied":  {with("0000_early.sql", "select 1"), "migrations only go forward"},
		"twice":           {folders(first, first), "two migrations are named"},
		"empty folder":    {folders(first, folder{}), "holds no *.sql"},
		"unknown word":    {with("0002_x.sql", "grant select on thing to {{servcie}}"), "{{servcie}} stands for nothing"},
		"broken":          {with("0002_x.sql", "create table half (); create tabel x ()"), "0002_x.sql"},
		"beyond its role": {with("0002_x.sql", "create role rh_evil"), "permission denied"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgdbtest.New(t, d)
			changed := d
			changed.Migrations = test.folders
			err := pg.Migrate(t.Context(), db.Conn(t, d.Migrator()), changed)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v, want one with %q", err, test.want)
			}
			if diff := cmp.Diff([]string{"0001_thing.sql"}, applied(t, db.Service(t))); diff != "" {
				t.Errorf("applied (-want +got):\n%s", diff)
			}
			var half *string
			if err := db.Owner(t).QueryRow(t.Context(), "select to_regclass('half')::text").Scan(&half); err != nil || half != nil {
				t.Errorf("half of a migration was kept: %v, %v", half, err)
			}
		})
	}
}

// TestServiceRoleMayOnlyWhatItWasGranted goes through what a stolen service DSN is worth.
func TestServiceRoleMayOnlyWhatItWasGranted(t *testing.T) {
	t.Parallel()
	d := things()
	db := pgdbtest.New(t, d)
	service := db.Service(t)
	if _, err := db.Owner(t).Exec(t.Context(), "create function f() returns int language sql as 'select 1'"); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"update thing set id = 9", "delete from thing", "truncate thing", "drop table thing", "alter table thing add x int",
		"create table t ()", "create temp table t ()", "create schema s", "create view v as select * from thing",
		"set role " + d.Owner(), "set role " + d.Migrator(), "select f()", "insert into rowhouse_migration values ('x', '')",
		"delete from rowhouse_migration", "create role r", "alter role " + d.Service() + " createrole",
	} {
		_, err := service.Exec(t.Context(), sql)
		if code := pg.Code(err); code != "42501" {
			t.Errorf("%s: %v, want permission denied", sql, err)
		}
	}
	var flags bool
	const look = `select bool_or(rolsuper or rolbypassrls or rolcreaterole or rolcreatedb or rolreplication)
		from pg_roles where rolname = any($1)`
	roles := []string{d.Owner(), d.Migrator(), d.Service()}
	if err := service.QueryRow(t.Context(), look, roles).Scan(&flags); err != nil || flags {
		t.Errorf("a role has more than it needs: %v, %v", flags, err)
	}
	if _, err := db.Conn(t, d.Migrator()).Exec(t.Context(), "select * from public.thing"); pg.Code(err) != "42501" {
		t.Errorf("the migrator reads without becoming the owner: %v", err)
	}
	if _, err := pgx.Connect(t.Context(), db.DSN(d.Owner())); err == nil {
		t.Error("the owner can log in")
	}
}

// TestStrangerCannotConnect needs a role that the database does not know.
func TestStrangerCannotConnect(t *testing.T) {
	t.Parallel()
	db := pgdbtest.New(t, things())
	other := pg.Database{Name: "rh_strangers"}
	if err := pg.CreateRoles(t.Context(), db.Conn(t, pgserver.Superuser), other); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), db.DSN(other.Service()))
	if err == nil {
		_ = conn.Close(t.Context())
		t.Error("the role of another service can connect")
	}
}

// TestProvision works on a server, not on a database of the test's own, so its database has a random name.
func TestProvision(t *testing.T) {
	t.Parallel()
	super := pgtest.Server(t)
	d := things()
	d.Name = "rh_p" + strings.ToLower(rand.Text()[:12])
	d.ServicePassword = `it's "quoted" \ $1`
	t.Cleanup(func() { dropAll(t, super, d) })
	var together sync.WaitGroup
	for range 3 {
		together.Go(func() {
			if err := pg.Provision(t.Context(), super, d); err != nil {
				t.Error(err)
			}
		})
	}
	together.Wait()
	cfg, err := pgx.ParseConfig(super)
	if err != nil {
		t.Fatal(err)
	}
	cfg.User, cfg.Password, cfg.Database = d.Service(), d.ServicePassword, d.Name
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if err := pg.Verify(t.Context(), conn, d); err != nil {
		t.Error(err)
	}
	var owner string
	const look = "select pg_get_userbyid(datdba) from pg_database where datname = current_database()"
	if err := conn.QueryRow(t.Context(), look).Scan(&owner); err != nil || owner != d.Owner() {
		t.Errorf("owner = %q, %v", owner, err)
	}
	for _, name := range []string{"", "Upper", "a-b", `x"; drop database postgres; --`, strings.Repeat("a", 55)} {
		if err := pg.Provision(t.Context(), super, pg.Database{Name: name}); err == nil {
			t.Errorf("%q was taken for a name", name)
		}
	}
}

func dropAll(t *testing.T, super string, d pg.Database) {
	t.Helper()
	ctx := context.Background() // the test's own context has ended
	conn, err := pgx.Connect(ctx, super)
	if err != nil {
		t.Error(err)
		return
	}
	for _, sql := range []string{
		"drop database if exists " + d.Name + " with (force)",
		"drop role if exists " + d.Owner() + ", " + d.Migrator() + ", " + d.Service(),
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Error(err)
		}
	}
	if err := conn.Close(ctx); err != nil {
		t.Error(err)
	}
}

// folder is a folder of migrations.
type folder = fstest.MapFS

func folders(all ...folder) []fs.FS {
	list := make([]fs.FS, 0, len(all))
	for _, f := range all {
		list = append(list, f)
	}
	return list
}
