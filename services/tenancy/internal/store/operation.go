package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// Operation is long work whose steps survive a crash at any point.
type Operation struct {
	// ID is a UUIDv7.
	ID string
	// Target is the resource it works on; at most one operation runs per target.
	Target string
	// Verb is what it does, for example "create".
	Verb string
	// Cell is where the target lives; "" when it is gone.
	Cell string
	// Fence grows with each claim and stands in the WHERE of every write, so that a worker that lost its lease is
	// refused.
	Fence int64
	// Attempt counts the failed tries since the last progress.
	Attempt int
	// Input is what the worker must know beyond the target.
	Input []byte
	// Meta is what callers see; its phase is the operation's.
	Meta *apiv1.OperationMetadata
	// Output is the encoded response, Error the encoded google.rpc.Status; at most one is set, once it has ended.
	Output, Error []byte
	EndTime       time.Time
}

// Done reports whether the operation has ended.
func (o Operation) Done() bool { return !o.EndTime.IsZero() }

// cellOfTarget is the id of the cell that an operation's target lives in, or NULL.
const cellOfTarget = `(SELECT p.cell FROM registry.tenant t JOIN registry.placement p ON p.tenant_uid = t.uid
	WHERE t.id = substr(o.target, length('tenants/') + 1))`

const operationColumns = `id::text, target, verb, coalesce(` + cellOfTarget + `, ''), phase, attempt, fence, input, metadata, output, error,
	create_time, end_time, request_id, greatest(next_time, lease_until)`

const selectOperation = `SELECT ` + operationColumns + ` FROM kernel.operations o `

func scanOperation(row pgx.CollectableRow) (Operation, error) {
	var (
		o         Operation
		phase     int32
		metadata  []byte
		created   time.Time
		ended     *time.Time
		requestID string
		next      time.Time
	)
	err := row.Scan(&o.ID, &o.Target, &o.Verb, &o.Cell, &phase, &o.Attempt, &o.Fence, &o.Input, &metadata, &o.Output, &o.Error,
		&created, &ended, &requestID, &next)
	if err != nil {
		return Operation{}, err
	}
	o.Meta = new(apiv1.OperationMetadata)
	if err := proto.Unmarshal(metadata, o.Meta); err != nil {
		return Operation{}, fmt.Errorf("stored operation %s: %w", o.ID, err)
	}
	o.Meta.Target, o.Meta.Verb, o.Meta.Phase, o.Meta.RequestId = o.Target, o.Verb, apiv1.OperationPhase(phase), requestID
	o.Meta.CreateTime = timestamppb.New(created)
	o.EndTime, o.Meta.NextTime = orZero(ended), nil
	if ended != nil {
		o.Meta.EndTime = timestamppb.New(*ended)
	} else {
		o.Meta.NextTime = timestamppb.New(next)
	}
	return o, nil
}

func (o Operation) metadata() ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.MarshalAppend([]byte{}, o.Meta)
}

// InsertOperation stores a new operation. The workers leave it to its creator for grace. Error: CONCURRENT_OPERATION.
func InsertOperation(ctx context.Context, q Querier, o Operation, requestID string, grace time.Duration) error {
	metadata, err := o.metadata()
	if err != nil {
		return err
	}
	var ended *time.Time
	if o.Done() {
		ended = &o.EndTime
	}
	_, err = q.Exec(ctx, `INSERT INTO kernel.operations (id, target, verb, phase, input, metadata, output, request_id, next_time,
		end_time) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now() + $9::interval, $10)`,
		o.ID, o.Target, o.Verb, int32(o.Meta.GetPhase()), append([]byte{}, o.Input...), metadata, o.Output, requestID, grace, ended)
	if pg.Constraint(err) == "operations_one_per_target" {
		return fault.New(fault.Aborted, fault.ReasonConcurrentOp, "another operation works on %s", o.Target)
	}
	return err
}

