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
	"google.golang.org/protobuf/proto"
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

const columns = `id, uid::text, tokens, period_ns, burst, on_loss, kind, coalesce(resource, id), scope, dimensions, rules, mode, on_change,
	expire_time, max_cells, create_time, update_time, revision`

// scan reads one limit.
func (p Place) scan(row pgx.Row) (*quotav1.Limit, error) {
	var id string
	var period int64
	var rules []byte
	var expires *time.Time
	var created, updated time.Time
	l := new(quotav1.Limit)
	if err := row.Scan(&id, &l.Uid, &l.Tokens, &period, &l.Burst, &l.OnStoreLoss, &l.Kind, &l.Resource, &l.Scope, &l.Dimensions, &rules,
		&l.Mode, &l.OnChange, &expires, &l.MaxCells, &created, &updated, &l.Revision); err != nil {
		return nil, err
	}
	var kept quotav1.Limit
	if err := proto.Unmarshal(rules, &kept); err != nil {
		return nil, fmt.Errorf("rules of %s: %w", id, err)
	}
	l.Match, l.Costs = kept.GetMatch(), kept.GetCosts()
	l.Name = p.Owner.String() + "/limits/" + id
	l.Period = durationpb.New(time.Duration(period))
	if expires != nil {
		l.ExpireTime = timestamppb.New(*expires)
	}
	l.CreateTime, l.UpdateTime = timestamppb.New(created), timestamppb.New(updated)
	l.Etag = etag.Of(l.GetUid(), l.GetRevision())
	return l, nil
}

// values are the columns from tokens to update_time, in order, without kind, which never
// changes.
func values(l *quotav1.Limit) ([]any, error) {
	var rules []byte
	if len(l.GetMatch())+len(l.GetCosts()) > 0 {
		var err error
		if rules, err = proto.Marshal(&quotav1.Limit{Match: l.GetMatch(), Costs: l.GetCosts()}); err != nil {
			return nil, fmt.Errorf("rules of a limit: %w", err)
		}
	}
	var expires *time.Time
	if l.GetExpireTime() != nil {
		at := l.GetExpireTime().AsTime()
		expires = &at
	}
	dimensions := l.GetDimensions()
	if dimensions == nil {
		dimensions = []string{}
	}
	return []any{
		l.GetTokens(), l.GetPeriod().AsDuration().Nanoseconds(), l.GetBurst(), int32(l.GetOnStoreLoss()), l.GetResource(), int32(l.GetScope()),
		dimensions, rules, int32(l.GetMode()), int32(l.GetOnChange()), expires, l.GetMaxCells(), l.GetUpdateTime().AsTime(),
	}, nil
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
	set, err := values(l)
	if err != nil {
		return err
	}
	tag, err := q.Exec(ctx, `INSERT INTO meter.rate_limit
			(layer, layer_id, id, tokens, period_ns, burst, on_loss, resource, scope, dimensions, rules, mode, on_change, expire_time, max_cells,
				update_time, uid, kind, create_time)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
		ON CONFLICT (layer, layer_id, id) DO NOTHING`,
		append(append([]any{string(p.Owner.Layer), p.ID, id}, set...), l.GetUid(), int32(l.GetKind()), l.GetCreateTime().AsTime())...)
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
	set, err := values(l)
	if err != nil {
		return err
	}
	_, err = q.Exec(ctx, `UPDATE meter.rate_limit SET tokens = $4, period_ns = $5, burst = $6, on_loss = $7, resource = $8, scope = $9,
			dimensions = $10, rules = $11, mode = $12, on_change = $13, expire_time = $14, max_cells = $15, update_time = $16
		WHERE layer = $1 AND layer_id = $2 AND id = $3`, append([]any{string(p.Owner.Layer), p.ID, id}, set...)...)
	if err != nil {
		return fmt.Errorf("change a limit: %w", err)
	}
	return nil
}

// Alike returns how many limits there are of a resource, over all layers, besides those
// of an id. It keeps others from making one until the transaction ends.
func Alike(ctx context.Context, q Querier, resource, id string) (n int, err error) {
	if _, err := q.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('meter.rate_limit'), hashtext($1))`, resource); err != nil {
		return 0, fmt.Errorf("lock a resource: %w", err)
	}
	err = q.QueryRow(ctx, `SELECT count(DISTINCT id) FROM meter.rate_limit WHERE coalesce(resource, id) = $1 AND id <> $2`, resource, id).
		Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count the limits of a resource: %w", err)
	}
	return n, nil
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
