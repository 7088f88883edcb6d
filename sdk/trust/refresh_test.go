package trust_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/trust"
)

// answer is what a server says to a context.
type answer func(ctx context.Context, token string) (string, error)

// renewal is a server of renewals, as its client sees it.
type renewal struct {
	answer answer
	asked  int
}

// Invoke implements grpc.ClientConnInterface.
func (r *renewal) Invoke(ctx context.Context, method string, in, out any, _ ...grpc.CallOption) error {
	req, isReq := in.(*tenancyv1.RefreshContextRequest)
	res, isRes := out.(*tenancyv1.RefreshContextResponse)
	if method != tenancyv1.ContextRenewalService_RefreshContext_FullMethodName || !isReq || !isRes {
		return status.Errorf(codes.Unimplemented, "%s", method)
	}
	r.asked++
	token, err := r.answer(ctx, string(req.GetTenantContext()))
	res.TenantContext = []byte(token)
	return err
}

// NewStream implements grpc.ClientConnInterface.
func (*renewal) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unimplemented, "no streams")
}

func answers(text string) answer {
	return func(_ context.Context, token string) (string, error) { return token + text, nil }
}

func fails(code codes.Code) answer {
	return func(context.Context, string) (string, error) { return "", status.Error(code, code.String()) }
}

func hangs(ctx context.Context, _ string) (string, error) {
	<-ctx.Done()
	return "", status.FromContextError(ctx.Err()).Err()
}

// The servers are asked in order, the next one only where this one cannot tell.
func TestRefresherAsksInOrder(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		servers []answer
		want    string
		code    codes.Code
		asked   []int
		took    time.Duration
	}{
		"the first answers":     {servers: []answer{answers("-1"), answers("-2")}, want: "old-1", asked: []int{1, 0}},
		"the first is away":     {servers: []answer{fails(codes.Unavailable), answers("-2")}, want: "old-2", asked: []int{1, 1}},
		"two are away":          {servers: []answer{fails(codes.Unavailable), fails(codes.DeadlineExceeded), answers("-3")}, want: "old-3", asked: []int{1, 1, 1}},
		"the first hangs":       {servers: []answer{hangs, answers("-2")}, want: "old-2", asked: []int{1, 1}, took: time.Second},
		"the first refuses":     {servers: []answer{fails(codes.PermissionDenied), answers("-2")}, code: codes.PermissionDenied, asked: []int{1, 0}},
		"the chain has ended":   {servers: []answer{fails(codes.Unauthenticated), answers("-2")}, code: codes.Unauthenticated, asked: []int{1, 0}},
		"the tenant changed":    {servers: []answer{fails(codes.Aborted), answers("-2")}, code: codes.Aborted, asked: []int{1, 0}},
		"all are away":          {servers: []answer{fails(codes.DeadlineExceeded), fails(codes.Unavailable)}, code: codes.Unavailable, asked: []int{1, 1}},
		"the only one hangs":    {servers: []answer{hangs}, code: codes.DeadlineExceeded, asked: []int{1}, took: 10 * time.Second},
		"nobody is to be asked": {code: codes.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var conns []grpc.ClientConnInterface
				var all []*renewal
				for _, answer := range c.servers {
					all = append(all, &renewal{answer: answer})
					conns = append(conns, all[len(all)-1])
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				start := time.Now()
				got, err := trust.NewRefresher(conns...).RefreshContext(ctx, "old")
				if got != c.want || status.Code(err) != c.code || time.Since(start) != c.took {
					t.Errorf("%q, %v after %v; want %q, %v after %v", got, err, time.Since(start), c.want, c.code, c.took)
				}
				for i, r := range all {
					if r.asked != c.asked[i] {
						t.Errorf("server %d was asked %d times, want %d", i, r.asked, c.asked[i])
					}
				}
			})
		})
	}
}

// A caller who has gone away has nobody else asked.
func TestRefresherEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		second := &renewal{answer: answers("-2")}
		_, err := trust.NewRefresher(&renewal{answer: hangs}, second).RefreshContext(ctx, "old")
		if status.Code(err) != codes.DeadlineExceeded || second.asked != 0 {
			t.Errorf("%v, the second server was asked %d times", err, second.asked)
		}
	})
}
