package audit

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
)

// ErrNotFound says that there is no such chain or event.
var ErrNotFound = errors.New("no such audit chain or event")

// Querier is a pool, a connection or a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Report is what [Verify] found.
type Report struct {
	// Events is how many events were checked; they are sound up to FirstBad.
	Events int64
	// FirstBad is the first position that does not fit, 0 when the chain is sound.
	FirstBad int64
	// Problem says what does not fit there.
	Problem string
	// Head is the hash after the last sound event.
	Head Hash
}

// Verify recomputes chain from its first event. All it reads must come from one snapshot, so q is a transaction that
// repeats its reads, or the head may have moved on. It returns [ErrNotFound] for a chain that never had an event, and
// otherwise fails only when the database does.
func Verify(ctx context.Context, q Querier, chain string) (Report, error) {
	var lastSeq int64
	var lastHash []byte
	err := q.QueryRow(ctx, `SELECT seq, hash FROM audit.head WHERE chain = $1`, chain).Scan(&lastSeq, &lastHash)
	if errors.Is(err, pgx.ErrNoRows) {
		return Report{}, ErrNotFound
	}
	if err != nil {
		return Report{}, err
	}
	rows, err := q.Query(ctx, `SELECT seq, event, hash FROM audit.event WHERE chain = $1 ORDER BY seq`, chain)
	if err != nil {
		return Report{}, err
	}
	defer rows.Close()
	r := Report{Head: Genesis(chain)}
	for rows.Next() {
		var seq int64
		var event, hash []byte
		if err := rows.Scan(&seq, &event, &hash); err != nil {
			return Report{}, err
		}
		if r.check(chain, seq, event, hash); r.FirstBad != 0 {
			return r, nil
		}
	}
	if err := rows.Err(); err != nil {
		return Report{}, err
	}
	if r.Events != lastSeq || string(r.Head[:]) != string(lastHash) {
		r.FirstBad = r.Events + 1
		r.Problem = fmt.Sprintf("the chain ends after %d events, its head says %d", r.Events, lastSeq)
	}
	return r, nil
}

func (r *Report) check(chain string, seq int64, event, hash []byte) {
	want := r.Events + 1
	next := Next(r.Head, want, event)
	decoded, err := decode(chain, seq, event, hash)
	switch {
	case seq != want:
		r.fail(want, fmt.Sprintf("event %d is missing", want))
	case string(next[:]) != string(hash):
		r.fail(want, "the event or its hash was changed")
	case err != nil || decoded.GetChain() != chain:
		r.fail(want, "the event belongs to another chain or cannot be read")
	default:
		r.Events, r.Head = want, next
	}
}

func (r *Report) fail(seq int64, problem string) { r.FirstBad, r.Problem = seq, problem }

// List returns up to limit events of chain before the position given, newest first; before 0 means from the end.
func List(ctx context.Context, q Querier, chain string, before int64, limit int) ([]*auditv1.Event, error) {
	rows, err := q.Query(ctx, `SELECT seq, event, hash FROM audit.event
		WHERE chain = $1 AND ($2 = 0 OR seq < $2) ORDER BY seq DESC LIMIT $3`, chain, before, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*auditv1.Event, error) {
		return scan(chain, row)
	})
}

// Get returns one event, or [ErrNotFound].
func Get(ctx context.Context, q Querier, chain string, seq int64) (*auditv1.Event, error) {
	row := q.QueryRow(ctx, `SELECT seq, event, hash FROM audit.event WHERE chain = $1 AND seq = $2`, chain, seq)
	e, err := scan(chain, row)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrNotFound
	}
	return e, err
}

func scan(chain string, row pgx.Row) (*auditv1.Event, error) {
	var seq int64
	var event, hash []byte
	if err := row.Scan(&seq, &event, &hash); err != nil {
		return nil, err
	}
	return decode(chain, seq, event, hash)
}
