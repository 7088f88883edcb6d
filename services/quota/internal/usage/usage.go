// Package usage counts what tenants use: meters, events, what they add up to, and queries of it.
//
// An event is counted exactly once. Its row and what it adds to the sums are one statement of one transaction, and the row's
// key, which begins with the tenant, is what finds it again. Sums of a minute, an hour and a day are closed an hour after
// their minute's end and never change then: what comes later is booked as an adjustment where it came.
//
// It is not for durable quotas: those write their usage through [RecordIn]. Start at [Count] and [Query].
package usage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Tx is a transaction: pgx.Tx or *change.Tx.
type Tx interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

const (
	// MaxAge bounds how old events may be, and so their ids.
	MaxAge = 72 * time.Hour
	// MaxAhead bounds how far in the future they may be.
	MaxAhead = 5 * time.Minute
	// Grace is how long a minute stays open after its end.
	Grace = time.Hour
	// MaxQuantity bounds quantities in both directions.
	MaxQuantity = int64(1) << 40
	// MaxSeries is how many combinations of dimensions a tenant may have in a meter.
	MaxSeries = 10_000
	// MaxExact is how many different values are told apart exactly.
	MaxExact = 4096

	maxText   = 200
	maxSource = 63
	stripes   = 8
)

// Aggregation is how events become one number, numbered as in the API.
type Aggregation int

// The aggregations.
const (
	Sum Aggregation = iota + 1
	Number
	Max
	Last
	Unique
)

// Event is something that a tenant used.
type Event struct {
	// ID is a UUIDv7, or made by [ForeignID].
	ID uuid.UUID
	// Meter is the meter's id.
	Meter string
	// Quantity is how much.
	Quantity int64
	// Time is when; zero means the time of the id.
	Time time.Time
	// Dimensions are values of declared dimensions.
	Dimensions map[string]string
	// Value is what [Unique] tells apart.
	Value string
}

// Outcome is what became of an event, numbered as in the API.
type Outcome int

// The outcomes. Only the first two leave the event counted.
const (
	Counted Outcome = iota + 1
	Duplicate
	TooOld
	InFuture
	IDReused
	UnknownMeter
	Invalid
	TooManySeries
)

// String returns the outcome's name on the wire.
func (o Outcome) String() string {
	names := [...]string{
		"", "COUNTED", "DUPLICATE", "EVENT_TOO_OLD", "EVENT_IN_FUTURE", "EVENT_ID_REUSED", "UNKNOWN_METER", "INVALID_EVENT", "TOO_MANY_SERIES",
	}
	if o < Counted || int(o) >= len(names) {
		return fmt.Sprintf("Outcome(%d)", int(o))
	}
	return names[o]
}

// Result is the outcome of one event, and for an [Invalid] one what is wrong.
type Result struct {
	Outcome
	// Field breaks the rule that Fault tells.
	Field, Fault string
}

// ErrRefused is what [RecordIn] returns for an event that cannot be counted.
var ErrRefused = errors.New("usage: an event cannot be counted")

// RecordIn counts events of a tenant inside a transaction that others began, once for all of them: it locks what it adds to
// until the end. Events that were counted before count no more. One that cannot be counted is an error that wraps
// [ErrRefused], and the transaction must not be committed. It sets whose rows the transaction sees to the tenant's.
func RecordIn(ctx context.Context, tx Tx, tenantUID tenant.UID, events []Event) error {
	if len(events) == 0 {
		return nil
	}
	results, err := Count(ctx, tx, tenantUID, events)
	if err != nil {
		return err
	}
	for i, r := range results {
		if r.Outcome != Counted && r.Outcome != Duplicate {
			return fmt.Errorf("%w: %s of meter %q: %s %s %s", ErrRefused, events[i].ID, events[i].Meter, r.Outcome, r.Field, r.Fault)
		}
	}
	return nil
}
