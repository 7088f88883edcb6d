package tenantdb_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/readtoken"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

var (
	setTitle = tenantdb.Stmt(`UPDATE app.note SET title = $2 WHERE id = $1`)
	// It sleeps on a replica, for longer than it takes to be found there.
	slowTitle = tenantdb.Stmt(`SELECT title FROM app.note, pg_sleep(CASE WHEN pg_is_in_recovery() THEN 25 ELSE 0 END) WHERE id = $1`)
)

// soleWriter lets reads use the replica without tokens.
func soleWriter(c *tenantdb.Config) { c.SoleWriter = true }

// editReplica changes how the replica is reached.
func editReplica(edit func(*tenantdb.Replica)) dbtest.Option {
	return dbtest.Configure(func(c *tenantdb.Config) {
		to := c.Cells[tenanttest.Cell]
		edit(&to.Replicas[0])
		c.Cells[tenanttest.Cell] = to
	})
}

func titleOf(ctx context.Context, db *tenantdb.DB, options ...tenantdb.ReadOption) (title string, err error) {
	err = db.ReadTx(ctx, func(tx *tenantdb.Tx) error { return tx.QueryRow(ctx, getNote, 1).Scan(&title) }, options...)
	return title, err
}

// reads returns how many reads went where.
func reads(db *tenantdb.DB) (replica int, primary map[string]int) {
	st := db.Stats()[0]
	return st.FromReplica, st.FromPrimary
}

// fromReplica reads until a replica answers, and fails when none does for long.
func fromReplica(ctx context.Context, t *testing.T, db *tenantdb.DB, options ...tenantdb.ReadOption) string {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; {
		before, _ := reads(db)
		title, err := titleOf(ctx, db, options...)
		if err != nil {
			t.Fatal(err)
		}
		after, why := reads(db)
		if after > before {
			return title
		}
		if time.Now().After(end) {
			t.Fatalf("no replica answers: %v", why)
		}
	}
}

// fromPrimary fails unless the next read goes to the primary for that reason.
func fromPrimary(ctx context.Context, t *testing.T, db *tenantdb.DB, why string, options ...tenantdb.ReadOption) string {
	t.Helper()
	_, before := reads(db)
	title, err := titleOf(ctx, db, options...)
	if err != nil {
		t.Fatal(err)
	}
	if _, after := reads(db); after[why] != before[why]+1 {
		t.Errorf("the read did not go to the primary because of %q: %v, then %v", why, before, after)
	}
	return title
}

func tokenOf(ctx context.Context) string {
	token, _ := readtoken.FromContext(ctx)
	return token
}

func wantTitle(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("read %q, want %q", got, want)
	}
}

// standbyLogin is a plain connection of the app's role to the standby.
func standbyLogin(t *testing.T, d *dbtest.Database) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), d.Config.Cells[tenanttest.Cell].Replicas[0].DSN)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

