// Package outbox writes usage in the product's own transaction, so that what is counted is exactly what was committed: the
// event is a row beside the change, and a relay sends it until it is counted.
//
// The product's migrations make the table, see [Migration]. Start at [RecordTx] and [Relay].
package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/usage"
)

// Migration makes the table. Copy it into a migration of the product.
const Migration = `CREATE TABLE app.usage_outbox (
    tenant_id uuid        NOT NULL DEFAULT rowhouse.tenant_id(),
    id        uuid        NOT NULL DEFAULT gen_random_uuid(),
    event     bytea       NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
SELECT rowhouse.secure('app.usage_outbox');`

//nolint:gochecknoglobals // statements never change
var (
	insert = tenantdb.Stmt(`INSERT INTO app.usage_outbox (event) VALUES ($1)`)
	list   = tenantdb.Stmt(`SELECT id::text, event FROM app.usage_outbox ORDER BY id LIMIT $1`)
	remove = tenantdb.Stmt(`DELETE FROM app.usage_outbox WHERE id = ANY ($1::text[]::uuid[])`)
)

// most is how many events one call sends.
const most = 500

// RecordTx writes an event beside what the transaction changes. Its id is made here, once. An event that no server would
// count is an error that wraps [usage.ErrEvent].
func RecordTx(ctx context.Context, tx *tenantdb.Tx, e usage.Event) error {
	m, err := usage.Encode(e, time.Now())
	if err != nil {
		return err
	}
	b, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("write usage: %w", err)
	}
	if _, err := tx.Exec(ctx, insert, b); err != nil {
		return fmt.Errorf("write usage: %w", err)
	}
	return nil
}

// Refused is an event that the server will never count. It was removed from the outbox.
type Refused struct {
	// Event is what was written.
	Event *quotav1.UsageEvent
	// Why says why not.
	Why quotav1.EventOutcome
}

// Relay sends what waits in the outbox of the tenant of ctx, and removes what the server has answered: after that it is
// counted, or never will be. Two relays of one tenant may run at once; what both send counts once. After an error the rest
// waits for the next call. A product calls it behind its transactions, and from time to time for tenants that were left
// behind by a crash.
func Relay(ctx context.Context, db *tenantdb.DB, quota quotav1.MeterServiceClient) (refused []Refused, err error) {
	for {
		ids, events, err := waiting(ctx, db)
		if err != nil || len(events) == 0 {
			return refused, err
		}
		resp, err := quota.RecordUsage(ctx, &quotav1.RecordUsageRequest{Events: events})
		if err != nil {
			return refused, fmt.Errorf("send usage: %w", err)
		}
		if len(resp.GetOutcomes()) != len(events) {
			return refused, errors.New("send usage: quota answered for another number of events")
		}
		for i, o := range resp.GetOutcomes() {
			if o != quotav1.EventOutcome_EVENT_OUTCOME_COUNTED && o != quotav1.EventOutcome_EVENT_OUTCOME_DUPLICATE {
				refused = append(refused, Refused{events[i], o})
			}
		}
		if _, err := db.Exec(ctx, remove, ids); err != nil {
			return refused, fmt.Errorf("remove usage that was counted: %w", err)
		}
		if len(events) < most {
			return refused, nil
		}
	}
}

// waiting reads what is to be sent next: at most what one request may hold.
func waiting(ctx context.Context, db *tenantdb.DB) (ids []string, events []*quotav1.UsageEvent, err error) {
	rows, err := db.Query(ctx, list, most)
	if err != nil {
		return nil, nil, fmt.Errorf("read the outbox: %w", err)
	}
	defer rows.Close()
	const maxBytes = 1<<20 - 4096
	size := 0
	for rows.Next() {
		var id string
		var b []byte
		if err := rows.Scan(&id, &b); err != nil {
			return nil, nil, fmt.Errorf("read the outbox: %w", err)
		}
		if size += len(b) + 8; size > maxBytes {
			break
		}
		m := new(quotav1.UsageEvent)
		if err := proto.Unmarshal(b, m); err != nil {
			return nil, nil, fmt.Errorf("read the outbox: %w", err)
		}
		ids, events = append(ids, id), append(events, m)
	}
	return ids, events, rows.Err()
}