// ReadOperation returns an operation, or RESOURCE_NOT_FOUND.
func ReadOperation(ctx context.Context, q Querier, id string) (Operation, error) {
	operations, err := collect(ctx, q, scanOperation, selectOperation+`WHERE id = $1`, id)
	if err == nil && len(operations) == 0 {
		err = pgx.ErrNoRows
	}
	if err := found(err, "operations/"+id); err != nil {
		return Operation{}, err
	}
	return operations[0], nil
}

// ListOperations returns up to limit operations, newest first, before the id before; "" begins with the newest. A target
// selects when it is set.
func ListOperations(ctx context.Context, q Querier, target, before string, limit int) ([]Operation, error) {
	return collect(ctx, q, scanOperation, selectOperation+`WHERE ($1 = '' OR target = $1) AND ($2 = '' OR id < nullif($2, '')::uuid)
		ORDER BY id DESC LIMIT $3`, target, before, limit)
}

const claimSet = `UPDATE kernel.operations o SET lease_until = now() + $1::interval, fence = fence + 1, update_time = now() WHERE `
const claimReturn = ` RETURNING ` + operationColumns

// ClaimOperation takes the operation that has been due for longest outside the cells full; ok is false when none is.
func ClaimOperation(ctx context.Context, q Querier, lease time.Duration, full []string) (o Operation, ok bool, err error) {
	return claimed(ctx, q, claimSet+`id = (SELECT id FROM kernel.operations o
		WHERE end_time IS NULL AND next_time <= now() AND (lease_until IS NULL OR lease_until < now())
		AND coalesce(`+cellOfTarget+`, '') <> ALL ($2)
		ORDER BY next_time LIMIT 1 FOR UPDATE SKIP LOCKED)`+claimReturn, lease, full)
}

// ClaimOperationByID takes one operation, due or not, unless another worker holds it or it has ended.
func ClaimOperationByID(ctx context.Context, q Querier, id string, lease time.Duration) (o Operation, ok bool, err error) {
	return claimed(ctx, q, claimSet+`id = $2 AND end_time IS NULL AND (lease_until IS NULL OR lease_until < now())`+claimReturn,
		lease, id)
}

func claimed(ctx context.Context, q Querier, sql string, args ...any) (Operation, bool, error) {
	operations, err := collect(ctx, q, scanOperation, sql, args...)
	if err != nil || len(operations) == 0 {
		return Operation{}, false, err
	}
	return operations[0], true, nil
}

// ErrFenced says that another worker holds the operation or the home now, or that nothing is left to do there.
var ErrFenced = errors.New("another worker holds it")

// ErrGone is an [ErrFenced] that says of a home that it is to be dropped, and still the caller's to put down.
var ErrGone = fmt.Errorf("it is to be dropped: %w", ErrFenced)

// ReleaseOperation stores progress and lets the operation rest for wait. One that was cancelled meanwhile stays so and is
// due at once. Error: ErrFenced.
func ReleaseOperation(ctx context.Context, q Querier, o Operation, wait time.Duration) error {
	return fenced(ctx, q, o, `UPDATE kernel.operations SET phase = CASE WHEN phase = 5 THEN 5 ELSE $3 END, attempt = $4,
		metadata = $5, lease_until = NULL, update_time = now(),
		next_time = CASE WHEN phase = 5 AND $3 <> 5 THEN now() ELSE now() + $6::interval END
		WHERE id = $1 AND fence = $2 AND end_time IS NULL`, wait)
}

// KeepOperation stores progress, holds the operation for another lease and reports whether it was cancelled meanwhile.
// Error: ErrFenced.
func KeepOperation(ctx context.Context, q Querier, o Operation, lease time.Duration) (cancelled bool, err error) {
	metadata, err := o.metadata()
	if err != nil {
		return false, err
	}
	err = q.QueryRow(ctx, `UPDATE kernel.operations SET metadata = $3, attempt = $4, lease_until = now() + $5::interval, update_time = now()
		WHERE id = $1 AND fence = $2 AND end_time IS NULL RETURNING phase = 5`, o.ID, o.Fence, metadata, o.Attempt, lease).Scan(&cancelled)
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrFenced
	}
	return cancelled, err
}

