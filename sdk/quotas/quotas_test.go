package quotas_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/quotas"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

// service is quota as far as the client sees it. Each call is answered with the next of errs, nil for what went well.
type service struct {
	quotav1.UnimplementedReservationServiceServer
	quotav1.UnimplementedEntitlementServiceServer

	mu    sync.Mutex
	errs  []error
	calls []string
	news  chan struct{}
}

func (s *service) answer(call string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
	select {
	case s.news <- struct{}{}:
	default:
	}
	if len(s.errs) == 0 {
		return nil
	}
	err := s.errs[0]
	s.errs = s.errs[1:]
	return err
}

func (s *service) fail(errs ...error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errs = errs
}

func (s *service) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.calls...)
}

func (s *service) Reserve(_ context.Context, r *quotav1.ReserveRequest) (*quotav1.ReserveResponse, error) {
	err := s.answer("reserve " + r.GetRequestId())
	return &quotav1.ReserveResponse{Reservation: &quotav1.Reservation{Name: "reservations/1", Amounts: []*quotav1.ReservedAmount{
		{Quota: "gb", Amount: 2, Overage: 1}, {Quota: "seats", Amount: 1},
	}}}, err
}

func (s *service) Commit(_ context.Context, r *quotav1.CommitRequest) (*quotav1.CommitResponse, error) {
	return &quotav1.CommitResponse{}, s.answer(fmt.Sprintf("commit %s %d", r.GetName(), len(r.GetAmounts())))
}

func (s *service) Release(_ context.Context, r *quotav1.ReleaseRequest) (*quotav1.ReleaseResponse, error) {
	return &quotav1.ReleaseResponse{}, s.answer("release " + r.GetName())
}

func (s *service) ListQuotaUsage(context.Context, *quotav1.ListQuotaUsageRequest) (*quotav1.ListQuotaUsageResponse, error) {
	return &quotav1.ListQuotaUsageResponse{Usage: []*quotav1.QuotaUsage{{Name: "quotas/seats", Limit: 5, Used: 3, Free: 2}}}, s.answer("list")
}

func (s *service) ListEntitlements(context.Context, *quotav1.ListEntitlementsRequest) (*quotav1.ListEntitlementsResponse, error) {
	kind := func(name string, k quotav1.EntitlementKind) *quotav1.Entitlement {
		return &quotav1.Entitlement{Name: "entitlements/" + name, Kind: k, Enabled: true, Value: `["csv"]`, Quota: "seats"}
	}
	return &quotav1.ListEntitlementsResponse{Entitlements: []*quotav1.EffectiveEntitlement{
		{Entitlement: kind("sso", quotav1.EntitlementKind_ENTITLEMENT_KIND_BOOLEAN)},
		{Entitlement: kind("formats", quotav1.EntitlementKind_ENTITLEMENT_KIND_STATIC)},
		{Entitlement: kind("seats", quotav1.EntitlementKind_ENTITLEMENT_KIND_METERED), Usage: &quotav1.QuotaUsage{Free: 2}},
	}}, s.answer("entitlements")
}

