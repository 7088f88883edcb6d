package rpc

import (
	"context"
	"time"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/limits"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/store"
)

// settled serves LimitService, and answers a change once this replica lends by it.
type settled struct{ *limitService }

// UpdateLimit implements rowhouse.quota.v1.LimitService.
func (s *settled) UpdateLimit(ctx context.Context, req *quotav1.UpdateLimitRequest) (*quotav1.UpdateLimitResponse, error) {
	resp, err := s.limitService.UpdateLimit(ctx, req)
	if err == nil {
		s.settle(ctx)
	}
	return resp, err
}

// DeleteLimit implements rowhouse.quota.v1.LimitService.
func (s *settled) DeleteLimit(ctx context.Context, req *quotav1.DeleteLimitRequest) (*quotav1.DeleteLimitResponse, error) {
	resp, err := s.limitService.DeleteLimit(ctx, req)
	if err == nil {
		s.settle(ctx)
	}
	return resp, err
}

// settleWait is how long a change that is made waits for this replica to know it.
const settleWait = time.Second

// settle waits until this replica knows the limits as they are. The change is made, and
// known a moment later in any case.
func (s *settled) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleWait)
	defer cancel()
	if revision, err := store.LastLimit(ctx, s.Pool, limits.FeedName); err == nil {
		s.Rules.Await(ctx, revision)
	}
}
