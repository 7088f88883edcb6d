package quota_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/services/quota"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc/redisalloc/redistest"
)

// byUser is a rate with a cell for each user.
func byUser(name string, tokens int64) *quotav1.Limit {
	l := limit(name, tokens, time.Hour, 0)
	l.Dimensions = []string{"user"}
	return l
}

// slotLimit is a limit of slots.
func slotLimit(name string, slots int64) *quotav1.Limit {
	return &quotav1.Limit{
		Name: name, Tokens: slots, Period: durationpb.New(time.Minute), Kind: quotav1.LimitKind_LIMIT_KIND_CONCURRENCY,
	}
}

// many asks for one token of each of several cells, named "limit" or "limit/value".
func (r *rig) many(a api, token string, cells ...*quotav1.LeaseCell) *quotav1.LeaseAnswer {
	r.Helper()
	resp, err := a.GrantLeases(r.Context(), &quotav1.GrantLeasesRequest{
		Holder: "h", Asks: []*quotav1.LeaseAsk{{TenantContext: []byte(token), Cells: cells}},
	})
	r.need(err)
	return resp.GetAnswers()[0]
}

// oneOf is a cell of a limit of a tenant, for a value of its dimension.
func oneOf(tenantID, limit string, need int64, values ...string) *quotav1.LeaseCell {
	c := &quotav1.LeaseCell{Limit: limit, Need: need}
	if len(values) > 0 {
		key := lease.KeyOf(lease.Scope(tenanttest.UID(tenantID)), limit, values...)
		c.Key = key[:]
	}
	return c
}

// All cells of an ask are charged or none is, and each says whether it had enough.
func TestCellsAreChargedTogether(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, gateway, acme := r.as("operator"), r.peer("service", "gateway", 0), r.token("acme", "business")
	r.set(a, limit("platform/limits/requests", 10, time.Hour, 0))
	r.set(a, byUser("platform/limits/by-user", 3))
	shadow := limit("platform/limits/trial", 1, time.Hour, 0)
	shadow.Mode = quotav1.LimitMode_LIMIT_MODE_SHADOW
	r.set(a, shadow)
	ask := func(user string) *quotav1.LeaseAnswer {
		t.Helper()
		return r.many(gateway, acme, oneOf("acme", "requests", 1), oneOf("acme", "by-user", 1, user), oneOf("acme", "none", 1), oneOf("acme", "trial", 1))
	}
	for i := range 5 {
		got := ask("ann")
		ok := got.GetOutcome() == granted
		if cells := got.GetCells(); ok != (i < 3) || cells[1].GetOk() != ok || !cells[0].GetOk() || !cells[2].GetUnlimited() {
			t.Errorf("ask %d: %v", i, got)
		}
		if cells := got.GetCells(); ok && cells[3].GetOk() != (i == 0) {
			t.Errorf("ask %d: the shadow says %v", i, cells[3])
		}
	}
	if got := ask("bob"); got.GetOutcome() != granted || got.GetCells()[0].GetRemaining() != 6 {
		t.Errorf("another user, after 3 and 2 refused: %v", got)
	}
	if got := r.many(gateway, acme, oneOf("acme", "none", 1)); got.GetOutcome() != unlimited || len(got.GetCells()) != 1 {
		t.Errorf("what nobody limits: %v", got)
	}
}