// onServer runs a statement as superuser.
func onServer(t *testing.T, server *pgserver.Server, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server.DSN(pgserver.Login{}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func TestEnterOnAStandby(t *testing.T) {
	t.Parallel()
	pair := pgtest.Pair(t)
	onRungs(t, func(t rung, d *dbtest.Database) {
		d.Place(t, "late", func(p *cell.Placement) { p.State = cell.Suspended })
		d.Place(t, "gone", func(p *cell.Placement) { p.Generation++ })
		d.Place(t, "timed", func(p *cell.Placement) { p.StatementMS = 1234 })
		good := sealOf(t, d, "acme")
		forged := append([]byte{}, good...)
		forged[20] ^= 1
		pair.CatchUp(t)
		conn := standbyLogin(t.T, d)
		for _, begin := range []string{
			"begin", "begin read only, isolation level read committed", "begin read only, isolation level repeatable read",
		} {
			for _, test := range []struct {
				name, want string
				seal       []byte
			}{
				{"good", "", good},
				{"forged", "RH003", forged},
				{"suspended", "RH007", sealOf(t, d, "late")},
				{"moved", "RH001", sealOf(t, d, "gone")},
				{"timed", "", sealOf(t, d, "timed")},
			} {
				mustExec(t.T, conn, begin)
				_, err := conn.Exec(t.Context(), "SELECT rowhouse.enter($1)", test.seal)
				if state(err) != test.want {
					t.Errorf("%s, %s: %v, want SQLSTATE %q", begin, test.name, err, test.want)
				}
				if test.name == "good" {
					var n int
					if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM app.note").Scan(&n); err != nil || n != 2 {
						t.Errorf("%s: %d notes, %v", begin, n, err)
					}
				}
				mustExec(t.T, conn, "rollback")
			}
		}
		if _, err := conn.Exec(t.Context(), "SELECT count(*) FROM app.note"); state(err) != "42501" {
			t.Errorf("without a tenant: %v", err)
		}
	}, dbtest.On(pair))
}

func mustExec(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func TestAwaitLSN(t *testing.T) {
	t.Parallel()
	pair := pgtest.Pair(t)
	d := notes(t, dbtest.On(pair))
	pair.CatchUp(t)
	for name, conn := range map[string]*pgx.Conn{"standby": standbyLogin(t, d), "primary": d.Login(t)} {
		for _, test := range []struct {
			timeline int
			lsn      int64
			want     string
		}{{1, 0, ""}, {1, 1 << 50, "RH006"}, {2, 0, "RH006"}, {0, 0, "RH006"}} {
			began := time.Now()
			_, err := conn.Exec(t.Context(), "SELECT rowhouse.await_lsn($1, $2, $3)", test.timeline, test.lsn, 5)
			if state(err) != test.want || time.Since(began) > 10*time.Second {
				t.Errorf("%s: await %d on timeline %d: %v after %s, want %q", name, test.lsn, test.timeline, err, time.Since(began), test.want)
			}
		}
	}
	var public bool
	err := d.Admin.QueryRow(t.Context(), `SELECT has_function_privilege('pg_monitor', 'rowhouse.await_lsn(int, bigint, int)', 'EXECUTE')`).Scan(&public)
	if err != nil || public {
		t.Errorf("anyone may call await_lsn: %t, %v", public, err)
	}
}

// Each pair is a commit and then a read of it. The naive reader asks the standby without more.
func TestReadYourWrites(t *testing.T) {
	t.Parallel()
	pairs := 2_000
	if os.Getenv("ROWHOUSE_TEST_LONG") != "" {
		pairs = 100_000
	}
	pair := pgtest.Pair(t)
	d := notes(t, dbtest.On(pair), dbtest.Configure(soleWriter))
	fromReplica(d.In(t, "acme"), t, d.DB)
	served, _ := reads(d.DB)
	const workers = 4
	var stale, naive, naiveOf atomic.Int64
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			id := fmt.Sprintf("worker-%d", w)
			if _, err := d.DB.Exec(d.In(t, id), addNote, 1, "start"); err != nil {
				t.Error(err)
				return
			}
			conn := standbyLogin(t, d)
			for i := range pairs / workers {
				ctx, want := d.In(t, id), strconv.Itoa(i)
				if err := writeTitle(ctx, d.DB, i, want); err != nil {
					t.Error(err)
					return
				}
				if i%20 == 0 {
					naiveOf.Add(1)
					if got := naiveTitle(t, conn, sealOf(t, d, id)); got != want {
						naive.Add(1)
					}
				}
				got, err := titleOf(ctx, d.DB)
				if err != nil {
					t.Error(err)
					return
				}
				if got != want {
					stale.Add(1)
				}
			}
		})
	}
	group.Wait()
	replica, primary := reads(d.DB)
	replica -= served
	t.Logf("%d pairs: %d stale, %d read from the replica, from the primary %v; naive: %d of %d stale",
		pairs, stale.Load(), replica, primary, naive.Load(), naiveOf.Load())
	if stale.Load() > 0 {
		t.Errorf("%d reads were stale", stale.Load())
	}
	if replica == 0 { // how many depends on the machine's load
		t.Error("no read came from the replica: the test shows nothing")
	}
	if naive.Load() == 0 {
		t.Error("no naive read was stale: the test shows nothing")
	}
}

// writeTitle commits in one of the ways there are.
func writeTitle(ctx context.Context, db *tenantdb.DB, i int, title string) error {
	switch i % 4 {
	case 0:
		_, err := db.Exec(ctx, setTitle, 1, title)
		return err
	case 1:
		b := &tenantdb.Batch{}
		b.Exec(setTitle, 1, title)
		return db.Batch(ctx, b)
	case 2:
		rows, err := db.Query(ctx, setTitle, 1, title)
		if err == nil {
			rows.Close()
			err = rows.Err()
		}
		return err
	}
	return db.Tx(ctx, func(tx *tenantdb.Tx) error { _, err := tx.Exec(ctx, setTitle, 1, title); return err })
}

func naiveTitle(t *testing.T, conn *pgx.Conn, seal []byte) (title string) {
	t.Helper()
	b := &pgx.Batch{}
	b.Queue("SELECT rowhouse.enter($1)", seal)
	b.Queue("SELECT title FROM app.note WHERE id = 1").QueryRow(func(row pgx.Row) error { return row.Scan(&title) })
	if err := conn.SendBatch(t.Context(), b).Close(); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		t.Error(err)
	}
	return title
}

