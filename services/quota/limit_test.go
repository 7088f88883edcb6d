package quota_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	"github.com/rowhouse-platform/rowhouse/sdk/limits"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

func limit(name string, tokens int64, period time.Duration, burst int64) *quotav1.Limit {
	return &quotav1.Limit{Name: name, Tokens: tokens, Period: durationpb.New(period), Burst: burst}
}

// set makes a limit, or changes it.
func (r *rig) set(a api, l *quotav1.Limit) *quotav1.Limit {
	r.Helper()
	resp, err := a.UpdateLimit(r.Context(), &quotav1.UpdateLimitRequest{
		Limit: l, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"*"}}, AllowMissing: true,
	})
	r.need(err)
	return resp.GetLimit()
}

func TestLimitIsKept(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("operator"), t.Context()
	for _, name := range []string{"platform/limits/requests", "plans/free/limits/requests", "tenants/acme/limits/requests"} {
		made := r.set(a, limit(name, 5, time.Minute, 0))
		if made.GetBurst() != 5 || made.GetOnStoreLoss() != quotav1.StoreLossPolicy_STORE_LOSS_POLICY_SAFE_RATE || made.GetUid() == "" ||
			made.GetEtag() == "" || made.GetRevision() == 0 || made.GetCreateTime() == nil || made.GetName() != name {
			t.Errorf("made %v", made)
		}
		got, err := a.GetLimit(ctx, &quotav1.GetLimitRequest{Name: name})
		r.need(err)
		if !proto.Equal(got.GetLimit(), made) {
			t.Errorf("got\n%v, made\n%v", got.GetLimit(), made)
		}
		changed, err := a.UpdateLimit(ctx, &quotav1.UpdateLimitRequest{
			Limit: &quotav1.Limit{Name: name, Tokens: 9, Etag: made.GetEtag()}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"tokens"}},
		})
		r.need(err)
		if l := changed.GetLimit(); l.GetTokens() != 9 || l.GetBurst() != 5 || l.GetUid() != made.GetUid() || l.GetRevision() <= made.GetRevision() {
			t.Errorf("changed %v", l)
		}
		same, err := a.UpdateLimit(ctx, &quotav1.UpdateLimitRequest{Limit: &quotav1.Limit{Name: name, Tokens: 9}})
		r.need(err)
		if !proto.Equal(same.GetLimit(), changed.GetLimit()) {
			t.Errorf("a change of nothing gave %v", same.GetLimit())
		}
		_, err = a.DeleteLimit(ctx, &quotav1.DeleteLimitRequest{Name: name, Etag: made.GetEtag()})
		refused(t, "delete of an old state", err, codes.Aborted, fault.ReasonEtagMismatch)
		_, err = a.DeleteLimit(ctx, &quotav1.DeleteLimitRequest{Name: name, Etag: changed.GetLimit().GetEtag()})
		r.need(err)
		_, err = a.GetLimit(ctx, &quotav1.GetLimitRequest{Name: name})
		refused(t, "deleted", err, codes.NotFound, fault.ReasonResourceNotFound)
		_, err = a.DeleteLimit(ctx, &quotav1.DeleteLimitRequest{Name: name, AllowMissing: true})
		r.need(err)
	}
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("operator"), t.Context()
	gateway := r.peer("service", "gateway", 0)
	r.set(a, limit("platform/limits/requests", 5, time.Minute, 0))
	update := func(req *quotav1.UpdateLimitRequest) func() error {
		return func() error { _, err := a.UpdateLimit(ctx, req); return err }
	}
	get := func(name string) func() error {
		return func() error { _, err := a.GetLimit(ctx, &quotav1.GetLimitRequest{Name: name}); return err }
	}
	list := func(req *quotav1.ListLimitsRequest) func() error {
		return func() error { _, err := a.ListLimits(ctx, req); return err }
	}
	remove := func(req *quotav1.DeleteLimitRequest) func() error {
		return func() error { _, err := a.DeleteLimit(ctx, req); return err }
	}
	explain := func(parent string) func() error {
		return func() error {
			_, err := a.ExplainLimits(ctx, &quotav1.ExplainLimitsRequest{Parent: parent})
			return err
		}
	}
	grant := func(req *quotav1.GrantLeasesRequest) func() error {
		return func() error { _, err := gateway.GrantLeases(ctx, req); return err }
	}
	token := r.token("acme", "business")
	const name = "platform/limits/requests"
	made := func(l *quotav1.Limit) func() error {
		return update(&quotav1.UpdateLimitRequest{Limit: l, AllowMissing: true})
	}
	arg, missing := codes.InvalidArgument, codes.NotFound
	for what, c := range map[string]struct {
		call   func() error
		code   codes.Code
		reason string
	}{
		"get a bad name":           {get("platform/limits/A"), arg, fault.ReasonInvalidField},
		"get another's noun":       {get("tenants/acme/domains/x"), arg, fault.ReasonInvalidField},
		"get none":                 {get("platform/limits/none"), missing, fault.ReasonResourceNotFound},
		"get of no tenant":         {get("tenants/none/limits/requests"), missing, fault.ReasonResourceNotFound},
		"get above":                {get("tenants/acme/limits/requests"), missing, fault.ReasonResourceNotFound},
		"list a bad parent":        {list(&quotav1.ListLimitsRequest{Parent: "cells/x"}), arg, fault.ReasonInvalidField},
		"list of no tenant":        {list(&quotav1.ListLimitsRequest{Parent: "tenants/none"}), missing, fault.ReasonResourceNotFound},
		"list below zero":          {list(&quotav1.ListLimitsRequest{Parent: "platform", PageSize: -1}), arg, fault.ReasonInvalidField},
		"list with a bad token":    {list(&quotav1.ListLimitsRequest{Parent: "platform", PageToken: "x"}), arg, fault.ReasonPageTokenInvalid},
		"update nothing":           {update(&quotav1.UpdateLimitRequest{}), arg, fault.ReasonInvalidField},
		"update none":              {update(&quotav1.UpdateLimitRequest{Limit: limit("platform/limits/none", 1, time.Second, 1)}), missing, fault.ReasonResourceNotFound},
		"update no name":           {made(&quotav1.Limit{Tokens: 1}), arg, fault.ReasonInvalidField},
		"update an old state":      {update(&quotav1.UpdateLimitRequest{Limit: &quotav1.Limit{Name: name, Tokens: 1, Etag: `"x"`}}), codes.Aborted, fault.ReasonEtagMismatch},
		"update no field":          {update(&quotav1.UpdateLimitRequest{Limit: &quotav1.Limit{Name: name}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"rate"}}}), arg, fault.ReasonFieldMaskInvalid},
		"make without period":      {made(&quotav1.Limit{Name: "platform/limits/x", Tokens: 1}), arg, fault.ReasonInvalidField},
		"make with a short period": {made(limit("platform/limits/x", 1, time.Microsecond, 1)), arg, fault.ReasonInvalidField},
		"make with a long period":  {made(limit("platform/limits/x", 1, 400*24*time.Hour, 1)), arg, fault.ReasonInvalidField},
		"make with less than none": {made(limit("platform/limits/x", -1, time.Second, 1)), arg, fault.ReasonInvalidField},
		"make with too much":       {made(limit("platform/limits/x", 1<<40+1, time.Second, 1)), arg, fault.ReasonInvalidField},
		"make with a huge burst":   {made(limit("platform/limits/x", 1, time.Second, 1<<41)), arg, fault.ReasonInvalidField},
		"make an odd policy":       {made(&quotav1.Limit{Name: "platform/limits/x", Tokens: 1, Period: durationpb.New(time.Second), OnStoreLoss: 9}), arg, fault.ReasonInvalidField},
		"make for no tenant":       {made(limit("tenants/none/limits/x", 1, time.Second, 1)), missing, fault.ReasonResourceNotFound},
		"a bad request id":         {update(&quotav1.UpdateLimitRequest{Limit: limit(name, 1, time.Second, 1), RequestId: "x"}), arg, fault.ReasonInvalidField},
		"delete none":              {remove(&quotav1.DeleteLimitRequest{Name: "platform/limits/none"}), missing, fault.ReasonResourceNotFound},
		"delete an old state":      {remove(&quotav1.DeleteLimitRequest{Name: name, Etag: `"x"`}), codes.Aborted, fault.ReasonEtagMismatch},
		"delete a bad name":        {remove(&quotav1.DeleteLimitRequest{Name: "x"}), arg, fault.ReasonInvalidField},
		"explain a plan":           {explain("plans/free"), arg, fault.ReasonInvalidField},
		"explain no tenant":        {explain("tenants/none"), missing, fault.ReasonResourceNotFound},
		"grant nobody":             {grant(&quotav1.GrantLeasesRequest{Asks: ask(token, "requests", 1, 1).GetAsks()}), arg, fault.ReasonInvalidField},
		"grant nothing":            {grant(&quotav1.GrantLeasesRequest{Holder: "h"}), arg, fault.ReasonInvalidField},
		"grant zero":               {grant(ask(token, "requests", 0, 1)), arg, fault.ReasonInvalidField},
		"grant a bad limit":        {grant(ask(token, "Requests", 1, 1)), arg, fault.ReasonInvalidField},
		"grant without context":    {grant(ask("", "requests", 1, 1)), arg, fault.ReasonInvalidField},
		"grant a long context":     {grant(ask(strings.Repeat("x", 385), "requests", 1, 1)), arg, fault.ReasonInvalidField},
	} {
		refused(t, what, c.call(), c.code, c.reason)
	}
	odd := &quotav1.UpdateLimitRequest{Limit: limit(name, 1, time.Second, 1)}
	odd.ProtoReflect().SetUnknown([]byte{0x98, 0x3f, 0x01})
	_, err := a.UpdateLimit(ctx, odd)
	refused(t, "an unknown field", err, arg, fault.ReasonUnknownField)
}

