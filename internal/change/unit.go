package change

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	"github.com/rowhouse-platform/rowhouse/internal/audit"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

const reasonInternal = "INTERNAL"

// unit is one try of one unit of work.
type unit struct {
	kernel    *Kernel
	tx        *Tx
	fn        Func
	id        uuid.UUID // of the request
	stored    bool      // a row of the request log waits for the answer
	replayed  bool      // the answer is the first one's
	published bool      // watchers will see something once it is committed
}

// run does all but the commit. Of a replay only its audit event is committed.
func (u *unit) run(ctx context.Context) (proto.Message, error) {
	if err := u.begin(ctx); err != nil {
		return nil, err
	}
	if u.logged() {
		if err := u.claim(ctx); err != nil {
			return nil, err
		}
		if !u.stored {
			return u.replay(ctx)
		}
	}
	m, err := u.work(ctx)
	if err != nil {
		return nil, err
	}
	if err := u.audit(ctx); err != nil {
		return nil, err
	}
	if u.tx.call.ValidateOnly {
		return m, nil
	}
	return m, u.finish(ctx, m)
}

// logged reports whether the answer is kept for retries. What only validates has no effect that a retry could double.
func (u *unit) logged() bool {
	return u.tx.writable && u.tx.call.RequestID != "" && !u.tx.call.ValidateOnly
}

func (u *unit) begin(ctx context.Context) error {
	if err := u.tx.QueryRow(ctx, `SELECT now()`).Scan(&u.tx.now); err != nil {
		return err
	}
	u.tx.now = u.tx.now.UTC()
	return nil
}

// work runs fn. A call that only validates runs it inside a savepoint that is then undone, so that the audit event
// alone remains.
func (u *unit) work(ctx context.Context) (proto.Message, error) {
	if !u.tx.call.ValidateOnly || !u.tx.writable {
		return u.fn(ctx, u.tx)
	}
	var m proto.Message
	undo := errors.New("only validated")
	err := u.tx.Savepoint(ctx, func() (err error) {
		if m, err = u.fn(ctx, u.tx); err != nil {
			return err
		}
		// What commits would check must be checked here as well.
		if _, err := u.tx.Exec(ctx, `SET CONSTRAINTS ALL IMMEDIATE`); err != nil {
			return err
		}
		return undo
	})
	if !errors.Is(err, undo) {
		return nil, err
	}
	return m, nil
}

const claimSQL = `INSERT INTO kernel.request_log (caller, method, request_id, request) VALUES ($1, $2, $3, $4)
ON CONFLICT (caller, method, request_id) DO UPDATE SET request = excluded.request, response = NULL, create_time = now()
WHERE request_log.create_time < now() - interval '24 hours'`

// claim takes the request id, waiting for a twin that holds it. It does not get one that was answered within a day.
func (u *unit) claim(ctx context.Context) (err error) {
	call := u.tx.call
	u.id, err = uuid.Parse(call.RequestID)
	if err != nil || u.id == uuid.Nil {
		return fault.New(fault.InvalidArgument, fault.ReasonInvalidField, "request_id must be a UUID").
			WithField(fault.FieldViolation{Field: "request_id", Description: "must be a UUID, not the zero one"})
	}
	request, err := marshal(call.Request)
	if err != nil {
		return err
	}
	tag, err := u.tx.Exec(ctx, claimSQL, caller(u.tx.tenant, call), call.Method, u.id, request)
	u.stored = tag.RowsAffected() == 1
	return err
}

// replay returns the first answer, once it is on record that it was asked for again.
func (u *unit) replay(ctx context.Context) (proto.Message, error) {
	call := u.tx.call
	var first, response []byte
	err := u.tx.QueryRow(ctx, `SELECT request, response, chains, resources FROM kernel.request_log
		WHERE caller = $1 AND method = $2 AND request_id = $3`, caller(u.tx.tenant, call), call.Method, u.id).
		Scan(&first, &response, &u.tx.chains, &u.tx.resources)
	if err != nil {
		return nil, fmt.Errorf("read the first answer: %w", err)
	}
	if !sameRequest(call.Request, first) {
		return nil, fault.New(fault.InvalidArgument, fault.ReasonRequestIDReused,
			"request_id %s was used with another request", u.id)
	}
	u.replayed = true
	if err := u.audit(ctx); err != nil {
		return nil, err
	}
	var packed anypb.Any
	if err := proto.Unmarshal(response, &packed); err != nil {
		return nil, fmt.Errorf("decode the first answer: %w", err)
	}
	return packed.UnmarshalNew()
}

