package usage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/store"
)

// Meter is something that is counted.
type Meter struct {
	ID          string
	UID         uuid.UUID
	DisplayName string
	Aggregation Aggregation
	Unit        string
	Dimensions  []string
	Created     time.Time
	Updated     time.Time
	Revision    int64
}

const meterColumns = `id, uid, display_name, aggregation, unit, dimensions, create_time, update_time, revision`

func scanMeter(row pgx.CollectableRow) (m Meter, err error) {
	var uid [16]byte
	err = row.Scan(&m.ID, &uid, &m.DisplayName, &m.Aggregation, &m.Unit, &m.Dimensions, &m.Created, &m.Updated, &m.Revision)
	m.UID = uid
	return m, err
}

// ReadMeter returns a meter. A missing one is a fault RESOURCE_NOT_FOUND.
func ReadMeter(ctx context.Context, q Tx, id string) (Meter, error) { return readMeter(ctx, q, id, "") }

// LockMeter returns a meter and keeps others from changing it until the transaction ends.
func LockMeter(ctx context.Context, q Tx, id string) (Meter, error) {
	return readMeter(ctx, q, id, " FOR UPDATE")
}

func readMeter(ctx context.Context, q Tx, id, lock string) (Meter, error) {
	rows, err := q.Query(ctx, `SELECT `+meterColumns+` FROM usage.meter WHERE id = $1`+lock, id)
	if err != nil {
		return Meter{}, fmt.Errorf("read a meter: %w", err)
	}
	m, err := pgx.CollectExactlyOneRow(rows, scanMeter)
	if errors.Is(err, pgx.ErrNoRows) {
		return m, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "meters/%s does not exist", id)
	}
	if err != nil {
		return m, fmt.Errorf("read a meter: %w", err)
	}
	return m, nil
}

// ListMeters returns up to n meters whose ids come after the given one.
func ListMeters(ctx context.Context, q Tx, after string, n int) ([]Meter, error) {
	rows, err := q.Query(ctx, `SELECT `+meterColumns+` FROM usage.meter WHERE id > $1 ORDER BY id LIMIT $2`, after, n)
	if err != nil {
		return nil, fmt.Errorf("list meters: %w", err)
	}
	return pgx.CollectRows(rows, scanMeter)
}

// InsertMeter makes a meter. One that is there is a fault RESOURCE_EXISTS.
func InsertMeter(ctx context.Context, q Tx, m Meter) error {
	tag, err := q.Exec(ctx, `INSERT INTO usage.meter (id, uid, display_name, aggregation, unit, dimensions, create_time, update_time)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $7) ON CONFLICT (id) DO NOTHING`,
		m.ID, [16]byte(m.UID), m.DisplayName, int(m.Aggregation), m.Unit, append([]string{}, m.Dimensions...), m.Created)
	if err != nil {
		return fmt.Errorf("make a meter: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return fault.New(fault.AlreadyExists, fault.ReasonResourceExists, "meters/%s exists", m.ID)
	}
	return nil
}

// ChangeMeter writes what may change of a meter that [LockMeter] returned.
func ChangeMeter(ctx context.Context, q Tx, m Meter) error {
	_, err := q.Exec(ctx, `UPDATE usage.meter SET display_name = $2, dimensions = $3, update_time = $4 WHERE id = $1`,
		m.ID, m.DisplayName, append([]string{}, m.Dimensions...), m.Updated)
	if err != nil {
		return fmt.Errorf("change a meter: %w", err)
	}
	return nil
}

// StampMeter writes the revision of a meter's change.
func StampMeter(ctx context.Context, q Tx, id string, revision int64) error {
	if _, err := q.Exec(ctx, `UPDATE usage.meter SET revision = $2 WHERE id = $1`, id, revision); err != nil {
		return fmt.Errorf("stamp a meter: %w", err)
	}
	return nil
}

// DeleteMeter removes a meter. Unless forced it fails as WRONG_STATE while usage of it is kept; what is forced away is
// removed by [Sweep], and can be asked for no more at once.
func DeleteMeter(ctx context.Context, q Tx, m Meter, force bool) error {
	if err := store.AsEvery(ctx, q); err != nil {
		return err
	}
	var used bool
	err := q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM usage.series WHERE meter_uid = $1)`, [16]byte(m.UID)).Scan(&used)
	if err != nil {
		return fmt.Errorf("look for usage of a meter: %w", err)
	}
	if used && !force {
		return fault.New(fault.FailedPrecondition, fault.ReasonWrongState, "usage of meters/%s is kept; force removes it too", m.ID).
			WithMetadata("state", "IN_USE")
	}
	if _, err := q.Exec(ctx, `DELETE FROM usage.meter WHERE id = $1`, m.ID); err != nil {
		return fmt.Errorf("delete a meter: %w", err)
	}
	return nil
}
