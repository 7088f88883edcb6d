package tenantgrpc_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

func TestStreamsEndWhenTheirTenantChanges(t *testing.T) {
	t.Parallel()
	type changes struct {
		name   string
		edit   func(*tenant.TenantState)
		kind   fault.Kind
		reason string
	}
	for _, c := range []changes{
		{"suspended", func(s *tenant.TenantState) { s.State, s.Generation = tenant.StateSuspended, s.Generation+1 },
			fault.PermissionDenied, "TENANT_SUSPENDED"},
		{"deleted", func(s *tenant.TenantState) { s.State, s.Generation = tenant.StateDeleted, s.Generation+1 },
			fault.PermissionDenied, "TENANT_DELETED"},
		{"moved", func(s *tenant.TenantState) { s.PlacementGeneration++ }, fault.Aborted, "PLACEMENT_STALE"},
		{"revoked", func(s *tenant.TenantState) { s.Generation++ }, fault.Aborted, "PLACEMENT_STALE"},
	} {
		for _, method := range []string{watch, chat} {
			t.Run(c.name+method, func(t *testing.T) {
				t.Parallel()
				h := newHouse(t)
				conn := h.dial(h.Gateway(), tenantgrpc.ClientConfig{})
				hit, other := open(h.ctx("acme"), t, conn, method), open(h.ctx("globex"), t, conn, method)
				next(t, h, hit, method, "acme")
				next(t, h, other, method, "globex")
				h.Change(t, "acme", c.edit)
				_, err := receive(hit)
				expect(t, c.name, err, c.kind, c.reason)
				next(t, h, other, method, "globex")
			})
		}
	}
}

// next makes the handler answer once more and expects the tenant's id.
func next(t *testing.T, h *house, stream grpc.ClientStream, method, want string) {
	t.Helper()
	if method == watch {
		h.notes.emit[want] <- struct{}{}
	}
	if method == chat {
		must(t, stream.SendMsg(&text{}))
	}
	got, err := receive(stream)
	if err != nil || got != want {
		t.Fatalf("the stream of %s says %q, %v", want, got, err)
	}
}

// A message that was ready before the cut must not be delivered after it.
func TestNothingMovesAfterTheCut(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.notes.deaf, h.notes.open = true, make(chan context.Context, 1)
	stream := open(h.ctx("acme"), t, h.dial(h.Gateway(), tenantgrpc.ClientConfig{}), watch)
	inside := <-h.notes.open
	h.Suspend(t, "acme")
	<-inside.Done()
	if got := fault.ReasonOf(context.Cause(inside)); got != "TENANT_SUSPENDED" {
		t.Errorf("the handler's context says %q", got)
	}
	h.notes.emit["acme"] <- struct{}{} // The handler sends all the same.
	_, err := receive(stream)
	expect(t, "after the cut", err, fault.PermissionDenied, "TENANT_SUSPENDED")
}

// A client that reads nothing must not keep a suspended tenant's handler at work.
func TestCutFreesASenderThatIsHeldUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		ended := make(chan error, 1)
		h.notes.talk = func(ss grpc.ServerStream) error {
			message := &text{Value: strings.Repeat("x", 1<<14)}
			for {
				if err := ss.SendMsg(message); err != nil {
					ended <- err
					return err
				}
			}
		}
		stream := open(h.ctx("acme"), t, h.dial(h.Gateway(), tenantgrpc.ClientConfig{}), chat)
		synctest.Wait()
		select {
		case err := <-ended:
			t.Fatalf("the sender was not held up: %v", err)
		default:
		}
		h.Suspend(t, "acme")
		synctest.Wait()
		select {
		case err := <-ended:
			if fault.ReasonOf(err) != "TENANT_SUSPENDED" {
				t.Errorf("the sender is told %v", err)
			}
		default:
			t.Fatal("the sender is still held up")
		}
		for {
			if _, err := receive(stream); err != nil {
				expect(t, "the client", err, fault.PermissionDenied, "TENANT_SUSPENDED")
				return
			}
		}
	})
}

