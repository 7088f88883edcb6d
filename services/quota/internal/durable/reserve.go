package durable

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/allowance"
)

const (
	// DefaultTTL is how long a reservation holds when its maker does not say.
	DefaultTTL = time.Minute
	// maxOpen is how many open reservations a tenant may have.
	maxOpen = 10_000
	// ReservationPrefix begins the names of reservations.
	ReservationPrefix = "reservations/"

	stateHeld      = quotav1.ReservationState_RESERVATION_STATE_HELD
	stateCommitted = quotav1.ReservationState_RESERVATION_STATE_COMMITTED
	stateReleased  = quotav1.ReservationState_RESERVATION_STATE_RELEASED
	stateExpired   = quotav1.ReservationState_RESERVATION_STATE_EXPIRED
)

// Ask is what is to be reserved.
type Ask struct {
	// RequestID makes repeats harmless, and ID is the new reservation's.
	RequestID, ID string
	// Amounts are those that are asked for, each quota once.
	Amounts []*quotav1.QuotaAmount
	TTL     time.Duration
}

// digest is what a repeat must agree in.
func (a Ask) digest() []byte {
	h := sha256.New()
	fmt.Fprintf(h, "%d\n", a.TTL)
	writeAmounts(h, a.Amounts)
	return h.Sum(nil)
}

func writeAmounts(h interface{ Write([]byte) (int, error) }, amounts []*quotav1.QuotaAmount) {
	sorted := slices.SortedFunc(slices.Values(amounts), func(a, b *quotav1.QuotaAmount) int {
		return strings.Compare(a.GetQuota(), b.GetQuota())
	})
	for _, m := range sorted {
		fmt.Fprintf(h, "%s %d\n", m.GetQuota(), m.GetAmount())
	}
}

func (a Ask) quotas() []string {
	ids := make([]string, 0, len(a.Amounts))
	for _, m := range a.Amounts {
		ids = append(ids, m.GetQuota())
	}
	return ids
}

// Reserve holds what is asked for, or nothing. Errors: QUOTA_UNKNOWN, QUOTA_EXCEEDED, TOO_MANY_RESERVATIONS,
// REQUEST_ID_REUSED; [Again] says of any other whether the transaction has to begin again.
func Reserve(ctx context.Context, tx Tx, t Tenant, a Ask) (*quotav1.Reservation, error) {
	if err := t.enter(ctx, tx); err != nil {
		return nil, err
	}
	var seen levels
	var first *quotav1.Reservation
	batch := new(pgx.Batch)
	a.repeated(batch, t, &first)
	t.resolve(batch, a.quotas(), &seen)
	if err := tx.SendBatch(ctx, batch).Close(); err != nil || first != nil {
		return first, err
	}
	for _, m := range a.Amounts {
		if len(seen.of(m.GetQuota())) == 0 {
			return nil, unknown(m.GetQuota(), "no quota %q holds for the tenant", m.GetQuota())
		}
	}
	l, err := openAt(ctx, tx, t, seen, a.quotas())
	if err != nil {
		return nil, err
	}
	// A twin may have been first to the locks: then this is a repeat, whatever is free by now.
	var open int
	batch = new(pgx.Batch)
	a.repeated(batch, t, &first)
	batch.Queue(`SELECT count(*) FROM (SELECT FROM quota.reservation WHERE tenant_uid = $1 AND state = 1 LIMIT $2) o`, t.UID, maxOpen).
		QueryRow(func(row pgx.Row) error { return row.Scan(&open) })
	if err := tx.SendBatch(ctx, batch).Close(); err != nil || first != nil {
		return first, err
	}
	if open >= maxOpen {
		return nil, refuse(fault.ResourceExhausted, ReasonTooManyReservations, "the tenant has %d open reservations", maxOpen)
	}
	r, err := a.take(l, t, tx.Now())
	if err != nil {
		return nil, err
	}
	return r, a.keep(ctx, tx, t, l, r)
}

// repeated queues the look-up of what the request was answered before.
func (a Ask) repeated(batch *pgx.Batch, t Tenant, into **quotav1.Reservation) {
	batch.Queue(`SELECT digest, first FROM quota.reservation WHERE tenant_uid = $1 AND request_id = $2`, t.UID, a.RequestID).
		QueryRow(func(row pgx.Row) error {
			var digest, first []byte
			err := row.Scan(&digest, &first)
			if errors.Is(err, pgx.ErrNoRows) {
				return nil
			}
			if err != nil {
				return err
			}
			if !bytes.Equal(digest, a.digest()) {
				return fault.New(fault.InvalidArgument, fault.ReasonRequestIDReused, "request_id %s was used with another request", a.RequestID)
			}
			*into = new(quotav1.Reservation)
			return proto.Unmarshal(first, *into)
		})
}

