package usage_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/usage"
)

// envWriter makes this binary a writer: it counts what it is told on its standard input, until it is killed.
const envWriter = "ROWHOUSE_USAGE_WRITER"

func migrations() []fs.FS { return []fs.FS{change.Migrations(), store.Migrations()} }

// order is what a writer is told to count: numbers of events, of which everybody knows what they are.
type order struct {
	Tenant int
	Base   int64 // milliseconds at which the run began
	Events []int
}

// numbered is the event of a number. Its id is random in appearance and always the same.
func numbered(base int64, n int) usage.Event {
	r := rand.New(rand.NewPCG(uint64(base), uint64(n)))
	var id uuid.UUID
	for i := range id {
		id[i] = byte(r.Uint32())
	}
	age := r.IntN(20 * 60)
	if r.IntN(10) == 0 {
		age = r.IntN(70 * 3600) // late
	}
	at := time.UnixMilli(base).Add(-time.Duration(age) * time.Second)
	ms := at.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80
	return usage.Event{ID: id, Meter: "bytes", Quantity: int64(n % 1000), Dimensions: map[string]string{"route": fmt.Sprint("/", n%20)}}
}

func crowd() []tenant.UID {
	return []tenant.UID{tenanttest.UID("acme"), tenanttest.UID("globex"), tenanttest.UID("initrode")}
}

// write is the writer. A line of its output is an order that was counted.
func write(dsn string) int {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, dsn)
	if err != nil {
		return 1
	}
	in := json.NewDecoder(os.Stdin)
	for {
		var o order
		if err := in.Decode(&o); err != nil {
			return 0
		}
		events := make([]usage.Event, 0, len(o.Events))
		for _, n := range o.Events {
			events = append(events, numbered(o.Base, n))
		}
		err := pg.Tx(ctx, pool, pg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
			return usage.RecordIn(ctx, tx, crowd()[o.Tenant], events)
		})
		if err != nil {
			_, _ = fmt.Fprintln(os.Stdout, "failed", strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		_, _ = fmt.Fprintln(os.Stdout, "counted")
	}
}

// writer is a process that writes, and is begun again when it was killed.
type writer struct {
	t   *testing.T
	dsn func() string

	mu  sync.Mutex
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// do has an order counted, however often the process or its database dies meanwhile.
func (w *writer) do(ctx context.Context, o order) {
	for ctx.Err() == nil {
		if w.in == nil {
			w.begin()
		}
		if err := json.NewEncoder(w.in).Encode(o); err == nil && w.out.Scan() {
			if w.out.Text() == "counted" {
				return
			}
			time.Sleep(20 * time.Millisecond) //nolint:forbidigo // the database is away
			continue
		}
		w.end()
	}
}

func (w *writer) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cmd = exec.Command(os.Args[0])
	w.cmd.Env = append(os.Environ(), envWriter+"="+w.dsn())
	w.cmd.Stderr = os.Stderr
	in, err := w.cmd.StdinPipe()
	out, err2 := w.cmd.StdoutPipe()
	if err := errors.Join(err, err2, w.cmd.Start()); err != nil {
		w.t.Error(err)
		return
	}
	w.in, w.out = in, bufio.NewScanner(out)
}

// end takes leave of a process that has died.
func (w *writer) end() {
	w.kill()
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.in.Close()
	_ = w.cmd.Wait()
	w.in = nil
}

func (w *writer) kill() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cmd != nil && w.cmd.Process != nil {
		_ = w.cmd.Process.Signal(syscall.SIGKILL)
	}
}

// server is a PostgreSQL that is killed and begun again.
type server struct {
	t   *testing.T
	dir string
	mu  sync.Mutex
	pg  *pgserver.Server
}

func (s *server) dsn(user, database string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pg.DSN(pgserver.Login{User: user, Database: database})
}

func (s *server) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	settings := map[string]string{"synchronous_commit": "on"} // what is committed survives the process, if not the machine
	for range 100 {                                           // until the last one's processes have ended
		if s.pg, err = pgserver.Start(context.WithoutCancel(s.t.Context()), pgserver.Options{Dir: s.dir, Settings: settings}); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond) //nolint:forbidigo // see above
	}
	s.t.Fatal(err)
}

func (s *server) crash() {
	s.mu.Lock()
	old := s.pg
	s.mu.Unlock()
	_ = syscall.Kill(old.PID(), syscall.SIGKILL)
	<-old.Done()
	_ = old.Stop(context.WithoutCancel(s.t.Context()))
	s.start()
}