// counted counts the reads that reach a stream.
type counted struct {
	grpc.ServerStream
	reads *atomic.Int64
}

func (c counted) RecvMsg(m any) error {
	c.reads.Add(1)
	return c.ServerStream.RecvMsg(m)
}

func TestNoReadStartsAfterTheCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		count := func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			return next(srv, counted{ss, &reads})
		}
		h := newHouseWith(t, grpc.ChainStreamInterceptor(count))
		h.notes.talk = func(ss grpc.ServerStream) error {
			_ = ss.RecvMsg(new(text)) // silent until the cut
			_ = ss.RecvMsg(new(text))
			return ss.RecvMsg(new(text))
		}
		stream := open(h.ctx("acme"), t, h.dial(h.Gateway(), tenantgrpc.ClientConfig{}), chat)
		synctest.Wait()
		h.Suspend(t, "acme")
		_, err := receive(stream)
		expect(t, "the client", err, fault.PermissionDenied, "TENANT_SUSPENDED")
		synctest.Wait()
		if n := reads.Load(); n != 1 {
			t.Errorf("%d reads, expected the one that was cut", n)
		}
	})
}

// The message is coded beside the handler now; a panic there must not end the process.
func TestPanicWhileSendingEndsTheStreamOnly(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.notes.talk = func(ss grpc.ServerStream) error { return ss.SendMsg(broken{new(text)}) }
	conn := h.dial(h.Gateway(), tenantgrpc.ClientConfig{})
	_, err := receive(open(h.ctx("acme"), t, conn, chat))
	expect(t, "panic", err, fault.Internal, "INTERNAL")
	if got, err := call(h.ctx("acme"), conn, whoami); err != nil || got != "acme" {
		t.Errorf("the server after it: %q, %v", got, err)
	}
}

// broken is a message that cannot be coded.
type broken struct{ *text }

func (broken) ProtoReflect() protoreflect.Message { panic("broken") }

// refresher is a gateway's RefreshContext: what renew says.
type refresher struct {
	mu    sync.Mutex
	calls int
	renew func(call int, token string) (string, error)
}

func (r *refresher) RefreshContext(_ context.Context, token string) (string, error) {
	r.mu.Lock()
	r.calls++
	n := r.calls
	r.mu.Unlock()
	return r.renew(n, token)
}

func TestStreamEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		start := time.Now()
		stream := open(h.ctx("acme"), t, h.dial(h.Gateway(), tenantgrpc.ClientConfig{}), watch)
		_, err := receive(stream)
		expect(t, "no refresher", err, fault.Unauthenticated, "CONTEXT_EXPIRED")
		if got := time.Since(start); got != tenant.MaxSessionLife {
			t.Errorf("the stream lived %v", got)
		}
	})
}

func TestStreamLivesByRenewal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &refresher{}
		h := newHouse(t, func(c *tenantgrpc.ServerConfig) { c.Refresher = r })
		began := time.Now().Truncate(time.Second)
		r.renew = func(call int, _ string) (string, error) {
			if call%3 == 1 { // The gateway is away for a moment, now and then.
				return "", status.Error(codes.Unavailable, "away")
			}
			return h.Token(t, "acme", func(c *tenant.Claims) { c.FirstIssueTime = began }), nil
		}
		h.notes.open = make(chan context.Context, 1)
		stream := open(h.ctx("acme"), t, h.dial(h.Gateway(), tenantgrpc.ClientConfig{}), watch)
		derived, cancel := context.WithCancel(<-h.notes.open)
		defer cancel()
		for range 20 {
			<-time.After(30 * time.Second) // virtual
			synctest.Wait()
			c, err := tenant.FromContext(derived)
			if err != nil || !c.ExpireTime().After(time.Now()) {
				t.Fatalf("the handler holds a context that ended %v, %v", c.ExpireTime(), err)
			}
			next(t, h, stream, watch, "acme")
		}
		if r.calls < 15 || r.calls > 40 {
			t.Errorf("renewed %d times in ten minutes", r.calls)
		}
		h.Suspend(t, "acme")
		_, err := receive(stream)
		expect(t, "suspended after renewals", err, fault.PermissionDenied, "TENANT_SUSPENDED")
	})
}

