package rule

import (
	"context"
	"time"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

const (
	dataTime    = 5 * time.Second
	defaultTime = 30 * time.Second
	mostTime    = 60 * time.Second
	// leastChange and leastRead are below what a call can do anything useful in.
	leastChange = 100 * time.Millisecond
	leastRead   = 5 * time.Millisecond
	mostShaved  = 20 * time.Millisecond
)

// deadline gives each unary call an end: the caller's, shaved so that the answer arrives in time, at most a minute
// away, or the plane's default. A call with too little time left is not begun.
func (e *Enforcer) deadline(ctx context.Context, m *method) (context.Context, context.CancelFunc, error) {
	if m.entry.Open {
		ctx, cancel := context.WithTimeout(ctx, dataTime)
		return ctx, cancel, nil
	}
	data := m.rule.GetPlane() == apiv1.Plane_PLANE_DATA
	now := e.cfg.Clock()
	end, given := ctx.Deadline()
	if !given {
		left := defaultTime
		if data {
			left = dataTime
		}
		ctx, cancel := context.WithTimeout(ctx, left)
		return ctx, cancel, nil
	}
	left := end.Sub(now)
	if m.change && left < leastChange || data && left < leastRead {
		return ctx, nil, fault.New(fault.DeadlineExceeded, fault.ReasonDeadlineTooShort,
			"too little time is left to begin")
	}
	ctx, cancel := context.WithTimeout(ctx, min(left-min(mostShaved, left/10), mostTime))
	return ctx, cancel, nil
}