// Nobody reaches a cell that is not the named limit's own, or another tenant's.
func TestKeysAreTheLimitsOwn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, gateway, acme := r.as("operator"), r.peer("service", "gateway", 0), r.token("acme", "business")
	r.set(a, limit("platform/limits/requests", 10, time.Hour, 0))
	r.set(a, limit("platform/limits/exports", 10, time.Hour, 0))
	r.set(a, byUser("platform/limits/by-user", 10))
	r.set(a, byUser("platform/limits/by-other", 10))
	r.set(a, slotLimit("platform/limits/in-flight", 3))
	shared := limit("platform/limits/all", 10, time.Hour, 0)
	shared.Scope = quotav1.LimitScope_LIMIT_SCOPE_PLATFORM
	r.set(a, shared)
	acmes, globexs := lease.Scope(tenanttest.UID("acme")), lease.Scope(tenanttest.UID("globex"))
	own, exports, theirs := lease.KeyOf(acmes, "requests"), lease.KeyOf(acmes, "exports"), lease.KeyOf(globexs, "requests")
	with := func(limit string, key []byte) *quotav1.LeaseCell {
		return &quotav1.LeaseCell{Limit: limit, Key: key, Need: 1}
	}
	for what, c := range map[string]struct {
		cells []*quotav1.LeaseCell
		want  quotav1.LeaseOutcome
	}{
		"no key":                    {[]*quotav1.LeaseCell{with("requests", nil)}, granted},
		"the derived key":           {[]*quotav1.LeaseCell{with("requests", own[:])}, granted},
		"another limit's key":       {[]*quotav1.LeaseCell{with("requests", exports[:])}, refusedBy},
		"another tenant's key":      {[]*quotav1.LeaseCell{with("requests", theirs[:])}, refusedBy},
		"no key of a dimension":     {[]*quotav1.LeaseCell{with("by-user", nil)}, refusedBy},
		"slots":                     {[]*quotav1.LeaseCell{with("in-flight", nil)}, refusedBy},
		"one cell twice":            {[]*quotav1.LeaseCell{with("requests", nil), with("requests", own[:])}, refusedBy},
		"cells of two scopes":       {[]*quotav1.LeaseCell{with("requests", nil), with("all", nil)}, refusedBy},
		"a cell that all share":     {[]*quotav1.LeaseCell{with("all", nil)}, granted},
		"a key that is a limit's":   {[]*quotav1.LeaseCell{with("by-user", exports[:])}, granted},
		"the same key, other limit": {[]*quotav1.LeaseCell{with("by-other", exports[:])}, granted},
	} {
		if got := r.many(gateway, acme, c.cells...); got.GetOutcome() != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
	for _, name := range []string{"exports", "by-user", "by-other"} {
		cell := with(name, nil)
		if name != "exports" {
			cell.Key = exports[:]
		}
		want := int64(8)
		if name == "exports" {
			want = 9 // what the others were charged under its key is not its own
		}
		if got := r.many(gateway, acme, cell).GetCells()[0].GetRemaining(); got != want {
			t.Errorf("%s has %d left, want %d", name, got, want)
		}
	}
	if got := r.many(gateway, r.token("globex", "free"), with("all", nil)).GetCells()[0].GetRemaining(); got != 8 {
		t.Errorf("what all share has %d left, want 8", got)
	}
}

// What is given back is there again, once, and for the tenant whose it was alone.
func TestReturnLeases(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.set(r.as("operator"), limit("platform/limits/requests", 100, 100*time.Hour, 0))
	gateway, acme, globex := r.peer("service", "gateway", 0), r.token("acme", "business"), r.token("globex", "free")
	got := r.many(gateway, acme, &quotav1.LeaseCell{Limit: "requests", Need: 1, Want: 50}).GetCells()[0]
	if got.GetTokens() != 50 || got.GetTat() == 0 {
		t.Fatal(got)
	}
	back := func(token string, revision int64) int32 {
		t.Helper()
		resp, err := gateway.ReturnLeases(t.Context(), &quotav1.ReturnLeasesRequest{Holder: "h", Returns: []*quotav1.LeaseReturn{
			{TenantContext: []byte(token), Limit: "requests", Tokens: 40, Tat: got.GetTat(), LimitRevision: revision},
		}})
		r.need(err)
		return resp.GetTaken()
	}
	if n := back(globex, got.GetLimitRevision()); n != 0 {
		t.Error("another tenant gave it back")
	}
	if n := back(acme, got.GetLimitRevision()-1); n != 0 {
		t.Error("given back under another revision")
	}
	if n := back(acme, got.GetLimitRevision()); n != 1 {
		t.Error("not given back")
	}
	if n := back(acme, got.GetLimitRevision()); n != 0 {
		t.Error("given back twice")
	}
	if left := r.one(gateway, acme, "requests", 1, 1).GetRemaining(); left < 88 || left > 89 {
		t.Errorf("%d left after 10 and 1 of 100", left)
	}
}

