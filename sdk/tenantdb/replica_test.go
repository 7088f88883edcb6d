package tenantdb_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/readtoken"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

var (
	setTitle  = tenantdb.Stmt(`UPDATE app.note SET title = $2 WHERE id = $1`)
	slowTitle = tenantdb.Stmt(`SELECT title FROM app.note, pg_sleep($2) WHERE id = $1`)
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
	for end := time.Now().Add(10 * time.Second); ; {
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
			if state(err) != test.want || time.Since(began) > time.Second {
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
	if replica < pairs/2 {
		t.Errorf("only %d of %d reads came from the replica", replica, pairs)
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
		for !idle() { // the ends of reads are behind their callers' backs
			runtime.Gosched()
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

// An end whose answer is withheld keeps nobody waiting.
func TestReadTxDoesNotWaitForItsEnd(t *testing.T) {
	t.Parallel()
	h := &holdup{}
	d := notes(t, dbtest.Configure(func(c *tenantdb.Config) {
		to := c.Cells[tenanttest.Cell]
		to.Dial = h.dial
		c.Cells[tenanttest.Cell] = to
	}))
	ctx := d.In(t, "acme")
	err := d.DB.ReadTx(ctx, func(tx *tenantdb.Tx) error {
		var title string
		err := tx.QueryRow(ctx, getNote, 1).Scan(&title)
		h.close()
		return err
	})
	if err != nil {
		t.Error(err)
	}
	h.open()
}

// holdup lets connections be read only while it is open, which it is at first.
type holdup struct {
	mu   sync.Mutex
	gate chan struct{} // nil while open
}

func (h *holdup) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gate = make(chan struct{})
}

func (h *holdup) open() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.gate)
	h.gate = nil
}

func (h *holdup) wait() {
	h.mu.Lock()
	gate := h.gate
	h.mu.Unlock()
	if gate != nil {
		<-gate
	}
}

func (h *holdup) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return heldConn{conn, h}, nil
}

type heldConn struct {
	net.Conn
	h *holdup
}

func (c heldConn) Read(b []byte) (int, error) {
	c.h.wait()
	return c.Conn.Read(b)
}

// With the replay paused, what was committed is read from the primary: by whoever committed it
// at once, by others when it is as old as the lag that is allowed. A suspension holds by then.
func TestPausedReplica(t *testing.T) {
	t.Parallel()
	pair := pgtest.StartPair(t)
	const lag = 400 * time.Millisecond
	d := notes(t, dbtest.On(pair), dbtest.Configure(func(c *tenantdb.Config) {
		to := c.Cells[tenanttest.Cell]
		to.MaxLag = lag
		c.Cells[tenanttest.Cell] = to
		c.TokenKey = make([]byte, 32)
	}))
	bystander := func(ctx context.Context) context.Context { return readtoken.NewContext(ctx, "") }
	other := d.Open(t, d.Config) // another process of the app
	acme, globex := readtoken.NewContext(d.In(t, "acme"), ""), d.In(t, "globex")
	fromReplica(acme, t, d.DB)
	fromReplica(bystander(acme), t, other)

	onServer(t, pair.Standby, "SELECT pg_wal_replay_pause()")
	paused := time.Now()
	if err := writeTitle(acme, d.DB, 3, "new"); err != nil {
		t.Fatal(err)
	}
	d.Place(t, "globex", func(p *cell.Placement) { p.State = cell.Suspended })
	began := time.Now()
	// The one who wrote, here and, by the token, elsewhere; and all others in this process.
	token := tokenOf(acme)
	for range 3 {
		for name, read := range map[string]func() (string, error){
			"its context":     func() (string, error) { return titleOf(acme, d.DB) },
			"its process":     func() (string, error) { return titleOf(bystander(d.In(t, "acme")), d.DB) },
			"its token":       func() (string, error) { return titleOf(readtoken.NewContext(d.In(t, "acme"), token), other) },
			"its token given": func() (string, error) { return titleOf(d.In(t, "acme"), other, tenantdb.After(token)) },
		} {
			if title, err := read(); err != nil || title != "new" {
				t.Errorf("with %s: %q, %v", name, title, err)
			}
		}
	}
	// Somebody else may see the state from before the pause, but not for long.
	for over := false; !over; {
		asked := time.Now()
		_, err := titleOf(bystander(globex), other)
		over = asked.Sub(began) > lag
		if !errors.Is(err, tenantdb.ErrSuspended) && (err != nil || over) {
			t.Errorf("%s after the suspension: %v", asked.Sub(began), err)
		}
	}
	wantTitle(t, fromPrimary(bystander(d.In(t, "acme")), t, other, "behind"), "new")
	// A report may be older, and says so.
	wantTitle(t, fromReplica(d.In(t, "acme"), t, other, tenantdb.MaxStaleness(time.Since(paused)+time.Minute)), "acme one")

	onServer(t, pair.Standby, "SELECT pg_wal_replay_resume()")
	wantTitle(t, fromReplica(bystander(d.In(t, "acme")), t, other), "new")
	wantTitle(t, fromReplica(readtoken.NewContext(d.In(t, "acme"), token), t, other), "new")
	if _, err := titleOf(bystander(globex), other); !errors.Is(err, tenantdb.ErrSuspended) {
		t.Errorf("a suspended tenant reads: %v", err)
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

// A replica that is gone, or hangs, costs the reads that meet it first, and no error.
func TestLostReplica(t *testing.T) {
	t.Parallel()
	w := &wall{}
	d := notes(t, dbtest.On(pgtest.Pair(t)), dbtest.Configure(soleWriter), editReplica(func(r *tenantdb.Replica) { r.Dial = w.dial }))
	ctx := d.In(t, "acme")
	fromReplica(ctx, t, d.DB)
	for name, fail := range map[string]func(){"gone": w.cut, "silent": w.freeze} {
		fail()
		began := time.Now()
		_, before := reads(d.DB)
		for range 200 {
			if title, err := titleOf(d.In(t, "acme"), d.DB); err != nil || title != "acme one" {
				t.Fatalf("%s: %q, %v", name, title, err)
			}
		}
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("%s: 200 reads took %s", name, took)
		}
		if _, after := reads(d.DB); after["refused"]-before["refused"] > 10 {
			t.Errorf("%s: %v, then %v", name, before, after)
		}
		fromPrimary(d.In(t, "acme"), t, d.DB, "behind")
		w.mend()
		fromReplica(d.In(t, "acme"), t, d.DB)
	}
}

// wall stands before a server: whole, it lets everything through.
type wall struct {
	mu     sync.Mutex
	down   bool
	frozen chan struct{} // nil while it is not
	conns  []net.Conn
}

func (w *wall) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = true
	for _, conn := range w.conns {
		_ = conn.Close()
	}
}

func (w *wall) freeze() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frozen = make(chan struct{})
}