func TestWhoMayCall(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.set(r.as("operator"), limit("platform/limits/requests", 5, time.Minute, 0))
	ctx := t.Context()
	update := func(a api) error {
		_, err := a.UpdateLimit(ctx, &quotav1.UpdateLimitRequest{Limit: limit("platform/limits/requests", 5, time.Minute, 0)})
		return err
	}
	get := func(a api) error {
		_, err := a.GetLimit(ctx, &quotav1.GetLimitRequest{Name: "platform/limits/requests"})
		return err
	}
	grant := func(a api) error {
		_, err := a.GrantLeases(ctx, ask(r.token("acme", "business"), "requests", 1, 1))
		return err
	}
	watch := func(a api) error {
		s, err := a.WatchLimits(ctx, &quotav1.WatchLimitsRequest{Replica: "x"})
		if err == nil {
			_, err = s.Recv()
		}
		return err
	}
	usage := func(a api) error {
		_, err := a.ListLimitUsage(ctx, &quotav1.ListLimitUsageRequest{})
		return err
	}
	gateway, notes, nobody := r.peer("service", "gateway", 0), r.peer("app", "notes", 0), r.as("")
	r.need(errors.Join(get(r.as("viewer")), update(r.as("owner")), grant(gateway), watch(gateway), grant(notes), watch(notes)))
	for what, c := range map[string]struct {
		err    error
		code   codes.Code
		reason string
	}{
		"a viewer's change":    {update(r.as("viewer")), codes.PermissionDenied, fault.ReasonPermissionMissing},
		"nobody's read":        {get(nobody), codes.Unauthenticated, fault.ReasonCredentialMissing},
		"a gateway's change":   {update(gateway), codes.PermissionDenied, fault.ReasonPermissionMissing},
		"an app's change":      {update(notes), codes.PermissionDenied, fault.ReasonPermissionMissing},
		"an operator's ask":    {grant(r.as("owner")), codes.Unauthenticated, fault.ReasonCredentialMissing},
		"an operator's watch":  {watch(r.as("owner")), codes.Unauthenticated, fault.ReasonCredentialMissing},
		"usage of no tenant":   {usage(notes), codes.Unauthenticated, fault.ReasonContextMissing},
		"an operator's usage":  {usage(r.as("owner")), codes.Unauthenticated, fault.ReasonContextMissing},
		"a stranger's request": {grant(r.peer("service", "stranger", 0)), codes.PermissionDenied, fault.ReasonPermissionMissing},
	} {
		refused(t, what, c.err, c.code, c.reason)
	}
}

func TestRequestIDAndValidateOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("operator"), t.Context()
	const name = "tenants/acme/limits/requests"
	req := &quotav1.UpdateLimitRequest{Limit: limit(name, 5, time.Minute, 0), AllowMissing: true, RequestId: newID()}
	dry := proto.CloneOf(req)
	dry.ValidateOnly = true
	dry.RequestId = newID()
	validated, err := a.UpdateLimit(ctx, dry)
	r.need(err)
	if validated.GetLimit().GetTokens() != 5 {
		t.Errorf("validated %v", validated)
	}
	_, err = a.GetLimit(ctx, &quotav1.GetLimitRequest{Name: name})
	refused(t, "after validation", err, codes.NotFound, fault.ReasonResourceNotFound)
	first, err := a.UpdateLimit(ctx, req)
	r.need(err)
	r.set(a, limit(name, 6, time.Minute, 0))
	again, err := a.UpdateLimit(ctx, req)
	r.need(err)
	if !proto.Equal(first, again) {
		t.Errorf("again: %v, first %v", again, first)
	}
	other := proto.CloneOf(req)
	other.Limit.Tokens = 7
	_, err = a.UpdateLimit(ctx, other)
	refused(t, "a used id", err, codes.InvalidArgument, fault.ReasonRequestIDReused)
	got, err := a.GetLimit(ctx, &quotav1.GetLimitRequest{Name: name})
	r.need(err)
	if got.GetLimit().GetTokens() != 6 {
		t.Errorf("a replay changed the limit: %v", got)
	}
	gone := &quotav1.DeleteLimitRequest{Name: name, RequestId: newID(), ValidateOnly: true}
	_, err = a.DeleteLimit(ctx, gone)
	r.need(err)
	_, err = a.GetLimit(ctx, &quotav1.GetLimitRequest{Name: name})
	r.need(err)
	gone.ValidateOnly, gone.RequestId = false, newID()
	for range 2 {
		_, err = a.DeleteLimit(ctx, gone)
		r.need(err)
	}
}