// Answered reports whether the call that ctx serves repeats one that was answered within a day, so that it will get the
// first answer again. It is for what has to be done before the unit of work and must not be done twice.
func (k *Kernel) Answered(ctx context.Context) (answered bool, err error) {
	call, ok := rule.CallFrom(ctx)
	if !ok || call.RequestID == "" || call.ValidateOnly {
		return false, nil
	}
	id, err := uuid.Parse(call.RequestID)
	if err != nil {
		return false, nil //nolint:nilerr // the unit of work refuses it
	}
	err = k.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM kernel.request_log WHERE caller = $1 AND method = $2 AND request_id = $3
		AND response IS NOT NULL AND create_time >= now() - interval '24 hours')`, caller(actingTenant(ctx, call), call), call.Method, id).
		Scan(&answered)
	return answered, pg.Fault(err)
}

// sameRequest compares meanings: two builds may encode one request differently.
func sameRequest(request proto.Message, first []byte) bool {
	if request == nil {
		return len(first) == 0
	}
	stored := request.ProtoReflect().New().Interface()
	return proto.Unmarshal(first, stored) == nil && proto.Equal(stored, request)
}

// audit appends the call's event to its chains.
func (u *unit) audit(ctx context.Context) error {
	if !audited(u.tx.call) {
		return nil
	}
	e := u.kernel.event(u.tx.call, u.tx.now)
	e.Resources, e.ChangedPaths = u.tx.resources, u.tx.paths
	e.Outcome, e.Replay = auditv1.Outcome_OUTCOME_OK, u.replayed
	e.Reason = u.tx.reason()
	if err := appendTo(ctx, u.tx.tx, u.tx.chainsOr(u.tx.tenant), e); err != nil {
		return auditError(err)
	}
	return nil
}

// appendTo appends e to each chain, in the order of their names so that no two calls wait in a circle.
func appendTo(ctx context.Context, tx pgx.Tx, chains []string, e *auditv1.Event) error {
	for _, chain := range slices.Sorted(slices.Values(chains)) {
		if err := audit.Append(ctx, tx, chain, e); err != nil {
			return err
		}
	}
	return nil
}

// auditError tells an audit that cannot be written from a database that is away or a race that may be tried again.
func auditError(err error) error {
	if _, ok := fault.As(pg.Fault(err)); ok {
		return err
	}
	return fault.New(fault.Unavailable, fault.ReasonAuditUnavailable, "the audit record cannot be written; nothing was done").
		WithCause(err)
}

// finish publishes and stores the answer. Taking the revision is the last statement, unless something asked for it.
func (u *unit) finish(ctx context.Context, m proto.Message) error {
	if len(u.tx.stamps) == 0 {
		if err := u.store(ctx, m); err != nil {
			return err
		}
		_, err := u.publish(ctx, nil)
		return err
	}
	revision, err := u.publish(ctx, nil)
	if err != nil {
		return err
	}
	for _, stamp := range u.tx.stamps {
		if err := stamp(ctx, revision); err != nil {
			return err
		}
	}
	if len(u.tx.entries) > 0 { // entries that hold the revision
		if _, err := u.publish(ctx, &revision); err != nil {
			return err
		}
	}
	return u.store(ctx, m)
}

func (u *unit) store(ctx context.Context, m proto.Message) error {
	if !u.stored {
		return nil
	}
	packed, err := anypb.New(m)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	b, err := marshal(packed)
	if err != nil {
		return err
	}
	_, err = u.tx.Exec(ctx, `UPDATE kernel.request_log SET response = $4, chains = $5, resources = $6
		WHERE caller = $1 AND method = $2 AND request_id = $3`,
		caller(u.tx.tenant, u.tx.call), u.tx.call.Method, u.id, b, append([]string{}, u.tx.chains...), append([]string{}, u.tx.resources...))
	return err
}

// publish writes the entries under the revision that was taken, or takes one.
func (u *unit) publish(ctx context.Context, taken *int64) (int64, error) {
	if len(u.tx.entries) == 0 && len(u.tx.stamps) == 0 {
		return 0, nil
	}
	keys := make([]entryKey, 0, len(u.tx.entries))
	for k := range u.tx.entries {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b entryKey) int {
		if c := strings.Compare(a.feed, b.feed); c != 0 {
			return c
		}
		return strings.Compare(a.key, b.key)
	})
	feeds, names, values := []string{}, []string{}, [][]byte{}
	for _, k := range keys {
		feeds, names, values = append(feeds, k.feed), append(names, k.key), append(values, u.tx.entries[k])
	}
	var revision int64
	err := u.tx.QueryRow(ctx, `SELECT kernel.publish($1, $2, $3, $4)`, taken, feeds, names, values).Scan(&revision)
	u.published = u.published || err == nil && len(keys) > 0
	u.tx.entries = nil
	return revision, err
}

func (k *Kernel) event(call rule.Call, now time.Time) *auditv1.Event {
	return audit.Draft(audit.Facts{
		Time: now, Service: k.service, Method: call.Method, Principal: cmp.Or(call.Principal.Name, "nobody"), Peer: call.Peer,
		Request: call.Request, RequestID: call.RequestID, Reason: call.Reason, ValidateOnly: call.ValidateOnly,
		TraceID: call.TraceID,
	})
}

func marshal(m proto.Message) ([]byte, error) {
	if m == nil {
		return []byte{}, nil
	}
	return proto.MarshalOptions{Deterministic: true}.MarshalAppend([]byte{}, m)
}
