package pgtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
)

// Replicated is a server and a streaming standby of it, apart from the server that other
// tests share. As in production, and unlike there, a commit is written before it is reported.
type Replicated struct {
	Primary, Standby *pgserver.Server

	cluster *cluster
}

// Pair returns the one that the tests of the process share. They must leave the servers as
// they are; for others there is [StartPair].
func Pair(tb testing.TB) *Replicated {
	tb.Helper()
	pair.once.Do(func() { pair.servers, pair.err = startPair(context.WithoutCancel(tb.Context())) })
	if pair.err != nil {
		tb.Fatalf("pgtest: %v", pair.err)
	}
	return pair.servers
}

// StartPair starts one of the test's own, which may pause, promote or end its servers, and
// stops it at the test's end. It takes about half a second.
func StartPair(tb testing.TB) *Replicated {
	tb.Helper()
	r, err := startPair(tb.Context())
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() {
		ctx, cancel := afterwards(tb, dropping)
		defer cancel()
		if err := r.stop(ctx); err != nil {
			tb.Errorf("pgtest: %v", err)
		}
	})
	return r
}

// New is the package's [New] on the primary.
func (r *Replicated) New(tb testing.TB, tmpl Template) *DB {
	tb.Helper()
	return r.cluster.newDB(tb, tmpl)
}

// StandbyDSN returns the connection URL of a role for db on the standby.
func (r *Replicated) StandbyDSN(db *DB, role string) string {
	return dsnFor(r.Standby.DSN(pgserver.Login{}), role, db.name)
}

// CatchUp waits until the standby has all that was committed on the primary before the call.
func (r *Replicated) CatchUp(tb testing.TB) {
	tb.Helper()
	var position string
	if err := r.cluster.admin.QueryRow(tb.Context(), "SELECT pg_current_wal_flush_lsn()::text").Scan(&position); err != nil {
		tb.Fatalf("pgtest: ask for the primary's position: %v", err)
	}
	conn, err := pgx.Connect(tb.Context(), r.Standby.DSN(pgserver.Login{}))
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	defer conn.Close(tb.Context())
	ctx, cancel := context.WithTimeout(tb.Context(), catchUpWait)
	defer cancel()
	for reached := false; !reached; {
		err := conn.QueryRow(ctx, "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn FROM pg_sleep(0.001)", position).Scan(&reached)
		if err != nil {
			tb.Fatalf("pgtest: wait for the standby: %v; %s", err, standbyState(tb, r.Standby, position))
		}
	}
}

// catchUpWait is longer than any standby takes: one that does not get there is stuck, and the test says on what.
const catchUpWait = 90 * time.Second

// standbyState tells what replay waits for.
func standbyState(tb testing.TB, standby *pgserver.Server, position string) (state string) {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), standby.DSN(pgserver.Login{}))
	if err != nil {
		return err.Error()
	}
	defer conn.Close(tb.Context())
	err = conn.QueryRow(tb.Context(), `SELECT format('wanted %s, replayed %s of %s received, paused %s, receiver %s; sessions: %s', $1::text,
		pg_last_wal_replay_lsn(), pg_last_wal_receive_lsn(), pg_is_wal_replay_paused(), (SELECT status FROM pg_stat_wal_receiver),
		(SELECT string_agg(concat_ws(' ', backend_type, state, wait_event_type, wait_event, left(query, 60)), '; ') FROM pg_stat_activity))`,
		position).Scan(&state)
	if err != nil {
		return err.Error()
	}
	return state
}

func startPair(ctx context.Context) (*Replicated, error) {
	r := &Replicated{}
	if err := r.start(ctx); err != nil {
		return nil, errors.Join(err, r.stop(context.WithoutCancel(ctx)))
	}
	return r, nil
}

func (r *Replicated) start(ctx context.Context) (err error) {
	settings := map[string]string{"synchronous_commit": "on"}
	if r.Primary, err = pgserver.Start(ctx, pgserver.Options{MaxConnections: connections, Settings: settings}); err != nil {
		return fmt.Errorf("primary: %w", err)
	}
	if r.Standby, err = pgserver.Start(ctx, pgserver.Options{Follow: r.Primary}); err != nil {
		return fmt.Errorf("standby: %w", err)
	}
	r.cluster, err = openCluster(ctx, r.Primary.DSN(pgserver.Login{}))
	return err
}

func (r *Replicated) stop(ctx context.Context) error {
	if r.cluster != nil {
		r.cluster.slots.close(ctx)
		r.cluster.admin.Close()
	}
	var err error
	for _, server := range []*pgserver.Server{r.Standby, r.Primary} {
		if server != nil {
			err = errors.Join(err, server.Stop(ctx))
		}
	}
	return err
}

// sharedPair is the pair of this test process, if a test asked for one.
type sharedPair struct {
	once    sync.Once
	servers *Replicated
	err     error
}

func (p *sharedPair) stop(ctx context.Context) error {
	if p.servers == nil {
		return nil
	}
	return p.servers.stop(ctx)
}
