package usage

import (
	"context"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// CountAt is Count at a time of the test's.
func CountAt(ctx context.Context, tx Tx, tenantUID tenant.UID, events []Event, now time.Time) ([]Result, error) {
	return count(ctx, tx, tenantUID, events, options{now: now})
}