func TestReplicaReadIsOneRoundTrip(t *testing.T) {
	t.Parallel()
	primary, replica := &wire{}, &wire{}
	d := notes(t, dbtest.On(pgtest.Pair(t)), dbtest.Configure(soleWriter),
		editReplica(func(r *tenantdb.Replica) { r.Dial = replica.dial }),
		dbtest.Configure(func(c *tenantdb.Config) {
			to := c.Cells[tenanttest.Cell]
			to.Dial, to.MaxLag = primary.dial, time.Hour // so that the watch is not counted
			c.Cells[tenanttest.Cell] = to
		}))
	ctx := d.In(t, "acme")
	fromReplica(ctx, t, d.DB)
	idle := func() bool { st := d.DB.Stats(); return st[0].Idle == st[0].Open && st[1].Idle == st[1].Open }
	var title string
	for range 3 {
		for end := time.Now().Add(30 * time.Second); !idle(); runtime.Gosched() { // reads end behind their callers' backs
			if time.Now().After(end) {
				t.Fatal("a read does not end")
			}
		}
		primary.take()
		replica.take()
		inside := 0
		err := d.DB.ReadTx(ctx, func(tx *tenantdb.Tx) error {
			err := tx.QueryRow(ctx, getNote, 1).Scan(&title)
			inside = replica.take()
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if n := primary.take(); inside != 1 || n != 0 {
			t.Errorf("%d round trips to the replica and %d to the primary, want 1 and 0", inside, n)
		}
	}
	// A commit and its position are one round trip as well.
	for name, write := range map[string]func() error{
		"Exec": func() error { _, err := d.DB.Exec(ctx, setTitle, 1, "x"); return err },
		"Tx":   func() error { return writeTitle(ctx, d.DB, 3, "x") },
	} {
		for range 2 {
			primary.take()
			if err := write(); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := primary.take(), map[string]int{"Exec": 1, "Tx": 2}[name]; got != want {
			t.Errorf("%s took %d round trips, want %d", name, got, want)
		}
	}
}

// Who cannot say what it has to see reads from the primary.
func TestReadsForThePrimary(t *testing.T) {
	t.Parallel()
	d := notes(t, dbtest.On(pgtest.Pair(t)))
	ctx := d.In(t, "acme")
	session := readtoken.NewContext(ctx, "")
	fromReplica(session, t, d.DB)
	if err := writeTitle(session, d.DB, 0, "acme one"); err != nil {
		t.Fatal(err)
	}
	token := tokenOf(session)
	fromReplica(ctx, t, d.DB, tenantdb.After(token))
	fromPrimary(ctx, t, d.DB, "no_token")
	fromPrimary(session, t, d.DB, "asked", tenantdb.Primary())
	fromPrimary(session, t, d.DB, "asked", tenantdb.MaxStaleness(0))
	fromPrimary(session, t, d.DB, "isolation", tenantdb.Isolate(tenantdb.RepeatableRead))
	fromPrimary(session, t, d.DB, "isolation", tenantdb.Isolate(tenantdb.Serializable))
	fromPrimary(readtoken.NewContext(ctx, "nonsense"), t, d.DB, "bad_token")
	fromPrimary(readtoken.NewContext(ctx, token[:len(token)-1]+"~"), t, d.DB, "bad_token")
	fromPrimary(d.In(t, "globex"), t, d.DB, "bad_token", tenantdb.After(token))
	fromPrimary(readtoken.NewContext(ctx, token), t, d.Open(t, d.Config), "bad_token") // without a common key
	if err := writeTitle(session, d.DB, 1, "acme one"); err != nil {
		t.Fatal(err)
	}
	if again := tokenOf(session); again == token || len(again) > readtoken.MaxLen {
		t.Errorf("tokens %q and %q", token, again)
	}
	// A transaction that reads is none of theirs.
	before, _ := reads(d.DB)
	if err := d.DB.Tx(session, func(tx *tenantdb.Tx) error { var n int; return tx.QueryRow(session, countNotes).Scan(&n) }); err != nil {
		t.Fatal(err)
	}
	if after, _ := reads(d.DB); after != before {
		t.Error("Tx read from a replica")
	}
	err := d.DB.ReadTx(session, func(tx *tenantdb.Tx) error { _, err := tx.Exec(session, setTitle, 1, "x"); return err })
	if state(err) != "25006" {
		t.Errorf("a write in ReadTx: %v", err)
	}
}

func TestReplicaHasTheHomesOfAllModels(t *testing.T) {
	t.Parallel()
	dbtest.EachHome(t, func(t *testing.T, options ...dbtest.Option) {
		d := notes(t, append(options, dbtest.On(pgtest.Pair(t)), dbtest.Configure(soleWriter))...)
		wantTitle(t, fromReplica(d.In(t, "acme"), t, d.DB), "acme one")
		wantTitle(t, fromReplica(d.In(t, "globex"), t, d.DB), "globex one")
		if err := writeTitle(d.In(t, "acme"), d.DB, 0, "new"); err != nil {
			t.Fatal(err)
		}
		wantTitle(t, fromReplica(d.In(t, "acme"), t, d.DB), "new")
	})
}

func TestSpansAndMetricsSayWhereReadsGo(t *testing.T) {
	t.Parallel()
	spans, metrics := tracetest.NewSpanRecorder(), sdkmetric.NewManualReader()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	d := notes(t, dbtest.On(pgtest.Pair(t)), dbtest.Configure(func(c *tenantdb.Config) {
		c.Tracer = otelpgx.NewTracer(otelpgx.WithTracerProvider(provider))
		c.Metrics = sdkmetric.NewMeterProvider(sdkmetric.WithReader(metrics))
	}))
	said := func(read func(ctx context.Context)) map[string]int {
		spans.Reset()
		ctx, parent := provider.Tracer("test").Start(readtoken.NewContext(d.In(t, "acme"), ""), "handler")
		read(ctx)
		parent.End()
		all := map[string]int{}
		for _, span := range spans.Ended() {
			for _, kv := range span.Attributes() {
				if strings.HasPrefix(string(kv.Key), "rowhouse.read_from") {
					all[kv.Value.AsString()]++
				}
			}
		}
		return all
	}
	if all := said(func(ctx context.Context) { fromReplica(ctx, t, d.DB) }); all["replica"] == 0 {
		t.Errorf("a read from the replica says %v", all)
	}
	all := said(func(ctx context.Context) { fromPrimary(ctx, t, d.DB, "asked", tenantdb.Primary()) })
	if all["primary"] == 0 || all["asked"] != all["primary"] || all["replica"] > 0 {
		t.Errorf("a read from the primary says %v", all)
	}
	if all := said(func(ctx context.Context) { _ = writeTitle(ctx, d.DB, 3, "x") }); len(all) > 0 {
		t.Errorf("a write says %v", all)
	}
	var got metricdata.ResourceMetrics
	if err := metrics.Collect(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	counted := map[string]int64{}
	for _, scope := range got.ScopeMetrics {
		for _, m := range scope.Metrics {
			sum, ok := m.Data.(metricdata.Sum[int64])
			if m.Name != "rowhouse.db.reads" || !ok {
				continue
			}
			for _, point := range sum.DataPoints {
				from, _ := point.Attributes.Value("rowhouse.read_from")
				why, _ := point.Attributes.Value("rowhouse.read_from.reason")
				counted[from.AsString()+" "+why.AsString()] = point.Value
			}
		}
	}
	if counted["replica "] == 0 || counted["primary asked"] != 1 {
		t.Errorf("counted %v", counted)
	}
}

func TestOpenRefusesReplicasThatCannotServe(t *testing.T) {
	t.Parallel()
	good := tenantdb.Cell{DSN: "postgres://localhost/notes", Replicas: []tenantdb.Replica{{DSN: "postgres://localhost/notes"}}}
	open := func(edit func(*tenantdb.Config, *tenantdb.Cell)) error {
		to := good
		to.Replicas = []tenantdb.Replica{good.Replicas[0]}
		config := tenantdb.Config{App: "notes"}
		edit(&config, &to)
		config.Cells = map[string]tenantdb.Cell{"cell-1": to}
		db, err := tenantdb.Open(t.Context(), config)
		if err == nil {
			db.Close()
		}
		return err
	}
	if err := open(func(*tenantdb.Config, *tenantdb.Cell) {}); err != nil {
		t.Error(err)
	}
	for name, edit := range map[string]func(*tenantdb.Config, *tenantdb.Cell){
		"no DSN":            func(_ *tenantdb.Config, to *tenantdb.Cell) { to.Replicas[0].DSN = "" },
		"one connection":    func(_ *tenantdb.Config, to *tenantdb.Cell) { to.Replicas[0].MaxConns = 1 },
		"one to the cell":   func(_ *tenantdb.Config, to *tenantdb.Cell) { to.MaxConns = 1 },
		"negative lag":      func(_ *tenantdb.Config, to *tenantdb.Cell) { to.MaxLag = -1 },
		"short token key":   func(c *tenantdb.Config, _ *tenantdb.Cell) { c.TokenKey = make([]byte, 16) },
		"DSN of many words": func(_ *tenantdb.Config, to *tenantdb.Cell) { to.Replicas[0].DSN = "postgres://secret@:x" },
	} {
		if err := open(edit); err == nil || contains(err, "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
