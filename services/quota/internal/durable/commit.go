package durable

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/allowance"
)

// End is how a reservation is to end.
type End struct {
	// ID is the reservation's.
	ID string
	// Amounts are what was used in truth; a quota that is not among them counts as it was reserved.
	Amounts []*quotav1.QuotaAmount
}

// held is a reservation under lock.
type held struct {
	id          string
	state       quotav1.ReservationState
	expire      time.Time
	first, last []byte
	ended       []byte
	made        *quotav1.Reservation
	// holds are what it held of which counters before those were locked.
	holds map[key]int64
}

// keys are the counters of which it held something when it was read.
func (h *held) keys() []key { return slices.SortedFunc(maps.Keys(h.holds), compareKeys) }

// lockReservation locks a reservation of the tenant and finds what it holds.
func lockReservation(ctx context.Context, tx Tx, t Tenant, id string) (*held, error) {
	h := &held{id: id, made: new(quotav1.Reservation), holds: make(map[key]int64)}
	batch := new(pgx.Batch)
	var state int16
	batch.Queue(`SELECT state, expire_time, first, last, ended FROM quota.reservation
			WHERE tenant_uid = $1 AND id = $2 FOR UPDATE`, t.UID, id).
		QueryRow(func(row pgx.Row) error { return row.Scan(&state, &h.expire, &h.first, &h.last, &h.ended) })
	batch.Queue(`SELECT owner_uid::text, quota, period_start, amount FROM quota.hold
			WHERE tenant_uid = $1 AND reservation_id = $2`, t.UID, id).
		Query(func(rows pgx.Rows) error {
			var k key
			var amount int64
			_, err := pgx.ForEachRow(rows, []any{&k.owner, &k.quota, &k.start, &amount}, func() error {
				k.start = k.start.UTC()
				h.holds[k] = amount
				return nil
			})
			return err
		})
	err := tx.SendBatch(ctx, batch).Close()
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "%s does not exist", ReservationPrefix+id)
	}
	if err != nil {
		return nil, fmt.Errorf("lock a reservation: %w", err)
	}
	h.state = quotav1.ReservationState(state)
	return h, proto.Unmarshal(h.first, h.made)
}

// answer is what a reservation that ended is answered with.
func (h *held) answer() (*quotav1.Reservation, error) {
	r := new(quotav1.Reservation)
	return r, proto.Unmarshal(h.last, r)
}

func (h *held) wrongState() error {
	return fault.New(fault.FailedPrecondition, fault.ReasonWrongState, "%s is %s", ReservationPrefix+h.id, stateName(h.state)).
		WithMetadata("state", stateName(h.state))
}

func stateName(s quotav1.ReservationState) string { return s.String()[len("RESERVATION_STATE_"):] }

// actual are the amounts of a commit, by quota.
func (e End) actual(made *quotav1.Reservation) (map[string]int64, error) {
	out := make(map[string]int64, len(made.GetAmounts()))
	for _, m := range made.GetAmounts() {
		out[m.GetQuota()] = m.GetAmount()
	}
	for _, m := range e.Amounts {
		if _, ok := out[m.GetQuota()]; !ok {
			return nil, unknown(m.GetQuota(), "the quota %q was not reserved", m.GetQuota())
		}
		out[m.GetQuota()] = m.GetAmount()
	}
	return out, nil
}

// digestOf names a commit by its amounts.
func digestOf(made *quotav1.Reservation, actual map[string]int64) []byte {
	h := sha256.New()
	var amounts []*quotav1.QuotaAmount
	for _, m := range made.GetAmounts() {
		amounts = append(amounts, &quotav1.QuotaAmount{Quota: m.GetQuota(), Amount: actual[m.GetQuota()]})
	}
	writeAmounts(h, amounts)
	return h.Sum(nil)
}

