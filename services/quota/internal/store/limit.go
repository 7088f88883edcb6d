// Package store keeps limits, and what of them is spent, in PostgreSQL.
//
// Limits change inside a unit of work of internal/change. Charges belong to no
// audited call: they are one short transaction each, see [Charge].
package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/meter"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns quota's migrations; they run after those of internal/change.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return sub
}

// Querier is a transaction or a pool.
type Querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Place is where a limit is set: the layer and, by uid for tenants, whose it is.
type Place struct {
	// Owner is the owner as the caller named it.
	Owner meter.Owner
	// ID is '' for the platform, the plan's id, or the tenant's uid.
	ID string
}

const columns = `id, uid::text, tokens, period_ns, burst, on_loss, create_time, update_time, revision`

// scan reads one limit.
func (p Place) scan(row pgx.Row) (*quotav1.Limit, error) {
	var id string
	var period int64
	var loss int32
	var created, updated time.Time
	l := new(quotav1.Limit)
	if err := row.Scan(&id, &l.Uid, &l.Tokens, &period, &l.Burst, &loss, &created, &updated, &l.Revision); err != nil {
		return nil, err
	}
	l.Name = p.Owner.String() + "/limits/" + id
	l.Period = durationpb.New(time.Duration(period))
	l.OnStoreLoss = quotav1.StoreLossPolicy(loss)
	l.CreateTime, l.UpdateTime = timestamppb.New(created), timestamppb.New(updated)
	l.Etag = etag.Of(l.GetUid(), l.GetRevision())
	return l, nil
}

// Read returns a limit. A missing one is a fault RESOURCE_NOT_FOUND.
func Read(ctx context.Context, q Querier, p Place, id string) (*quotav1.Limit, error) {
	return p.read(ctx, q, id, "")
}

// Lock returns a limit and keeps others from changing it until the transaction ends.
func Lock(ctx context.Context, q Querier, p Place, id string) (*quotav1.Limit, error) {
	return p.read(ctx, q, id, " FOR UPDATE")
}

func (p Place) read(ctx context.Context, q Querier, id, lock string) (*quotav1.Limit, error) {
	l, err := p.scan(q.QueryRow(ctx, `SELECT `+columns+` FROM meter.rate_limit WHERE layer = $1 AND layer_id = $2 AND id = $3`+lock,
		string(p.Owner.Layer), p.ID, id))
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "%s does not exist", p.Owner.String()+"/limits/"+id)
	}
	if err != nil {
		return nil, fmt.Errorf("read a limit: %w", err)
	}
	return l, nil
}

// List returns up to n limits of one place whose ids come after the given one.
func List(ctx context.Context, q Querier, p Place, after string, n int) ([]*quotav1.Limit, error) {
	rows, err := q.Query(ctx, `SELECT `+columns+` FROM meter.rate_limit WHERE layer = $1 AND layer_id = $2 AND id > $3
		ORDER BY id LIMIT $4`, string(p.Owner.Layer), p.ID, after, n)
	if err != nil {
		return nil, fmt.Errorf("list limits: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*quotav1.Limit, error) { return p.scan(row) })
}

// Insert makes a limit. One that somebody else makes at the same time is a fault
// CONCURRENT_OPERATION.
func Insert(ctx context.Context, q Querier, p Place, id string, l *quotav1.Limit) error {
	tag, err := q.Exec(ctx, `INSERT INTO meter.rate_limit
			(layer, layer_id, id, uid, tokens, period_ns, burst, on_loss, create_time, update_time)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (layer, layer_id, id) DO NOTHING`,
		string(p.Owner.Layer), p.ID, id, l.GetUid(), l.GetTokens(), l.GetPeriod().AsDuration().Nanoseconds(), l.GetBurst(),
		int32(l.GetOnStoreLoss()), l.GetCreateTime().AsTime(), l.GetUpdateTime().AsTime())
	if err != nil {
		return fmt.Errorf("make a limit: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return fault.New(fault.Aborted, fault.ReasonConcurrentOp, "the limit was just made by somebody else")
	}
	return nil
}

// Change writes a limit that [Lock] returned.
func Change(ctx context.Context, q Querier, p Place, id string, l *quotav1.Limit) error {
	_, err := q.Exec(ctx, `UPDATE meter.rate_limit SET tokens = $4, period_ns = $5, burst = $6, on_loss = $7, update_time = $8
		WHERE layer = $1 AND layer_id = $2 AND id = $3`,
		string(p.Owner.Layer), p.ID, id, l.GetTokens(), l.GetPeriod().AsDuration().Nanoseconds(), l.GetBurst(),
		int32(l.GetOnStoreLoss()), l.GetUpdateTime().AsTime())
	if err != nil {
		return fmt.Errorf("change a limit: %w", err)
	}
	return nil
}

// Stamp writes the revision of a limit's change.
func Stamp(ctx context.Context, q Querier, p Place, id string, revision int64) error {
	_, err := q.Exec(ctx, `UPDATE meter.rate_limit SET revision = $4 WHERE layer = $1 AND layer_id = $2 AND id = $3`,
		string(p.Owner.Layer), p.ID, id, revision)
	if err != nil {
		return fmt.Errorf("stamp a limit: %w", err)
	}
	return nil
}

// Delete removes a limit.
func Delete(ctx context.Context, q Querier, p Place, id string) error {
	_, err := q.Exec(ctx, `DELETE FROM meter.rate_limit WHERE layer = $1 AND layer_id = $2 AND id = $3`,
		string(p.Owner.Layer), p.ID, id)
	if err != nil {
		return fmt.Errorf("delete a limit: %w", err)
	}
	return nil
}