// holds are the calls about slots for one holder.
type holds struct {
	*rig
	api    api
	holder string
}

func (h holds) ask(token string, id byte, limits ...string) *quotav1.SlotAsk {
	hold := make([]byte, 16)
	hold[0] = id
	a := &quotav1.SlotAsk{TenantContext: []byte(token), Hold: hold}
	for _, l := range limits {
		a.Cells = append(a.Cells, &quotav1.SlotCell{Limit: l})
	}
	return a
}

func (h holds) acquire(token string, id byte, limits ...string) *quotav1.SlotAnswer {
	h.Helper()
	resp, err := h.api.AcquireSlots(h.Context(), &quotav1.AcquireSlotsRequest{Holder: h.holder, Asks: []*quotav1.SlotAsk{h.ask(token, id, limits...)}})
	h.need(err)
	return resp.GetAnswers()[0]
}

func (h holds) renew(token string, id byte, limits ...string) *quotav1.HoldAnswer {
	h.Helper()
	resp, err := h.api.RenewSlots(h.Context(), &quotav1.RenewSlotsRequest{Holder: h.holder, Holds: []*quotav1.SlotAsk{h.ask(token, id, limits...)}})
	h.need(err)
	return resp.GetAnswers()[0]
}

func (h holds) release(token string, id byte, limits ...string) *quotav1.HoldAnswer {
	h.Helper()
	resp, err := h.api.ReleaseSlots(h.Context(), &quotav1.ReleaseSlotsRequest{Holder: h.holder, Holds: []*quotav1.SlotAsk{h.ask(token, id, limits...)}})
	h.need(err)
	return resp.GetAnswers()[0]
}

const (
	done     = quotav1.HoldOutcome_HOLD_OUTCOME_DONE
	notFound = quotav1.HoldOutcome_HOLD_OUTCOME_NOT_FOUND
)

// Slots are held until they are released, never more than there are; nobody touches
// another holder's or another tenant's.
func TestSlots(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	slotsOf(t, r)
}