func dial(t *testing.T, c quotas.Config) (*service, *quotas.Client) {
	t.Helper()
	s := &service{news: make(chan struct{}, 1)}
	listener, server := bufconn.Listen(1<<16), grpc.NewServer()
	quotav1.RegisterReservationServiceServer(server, s)
	quotav1.RegisterEntitlementServiceServer(server, s)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); server.Stop(); serving.Wait() })
	c.Quota = conn
	client := quotas.New(c)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	serving.Go(func() {
		if err := client.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(cancel)
	return s, client
}

var (
	away    = status.Error(codes.Unavailable, "away")
	refused = tenantgrpc.Status(fault.New(fault.ResourceExhausted, "QUOTA_EXCEEDED", "no room").
		WithDomain("rowhouse.quota").WithQuota(fault.QuotaViolation{Metric: "seats"})).Err()
)

func TestRetriesWithOneID(t *testing.T) {
	t.Parallel()
	s, c := dial(t, quotas.Config{})
	s.fail(away, away)
	r, err := c.Reserve(t.Context(), quotas.Ask{Amounts: quotas.Amounts{"seats": 1, "gb": 2}})
	if err != nil || r.Name != "reservations/1" || r.Overage["gb"] != 1 || len(r.Overage) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	calls := s.seen()
	if len(calls) != 3 || calls[0] != calls[1] || calls[1] != calls[2] {
		t.Errorf("calls %q", calls)
	}
	s.fail(refused)
	_, err = c.Reserve(t.Context(), quotas.Ask{Amounts: quotas.Amounts{"seats": 1}})
	if f, ok := fault.As(err); !ok || f.Reason != "QUOTA_EXCEEDED" || len(f.Quotas) != 1 || len(s.seen()) != 4 {
		t.Errorf("a refusal is repeated or lost: %v, %q", err, s.seen())
	}
	s.fail(away, away, away, away)
	_, err = c.Reserve(t.Context(), quotas.Ask{Amounts: quotas.Amounts{"seats": 1}})
	if fault.KindOf(err) != fault.Unavailable || len(s.seen()) != 8 {
		t.Errorf("a reservation is guessed: %v, %q", err, s.seen())
	}
}

func TestEndsWaitWhileQuotaIsAway(t *testing.T) {
	t.Parallel()
	type key struct{}
	var mu sync.Mutex
	renewed := 0
	lost := make(chan error, 1)
	s, c := dial(t, quotas.Config{
		Tries: 1,
		Renew: func(ctx context.Context) (context.Context, error) {
			mu.Lock()
			defer mu.Unlock()
			renewed++
			return context.WithValue(ctx, key{}, renewed), nil
		},
		Lost: func(_ context.Context, _ string, err error) { lost <- err },
	})
	s.fail(away, away, away, nil, away, refused)
	if err := c.Reservation("reservations/1").Commit(t.Context(), quotas.Amounts{"seats": 1}); err != nil {
		t.Errorf("a commit that can wait: %v", err)
	}
	for len(s.seen()) < 4 {
		<-s.news
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for c.Waiting() > 0 { // the answer is on its way
		<-tick.C
	}
	mu.Lock()
	if renewed != 3 {
		t.Errorf("renewed %d times", renewed)
	}
	mu.Unlock()
	if err := c.Reservation("reservations/2").Release(t.Context()); err != nil {
		t.Errorf("a release that can wait: %v", err)
	}
	if err := <-lost; fault.ReasonOf(err) != "QUOTA_EXCEEDED" {
		t.Errorf("lost: %v", err)
	}
}

func TestReleaseUnlessCommitted(t *testing.T) {
	t.Parallel()
	s, c := dial(t, quotas.Config{})
	r := c.Reservation("reservations/1")
	if err := r.Commit(t.Context(), nil); err != nil {
		t.Error(err)
	}
	r.ReleaseUnlessCommitted(t.Context())
	c.Reservation("reservations/2").ReleaseUnlessCommitted(t.Context())
	if got := fmt.Sprint(s.seen()); got != "[commit reservations/1 0 release reservations/2]" {
		t.Error(got)
	}
}

func TestListsAndEntitlements(t *testing.T) {
	t.Parallel()
	_, c := dial(t, quotas.Config{})
	list, err := c.List(t.Context())
	if err != nil || list["seats"] != (quotas.Usage{Limit: 5, Used: 3, Free: 2}) {
		t.Errorf("%v, %v", list, err)
	}
	e, err := c.Entitlements(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	on, err := e.Enabled("sso")
	var formats []string
	left, leftErr := e.Left("seats")
	if !on || err != nil || e.Value("formats", &formats) != nil || len(formats) != 1 || leftErr != nil || left.Free != 2 {
		t.Errorf("%v %v %v %v %v", on, err, formats, left, leftErr)
	}
	_, unknown := e.Enabled("unknown")
	_, kind := e.Left("sso")
	for _, err := range []error{unknown, kind, e.Value("sso", &formats)} {
		if !errors.Is(err, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "")) {
			t.Errorf("neither given nor denied: %v", err)
		}
	}
}