// FinishOperation ends the operation with its output or its error. Error: ErrFenced.
func FinishOperation(ctx context.Context, q Querier, o Operation) error {
	return fenced(ctx, q, o, `UPDATE kernel.operations SET phase = $3, attempt = $4, metadata = $5, output = $6, error = $7,
		lease_until = NULL, end_time = now(), update_time = now() WHERE id = $1 AND fence = $2 AND end_time IS NULL`,
		o.Output, o.Error)
}

// fenced runs a write of the holder. sql takes id, fence, phase, attempt, metadata and what more gives.
func fenced(ctx context.Context, q Querier, o Operation, sql string, more ...any) error {
	metadata, err := o.metadata()
	if err != nil {
		return err
	}
	args := append([]any{o.ID, o.Fence, int32(o.Meta.GetPhase()), o.Attempt, metadata}, more...)
	tag, err := q.Exec(ctx, sql, args...)
	if err != nil {
		return err
	}
	if tag.RowsAffected() == 0 {
		return ErrFenced
	}
	return nil
}

// Supersede ends whatever runs on target, except what has the given verb, with an error. The verb that is spared is
// returned when it runs. Of what was ended the ids and the verbs are returned.
func Supersede(ctx context.Context, q Querier, target, spared string, status []byte) (ended []Operation, running bool, err error) {
	rows, err := q.Query(ctx, `UPDATE kernel.operations SET phase = 8, error = $3, lease_until = NULL, fence = fence + 1, end_time = now(),
		update_time = now() WHERE target = $1 AND end_time IS NULL AND verb <> $2 RETURNING id::text, verb`, target, spared, status)
	if err != nil {
		return nil, false, err
	}
	ended, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (o Operation, err error) {
		err = row.Scan(&o.ID, &o.Verb)
		return o, err
	})
	if err != nil {
		return nil, false, err
	}
	err = q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM kernel.operations WHERE target = $1 AND end_time IS NULL)`, target).Scan(&running)
	return ended, running, err
}

// CancelOperation asks a running operation with the given verb to undo itself and reports whether it was one.
func CancelOperation(ctx context.Context, q Querier, id, verb string) (bool, error) {
	tag, err := q.Exec(ctx, `UPDATE kernel.operations SET phase = 5, next_time = now(), update_time = now()
		WHERE id = $1 AND verb = $2 AND end_time IS NULL`, id, verb)
	return tag.RowsAffected() == 1, err
}

// WakeCreations has the creations of tenants that wait for a home of the app be tried at once.
func WakeCreations(ctx context.Context, q Querier, app, verb string) error {
	_, err := q.Exec(ctx, `UPDATE kernel.operations SET next_time = now() WHERE end_time IS NULL AND verb = $2 AND target IN (
		SELECT 'tenants/' || t.id FROM registry.home h JOIN registry.tenant t ON t.uid = h.tenant_uid
		WHERE h.app = $1 AND t.state = 1)`, app, verb)
	return err
}

// DeleteOperation forgets an operation that has ended and reports whether it had.
func DeleteOperation(ctx context.Context, q Querier, id string) (bool, error) {
	tag, err := q.Exec(ctx, `DELETE FROM kernel.operations WHERE id = $1 AND end_time IS NOT NULL`, id)
	return tag.RowsAffected() == 1, err
}

// ForgetOperations removes those that ended longer ago than keep.
func ForgetOperations(ctx context.Context, q Querier, keep time.Duration) error {
	_, err := q.Exec(ctx, `DELETE FROM kernel.operations WHERE end_time < now() - $1::interval`, keep)
	return err
}
