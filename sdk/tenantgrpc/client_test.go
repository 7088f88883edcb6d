package tenantgrpc_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

func TestClientForwardsItsOwnTenantOnly(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	conn := h.dial(h.Gateway(), tenantgrpc.ClientConfig{})
	lookalikes := []string{"rowhouse_tenant-bin", "rowhouse.tenant-bin", "rowhouse-tenant"}
	spoofed := func(ctx context.Context) context.Context {
		pairs := []string{"x-kept", "1"}
		for _, key := range append([]string{tenant.MetadataKey, "Rowhouse-Tenant-Bin"}, lookalikes...) {
			pairs = append(pairs, key, h.Token(t, "globex"))
		}
		return metadata.AppendToOutgoingContext(ctx, pairs...)
	}
	ctx := spoofed(h.ctx("acme"))
	var seen metadata.MD
	h.notes.fail = func(ctx context.Context) error {
		seen, _ = metadata.FromIncomingContext(ctx)
		return nil
	}
	for range 2 { // the caller's metadata is not changed
		got, err := call(ctx, conn, whoami)
		if err != nil || got != "acme" {
			t.Errorf("spoofed by hand: %q, %v", got, err)
		}
	}
	for _, key := range lookalikes {
		if len(seen[key]) != 0 {
			t.Errorf("%s was sent", key)
		}
	}
	if len(seen[tenant.MetadataKey]) != 1 || len(seen["x-kept"]) != 1 {
		t.Errorf("the server saw %v", seen)
	}
	if got, err := call(ctx, conn, admin); err != nil || got != "nobody" || len(seen[tenant.MetadataKey]) != 0 {
		t.Errorf("admin plane: %q, %v; metadata %v", got, err, seen)
	}
	stream := open(ctx, t, conn, chat)
	must(t, stream.SendMsg(&text{}))
	if got, err := receive(stream); err != nil || got != "acme" {
		t.Errorf("stream: %q, %v", got, err)
	}
}

func TestClientNeedsATenantOnTheDataPlane(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	conn := h.dial(h.Gateway(), tenantgrpc.ClientConfig{})
	byHand := metadata.AppendToOutgoingContext(t.Context(), tenant.MetadataKey, h.Token(t, "acme"))
	for name, ctx := range map[string]context.Context{"nothing": t.Context(), "by hand": byHand} {
		_, err := call(ctx, conn, whoami)
		expect(t, name, err, fault.Unauthenticated, "CONTEXT_MISSING")
		_, err = conn.NewStream(ctx, &(&notes{}).desc().Streams[0], watch)
		expect(t, name+", stream", err, fault.Unauthenticated, "CONTEXT_MISSING")
	}
	if h.notes.count() != 0 || h.log.String() != "" {
		t.Errorf("something was sent: %s", h.log)
	}
	if got, err := call(t.Context(), conn, admin); err != nil || got != "nobody" {
		t.Errorf("admin plane: %q, %v", got, err)
	}
}

// gateway → edge → notes: the tenant goes along, hop by hop, verified at each.
func TestTenantTravelsThroughServices(t *testing.T) {
	t.Parallel()
	notes := newHouse(t)
	edge := newHouseOf(t, notes.Issuer, notes.ca)
	edge.notes.next = notes.dial(app(t, "edge"), tenantgrpc.ClientConfig{})
	conn := edge.dial(edge.Gateway(), tenantgrpc.ClientConfig{})
	for _, id := range []string{"acme", "globex"} {
		if got, err := call(edge.ctx(id), conn, relay); err != nil || got != id {
			t.Errorf("%s arrives as %q, %v", id, got, err)
		}
	}
	notes.notes.fail = func(context.Context) error {
		return fault.New(fault.NotFound, "RESOURCE_NOT_FOUND", "no note").WithMetadata("name", "n1").WithRetry(time.Second)
	}
	_, err := call(edge.ctx("acme"), conn, relay)
	expect(t, "a refusal from behind", err, fault.NotFound, "RESOURCE_NOT_FOUND")
	if f, ok := fault.As(tenantgrpc.FromStatus(err)); !ok || f.Metadata["name"] != "n1" || f.RetryAfter != time.Second {
		t.Errorf("details were lost: %+v", f)
	}
	notes.server.Stop()
	_, err = call(edge.ctx("acme"), conn, relay)
	expect(t, "the next service is down", err, fault.Unavailable, "DEPENDENCY_UNAVAILABLE")
}