// A stream lives as long as the chain of its contexts may be, and asks for no more.
func TestStreamEndsWithItsChain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &refresher{}
		h := newHouse(t, func(c *tenantgrpc.ServerConfig) { c.Refresher = r })
		opened := time.Now()
		began := opened.Add(-50 * time.Minute) // a connection itself lives less than half an hour
		end := began.Add(tenant.MaxChainLife)
		r.renew = func(int, string) (string, error) {
			return h.Token(t, "acme", func(c *tenant.Claims) {
				c.FirstIssueTime = began
				if c.ExpireTime.After(end) {
					c.ExpireTime = end
				}
			}), nil
		}
		old := func(c *tenant.Claims) { c.FirstIssueTime = began }
		stream := open(h.ctx("acme", old), t, h.dial(h.Gateway(), tenantgrpc.ClientConfig{}), watch)
		_, err := receive(stream)
		expect(t, "after the chain", err, fault.Unauthenticated, "CONTEXT_EXPIRED")
		lived := time.Since(opened)
		if lived != 10*time.Minute {
			t.Errorf("the stream lived %v", lived)
		}
		const want = 16 // each 35 s; the last one has what is left of the chain
		if r.calls != want {
			t.Errorf("renewed %d times, want %d", r.calls, want)
		}
	})
}

// hung is a refresher whose service does not answer.
type hung struct{ asked chan struct{} }

func (h hung) RefreshContext(ctx context.Context, _ string) (string, error) {
	h.asked <- struct{}{}
	<-ctx.Done()
	return "", ctx.Err()
}

// Whoever lost its certificate must not stay for as long as a stream lasts.
func TestConnectionsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &refresher{}
		h := newHouse(t, func(c *tenantgrpc.ServerConfig) { c.Refresher = r })
		began := time.Now()
		r.renew = func(int, string) (string, error) {
			return h.Token(t, "acme", func(c *tenant.Claims) { c.FirstIssueTime = began }), nil
		}
		ctx, cancel := context.WithTimeout(h.ctx("acme"), 30*time.Minute)
		defer cancel()
		_, err := receive(open(ctx, t, h.dial(h.Gateway(), tenantgrpc.ClientConfig{}), watch))
		if status.Code(err) != codes.Unavailable {
			t.Errorf("after half an hour: %v", err)
		}
	})
}

func TestRenewalHidesNoSuspension(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := hung{make(chan struct{}, 10)}
		h := newHouse(t, func(c *tenantgrpc.ServerConfig) { c.Refresher = r })
		stream := open(h.ctx("acme"), t, h.dial(h.Gateway(), tenantgrpc.ClientConfig{}), watch)
		<-r.asked
		start := time.Now()
		h.Suspend(t, "acme")
		_, err := receive(stream)
		expect(t, "suspended while renewing", err, fault.PermissionDenied, "TENANT_SUSPENDED")
		if took := time.Since(start); took != 0 {
			t.Errorf("it took %v", took)
		}
	})
}

// renewing lets a token renew one that was made when the test began, 35 s before.
func renewing(c *tenant.Claims) { c.FirstIssueTime = c.IssueTime.Add(-35 * time.Second) }

// A tenant that went and came back, as a database that was restored makes it, is
// looked at once, not for ever.
func TestChangeIsVerifiedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		issuer := tenanttest.NewIssuer(t, time.Now)
		h := newHouseOf(t, issuer, nil, func(c *tenantgrpc.ServerConfig) {
			c.Verifier = issuer.Verifier(t, func(c *tenant.VerifierConfig) {
				c.MayPresent = func(identity.ID) bool { return asked.Add(1) < 1000 } // ends what would never end
			})
		})
		stream := open(h.ctx("acme"), t, h.dial(h.Gateway(), tenantgrpc.ClientConfig{}), watch)
		next(t, h, stream, watch, "acme")
		before, state := asked.Load(), h.Tenant(t, "acme")
		h.Trust().RemoveTenant(state.UID)
		must(t, h.Trust().SetTenant(state))
		synctest.Wait()
		if n := asked.Load() - before; n < 1 || n > 4 {
			t.Fatalf("the peer was looked at %d times", n)
		}
		next(t, h, stream, watch, "acme")
		h.Suspend(t, "acme")
		_, err := receive(stream)
		expect(t, "suspended after it came back", err, fault.PermissionDenied, "TENANT_SUSPENDED")
	})
}