// One of those who make the same limit at once makes it.
func TestRacingCreatesMakeOne(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("operator")
	const name = "platform/limits/requests"
	var mu sync.Mutex
	var made []*quotav1.Limit
	var callers sync.WaitGroup
	for i := range 8 {
		callers.Go(func() {
			resp, err := a.UpdateLimit(t.Context(), &quotav1.UpdateLimitRequest{Limit: limit(name, int64(i+1), time.Minute, 0), AllowMissing: true})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				refused(t, "a loser", err, codes.Aborted, fault.ReasonConcurrentOp)
				return
			}
			made = append(made, resp.GetLimit())
		})
	}
	callers.Wait()
	got, err := a.GetLimit(t.Context(), &quotav1.GetLimitRequest{Name: name})
	r.need(err)
	last := slices.MaxFunc(made, func(a, b *quotav1.Limit) int { return int(a.GetRevision() - b.GetRevision()) })
	if !proto.Equal(last, got.GetLimit()) {
		t.Errorf("got\n%v, the last answer was\n%v", got.GetLimit(), last)
	}
	for _, l := range made {
		if l.GetUid() != last.GetUid() {
			t.Errorf("two uids for one limit: %v, %v", l, last)
		}
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("operator"), t.Context()
	var want []string
	for i := range 5 {
		want = append(want, r.set(a, limit(fmt.Sprintf("tenants/acme/limits/l-%d", i), 1, time.Second, 1)).GetName())
		r.set(a, limit(fmt.Sprintf("tenants/globex/limits/l-%d", i), 1, time.Second, 1))
	}
	var got []string
	req := &quotav1.ListLimitsRequest{Parent: "tenants/acme", PageSize: 2}
	for pages := 0; ; pages++ {
		resp, err := a.ListLimits(ctx, req)
		r.need(err)
		for _, l := range resp.GetLimits() {
			got = append(got, l.GetName())
		}
		if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" || pages > 5 {
			break
		}
		_, err = a.ListLimits(ctx, &quotav1.ListLimitsRequest{Parent: "tenants/globex", PageSize: 2, PageToken: req.GetPageToken()})
		refused(t, "a token of another tenant", err, codes.InvalidArgument, fault.ReasonPageTokenInvalid)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if resp, err := a.ListLimits(ctx, &quotav1.ListLimitsRequest{Parent: "plans/free"}); err != nil || len(resp.GetLimits()) != 0 {
		t.Errorf("a plan without limits: %v, %v", resp, err)
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("operator"), t.Context()
	for _, name := range []string{
		"platform/limits/requests", "platform/limits/exports", "platform/limits/a", "plans/business/limits/requests", "plans/business/limits/b",
		"plans/free/limits/exports", "tenants/acme/limits/requests", "tenants/acme/limits/z",
	} {
		r.set(a, limit(name, 1, time.Second, 1))
	}
	explain := func(parent string) (lines []string) {
		t.Helper()
		resp, err := a.ExplainLimits(ctx, &quotav1.ExplainLimitsRequest{Parent: parent})
		r.need(err)
		for _, e := range resp.GetLimits() {
			lines = append(lines, strings.TrimSpace(e.GetLimit().GetName()+" "+e.GetSource()+" "+strings.Join(e.GetShadowed(), " ")))
		}
		return lines
	}
	want := []string{
		"platform/limits/a platform",
		"plans/business/limits/b plans/business",
		"platform/limits/exports platform",
		"tenants/acme/limits/requests tenants/acme plans/business/limits/requests platform/limits/requests",
		"tenants/acme/limits/z tenants/acme",
	}
	if got := explain("tenants/acme"); !slices.Equal(got, want) {
		t.Errorf("acme:\n%s", strings.Join(got, "\n"))
	}
	r.setTenant("acme", "free", tenancyv1.TenantState_TENANT_STATE_ACTIVE, 1)
	eventually(t, "the new plan's limits hold", func() bool {
		return slices.Contains(explain("tenants/acme"), "plans/free/limits/exports plans/free platform/limits/exports")
	})
}

// A follower sees a change within a second, by key and whole.
func TestWatchSeesChanges(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("operator")
	r.set(a, limit("plans/free/limits/requests", 3, time.Second, 0))
	public, err := keyfile.Public(string(r.path("feed.pub")))
	r.need(err)
	store := new(limits.Store)
	followed, err := limits.Follow(t.Context(), limits.FollowConfig{
		Quota: r.peer("service", "gateway", 0).conn, FeedKeys: public, Replica: "g", Store: store, Dir: t.TempDir(), Clock: time.Now,
	})
	r.need(err)
	t.Cleanup(followed.Close)
	<-followed.Ready()
	holds := func(source string, tokens int64) func() bool {
		return func() bool {
			p, ok := store.Policy(tenanttest.UID("acme"), "free", "requests", time.Now())
			return ok == (source != "") && p.Source == source && p.Limit.Tokens() == tokens
		}
	}
	eventually(t, "the plan's limit is there", holds("plan", 3))
	began := time.Now()
	made := r.set(a, limit("tenants/acme/limits/requests", 4, time.Second, 0))
	eventually(t, "the tenant's limit holds", holds("tenant", 4))
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	if p, _ := store.Policy(tenanttest.UID("acme"), "free", "requests", time.Now()); p.Revision != made.GetRevision() {
		t.Errorf("revision %d, made %d", p.Revision, made.GetRevision())
	}
	_, err = a.DeleteLimit(t.Context(), &quotav1.DeleteLimitRequest{Name: "tenants/acme/limits/requests"})
	r.need(err)
	eventually(t, "the plan's limit holds", holds("plan", 3))
	r.set(a, limit("plans/free/limits/requests", 8, time.Second, 0))
	eventually(t, "the plan's new limit holds", holds("plan", 8))
}

// Each call is in the chain of the tenant that it is about.
func TestCallsAreAudited(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	r.set(a, limit("tenants/acme/limits/requests", 4, time.Second, 0))
	_, err := a.GetLimit(ctx, &quotav1.GetLimitRequest{Name: "tenants/acme/limits/requests"})
	r.need(err)
	uid := tenanttest.UID("acme").String()
	resp, err := a.ListEvents(ctx, &auditv1.ListEventsRequest{Parent: "chains/" + uid})
	r.need(err)
	var methods []string
	for _, e := range resp.GetEvents() {
		methods = append(methods, e.GetMethod()[strings.LastIndex(e.GetMethod(), "/")+1:])
	}
	slices.Sort(methods)
	if !slices.Contains(methods, "UpdateLimit") || !slices.Contains(methods, "GetLimit") {
		t.Errorf("the tenant's chain holds %v", methods)
	}
	verdict, err := a.VerifyChain(ctx, &auditv1.VerifyChainRequest{Name: "chains/" + uid})
	if err != nil || !verdict.GetSound() {
		t.Errorf("%v, %v", verdict, err)
	}
}

// The service's role serves and owns nothing.
func TestServiceRoleOwnsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var owned, may int
	var flags bool
	ctx, service := t.Context(), database().Service()
	r.need(r.super.QueryRow(ctx, `SELECT (SELECT count(*) FROM pg_class WHERE relowner = $1::regrole) + (SELECT count(*) FROM pg_proc WHERE proowner = $1::regrole)
		+ (SELECT count(*) FROM pg_namespace WHERE nspowner = $1::regrole)`, service).Scan(&owned))
	r.need(r.super.QueryRow(ctx, `SELECT count(*) FROM pg_namespace WHERE nspname IN ('meter', 'kernel', 'audit', 'public')
		AND has_schema_privilege($1, oid, 'CREATE')`, service).Scan(&may))
	r.need(r.super.QueryRow(ctx, `SELECT rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR EXISTS (
		SELECT 1 FROM pg_auth_members WHERE member = r.oid) FROM pg_roles r WHERE rolname = $1`, service).Scan(&flags))
	if owned != 0 || may != 0 || flags {
		t.Errorf("the role owns %d things, may create in %d schemas, or has attributes: %v", owned, may, flags)
	}
	pool := r.db.Service(t)
	for _, sql := range []string{
		`TRUNCATE meter.limit_cell`, `DROP TABLE meter.limit_cell`, `ALTER TABLE meter.rate_limit DROP COLUMN burst`, `UPDATE meter.rate_limit SET uid = uid`,
		`UPDATE meter.rate_limit SET layer = layer`, `CREATE TABLE meter.x (a int)`, `UPDATE audit.event SET chain = chain`, `DELETE FROM audit.event`,
	} {
		if _, err := pool.Exec(ctx, sql); err == nil || !strings.Contains(err.Error(), "42501") {
			t.Errorf("%s: %v", sql, err)
		}
	}
}
