package tenantdb_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/readtoken"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

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

// A replica that is gone, or hangs, costs the reads that meet it first, and no error.
func TestLostReplica(t *testing.T) {
	t.Parallel()
	w := &wall{}
	d := notes(t, dbtest.On(pgtest.Pair(t)), dbtest.Configure(soleWriter), editReplica(func(r *tenantdb.Replica) { r.Dial = w.dial }))
	ctx := d.In(t, "acme")
	fromReplica(ctx, t, d.DB)
	for name, fail := range map[string]func(){"gone": w.cut, "silent": w.freeze} {
		fail()
		_, before := reads(d.DB)
		ctx, cancel := context.WithTimeout(d.In(t, "acme"), time.Minute) // only a hang takes so long
		for range 200 {
			if title, err := titleOf(ctx, d.DB); err != nil || title != "acme one" {
				t.Fatalf("%s: %q, %v", name, title, err)
			}
		}
		cancel()
		if _, after := reads(d.DB); after["refused"]-before["refused"] > 10 {
			t.Errorf("%s: %v, then %v", name, before, after)
		}
		served, _ := reads(d.DB)
		if _, err := titleOf(d.In(t, "acme"), d.DB); err != nil {
			t.Error(err)
		}
		if now, why := reads(d.DB); now != served {
			t.Errorf("%s: a replica answers; the others: %v", name, why)
		}
		w.mend()
		fromReplica(d.In(t, "acme"), t, d.DB)
	}
}

