package rls

import (
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
)

// NextToken is how long it is from now until a limit whose state is tat has one token more; 0 when it is full, or never
// gets any.
func NextToken(l gcra.Limit, tat, now gcra.Ticks) time.Duration {
	free := l.Free(tat, now)
	if l.Tokens() == 0 || free >= l.Burst() {
		return 0
	}
	return max((tat + l.Cost(free+1) - l.Cost(l.Burst()) - now).Duration(), 0)
}