func (w *wall) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down = false; w.frozen != nil {
		close(w.frozen)
		w.frozen = nil
		for _, conn := range w.conns { // whoever waits has lost what he waits for
			_ = conn.Close()
		}
	}
}

func (w *wall) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	down, frozen := w.down, w.frozen
	w.mu.Unlock()
	if down {
		return nil, errors.New("no route")
	}
	if frozen != nil {
		select {
		case <-frozen:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns = append(w.conns, conn)
	return walledConn{conn, w}, nil
}

type walledConn struct {
	net.Conn
	w *wall
}

// Read gives nothing while the wall is frozen: what was read meanwhile is lost.
func (c walledConn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		c.w.mu.Lock()
		frozen := c.w.frozen
		c.w.mu.Unlock()
		if frozen == nil || err != nil {
			return n, err
		}
	}
}

// A replica that still follows the old primary may be further than the new one, and lack what
// was committed there.
func TestReplicaOfAnotherTimeline(t *testing.T) {
	t.Parallel()
	old := pgtest.StartPair(t)
	d := notes(t, dbtest.On(old))
	next := pgtest.StartServer(t, pgserver.Options{Follow: old.Primary, Settings: map[string]string{"synchronous_commit": "on"}})
	onServer(t, next, "SELECT pg_promote()")
	if _, err := d.Admin.Exec(t.Context(), "CREATE TABLE public.ballast AS SELECT generate_series(1, 20000)"); err != nil {
		t.Fatal(err)
	}
	old.CatchUp(t)

	config := d.Config
	config.SoleWriter = true
	to := config.Cells[tenanttest.Cell]
	primary, err := pgx.ParseConfig(to.DSN)
	if err != nil {
		t.Fatal(err)
	}
	to.DSN = next.DSN(pgserver.Login{User: primary.User, Database: primary.Database})
	to.MaxLag = 100 * time.Millisecond
	opened := func(to tenantdb.Cell) *tenantdb.DB {
		config.Cells = map[string]tenantdb.Cell{tenanttest.Cell: to}
		return d.Open(t, config)
	}
	db := opened(to)
	conn := standbyLogin(t, d)
	for i, end := 0, time.Now().Add(500*time.Millisecond); time.Now().Before(end); i++ { // some twenty looks
		ctx, want := d.In(t, "acme"), strconv.Itoa(i)
		if err := writeTitle(ctx, db, i, want); err != nil {
			t.Fatal(err)
		}
		title, err := titleOf(ctx, db)
		if err != nil {
			t.Fatal(err)
		}
		wantTitle(t, title, want)
	}
	if n, why := reads(db); n > 0 {
		t.Errorf("%d reads came from the other timeline; the others: %v", n, why)
	}
	var timeline, lsn int64
	admin, err := pgx.Connect(t.Context(), next.DSN(pgserver.Login{}))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(t.Context())
	err = admin.QueryRow(t.Context(), `SELECT ('x' || left(pg_walfile_name(l), 8))::bit(32)::int, (l - '0/0')::bigint FROM pg_current_wal_flush_lsn() l`).
		Scan(&timeline, &lsn)
	if err != nil || timeline != 2 {
		t.Fatalf("timeline %d, %v", timeline, err)
	}
	if _, err := conn.Exec(t.Context(), "SELECT rowhouse.await_lsn(1, $1, 0)", lsn); err != nil {
		t.Errorf("the replica is not ahead, and the test shows nothing: %v", err)
	}
	if _, err := conn.Exec(t.Context(), "SELECT rowhouse.await_lsn(2, $1, 0)", lsn); state(err) != "RH006" {
		t.Errorf("await on the other timeline: %v", err)
	}
	wantTitle(t, naiveTitle(t, conn, sealOf(t, d, "acme")), "acme one")
	// A replica of the new primary serves.
	right := pgtest.StartServer(t, pgserver.Options{Follow: next})
	to.Replicas = []tenantdb.Replica{{DSN: right.DSN(pgserver.Login{User: primary.User, Database: primary.Database})}}
	want, err := titleOf(d.In(t, "acme"), db)
	if err != nil {
		t.Fatal(err)
	}
	wantTitle(t, fromReplica(d.In(t, "acme"), t, opened(to)), want)
}