// A replica that falls silent in the middle of a transaction costs what is left of its watch's
// patience, not the caller's time.
func TestReplicaThatFallsSilent(t *testing.T) {
	t.Parallel()
	w := &wall{}
	d := notes(t, dbtest.On(pgtest.Pair(t)), dbtest.Configure(soleWriter), editReplica(func(r *tenantdb.Replica) { r.Dial = w.dial }))
	defer w.mend()
	ctx, cancel := context.WithTimeout(d.In(t, "acme"), time.Minute) // far more than it takes
	defer cancel()
	fromReplica(ctx, t, d.DB)
	began, _ := reads(d.DB)
	err := d.DB.ReadTx(ctx, func(tx *tenantdb.Tx) error {
		var n int
		if err := tx.QueryRow(ctx, countNotes).Scan(&n); err != nil {
			return err
		}
		w.freeze()
		var title string
		err := tx.QueryRow(ctx, getNote, 1).Scan(&title)
		wantTitle(t, title, "acme one")
		return err
	}, tenantdb.MaxStaleness(time.Hour)) // so that it begins there for sure
	if err != nil {
		t.Error(err)
	}
	if ended, why := reads(d.DB); ended != began || why["refused"] == 0 {
		t.Errorf("%d reads ended on the replica, then %d; the others: %v", began, ended, why)
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
	type deed func(context.Context, *tenantdb.Tx) error
	onServer(t, pair.Standby, "ALTER SYSTEM SET max_standby_streaming_delay = 0")
	onServer(t, pair.Standby, "SELECT pg_reload_conf()")
	slow := func(ctx context.Context, tx *tenantdb.Tx) error {
		var title string
		err := tx.QueryRow(ctx, slowTitle, 1).Scan(&title)
		wantTitle(t, title, "acme one")
		return err
	}
	slowBatch := func(ctx context.Context, tx *tenantdb.Tx) error {
		b := &tenantdb.Batch{}
		b.Query(func(rows *tenantdb.Rows) error {
			titles, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err == nil && len(titles) == 1 {
				wantTitle(t, titles[0], "acme one")
			}
			return err
		}, slowTitle, 1)
		return tx.Batch(ctx, b)
	}
	second := func(then deed) deed {
		return func(ctx context.Context, tx *tenantdb.Tx) error {
			var n int
			if err := tx.QueryRow(ctx, countNotes).Scan(&n); err != nil || n != 2 {
				return fmt.Errorf("%d notes, %w", n, err)
			}
			return then(ctx, tx)
		}
	}
	for name, fn := range map[string]deed{
		"first": slow, "first batch": slowBatch, "second": second(slow), "second batch": second(slowBatch),
	} {
		for _, hit := range []func(){
			func() { exclusive(t, d) },
			func() {
				onServer(t, pair.Standby, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(CASE%' AND pid <> pg_backend_pid()")
			},
		} {
			done := make(chan error, 1)
			var before map[string]int
			for caught := false; !caught; { // on a busy machine the replica may be behind by now, and the primary asked
				ctx := d.In(t, "acme") // lives for 45 seconds
				fromReplica(ctx, t, d.DB)
				_, before = reads(d.DB)
				go func() { done <- d.DB.ReadTx(ctx, func(tx *tenantdb.Tx) error { return fn(ctx, tx) }) }()
				caught = waitForSleeper(t, pair.Standby, done)
			}
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

// waitForSleeper waits until a statement sleeps on the server. It returns false when the call that was
// to do so ended before.
func waitForSleeper(t *testing.T, server *pgserver.Server, done <-chan error) bool {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server.DSN(pgserver.Login{}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second) // a call that hangs fails the test here
	defer cancel()
	for sleeping := false; !sleeping; {
		err := conn.QueryRow(ctx, `SELECT count(*) > 0 FROM pg_stat_activity, pg_sleep(0.001) WHERE wait_event = 'PgSleep' AND pid <> pg_backend_pid()`).
			Scan(&sleeping)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return false
		default:
		}
	}
	return true
}

// A replica whose server takes no more connections is left for the primary, and so is one that
// does not know yet what a statement names.
func TestReplicaThatCannotServe(t *testing.T) {
	t.Parallel()
	pair := pgtest.StartPair(t)
	var full atomic.Bool
	d := notes(t, dbtest.On(pair), dbtest.Configure(soleWriter),
		editReplica(func(r *tenantdb.Replica) {
			r.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				if full.Load() {
					return fullServer(), nil
				}
				return (&net.Dialer{}).DialContext(ctx, network, address)
			}
		}),
		dbtest.Configure(func(c *tenantdb.Config) {
			to := c.Cells[tenanttest.Cell]
			to.MaxLag = time.Hour // so that the watch looks once
			c.Cells[tenanttest.Cell] = to
		}))
	ctx := d.In(t, "acme")
	fromReplica(ctx, t, d.DB)

	onServer(t, pair.Standby, "SELECT pg_wal_replay_pause()")
	if _, err := d.Admin.Exec(t.Context(), "ALTER TABLE app.note ADD COLUMN late text DEFAULT 'yes'"); err != nil {
		t.Fatal(err)
	}
	_, before := reads(d.DB)
	var n int
	var late string
	for range 2 { // the replica is not left for it
		err := d.DB.ReadTx(ctx, func(tx *tenantdb.Tx) error {
			if err := tx.QueryRow(ctx, countNotes).Scan(&n); err != nil {
				return err
			}
			return tx.QueryRow(ctx, tenantdb.Stmt(`SELECT late FROM app.note WHERE id = $1`), 1).Scan(&late)
		})
		if err != nil || late != "yes" {
			t.Errorf("a column that the replica does not know yet: %q, %v", late, err)
		}
	}
	if _, after := reads(d.DB); after["behind"] > before["behind"] || after["refused"] != before["refused"]+2 {
		t.Errorf("a replica was left for good: %v, then %v", before, after)
	}

	full.Store(true)
	const most = 4 // at a time: more than are idle
	var in, group sync.WaitGroup
	in.Add(most)
	for range most {
		group.Go(func() {
			once := sync.OnceFunc(in.Done)
			defer once()
			ctx := d.In(t, "acme")
			err := d.DB.ReadTx(ctx, func(tx *tenantdb.Tx) error {
				var n int
				err := tx.QueryRow(ctx, countNotes).Scan(&n)
				once()
				in.Wait()
				return err
			})
			if err != nil {
				t.Errorf("with the replica full: %v", err)
			}
		})
	}
	group.Wait()
	fromPrimary(ctx, t, d.DB, "behind")
}

// fullServer is a connection to a server that has none left.
func fullServer() net.Conn {
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		b := pgproto3.NewBackend(theirs, theirs)
		if _, err := b.ReceiveStartupMessage(); err != nil {
			return
		}
		b.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "53300", Message: "sorry, too many clients already"})
		_ = b.Flush()
	}()
	return ours
}
