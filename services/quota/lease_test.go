package quota_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc/pgalloc"
)

const (
	granted   = quotav1.LeaseOutcome_LEASE_OUTCOME_GRANTED
	denied    = quotav1.LeaseOutcome_LEASE_OUTCOME_DENIED
	unlimited = quotav1.LeaseOutcome_LEASE_OUTCOME_UNLIMITED
	refusedBy = quotav1.LeaseOutcome_LEASE_OUTCOME_REFUSED
)

// one asks for one lease.
func (r *rig) one(a api, token, limit string, need, want int64) *quotav1.LeaseAnswer {
	r.Helper()
	resp, err := a.GrantLeases(r.Context(), ask(token, limit, need, want))
	r.need(err)
	if len(resp.GetAnswers()) != 1 {
		r.Fatalf("%d answers", len(resp.GetAnswers()))
	}
	return resp.GetAnswers()[0]
}

func TestGrantAndDeny(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	made := r.set(r.as("operator"), limit("plans/business/limits/requests", 10, time.Hour, 0))
	gateway, acme := r.peer("service", "gateway", 0), r.token("acme", "business")
	first := r.one(gateway, acme, "requests", 4, 4)
	if first.GetOutcome() != granted || first.GetTokens() != 4 || first.GetRemaining() != 6 || first.GetLimitRevision() != made.GetRevision() {
		t.Errorf("first %v", first)
	}
	if a := r.one(gateway, acme, "requests", 7, 7); a.GetOutcome() != denied || a.GetRemaining() != 6 || a.GetRetryAfter().AsDuration() < 5*time.Minute {
		t.Errorf("too much %v", a)
	}
	if a := r.one(gateway, acme, "requests", 6, 6); a.GetOutcome() != granted || a.GetRemaining() != 0 {
		t.Errorf("the rest %v", a)
	}
	if a := r.one(gateway, acme, "requests", 1, 1); a.GetOutcome() != denied || a.GetTokens() != 0 {
		t.Errorf("no more %v", a)
	}
	if a := r.one(gateway, acme, "exports", 1, 1); a.GetOutcome() != unlimited {
		t.Errorf("what nobody limits %v", a)
	}
	if a := r.one(gateway, r.token("globex", "free"), "requests", 1, 1); a.GetOutcome() != unlimited {
		t.Errorf("another plan %v", a)
	}
	if a := r.one(gateway, r.token("globex", "business"), "requests", 10, 10); a.GetOutcome() != granted {
		t.Errorf("another tenant on the plan %v", a)
	}
	r.set(r.as("operator"), limit("platform/limits/stopped", 0, time.Second, 1))
	if a := r.one(gateway, acme, "stopped", 1, 1); a.GetOutcome() != denied || a.GetRetryAfter().AsDuration() != 0 {
		t.Errorf("a limit of nothing %v", a)
	}
}