// Commit turns what a reservation holds into what is used. Errors: RESOURCE_NOT_FOUND, WRONG_STATE, QUOTA_UNKNOWN,
// QUOTA_EXCEEDED, RESERVATION_EXPIRED; see [Again].
func (s *Store) Commit(ctx context.Context, tx Tx, t Tenant, e End) (*quotav1.Reservation, error) {
	if err := t.enter(ctx, tx); err != nil {
		return nil, err
	}
	h, err := lockReservation(ctx, tx, t, e.ID)
	if err != nil {
		return nil, err
	}
	actual, err := e.actual(h.made)
	if err != nil {
		return nil, err
	}
	digest := digestOf(h.made, actual)
	switch h.state {
	case stateCommitted:
		if bytes.Equal(h.ended, digest) {
			return h.answer()
		}
		return nil, h.wrongState()
	case stateReleased:
		return nil, h.wrongState()
	default:
	}
	l, err := open(ctx, tx, t, quotasOf(h.made), h.keys()...)
	if err != nil {
		return nil, err
	}
	if err := l.takeHolds(ctx, tx, t, e.ID); err != nil {
		return nil, err
	}
	c := committing{held: h, ledger: l, tenant: t, actual: actual, at: tx.Now(), charged: make(map[key]int64)}
	if err := c.charge(); err != nil {
		return nil, err
	}
	r := c.result()
	if err := s.finish(ctx, tx, &c, r, digest); err != nil {
		return nil, err
	}
	return r, nil
}

func quotasOf(r *quotav1.Reservation) (ids []string) {
	for _, m := range r.GetAmounts() {
		ids = append(ids, m.GetQuota())
	}
	return ids
}

// committing is a commit under way.
type committing struct {
	held   *held
	ledger *ledger
	tenant Tenant
	actual map[string]int64
	at     time.Time
	// isLate says that the reservation had run out.
	isLate bool
	// charged are the counters that moved, with how much.
	charged map[key]int64
}

// charge moves the counters. A reservation is late when what it held was given back, by whoever needed the counters.
func (c *committing) charge() error {
	if c.isLate = len(c.ledger.mine) == 0 || !c.ledger.now.Before(c.held.expire); !c.isLate {
		return c.settle()
	}
	for k, amount := range c.ledger.mine {
		c.ledger.counters[k].Give(amount)
	}
	return c.retake()
}

// settle turns holds into use. What is more than was held is taken first.
func (c *committing) settle() error {
	var no refusals
	for _, k := range slices.SortedFunc(maps.Keys(c.ledger.mine), compareKeys) {
		reserved, actual, counter := c.ledger.mine[k], c.actual[k.quota], c.ledger.counters[k]
		if actual < reserved {
			counter.Give(reserved - actual)
		}
		if actual > reserved {
			level, bounded := c.ledger.levels.by(k.owner, k.quota)
			if !bounded {
				level.policy.Overage = allowance.AllowAndBill // the quota is gone
			}
			if v := counter.Take(level.policy, actual-reserved, c.ledger.now); !v.OK {
				no = append(no, refusal{level, v, counter.Bound()})
				continue
			}
		}
		counter.Use(actual)
		c.charged[k] = actual
	}
	return no.fault(c.tenant)
}

// retake takes the amounts again, where they are free or are charged late whatever is.
func (c *committing) retake() error {
	for quota, actual := range c.actual {
		if actual == 0 {
			continue
		}
		for _, level := range c.ledger.levels.of(quota) {
			k := level.at(c.at)
			if v := c.ledger.take(level, c.at, actual); !v.OK {
				if !level.policy.ChargeLate {
					return refuse(fault.FailedPrecondition, ReasonReservationExpired, "%s ran out, and what it held is not free any more",
						ReservationPrefix+c.held.id).WithMetadata("quota", quota)
				}
				c.ledger.counters[k].Force(actual)
			}
			c.ledger.counters[k].Use(actual)
			c.charged[k] = actual
		}
	}
	return nil
}

// result is the reservation as it ends.
func (c *committing) result() *quotav1.Reservation {
	r, _ := proto.Clone(c.held.made).(*quotav1.Reservation)
	r.State, r.EndTime, r.Late = stateCommitted, timestamppb.New(c.ledger.now), c.isLate
	for _, m := range r.GetAmounts() {
		m.Committed, m.Overage = c.actual[m.GetQuota()], 0
		for k := range c.charged {
			if k.quota == m.GetQuota() {
				m.Overage = max(m.GetOverage(), min(m.GetCommitted(), c.ledger.counters[k].Over()))
			}
		}
	}
	return r
}