// take takes the amounts out of all levels, or says which refuse.
func (a Ask) take(l *ledger, t Tenant, at time.Time) (*quotav1.Reservation, error) {
	r := &quotav1.Reservation{
		Name: ReservationPrefix + a.ID, State: stateHeld, CreateTime: timestamppb.New(l.now), ExpireTime: timestamppb.New(l.now.Add(a.TTL)),
	}
	var no refusals
	for _, m := range a.Amounts {
		line := &quotav1.ReservedAmount{Quota: m.GetQuota(), Amount: m.GetAmount()}
		for _, level := range l.levels.of(m.GetQuota()) {
			v := l.take(level, at, m.GetAmount())
			if !v.OK {
				no = append(no, refusal{level, v, l.counters[level.at(at)].Bound()})
			}
			line.Overage = max(line.GetOverage(), v.Overage)
		}
		r.Amounts = append(r.Amounts, line)
	}
	return r, no.fault(t)
}

func (l *ledger) take(level level, at time.Time, n int64) allowance.Verdict {
	c := l.counters[level.at(at)]
	c.changed = true
	return c.Take(level.policy, n, l.now)
}

// keep writes the reservation and what it holds.
func (a Ask) keep(ctx context.Context, tx Tx, t Tenant, l *ledger, r *quotav1.Reservation) error {
	first, err := proto.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode a reservation: %w", err)
	}
	var owners, quotas []string
	var starts []time.Time
	var amounts []int64
	for _, m := range a.Amounts {
		for _, level := range l.levels.of(m.GetQuota()) {
			k := level.at(tx.Now())
			owners, quotas = append(owners, k.owner), append(quotas, k.quota)
			starts, amounts = append(starts, k.start), append(amounts, m.GetAmount())
		}
	}
	expire := r.GetExpireTime().AsTime()
	batch := new(pgx.Batch)
	batch.Queue(`INSERT INTO quota.reservation (tenant_uid, id, request_id, digest, state, create_time, expire_time, first)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`, t.UID, a.ID, a.RequestID, a.digest(), int32(stateHeld), l.now, expire, first)
	batch.Queue(`INSERT INTO quota.hold (tenant_uid, reservation_id, owner_uid, quota, period_start, amount, expire_time)
		SELECT $1, $2, u.owner, u.quota, u.start, u.amount, $7
		FROM unnest($3::uuid[], $4::text[], $5::timestamptz[], $6::bigint[]) AS u (owner, quota, start, amount)`,
		t.UID, a.ID, owners, quotas, starts, amounts, expire)
	l.save(batch)
	err = tx.SendBatch(ctx, batch).Close()
	if pg.Code(err) == pg.CodeUniqueViolation {
		return errMoved // the same id at the same time for other quotas
	}
	if err != nil {
		return fmt.Errorf("keep a reservation: %w", err)
	}
	return nil
}

// Again says whether a transaction that failed with err lost a race and has to begin again.
func Again(err error) bool { return errors.Is(err, errMoved) }

// unknown refuses a quota.
func unknown(quota, format string, args ...any) error {
	return refuse(fault.InvalidArgument, ReasonQuotaUnknown, format, args...).WithMetadata("quota", quota).
		WithField(fault.FieldViolation{Field: "amounts", Description: "names the quota " + quota})
}

// refusal is a level that has no room.
type refusal struct {
	level   level
	verdict allowance.Verdict
	bound   int64
}

type refusals []refusal

// fault is QUOTA_EXCEEDED with all that refused, nil when none did. Whose a shared quota is it does not tell.
func (no refusals) fault(t Tenant) error {
	if len(no) == 0 {
		return nil
	}
	const most = 8
	f := refuse(fault.ResourceExhausted, ReasonQuotaExceeded, "the quota %q has no room left", no[0].level.quota).
		WithMetadata("quota", no[0].level.quota)
	var wait time.Duration
	helps := true
	for i, r := range no {
		helps = helps && r.verdict.RetryAfter > 0
		wait = max(wait, r.verdict.RetryAfter)
		if i < most {
			v := fault.QuotaViolation{
				Subject: "tenants/" + t.ID, Description: "the quota has no room left", APIService: Domain, Metric: r.level.quota,
				ID: r.level.quota, Value: r.bound,
			}
			if !r.level.own {
				v.Description, v.Value = "a quota that the tenant shares has no room left", 0
			}
			f = f.WithQuota(v)
		}
	}
	if helps {
		f = f.WithRetry(wait)
	}
	return f
}