// Asks of one call are answered in order, each by itself.
func TestManyAsks(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.set(r.as("operator"), limit("platform/limits/requests", 10, time.Hour, 0))
	acme, globex := r.token("acme", "business"), r.token("globex", "free")
	req := &quotav1.GrantLeasesRequest{Holder: "h"}
	add := func(token, limit string, need int64) {
		req.Asks = append(req.Asks, &quotav1.LeaseAsk{TenantContext: []byte(token), Limit: limit, Need: need, Want: need})
	}
	forged := []byte(acme)
	forged[len(forged)-1] ^= 1
	add(globex, "requests", 3)
	add(acme, "requests", 6)
	add(string(forged), "requests", 1)
	add(acme, "requests", 5)
	add(acme, "none", 1)
	add(acme, "requests", 4)
	resp, err := r.peer("service", "gateway", 0).GrantLeases(t.Context(), req)
	r.need(err)
	var got []string
	for _, a := range resp.GetAnswers() {
		got = append(got, fmt.Sprint(a.GetOutcome().Number(), a.GetTokens(), a.GetRemaining()))
	}
	want := []string{
		fmt.Sprint(granted.Number(), 3, 7), fmt.Sprint(granted.Number(), 6, 4), fmt.Sprint(refusedBy.Number(), 0, 0),
		fmt.Sprint(denied.Number(), 0, 4), fmt.Sprint(unlimited.Number(), 0, 0), fmt.Sprint(granted.Number(), 4, 0),
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Nobody can spend for a tenant without that tenant's context, fresh and meant for
// quota, and without the right to present it.
func TestContextsDecideForWhom(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.set(r.as("operator"), limit("platform/limits/requests", 10, time.Hour, 0))
	gateway := r.peer("service", "gateway", 0)
	good := r.token("acme", "business")
	flipped := []byte(good)
	flipped[40] ^= 1
	_, private, err := ed25519.GenerateKey(rand.Reader)
	r.need(err)
	stranger := *r
	stranger.signer, err = tenant.NewSigner(private)
	r.need(err)
	for what, c := range map[string]struct{ token, reason string }{
		"forged":        {stranger.token("acme", "business"), fault.ReasonContextInvalid},
		"a changed bit": {string(flipped), fault.ReasonContextInvalid},
		"no context":    {string(make([]byte, 100)), fault.ReasonContextInvalid},
		"expired": {r.token("acme", "business", func(c *tenant.Claims) {
			c.IssueTime, c.ExpireTime = c.IssueTime.Add(-time.Hour), c.ExpireTime.Add(-time.Hour)
		}), fault.ReasonContextExpired},
		"for another":      {r.token("acme", "business", func(c *tenant.Claims) { c.Audience = tenant.AudienceConfig }), fault.ReasonPresenterRefused},
		"an unknown one":   {r.token("nobody", "business"), ""},
		"another's tenant": {r.token("acme", "business", func(c *tenant.Claims) { c.TenantUID = tenanttest.UID("globex") }), fault.ReasonContextInvalid},
	} {
		a := r.one(gateway, c.token, "requests", 1, 1)
		if a.GetOutcome() != refusedBy || (a.GetReason() != c.reason && c.reason != "") || a.GetReason() == "" || a.GetTokens() != 0 {
			t.Errorf("%s: %v", what, a)
		}
	}
	if a := r.one(r.peer("service", "relay", 0), good, "requests", 1, 1); a.GetOutcome() != refusedBy || a.GetReason() != fault.ReasonPresenterRefused {
		t.Errorf("a peer that may not present: %v", a)
	}
	if a := r.one(gateway, good, "requests", 1, 1); a.GetOutcome() != granted || a.GetRemaining() != 9 {
		t.Errorf("what was refused was charged: %v", a)
	}
	r.setTenant("acme", "business", tenancyv1.TenantState_TENANT_STATE_SUSPENDED, 2)
	eventually(t, "the suspension is seen", func() bool {
		a := r.one(gateway, good, "none", 1, 1)
		return a.GetOutcome() == refusedBy && a.GetReason() == fault.ReasonTenantSuspended
	})
}

// spend is one grant and from when to when it could be spent.
type spend struct {
	from, to time.Time
	tokens   int64
}

// Two replicas and many callers at once never lend more than the limit: in every
// window of their log there are at most burst + W × rate tokens.
func TestReplicasNeverLendTooMuch(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.replica("quota-2")
	const rate, burst = 200, 100
	r.set(r.as("operator"), limit("platform/limits/requests", rate, time.Second, burst))
	token := r.token("acme", "business")
	var mu sync.Mutex
	var log []spend
	var callers sync.WaitGroup
	for i := range 12 {
		gateway := r.peer("service", "gateway", i%2)
		callers.Go(func() {
			for range 40 {
				sent := time.Now()
				resp, err := gateway.GrantLeases(t.Context(), &quotav1.GrantLeasesRequest{
					Holder: fmt.Sprint("h", i), Asks: []*quotav1.LeaseAsk{{TenantContext: []byte(token), Limit: "requests", Need: 1, Want: int64(1 + i)}},
				})
				if err != nil {
					t.Error(err)
					return
				}
				if a := resp.GetAnswers()[0]; a.GetOutcome() == granted {
					s := spend{sent, sent.Add(a.GetLifetime().AsDuration()), a.GetTokens()}
					if now := time.Now(); !now.Before(s.to) { // for the call at hand only, or too late
						s.to, s.tokens = now, 1
					}
					mu.Lock()
					log = append(log, s)
					mu.Unlock()
				}
			}
		})
	}
	callers.Wait()
	total := int64(0)
	for _, s := range log {
		total += s.tokens
	}
	if total < burst {
		t.Errorf("only %d tokens were lent", total)
	}
	// A hostile holder spends as late, or as early, as suits it: what lies wholly
	// within a window must fit it.
	for _, first := range log {
		for _, last := range log {
			if last.to.Before(first.from) {
				continue
			}
			sum := int64(0)
			for _, s := range log {
				if !s.from.Before(first.from) && !s.to.After(last.to) {
					sum += s.tokens
				}
			}
			if most := burst + rate*last.to.Sub(first.from).Seconds() + 1; float64(sum) > most {
				t.Fatalf("%d tokens in %v, at most %.1f", sum, last.to.Sub(first.from), most)
			}
		}
	}
}

// Of many who ask for the last tokens at once exactly as many get one.
func TestLastTokensHaveOneOwnerEach(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.replica("quota-2")
	r.set(r.as("operator"), limit("platform/limits/requests", 10, 100*time.Hour, 0))
	token := r.token("acme", "business")
	var mu sync.Mutex
	won, holders := 0, int32(0)
	var callers sync.WaitGroup
	for i := range 40 {
		gateway := r.peer("service", "gateway", i%2)
		callers.Go(func() {
			req := ask(token, "requests", 1, 1)
			req.Holder = fmt.Sprint("h", i%5)
			resp, err := gateway.GrantLeases(t.Context(), req)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			holders = max(holders, resp.GetHolders())
			if resp.GetAnswers()[0].GetOutcome() == granted {
				won++
			}
		})
	}
	callers.Wait()
	if won != 10 {
		t.Errorf("%d of 40 got one of 10 tokens", won)
	}
	if holders < 5 || holders > 6 { // and the one that waited for the start
		t.Errorf("%d holders, want 5", holders)
	}
}

// What is spent stays spent when the limit changes.
func TestLimitChangeKeepsUsed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, gateway := r.as("operator"), r.peer("service", "gateway", 0)
	token := r.token("acme", "business")
	r.set(a, limit("platform/limits/requests", 10, 10*time.Hour, 0))
	r.one(gateway, token, "requests", 10, 10)
	if got := r.one(gateway, token, "requests", 1, 1); got.GetOutcome() != denied {
		t.Fatalf("exhausted: %v", got)
	}
	r.set(a, limit("tenants/acme/limits/requests", 100, 10*time.Hour, 0))
	if got := r.one(gateway, token, "requests", 90, 90); got.GetOutcome() != granted || got.GetRemaining() != 0 {
		t.Errorf("after an upgrade by 90: %v", got)
	}
	_, err := a.DeleteLimit(t.Context(), &quotav1.DeleteLimitRequest{Name: "tenants/acme/limits/requests"})
	r.need(err)
	if got := r.one(gateway, token, "requests", 1, 1); got.GetOutcome() != denied {
		t.Errorf("after a downgrade: %v", got)
	}
}

// A tenant that has to wait for a lock keeps no other tenant waiting, not even one of
// the same holder.
func TestLockedTenantDelaysNobody(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.set(r.as("operator"), limit("platform/limits/requests", 10, time.Hour, 0))
	gateway := r.peer("service", "gateway", 0)
	acme, globex := r.token("acme", "business"), r.token("globex", "free")
	r.one(gateway, acme, "requests", 1, 1)
	tx, err := r.super.Begin(t.Context())
	r.need(err)
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	_, err = tx.Exec(t.Context(), `SELECT 1 FROM meter.limit_cell WHERE scope = $1 FOR UPDATE`, tenanttest.UID("acme").String())
	r.need(err)
	waited := make(chan *quotav1.LeaseAnswer, 1)
	go func() {
		resp, err := gateway.GrantLeases(t.Context(), ask(acme, "requests", 1, 1))
		if err != nil {
			t.Error(err)
			close(waited)
			return
		}
		waited <- resp.GetAnswers()[0]
	}()
	super := r.db.Pool(t, pgserver.Superuser)
	eventually(t, "acme's ask waits", func() bool {
		var n int
		r.need(super.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&n))
		return n == 1
	})
	if a := r.one(gateway, globex, "requests", 1, 1); a.GetOutcome() != granted {
		t.Errorf("%v", a)
	}
	r.need(tx.Rollback(t.Context()))
	if a := <-waited; a.GetOutcome() != granted {
		t.Errorf("%v", a)
	}
}