func TestRenewalNeverWidens(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		renew  func(*testing.T, *house, string) (string, error)
		kind   fault.Kind
		reason string
		after  time.Duration
	}{
		{"another tenant", func(t *testing.T, h *house, _ string) (string, error) {
			t.Helper()
			return h.Token(t, "globex", renewing), nil
		}, fault.Unauthenticated, "CONTEXT_INVALID", 35 * time.Second},
		{"another principal", func(t *testing.T, h *house, _ string) (string, error) {
			t.Helper()
			return h.Token(t, "acme", renewing, tenanttest.As("mallory")), nil
		}, fault.Unauthenticated, "CONTEXT_INVALID", 35 * time.Second},
		{"more scopes", func(t *testing.T, h *house, _ string) (string, error) {
			t.Helper()
			return h.Token(t, "acme", renewing, func(c *tenant.Claims) { c.Scopes = scope }), nil
		}, fault.Unauthenticated, "CONTEXT_INVALID", 35 * time.Second},
		{"a chain that begins anew", func(t *testing.T, h *house, _ string) (string, error) {
			t.Helper()
			return h.Token(t, "acme"), nil
		}, fault.Unauthenticated, "CONTEXT_INVALID", 35 * time.Second},
		{"the same again", func(_ *testing.T, _ *house, token string) (string, error) {
			return token, nil
		}, fault.Unauthenticated, "CONTEXT_INVALID", 35 * time.Second},
		{"forged", func(*testing.T, *house, string) (string, error) {
			return "nonsense", nil
		}, fault.Unauthenticated, "CONTEXT_INVALID", 35 * time.Second},
		{"refused", func(*testing.T, *house, string) (string, error) {
			return "", tenantgrpc.Status(fault.New(fault.PermissionDenied, "TENANT_SUSPENDED", "suspended")).Err()
		}, fault.PermissionDenied, "TENANT_SUSPENDED", 35 * time.Second},
		{"away", func(*testing.T, *house, string) (string, error) {
			return "", errors.New("away")
		}, fault.Unauthenticated, "CONTEXT_EXPIRED", 45 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := &refresher{}
				h := newHouse(t, func(c *tenantgrpc.ServerConfig) { c.Refresher = r })
				r.renew = func(_ int, token string) (string, error) { return c.renew(t, h, token) }
				start := time.Now()
				stream := open(h.ctx("acme"), t, h.dial(h.Gateway(), tenantgrpc.ClientConfig{}), chat)
				next(t, h, stream, chat, "acme")
				_, err := receive(stream)
				expect(t, c.name, err, c.kind, c.reason)
				if got := time.Since(start); got != c.after {
					t.Errorf("the stream lived %v, expected %v", got, c.after)
				}
			})
		})
	}
}

// A handler that does not watch its context cannot hold the watcher, nor panic
// the process.
func TestStreamPanicEndsTheStreamOnly(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.notes.emit["acme"] = nil
	h.notes.open = make(chan context.Context)
	close(h.notes.open) // sending on it panics
	stream := open(h.ctx("acme"), t, h.dial(h.Gateway(), tenantgrpc.ClientConfig{}), watch)
	_, err := receive(stream)
	expect(t, "panic", err, fault.Internal, "INTERNAL")
	got, err := call(h.ctx("acme"), h.dial(h.Gateway(), tenantgrpc.ClientConfig{}), whoami)
	if err != nil || got != "acme" {
		t.Errorf("the server after it: %q, %v", got, err)
	}
}