// A conflict with the replay ends statements on a replica, or their sessions. They go on at the
// primary.
func TestStatementsLeaveAReplica(t *testing.T) {
	t.Parallel()
	pair := pgtest.StartPair(t)
	d := notes(t, dbtest.On(pair), dbtest.Configure(soleWriter))
	ctx := d.In(t, "acme")
	onServer(t, pair.Standby, "ALTER SYSTEM SET max_standby_streaming_delay = 0")
	onServer(t, pair.Standby, "SELECT pg_reload_conf()")
	slow := func(tx *tenantdb.Tx) error {
		var title string
		err := tx.QueryRow(ctx, slowTitle, 1, 0.3).Scan(&title)
		wantTitle(t, title, "acme one")
		return err
	}
	slowBatch := func(tx *tenantdb.Tx) error {
		b := &tenantdb.Batch{}
		b.Query(func(rows *tenantdb.Rows) error {
			titles, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err == nil && len(titles) == 1 {
				wantTitle(t, titles[0], "acme one")
			}
			return err
		}, slowTitle, 1, 0.3)
		return tx.Batch(ctx, b)
	}
	second := func(then func(*tenantdb.Tx) error) func(*tenantdb.Tx) error {
		return func(tx *tenantdb.Tx) error {
			var n int
			if err := tx.QueryRow(ctx, countNotes).Scan(&n); err != nil || n != 2 {
				return fmt.Errorf("%d notes, %w", n, err)
			}
			return then(tx)
		}
	}
	for name, fn := range map[string]func(*tenantdb.Tx) error{
		"first": slow, "first batch": slowBatch, "second": second(slow), "second batch": second(slowBatch),
	} {
		for _, hit := range []func(){
			func() { exclusive(t, d) },
			func() {
				onServer(t, pair.Standby, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep($2)%' AND pid <> pg_backend_pid()")
			},
		} {
			fromReplica(ctx, t, d.DB)
			_, before := reads(d.DB)
			done := make(chan error)
			go func() { done <- d.DB.ReadTx(ctx, fn) }()
			waitForSleeper(t, pair.Standby)
			hit()
			if err := <-done; err != nil {
				t.Errorf("%s: %v", name, err)
			}
			_, after := reads(d.DB)
			if name != "second" && name != "second batch" && after["refused"] != before["refused"]+1 {
				t.Errorf("%s: before %v, after %v", name, before, after)
			}
		}
	}
}

// exclusive commits a lock that the statements on the standby are in the way of.
func exclusive(t *testing.T, d *dbtest.Database) {
	t.Helper()
	if _, err := d.Admin.Exec(t.Context(), "VACUUM FULL app.note"); err != nil {
		t.Fatal(err)
	}
}

func waitForSleeper(t *testing.T, server *pgserver.Server) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server.DSN(pgserver.Login{}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for sleeping := false; !sleeping; {
		err := conn.QueryRow(t.Context(), `SELECT count(*) > 0 FROM pg_stat_activity, pg_sleep(0.001) WHERE wait_event = 'PgSleep' AND pid <> pg_backend_pid()`).
			Scan(&sleeping)
		if err != nil {
			t.Fatal(err)
		}
	}
}