// Collection forgets what is full again and nothing that is spent.
func TestCollectKeepsWhatIsSpent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.set(r.as("operator"), limit("platform/limits/requests", 10, time.Hour, 0))
	gateway, pool := r.peer("service", "gateway", 0), r.db.Service(t)
	acme, globex := r.token("acme", "business"), r.token("globex", "free")
	r.one(gateway, acme, "requests", 10, 10)
	r.one(gateway, globex, "requests", 10, 10)
	_, err := r.super.Exec(t.Context(), `UPDATE meter.limit_cell SET tat = 1 WHERE scope = $1`, tenanttest.UID("globex").String())
	r.need(err)
	_, err = r.super.Exec(t.Context(), `UPDATE meter.holder SET seen_time = seen_time - interval '1 hour'`)
	r.need(err)
	r.need(pgalloc.New(pgalloc.Config{Pool: pool}).Collect(t.Context()))
	var cells, holders int
	r.need(r.super.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM meter.limit_cell WHERE scope <> '00000000-0000-0000-0000-000000000000'), (SELECT count(*) FROM meter.holder)`).Scan(&cells, &holders))
	if cells != 1 || holders != 0 {
		t.Errorf("%d cells and %d holders are left", cells, holders)
	}
	if a := r.one(gateway, acme, "requests", 1, 1); a.GetOutcome() != denied {
		t.Errorf("what was spent: %v", a)
	}
	if a := r.one(gateway, globex, "requests", 10, 10); a.GetOutcome() != granted {
		t.Errorf("what was full: %v", a)
	}
}

// Charges beside a collection that never rests: a cell that vanishes between its
// making and its lock is made again, and no grant goes uncharged.
func TestCollectBesideCharges(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	pool := r.db.Service(t)
	const apart = 4 * time.Millisecond
	rate, err := gcra.New(int64(time.Second/apart), time.Second, 1) // a full cell after each grant and a pause
	r.need(err)
	policy := &lease.Policy{Limit: rate, Revision: 1}
	lender := alloc.New(alloc.Config{Driver: pgalloc.New(pgalloc.Config{Pool: pool})})
	t.Cleanup(lender.Close)
	ctx, cancel := context.WithCancel(t.Context())
	var collecting, charging sync.WaitGroup
	collecting.Go(func() {
		for ctx.Err() == nil {
			_, _ = r.super.Exec(ctx, `DELETE FROM meter.limit_cell WHERE ctid IN (SELECT ctid FROM meter.limit_cell
				WHERE tat < (extract(epoch FROM clock_timestamp() - '2025-01-01 00:00:00+00') * 16000000)::bigint FOR UPDATE SKIP LOCKED)`)
		}
	})
	var mu sync.Mutex
	var log []spend
	for i := range 4 {
		charging.Go(func() {
			for range 150 {
				before := time.Now()
				answers, _, err := lender.Grant(t.Context(), fmt.Sprint("h", i), []lease.Ask{
					{Scope: lease.Scope(tenanttest.UID("acme")), Cells: []lease.CellAsk{{Policy: policy, Need: 1, Want: 1}}},
				})
				if err != nil {
					t.Errorf("%+v, %v", answers, err)
					return
				}
				if answers[0].Outcome == lease.Granted {
					mu.Lock()
					log = append(log, spend{before, time.Now(), 1})
					mu.Unlock()
				}
			}
		})
	}
	charging.Wait()
	cancel()
	collecting.Wait()
	for i, a := range log {
		for _, b := range log[i+1:] {
			if gap := latest(a.to, b.to).Sub(earliest(a.from, b.from)); gap < apart-50*time.Microsecond {
				t.Fatalf("two grants within %v", gap)
			}
		}
	}
	if len(log) < 10 {
		t.Errorf("only %d grants", len(log))
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// A tenant sees its own limits and what it has spent, and nobody else's.
func TestUsageIsTheTenantsOwn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("operator")
	r.set(a, limit("platform/limits/requests", 10, time.Hour, 0))
	r.set(a, limit("plans/free/limits/exports", 5, time.Hour, 0))
	r.set(a, limit("tenants/globex/limits/secret", 7, time.Hour, 0))
	acme, globex := r.token("acme", "business"), r.token("globex", "free")
	r.one(r.peer("service", "gateway", 0), acme, "requests", 4, 4)
	usage := func(token string) (lines []string) {
		t.Helper()
		notes := r.peer("app", "notes", 0, with(tenant.MetadataKey, token))
		resp, err := notes.ListLimitUsage(t.Context(), &quotav1.ListLimitUsageRequest{})
		r.need(err)
		for _, u := range resp.GetUsage() {
			lines = append(lines, fmt.Sprint(u.GetLimit().GetName(), " ", u.GetRemaining(), " of ", u.GetLimit().GetBurst()))
		}
		return lines
	}
	if got, want := usage(acme), []string{"limits/requests 6 of 10"}; !slices.Equal(got, want) {
		t.Errorf("acme: %v, want %v", got, want)
	}
	if got, want := usage(globex), []string{"limits/exports 5 of 5", "limits/requests 10 of 10", "limits/secret 7 of 7"}; !slices.Equal(got, want) {
		t.Errorf("globex: %v, want %v", got, want)
	}
	stranger := r.peer("service", "relay", 0, with(tenant.MetadataKey, acme))
	_, err := stranger.ListLimitUsage(t.Context(), &quotav1.ListLimitUsageRequest{})
	refused(t, "a peer that may not present", err, codes.PermissionDenied, fault.ReasonPresenterRefused)
}
