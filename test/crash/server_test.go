package crash

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
)

var models = []tenant.Model{tenant.ModelShared, tenant.ModelSchema, tenant.ModelDatabase}

// row is one entry of a ledger.
type row struct {
	Tenant    string
	Writer, N int
}

// book is what the writers were told.
type book struct {
	mu      sync.Mutex
	acked   map[row]bool
	unknown map[row]bool
	refused map[row]bool
	last    map[int]time.Time // a writer's last acknowledgement
	news    chan struct{}     // closed at the next one
}

func (b *book) note(writer int, r row, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case err == nil:
		b.acked[r] = true
		b.last[writer] = time.Now()
		close(b.news)
		b.news = make(chan struct{})
	case errors.Is(err, tenantdb.ErrOutcome):
		b.unknown[r] = true
	default:
		b.refused[r] = true
	}
}

// await waits until the condition holds, which it looks at after each acknowledgement.
func (b *book) await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	for {
		b.mu.Lock()
		done, news := holds(), b.news
		b.mu.Unlock()
		if done {
			return
		}
		select {
		case <-news:
		case <-limit.C:
			t.Fatalf("in a minute: no %s", what)
		}
	}
}

// TestServerIsKilled kills a backend, at which PostgreSQL starts over by itself, and the
// whole server in turn. The same DB goes on.
func TestServerIsKilled(t *testing.T) {
	t.Parallel()
	rounds := 2
	if long() {
		rounds = 30
	}
	const writers = 6
	h := build(t, models...)
	b := &book{acked: map[row]bool{}, unknown: map[row]bool{}, refused: map[row]bool{}, last: map[int]time.Time{}, news: make(chan struct{})}
	db := open(t, h.dsn())
	stop, stopped := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() { write(stop, t, h, db, b, w) })
	}
	var worst time.Duration
	for round := range rounds {
		before := b.count()
		b.await(t, "load", func() bool { return len(b.acked) >= before+200 })
		killed := time.Now()
		if round%2 == 0 {
			h.kill(t, h.backend(t))
		} else {
			h.kill(t, h.server.PID())
			h.restart(t)
		}
		b.await(t, "recovery", func() bool {
			for w := range writers {
				if !b.last[w].After(killed) {
					return false
				}
			}
			return true
		})
		worst = max(worst, time.Since(killed))
	}
	stopped()
	group.Wait()
	found := h.rows(t, db)
	t.Logf("%d kills: %d acknowledged, %d unknown, %d refused, %d found; all writers were served again after %s at the latest",
		rounds, len(b.acked), len(b.unknown), len(b.refused), len(found), worst.Round(time.Millisecond))
	b.check(t, found)
}

// write adds to a tenant's ledger until the context ends.
func write(ctx context.Context, t *testing.T, h *house, db *tenantdb.DB, b *book, writer int) {
	t.Helper()
	id := tenantOf(models[writer%len(models)])
	pause := time.NewTicker(5 * time.Millisecond)
	defer pause.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		at := h.issuer.In(t.Context(), t, id)
		var err error
		if n%2 == 0 {
			_, err = db.Exec(at, enterRow, writer, n)
		} else {
			err = db.Tx(at, func(tx *tenantdb.Tx) error {
				_, err := tx.Exec(at, enterRow, writer, n)
				return err
			})
		}
		b.note(writer, row{id, writer, n}, err)
		if err != nil {
			<-pause.C
		}
	}
}

// count returns how many writes were acknowledged so far.
func (b *book) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.acked)
}

// check compares what is there with what the writers were told.
func (b *book) check(t *testing.T, found map[row]bool) {
	t.Helper()
	for r := range b.acked {
		if !found[r] {
			t.Errorf("lost: %v was acknowledged", r)
		}
	}
	for r := range found {
		if b.refused[r] {
			t.Errorf("%v was refused and is there", r)
		}
	}
}

// rows reads all ledgers, each as its tenant.
func (h *house) rows(t *testing.T, db *tenantdb.DB) map[row]bool {
	t.Helper()
	found := map[row]bool{}
	for _, model := range models {
		id := tenantOf(model)
		rows, err := db.Query(h.issuer.In(t.Context(), t, id), readRows)
		must(t, err)
		all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (row, error) {
			one := row{Tenant: id}
			return one, r.Scan(&one.Writer, &one.N)
		})
		must(t, err)
		for _, r := range all {
			found[r] = true
		}
	}
	return found
}

// backend returns a process that works for the app.
func (h *house) backend(t *testing.T) (pid int) {
	t.Helper()
	const sql = `SELECT pid FROM pg_stat_activity WHERE usename LIKE 'rowhouse_app%' ORDER BY state = 'active' DESC, random() LIMIT 1`
	must(t, h.admin(t, "").QueryRow(t.Context(), sql).Scan(&pid))
	return pid
}

func (*house) kill(t *testing.T, pid int) {
	t.Helper()
	must(t, syscall.Kill(pid, syscall.SIGKILL))
}