// The same with cells and slots in a server of Redis's protocol, whose limits change as well.
func TestQuotaOnRedis(t *testing.T) {
	t.Parallel()
	address := redistest.Start(t)
	r := newRig(t, func(c *quota.Config) { c.Allocator.Redis = &quota.Redis{Addresses: []string{address}} })
	slotsOf(t, r)
	gateway, token := r.peer("service", "gateway", 0), r.token("acme", "business")
	r.set(r.as("operator"), limit("platform/limits/requests", 10, 10*time.Hour, 0))
	r.one(gateway, token, "requests", 10, 10)
	r.set(r.as("operator"), limit("tenants/acme/limits/requests", 100, 10*time.Hour, 0))
	if got := r.one(gateway, token, "requests", 90, 90); got.GetOutcome() != granted || got.GetRemaining() != 0 {
		t.Errorf("after an upgrade by 90: %v", got)
	}
	var cells int
	r.need(r.super.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM meter.limit_cell) + (SELECT count(*) FROM meter.limit_slot)`).Scan(&cells))
	if cells != 0 {
		t.Errorf("%d cells and slots are in the database", cells)
	}
}

func slotsOf(t *testing.T, r *rig) {
	t.Helper()
	r.set(r.as("operator"), slotLimit("platform/limits/in-flight", 3))
	r.set(r.as("operator"), slotLimit("platform/limits/exports", 1))
	acme, globex := r.token("acme", "business"), r.token("globex", "free")
	one := holds{r, r.peer("service", "gateway", 0), "one"}
	two, app := one, one
	two.holder = "two"
	app.api = r.peer("app", "notes", 0) // a process of the same name, of another caller
	for id := range byte(4) {
		got := one.acquire(acme, id, "in-flight")
		if (got.GetOutcome() == granted) != (id < 3) || got.GetCells()[0].GetRemaining() != max(2-int64(id), 0) {
			t.Errorf("hold %d: %v", id, got)
		}
	}
	if got := one.acquire(acme, 2, "in-flight"); got.GetOutcome() != granted || got.GetTtl().AsDuration() != time.Minute {
		t.Errorf("the same hold again: %v", got)
	}
	if got := two.acquire(acme, 2, "in-flight"); got.GetOutcome() != refusedBy || got.GetReason() != fault.ReasonResourceNotFound {
		t.Errorf("another's hold: %v", got)
	}
	if got := one.acquire(globex, 0, "in-flight", "exports", "none"); got.GetOutcome() != granted || !got.GetCells()[2].GetUnlimited() {
		t.Errorf("another tenant: %v", got)
	}
	for what, got := range map[string]*quotav1.HoldAnswer{
		"another holder's":      two.release(acme, 0, "in-flight"),
		"another caller's":      app.release(acme, 0, "in-flight"),
		"another tenant's":      one.release(globex, 1, "in-flight"),
		"renew another's":       two.renew(acme, 0, "in-flight"),
		"renew another's, app":  app.renew(acme, 0, "in-flight"),
		"renew nobody's":        one.renew(acme, 77, "in-flight"),
		"release by other name": one.release(acme, 0, "exports"),
		"release by no limit":   one.release(acme, 0, "none"),
	} {
		if got.GetOutcome() != notFound || got.GetTtl() != nil {
			t.Errorf("%s: %v", what, got)
		}
	}
	if got := one.release(acme[:80], 0, "in-flight"); got.GetOutcome() != quotav1.HoldOutcome_HOLD_OUTCOME_REFUSED {
		t.Errorf("without a context: %v", got)
	}
	if got := one.renew(acme, 0, "in-flight"); got.GetOutcome() != done || got.GetTtl().AsDuration() != time.Minute {
		t.Errorf("renew: %v", got)
	}
	if got := one.acquire(acme, 9, "in-flight"); got.GetOutcome() != denied || got.GetCells()[0].GetRetryAfter().AsDuration() <= 0 {
		t.Errorf("what others tried freed a slot: %v", got)
	}
	if got := one.release(acme, 0, "in-flight"); got.GetOutcome() != done {
		t.Errorf("release: %v", got)
	}
	if got := one.release(acme, 0, "in-flight"); got.GetOutcome() != notFound {
		t.Errorf("release twice: %v", got)
	}
	var mu sync.Mutex
	won := 0
	var racers sync.WaitGroup
	for id := range byte(20) {
		racers.Go(func() {
			if one.acquire(acme, 100+id, "in-flight").GetOutcome() == granted {
				mu.Lock()
				defer mu.Unlock()
				won++
			}
		})
	}
	racers.Wait()
	if won != 1 {
		t.Errorf("%d of 20 got the last slot", won)
	}
	notes := r.peer("app", "notes", 0, with(tenant.MetadataKey, acme))
	usage, err := notes.ListLimitUsage(t.Context(), &quotav1.ListLimitUsageRequest{})
	r.need(err)
	left := map[string]int64{}
	for _, u := range usage.GetUsage() {
		left[u.GetLimit().GetName()] = u.GetRemaining()
	}
	if fmt.Sprint(left) != "map[limits/exports:1 limits/in-flight:0]" {
		t.Errorf("left %v", left)
	}
}

// A configuration of the allocator that cannot work is found before a start.
func TestAllocatorConfiguration(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for what, redis := range map[string]*quota.Redis{
		"no address":      {},
		"no file":         {Addresses: []string{"x:1"}, Password: r.path("nothing")},
		"roots, no tls":   {Addresses: []string{"x:1"}, Roots: r.path("id/roots.pem")},
		"no roots":        {Addresses: []string{"x:1"}, TLS: true, Roots: r.path("db.dsn")},
		"fewer than none": {Addresses: []string{"x:1"}, WaitReplicas: -1},
	} {
		c := r.config
		c.Replica, c.State = "x", r.path("state-quota-1")
		c.Allocator.Redis = redis
		if err := c.Check(t.Context()); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	c := r.config
	c.Replica, c.State = "x", r.path("state-quota-1")
	c.Allocator.Redis = &quota.Redis{Addresses: []string{"x:1"}, TLS: true, Roots: r.path("id/roots.pem"), Password: r.path("db.dsn"), WaitReplicas: 1}
	r.need(c.Check(t.Context()))
}