// Events are sent one to ten times in any order by processes that are killed, to a PostgreSQL that is killed, and in the end
// each has counted once.
func TestNothingIsLostOrDoubled(t *testing.T) {
	t.Parallel()
	events, replays, kills, crashes := 100_000, 3, 12, 2
	if os.Getenv("ROWHOUSE_TEST_LONG") != "" {
		events, replays, kills, crashes = 10_000_000, 10, 400, 12
	}
	dir := t.TempDir()
	for _, passed := range []string{dir, filepath.Dir(dir)} { // PostgreSQL may run as another user
		if err := os.Chmod(passed, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	s := &server{t: t, dir: filepath.Join(dir, "pg")}
	s.start()
	t.Cleanup(func() { _ = s.pg.Stop(context.WithoutCancel(t.Context())) })
	db := database()
	if err := pg.Provision(t.Context(), s.dsn("", ""), db); err != nil {
		t.Fatal(err)
	}
	super, err := pgx.Connect(t.Context(), s.dsn("", db.Name))
	if err == nil {
		_, err = super.Exec(t.Context(), `INSERT INTO usage.meter (id, uid, aggregation, dimensions, create_time, update_time)
			VALUES ('bytes', gen_random_uuid(), 1, '{route}', now(), now())`)
		err = errors.Join(err, super.Close(t.Context()))
	}
	if err != nil {
		t.Fatal(err)
	}
	orders := make(chan order)
	var writers sync.WaitGroup
	all := make([]*writer, 4)
	for i := range all {
		w := &writer{t: t, dsn: func() string { return s.dsn(db.Service(), db.Name) }}
		all[i] = w
		writers.Go(func() {
			for o := range orders {
				w.do(t.Context(), o)
			}
			if w.in != nil {
				w.end()
			}
		})
	}
	base := time.Now().UnixMilli()
	sent := send(t, orders, base, plan{events, replays, kills, crashes, all, s})
	writers.Wait()
	compare(t, s.dsn("", db.Name), base, events)
	t.Logf("%d events were sent %d times", events, sent)
}

// plan is what is sent, and how often who dies meanwhile.
type plan struct {
	events, replays, kills, crashes int
	writers                         []*writer
	server                          *server
}

// send sends every event at least once, some of them up to replays times, in any order.
func send(t *testing.T, orders chan<- order, base int64, p plan) (sent int) {
	t.Helper()
	defer close(orders)
	const most = 1000
	queue := make([][]int, len(crowd()))
	var copies []int
	flush := func(n int) {
		if len(queue[n]) > 0 {
			select {
			case orders <- order{n, base, queue[n]}:
			case <-t.Context().Done():
			}
			queue[n] = nil
		}
	}
	window := 20 * most
	done := 0
	for from := 0; from < p.events; from += window {
		copies = copies[:0]
		for n := from; n < min(from+window, p.events); n++ {
			for range 1 + rand.IntN(p.replays) {
				copies = append(copies, n)
			}
		}
		rand.Shuffle(len(copies), func(i, j int) { copies[i], copies[j] = copies[j], copies[i] })
		for _, n := range copies {
			of := n % len(queue)
			if queue[of] = append(queue[of], n); len(queue[of]) == most {
				flush(of)
			}
			sent++
		}
		progress := float64(from+window) / float64(p.events)
		for ; float64(done) < progress*float64(p.kills); done++ {
			p.writers[rand.IntN(len(p.writers))].kill()
			if every := max(p.kills/max(p.crashes, 1), 1); done%every == every/2 {
				p.server.crash()
			}
		}
	}
	for n := range queue {
		flush(n)
	}
	return sent
}

// compare wants each tenant's sums to be those of the events that are its.
func compare(t *testing.T, dsn string, base int64, events int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	want := make([][2]int64, len(crowd()))
	for n := range events {
		want[n%len(want)][0] += numberedQuantity(n)
		want[n%len(want)][1]++
	}
	for i, uid := range crowd() {
		for _, grain := range []string{"minute", "hour", "day"} {
			var sum, count, stored int64
			err := conn.QueryRow(t.Context(), `SELECT sum(sum)::bigint, sum(count)::bigint, (SELECT count(*) FROM usage.event WHERE tenant_uid = $1) FROM (
				SELECT sum, count FROM usage.rollup WHERE tenant_uid = $1 AND grain = $2
				UNION ALL SELECT sum, count FROM usage.adjustment WHERE tenant_uid = $1) AS u`, uid.String(), grain).Scan(&sum, &count, &stored)
			if err != nil || sum != want[i][0] || count != want[i][1] || stored != want[i][1] {
				t.Errorf("tenant %d by %s: %d in %d events (%d stored), want %d in %d: %v", i, grain, sum, count, stored, want[i][0], want[i][1], err)
			}
		}
	}
}

func numberedQuantity(n int) int64 { return int64(n % 1000) }