// finish writes all that a commit moves: counters, shares, the reservation, usage events and notices.
func (s *Store) finish(ctx context.Context, tx Tx, c *committing, r *quotav1.Reservation, digest []byte) error {
	batch := new(pgx.Batch)
	c.ledger.save(batch)
	shares(batch, c.tenant, c.charged)
	if err := end(batch, c.tenant, c.held.id, r, digest); err != nil {
		return err
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("commit a reservation: %w", err)
	}
	if err := s.record(ctx, tx, c, r); err != nil {
		return err
	}
	return c.ledger.notify(ctx, tx)
}

// record writes the usage events of what was committed, by the same transaction: enforcement and billing cannot disagree.
func (s *Store) record(ctx context.Context, tx Tx, c *committing, r *quotav1.Reservation) error {
	if s.Record == nil {
		return nil
	}
	var events []UsageEvent
	for _, m := range r.GetAmounts() {
		level, ok := c.ledger.levels.by(c.tenant.UID, m.GetQuota())
		if !ok || level.policy.Meter == "" || m.GetCommitted() == 0 {
			continue
		}
		id, err := s.NewID()
		if err != nil {
			return err
		}
		events = append(events, UsageEvent{
			ID: id, Meter: level.policy.Meter, Quota: m.GetQuota(), Quantity: m.GetCommitted(), Time: c.ledger.now,
		})
	}
	if len(events) == 0 {
		return nil
	}
	return s.Record(ctx, tx, c.tenant.UID, events)
}

// end queues the end of a reservation.
func end(batch *pgx.Batch, t Tenant, id string, r *quotav1.Reservation, digest []byte) error {
	last, err := proto.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode a reservation: %w", err)
	}
	batch.Queue(`UPDATE quota.reservation SET state = $3, end_time = $4, last = $5, ended = $6 WHERE tenant_uid = $1 AND id = $2`,
		t.UID, id, int32(r.GetState()), r.GetEndTime().AsTime(), last, digest).Exec(expectOne)
	return nil
}

// shares queues what a tenant used of what those above it share, to be given back when it is erased.
func shares(batch *pgx.Batch, t Tenant, charged map[key]int64) {
	for k, n := range charged {
		if k.owner == t.UID || n == 0 {
			continue
		}
		batch.Queue(`INSERT INTO quota.share (tenant_uid, owner_uid, quota, period_start, used) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (tenant_uid, owner_uid, quota, period_start) DO UPDATE SET used = share.used + excluded.used`,
			t.UID, k.owner, k.quota, k.start, n)
	}
}

// Release gives back what a reservation holds. Errors: RESOURCE_NOT_FOUND, WRONG_STATE; see [Again].
func Release(ctx context.Context, tx Tx, t Tenant, id string) (*quotav1.Reservation, error) {
	if err := t.enter(ctx, tx); err != nil {
		return nil, err
	}
	h, err := lockReservation(ctx, tx, t, id)
	if err != nil {
		return nil, err
	}
	switch h.state {
	case stateCommitted:
		return nil, h.wrongState()
	case stateReleased:
		return h.answer()
	case stateExpired:
		h.made.State = stateExpired
		return h.made, nil
	default:
	}
	l, batch := new(ledger), new(pgx.Batch)
	l.lock(batch, h.keys())
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("lock quotas: %w", err)
	}
	if err := l.takeHolds(ctx, tx, t, id); err != nil {
		return nil, err
	}
	for k, amount := range l.mine {
		l.counters[k].Give(amount)
	}
	r := h.made
	r.State, r.EndTime = stateReleased, timestamppb.New(l.now)
	batch = new(pgx.Batch)
	l.save(batch)
	if err := end(batch, t, id, r, nil); err != nil {
		return nil, err
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("release a reservation: %w", err)
	}
	return r, nil
}
