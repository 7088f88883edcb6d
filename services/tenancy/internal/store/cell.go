package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
)

const selectCell = `SELECT id, uid::text, number, region, credentials_ref, models, capacity, used, state, create_time,
	update_time, revision FROM registry.cell `

func scanCell(row pgx.CollectableRow) (*tenancyv1.Cell, error) {
	var (
		c                tenancyv1.Cell
		id               string
		models           []int32
		state            int32
		created, updated time.Time
	)
	err := row.Scan(&id, &c.Uid, &c.Number, &c.Region, &c.CredentialsRef, &models, &c.Capacity, &c.Used, &state, &created,
		&updated, &c.Revision)
	if err != nil {
		return nil, err
	}
	c.Name, c.Models, c.State = "cells/"+id, modelsOf(models), tenancyv1.CellState(state)
	c.CreateTime, c.UpdateTime = timestamppb.New(created), timestamppb.New(updated)
	c.Etag = etag.Of(c.GetUid(), c.GetRevision())
	return &c, nil
}

// ReadCell returns the cell, or RESOURCE_NOT_FOUND.
func ReadCell(ctx context.Context, q Querier, id string) (*tenancyv1.Cell, error) {
	cells, err := collect(ctx, q, scanCell, selectCell+`WHERE id = $1`, id)
	if err == nil && len(cells) == 0 {
		err = pgx.ErrNoRows
	}
	if err := found(err, "cells/"+id); err != nil {
		return nil, err
	}
	return cells[0], nil
}

// LockCell is ReadCell with the row's lock.
func LockCell(ctx context.Context, q Querier, id string) (*tenancyv1.Cell, error) {
	if err := lock(ctx, q, "cells/"+id, `SELECT 1 FROM registry.cell WHERE id = $1 FOR UPDATE`, id); err != nil {
		return nil, err
	}
	return ReadCell(ctx, q, id)
}

// ListCells returns up to limit cells whose id follows after.
func ListCells(ctx context.Context, q Querier, after string, limit int) ([]*tenancyv1.Cell, error) {
	return collect(ctx, q, scanCell, selectCell+`WHERE id > $1 ORDER BY id LIMIT $2`, after, limit)
}

// AllCells returns every cell; there are few.
func AllCells(ctx context.Context, q Querier) ([]*tenancyv1.Cell, error) {
	return collect(ctx, q, scanCell, selectCell+`ORDER BY id`)
}

// TakeOwedCells locks the cells that the feed "tenants" is owed, marks them as told and returns them.
func TakeOwedCells(ctx context.Context, q Querier) ([]*tenancyv1.Cell, error) {
	ids, err := collect(ctx, q, pgx.RowTo[string], `UPDATE registry.cell SET publish_owed = false WHERE publish_owed RETURNING id`)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	return collect(ctx, q, scanCell, selectCell+`WHERE id = ANY ($1) ORDER BY id`, ids)
}

// InsertCell stores a new cell, of which the caller tells the feeds, under the next number, which it writes into c.
// Errors: RESOURCE_EXISTS; ResourceExhausted when there are as many cells as there may be.
func InsertCell(ctx context.Context, q Querier, id string, c *tenancyv1.Cell) error {
	err := q.QueryRow(ctx, `UPDATE registry.counter SET last = last + 1 WHERE name = 'cell' RETURNING last`).Scan(&c.Number)
	if err != nil {
		return fmt.Errorf("number a cell: %w", err)
	}
	if c.GetNumber() > registry.MaxCells { // cells are never removed, so their numbers count them
		return fault.New(fault.ResourceExhausted, fault.ReasonOverloaded, "there are %d cells; a certificate names no more",
			registry.MaxCells)
	}
	_, err = q.Exec(ctx, `INSERT INTO registry.cell (id, uid, number, region, credentials_ref, models, capacity, state,
		create_time, update_time, publish_owed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, false)`,
		id, c.GetUid(), c.GetNumber(), c.GetRegion(), c.GetCredentialsRef(), numbersOf(c.GetModels()), c.GetCapacity(),
		int32(c.GetState()), c.GetCreateTime().AsTime())
	return exists(err, "cells/"+id)
}

// UpdateCell stores a changed cell.
func UpdateCell(ctx context.Context, q Querier, id string, c *tenancyv1.Cell) error {
	_, err := q.Exec(ctx, `UPDATE registry.cell SET credentials_ref = $2, models = $3, capacity = $4, state = $5,
		update_time = $6 WHERE id = $1`, id, c.GetCredentialsRef(), numbersOf(c.GetModels()), c.GetCapacity(),
		int32(c.GetState()), c.GetUpdateTime().AsTime())
	return err
}

// StampCell writes the revision of a change into its row.
func StampCell(ctx context.Context, q Querier, id string, revision int64) error {
	_, err := q.Exec(ctx, `UPDATE registry.cell SET revision = $2 WHERE id = $1`, id, revision)
	return err
}

// TakeRoom counts one more tenant in the cell and reports whether there was room.
func TakeRoom(ctx context.Context, q Querier, id string) (bool, error) {
	tag, err := q.Exec(ctx, `UPDATE registry.cell SET used = used + 1 WHERE id = $1 AND state = 1 AND used < capacity`, id)
	if err != nil {
		return false, fmt.Errorf("take room in cell %s: %w", id, err)
	}
	return tag.RowsAffected() == 1, nil
}

// FreeRoom counts one tenant less.
func FreeRoom(ctx context.Context, q Querier, id string) error {
	_, err := q.Exec(ctx, `UPDATE registry.cell SET used = used - 1 WHERE id = $1`, id)
	return err
}