// lateInLife is the clock of a client whose contexts have four seconds left.
func lateInLife() time.Time { return time.Now().Add(tenant.MaxSessionLife - 4*time.Second) }

func TestClientRenewsBeforeForwarding(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		r := &refresher{renew: func(int, string) (string, error) { return h.Token(t, "globex"), nil }}
		conn := h.dial(h.Gateway(), tenantgrpc.ClientConfig{Refresher: r, Clock: lateInLife})
		ctx := h.ctx("acme")
		for range 3 { // the successor is remembered; that of the test speaks for another, to be told apart
			if got, err := call(ctx, conn, whoami); err != nil || got != "globex" || r.calls != 1 {
				t.Errorf("old context: %q, %v, renewed %d times", got, err, r.calls)
			}
		}
		fresh := h.dial(h.Gateway(), tenantgrpc.ClientConfig{Refresher: r})
		if got, err := call(h.ctx("acme"), fresh, whoami); err != nil || got != "acme" || r.calls != 1 {
			t.Errorf("fresh context: %q, %v, renewed %d times", got, err, r.calls)
		}
	})
}

func TestClientForwardsTheOldContextWhenRenewalFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		r := &refresher{renew: func(int, string) (string, error) { return "", errors.New("away") }}
		conn := h.dial(h.Gateway(), tenantgrpc.ClientConfig{Refresher: r, Clock: lateInLife})
		ctx := h.ctx("acme")
		ask := func(calls int) {
			t.Helper()
			if got, err := call(ctx, conn, whoami); err != nil || got != "acme" || r.calls != calls {
				t.Errorf("refresher away: %q, %v, asked %d times, expected %d", got, err, r.calls, calls)
			}
		}
		ask(1)
		ask(1)
		<-time.After(1100 * time.Millisecond) // virtual
		ask(2)
		<-time.After(4 * time.Second) // the client takes the context for expired: nothing to renew
		ask(2)
	})
}

// A refresher that hangs must cost a call no more than half a second, and be asked once.
func TestRenewalHoldsUpACallBriefly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		r := hung{make(chan struct{}, 10)}
		conn := h.dial(h.Gateway(), tenantgrpc.ClientConfig{Refresher: r, Clock: lateInLife})
		ctx, start := h.ctx("acme"), time.Now()
		var calls sync.WaitGroup
		for range 5 {
			calls.Go(func() {
				if got, err := call(ctx, conn, whoami); err != nil || got != "acme" {
					t.Errorf("refresher hangs: %q, %v", got, err)
				}
			})
		}
		calls.Wait()
		if took := time.Since(start); took != 500*time.Millisecond || len(r.asked) != 1 {
			t.Errorf("five calls took %v, renewed %d times", took, len(r.asked))
		}
	})
}

func TestClientGivesADeadline(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	gone := make(chan struct{})
	h.notes.fail = func(ctx context.Context) error {
		deadline, ok := ctx.Deadline()
		if left := time.Until(deadline); !ok || left > tenantgrpc.DataDeadline || left < tenantgrpc.DataDeadline/2 {
			t.Errorf("deadline in %v, %v", left, ok)
		}
		close(gone)
		return context.DeadlineExceeded
	}
	_, err := call(h.ctx("acme"), h.dial(h.Gateway(), tenantgrpc.ClientConfig{}), whoami)
	<-gone
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("the caller sees %v", err)
	}
}
