package config_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

const rolloutReason = "a test of rollouts"

// rolling asks for a rollout that nothing advances but hands, and that acme sees first.
func rolling(document, content string) *configv1.CreateRolloutRequest {
	return &configv1.CreateRolloutRequest{Reason: rolloutReason, Rollout: &configv1.Rollout{
		Document: document, Content: content, Steps: []int32{0, 100}, Canaries: []string{"tenants/acme"}, Bake: durationpb.New(time.Hour),
	}}
}

// begin begins a rollout.
func (r *rig) begin(a api, req *configv1.CreateRolloutRequest) *configv1.Rollout {
	r.tb.Helper()
	made, err := a.CreateRollout(r.tb.Context(), req)
	must(r.tb, err)
	return made.GetRollout()
}

func (r *rig) rollout(a api, name string) *configv1.Rollout {
	r.tb.Helper()
	got, err := a.GetRollout(r.tb.Context(), &configv1.GetRolloutRequest{Name: name})
	must(r.tb, err)
	return got.GetRollout()
}

// advance advances a rollout by hand.
func (r *rig) advance(a api, name string) *configv1.Rollout {
	r.tb.Helper()
	got, err := a.AdvanceRollout(r.tb.Context(), &configv1.AdvanceRolloutRequest{Name: name, Reason: rolloutReason})
	must(r.tb, err)
	return got.GetRollout()
}

// ended waits until a rollout runs no longer.
func (r *rig) ended(a api, name string) *configv1.Rollout {
	r.tb.Helper()
	var last *configv1.Rollout
	eventually(r.tb, "the end of "+name, func() bool {
		last = r.rollout(a, name)
		return last.GetState() != configv1.RolloutState_ROLLOUT_STATE_RUNNING
	})
	return last
}

// earlier has a rollout's step begin and be reported on earlier by so much, which is what a clock would do.
func (r *rig) earlier(name string, by time.Duration) {
	r.tb.Helper()
	uid := name[strings.LastIndexByte(name, '/')+1:]
	_, err := r.db.Owner(r.tb).Exec(r.tb.Context(), `UPDATE settings.rollout SET step_time = step_time - $2::interval WHERE uid = $1`, uid, by)
	must(r.tb, err)
}

// reads is what a tenant reads in the namespace "notes".
func reads(tb testing.TB, s *settings.Store, id string) settings.Effective {
	tb.Helper()
	parsed, err := tenant.ParseID(id)
	must(tb, err)
	e, ok := s.Holds(settings.Reader{UID: tenanttest.UID(id), ID: parsed, Plan: plans()[id], Region: tenanttest.Region}, "notes")
	if !ok {
		tb.Fatal("the namespace is not known")
	}
	return e
}

// TestRolloutGoesItsWay from the roll call through its steps to a revision of its document, with readers, the service and
// its explanations of one mind on the way.
func TestRolloutGoesItsWay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	r.namespace(a, "notes", `{"properties":{"v":{"type":"string"}}}`)
	base := r.set(a, "platform/config/notes", `{"v":"old","kept":1}`)
	store := &settings.Store{Trust: families(t)}
	r.follow(t, store)
	req := rolling("platform/config/notes", `{"v":"new"}`)
	req.MergePatch = true
	made := r.begin(a, req)
	if made.GetStep() != 0 || made.GetSharePercent() != 0 || made.GetBaseRevision() != base.GetRevision() || made.GetContent() != `{"kept":1,"v":"new"}` {
		t.Errorf("made %v", made)
	}
	sides := func(what, acme, globex string) {
		t.Helper()
		for id, want := range map[string]string{"acme": acme, "globex": globex} {
			var got *configv1.ExplainSettingsResponse
			eventually(t, what+" at "+id, func() bool {
				var err error
				got, err = a.ExplainSettings(ctx, &configv1.ExplainSettingsRequest{Name: "tenants/" + id + "/config/notes"})
				must(t, err)
				return got.GetEffective().GetVersion() == reads(t, store, id).Version
			})
			e := got.GetEffective()
			if e.GetContent() != `{"kept":1,"v":"`+want+`"}` || reads(t, store, id).Object["v"] != want {
				t.Errorf("%s: %s is told %s, reads %v", what, id, e.GetContent(), reads(t, store, id).Object)
			}
			if side := e.GetRollout(); side != nil && (side.GetRollout() != made.GetName() || side.GetNext() != (want == "new")) {
				t.Errorf("%s: %s is on the side %v", what, id, side)
			}
			if from := e.GetProvenance()[1]; e.GetRollout() != nil && (from.GetRollout() == made.GetName()) != (want == "new") {
				t.Errorf("%s: %s: %v", what, id, from)
			}
			if want == "new" && got.GetLayers()[0].GetReason() != rolloutReason {
				t.Errorf("%s: %s: layers %v", what, id, got.GetLayers())
			}
		}
	}
	next := func(step int32) { // when the reader has told that it has the step, its time is over
		t.Helper()
		eventually(t, fmt.Sprint("step ", step), func() bool {
			got := r.rollout(a, made.GetName())
			return got.GetStep() == step && got.GetHealth().GetApplied() == 1
		})
		if step == 1 {
			sides("the canary", "new", "old")
		}
		r.earlier(made.GetName(), 2*time.Hour)
	}
	for step := range int32(3) {
		next(step)
	}
	done := r.ended(a, made.GetName())
	if done.GetState() != configv1.RolloutState_ROLLOUT_STATE_COMPLETED || done.GetSharePercent() != 0 {
		t.Fatalf("ended %v", done)
	}
	sides("the end", "new", "new")
	got, err := a.GetDocument(ctx, &configv1.GetDocumentRequest{Name: "platform/config/notes"})
	must(t, err)
	if d := got.GetDocument(); d.GetRevision() != done.GetCompletedRevision() || d.GetReason() != rolloutReason || d.GetAuthor() != made.GetAuthor() {
		t.Errorf("became %v", d)
	}
	list, err := a.ListRollouts(ctx, &configv1.ListRolloutsRequest{Parent: "namespaces/-"})
	must(t, err)
	if len(list.GetRollouts()) != 1 || list.GetRollouts()[0].GetName() != made.GetName() || list.GetRollouts()[0].GetContent() != "" {
		t.Errorf("listed %v", list)
	}
}

// TestWritesBesideARollout: its document is not written, and what else is must be good for both sides.
func TestWritesBesideARollout(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	r.namespace(a, "notes", `{"x-rules":[{"rule":"!has(config.low) || !has(config.high) || config.low < config.high","message":"low is below high"}]}`)
	d := r.set(a, "platform/config/notes", `{"low":1}`)
	_, err := a.CreateRollout(ctx, rolling("platform/config/notes", `{"low":1}`))
	refused(t, "the same content", err, codes.InvalidArgument, fault.ReasonInvalidField)
	r.set(a, "tenants/globex/config/notes", `{"high":5}`)
	_, err = a.CreateRollout(ctx, rolling("platform/config/notes", `{"low":9}`))
	refused(t, "a content that breaks a tenant", err, codes.InvalidArgument, "SCHEMA_VIOLATION")
	made := r.begin(a, rolling("platform/config/notes", `{"low":3}`))
	_, err = a.UpdateDocument(ctx, setting("platform/config/notes", `{"low":0}`))
	refused(t, "the document", err, codes.FailedPrecondition, "ROLLOUT_RUNNING")
	_, err = a.DeleteDocument(ctx, &configv1.DeleteDocumentRequest{Name: "platform/config/notes"})
	refused(t, "its deletion", err, codes.FailedPrecondition, "ROLLOUT_RUNNING")
	_, err = a.RollbackDocument(ctx, &configv1.RollbackDocumentRequest{Name: "platform/config/notes", Revision: d.GetRevision()})
	refused(t, "its rollback", err, codes.FailedPrecondition, "ROLLOUT_RUNNING")
	_, err = a.CreateRollout(ctx, rolling("plans/free/config/notes", `{"low":0}`))
	refused(t, "a second rollout", err, codes.FailedPrecondition, "ROLLOUT_RUNNING")
	_, err = a.UpdateDocument(ctx, setting("tenants/globex/config/notes", `{"high":2}`))
	refused(t, "good for the old side alone", err, codes.InvalidArgument, "SCHEMA_VIOLATION")
	_, err = a.UpdateDocument(ctx, setting("tenants/globex/config/notes", `{"high":0.5}`))
	refused(t, "good for neither", err, codes.InvalidArgument, "SCHEMA_VIOLATION")
	r.set(a, "tenants/globex/config/notes", `{"high":4}`)
	halted, err := a.HaltRollout(ctx, &configv1.HaltRolloutRequest{Name: made.GetName(), Reason: rolloutReason})
	must(t, err)
	if halted.GetRollout().GetHalt() != configv1.RolloutHalt_ROLLOUT_HALT_OPERATOR {
		t.Errorf("halted %v", halted)
	}
	again, err := a.HaltRollout(ctx, &configv1.HaltRolloutRequest{Name: made.GetName(), Reason: rolloutReason})
	must(t, err)
	if again.GetRollout().GetEtag() != halted.GetRollout().GetEtag() {
		t.Error("a second halt changed something")
	}
	r.set(a, "tenants/globex/config/notes", `{"high":2}`)
	_, err = a.AdvanceRollout(ctx, &configv1.AdvanceRolloutRequest{Name: made.GetName(), Reason: rolloutReason})
	refused(t, "resuming what breaks a tenant by now", err, codes.InvalidArgument, "SCHEMA_VIOLATION")
	r.set(a, "tenants/globex/config/notes", `{"high":4}`)
	if resumed := r.advance(a, made.GetName()); resumed.GetState() != configv1.RolloutState_ROLLOUT_STATE_RUNNING || resumed.GetStep() != 0 {
		t.Errorf("resumed %v", resumed)
	}
	_, err = a.HaltRollout(ctx, &configv1.HaltRolloutRequest{Name: made.GetName(), Reason: rolloutReason})
	must(t, err)
	r.set(a, "platform/config/notes", `{"low":2}`)
	_, err = a.AdvanceRollout(ctx, &configv1.AdvanceRolloutRequest{Name: made.GetName(), Reason: rolloutReason})
	refused(t, "resuming over another revision", err, codes.FailedPrecondition, "ROLLOUT_ENDED")
}

// TestBadContentIsHalted at the roll call: a process that cannot read the new content says so before any tenant has it.
func TestBadContentIsHalted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		report *configv1.RolloutReport
		want   configv1.RolloutHalt
	}{
		"quarantine": {&configv1.RolloutReport{Quarantined: "not an object"}, configv1.RolloutHalt_ROLLOUT_HALT_QUARANTINE},
		"crash":      {&configv1.RolloutReport{Crashed: true}, configv1.RolloutHalt_ROLLOUT_HALT_CRASH},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			a := r.as("owner")
			r.namespace(a, "notes", `{}`)
			r.set(a, "platform/config/notes", `{"v":"old"}`)
			made := r.begin(a, rolling("platform/config/notes", `{"v":"new"}`))
			peer := configv1.NewRolloutServiceClient(r.gateway())
			c.report.Namespace = "notes"
			_, err := peer.ReportRolloutHealth(t.Context(), &configv1.ReportRolloutHealthRequest{
				Replica: "app-1", Instance: "1", Reports: []*configv1.RolloutReport{c.report},
			})
			must(t, err)
			got := r.ended(a, made.GetName())
			if got.GetHalt() != c.want || got.GetStep() != 0 || got.GetDetail() == "" {
				t.Errorf("ended %v", got)
			}
			events, err := a.ListEvents(t.Context(), &auditv1.ListEventsRequest{Parent: "chains/platform", PageSize: 10})
			must(t, err)
			if !strings.Contains(events.String(), "job/rollout-halt") {
				t.Errorf("the audit chain has %v", events)
			}
		})
	}
}

// TestContentThatNoProgramReads: a program that could read the old value, and cannot read the new one, goes on with the old
// one and halts the rollout.
func TestContentThatNoProgramReads(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", `{}`)
	r.set(a, "platform/config/notes", `{"v":"a text"}`)
	store := &settings.Store{Trust: families(t)}
	r.follow(t, store)
	made := r.begin(a, rolling("platform/config/notes", `{"v":5}`))
	r.advance(a, made.GetName())
	eventually(t, "the canary's side", func() bool { return reads(t, store, "acme").Object["v"] == 5.0 })
	for _, id := range []string{"acme", "globex"} {
		ctx := r.issuer.In(context.WithoutCancel(t.Context()), t, id, func(c *tenant.Claims) { c.Plan = plans()[id] })
		if got, err := settings.For[struct{ V string }](ctx, store, "notes"); err != nil || got.V != "a text" {
			t.Errorf("%s reads %v, %v: want the old value", id, got, err)
		}
	}
	if got := r.ended(a, made.GetName()); got.GetHalt() != configv1.RolloutHalt_ROLLOUT_HALT_QUARANTINE || got.GetStep() != 1 {
		t.Errorf("ended %v", got)
	}
}

// TestRequestsAreCompared: the canary's requests fail, and the rollout halts.
func TestRequestsAreCompared(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", `{}`)
	store := &settings.Store{Trust: families(t)}
	r.follow(t, store)
	made := r.begin(a, rolling("platform/config/notes", `{"v":5}`))
	r.advance(a, made.GetName())
	eventually(t, "the canary's side", func() bool { return reads(t, store, "acme").Object["v"] == 5.0 })
	for i := range 200 {
		for _, id := range []string{"acme", "globex"} {
			ctx := r.issuer.In(context.WithoutCancel(t.Context()), t, id, func(c *tenant.Claims) { c.Plan = plans()[id] })
			store.Observe(ctx, settings.Outcome{Failed: id == "acme" && i%10 == 0, Took: time.Millisecond})
		}
	}
	if got := r.ended(a, made.GetName()); got.GetHalt() != configv1.RolloutHalt_ROLLOUT_HALT_ERRORS ||
		!strings.Contains(got.GetDetail(), "requests failed with the new content, 0 of ") {
		t.Errorf("ended %v", got)
	}
}

// TestARestartedWorkerGoesOn: config ends in the middle of a rollout, and goes on with the step that was committed.
func TestARestartedWorkerGoesOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", `{}`)
	made := r.begin(a, rolling("platform/config/notes", `{"v":5}`))
	for step := range int32(2) {
		peer := configv1.NewRolloutServiceClient(r.gateway())
		_, err := peer.ReportRolloutHealth(t.Context(), &configv1.ReportRolloutHealthRequest{
			Replica: "app-1", Instance: "1", Reports: []*configv1.RolloutReport{{Namespace: "notes", Step: step}},
		})
		must(t, err)
		r.stop()
		r.earlier(made.GetName(), 2*time.Hour)
		r.start()
		a = r.as("owner")
		eventually(t, fmt.Sprint("step ", step+1), func() bool { return r.rollout(a, made.GetName()).GetStep() > step })
		if got := r.rollout(a, made.GetName()); got.GetStep() != step+1 || got.GetState() != configv1.RolloutState_ROLLOUT_STATE_RUNNING {
			t.Fatalf("at %v", got)
		}
	}
}

// TestADeathIsNoticed: a process that comes anew soon after a step, and had not said that it leaves, has died of it.
func TestADeathIsNoticed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", `{}`)
	peer := configv1.NewRolloutServiceClient(r.gateway())
	report := func(instance string, leaving bool) {
		t.Helper()
		_, err := peer.ReportRolloutHealth(t.Context(), &configv1.ReportRolloutHealthRequest{
			Replica: "app-1", Instance: instance, Leaving: leaving, Reports: []*configv1.RolloutReport{{Namespace: "notes"}},
		})
		must(t, err)
	}
	made := r.begin(a, rolling("plans/free/config/notes", `{"v":"new"}`))
	report("1", false)
	report("1", true)
	report("2", false)
	if got := r.rollout(a, made.GetName()); got.GetState() != configv1.RolloutState_ROLLOUT_STATE_RUNNING || got.GetHealth().GetReporters() != 1 {
		t.Errorf("after an orderly restart %v", got)
	}
	report("3", false)
	if got := r.ended(a, made.GetName()); got.GetHalt() != configv1.RolloutHalt_ROLLOUT_HALT_CRASH {
		t.Errorf("ended %v", got)
	}
}

// TestNobodyWatches: a rollout of which nobody reports goes nowhere, however long ago its step began.
func TestNobodyWatches(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", `{}`)
	made := r.begin(a, rolling("platform/config/notes", `{"v":"new"}`))
	if got := r.rollout(a, made.GetName()); got.GetDetail() != "waiting for a first report" {
		t.Errorf("waits for %q", got.GetDetail())
	}
	_, err := a.DeleteNamespace(t.Context(), &configv1.DeleteNamespaceRequest{Name: "namespaces/notes"})
	refused(t, "the namespace", err, codes.FailedPrecondition, "ROLLOUT_RUNNING")
	r.earlier(made.GetName(), time.Hour) // GetRollout does not know when config began to listen: it says what the reports say
	if got := r.rollout(a, made.GetName()); got.GetStep() != 0 || got.GetDetail() != "nobody reports; a rollout that nobody watches does not go on" {
		t.Errorf("is at %v", got)
	}
}

// TestARestartKeepsItsSide starts a reader from its disk in the middle of a rollout, while config is away.
func TestARestartKeepsItsSide(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", `{}`)
	r.set(a, "platform/config/notes", `{"v":"old"}`)
	made := r.begin(a, rolling("platform/config/notes", `{"v":"new"}`))
	r.advance(a, made.GetName())
	keys, err := keyfile.Public(r.path("feed.pub"))
	must(t, err)
	dir, conn := t.TempDir(), r.gateway()
	for i, what := range []string{"live", "from disk", "and again"} {
		s := &settings.Store{Trust: families(t)}
		f, err := settings.Follow(t.Context(), settings.FollowConfig{
			Config: conn, FeedKeys: keys, Replica: "app-1", Store: s, Dir: dir, Log: slog.New(slog.DiscardHandler),
		})
		must(t, err)
		t.Cleanup(f.Close)
		<-f.Ready()
		eventually(t, what, func() bool {
			return reads(t, s, "acme").Object["v"] == "new" && reads(t, s, "globex").Object["v"] == "old" && !f.Status().LastBookmark.IsZero() || i > 0
		})
		if i == 0 { // what is kept on disk is what a bookmark signs
			applied := f.Status().LastBookmark
			eventually(t, "a bookmark behind it", func() bool { return f.Status().LastBookmark.After(applied) })
		}
		if acme, globex := reads(t, s, "acme").Object["v"], reads(t, s, "globex").Object["v"]; acme != "new" || globex != "old" {
			t.Errorf("%s: acme %v, globex %v", what, acme, globex)
		}
		f.Close()
		r.stop()
	}
}

// TestFlagsRoll: a rollout of flags reaches the canary's evaluations and no other's.
func TestFlagsRoll(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	const flag = `{"flags":{"x":{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":%q}}}`
	r.set(a, "platform/config/flags", fmt.Sprintf(flag, "off"))
	store := &settings.Store{Trust: families(t)}
	r.follow(t, store)
	client, err := flags.New(flags.Config{Store: store})
	must(t, err)
	on := func(id string) bool {
		return client.Bool(r.issuer.In(context.WithoutCancel(t.Context()), t, id, func(c *tenant.Claims) { c.Plan = plans()[id] }), "x", false)
	}
	made := r.begin(a, rolling("platform/config/flags", fmt.Sprintf(flag, "on")))
	r.advance(a, made.GetName())
	eventually(t, "the canary's flag", func() bool { return on("acme") })
	if on("globex") {
		t.Error("another tenant has the canary's flag")
	}
	_, err = a.HaltRollout(t.Context(), &configv1.HaltRolloutRequest{Name: made.GetName(), Reason: rolloutReason})
	must(t, err)
	eventually(t, "the halt", func() bool { return !on("acme") })
}

// TestWhoMayRollOut: viewers look, operators act, and apps report and do nothing else.
func TestWhoMayRollOut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, viewer, ctx := r.as("operator"), r.as("viewer"), t.Context()
	r.namespace(r.as("owner"), "notes", `{}`)
	const missing = "PERMISSION_MISSING"
	_, err := viewer.CreateRollout(ctx, rolling("platform/config/notes", `{"v":1}`))
	refused(t, "a viewer's rollout", err, codes.PermissionDenied, missing)
	made := r.begin(a, rolling("platform/config/notes", `{"v":1}`))
	r.rollout(viewer, made.GetName())
	_, err = viewer.HaltRollout(ctx, &configv1.HaltRolloutRequest{Name: made.GetName(), Reason: rolloutReason})
	refused(t, "a viewer's halt", err, codes.PermissionDenied, missing)
	_, err = viewer.AdvanceRollout(ctx, &configv1.AdvanceRolloutRequest{Name: made.GetName(), Reason: rolloutReason})
	refused(t, "a viewer's advance", err, codes.PermissionDenied, missing)
	_, err = a.ReportRolloutHealth(ctx, &configv1.ReportRolloutHealthRequest{Replica: "x", Instance: "x"})
	refused(t, "a report without a certificate", err, codes.Unauthenticated, "CREDENTIAL_MISSING")
	stage := apiOf(r.workload(r.service("stage"))) // which has no role
	_, err = stage.ReportRolloutHealth(ctx, &configv1.ReportRolloutHealthRequest{Replica: "x", Instance: "x"})
	refused(t, "a report without the right", err, codes.PermissionDenied, missing)
	for what, c := range map[string]struct {
		edit         func(*configv1.CreateRolloutRequest)
		code         codes.Code
		reason, name string
	}{
		"an environment": {func(c *configv1.CreateRolloutRequest) {
			c.Rollout.Document = "tenants/acme/environments/dev/config/notes"
		}, codes.InvalidArgument, fault.ReasonInvalidField, ""},
		"a lone tenant":    {func(c *configv1.CreateRolloutRequest) { c.Rollout.Document = "tenants/acme/config/notes" }, codes.InvalidArgument, fault.ReasonInvalidField, ""},
		"kills":            {func(c *configv1.CreateRolloutRequest) { c.Rollout.Document = "platform/config/flag-kills" }, codes.FailedPrecondition, "NAMESPACE_IN_USE", ""},
		"steps":            {func(c *configv1.CreateRolloutRequest) { c.Rollout.Steps = []int32{5, 1} }, codes.InvalidArgument, fault.ReasonInvalidField, ""},
		"no such canary":   {func(c *configv1.CreateRolloutRequest) { c.Rollout.Canaries = []string{"tenants/nobody"} }, codes.NotFound, fault.ReasonResourceNotFound, ""},
		"no reason":        {func(c *configv1.CreateRolloutRequest) { c.Reason = "" }, codes.InvalidArgument, "", ""},
		"no such document": {func(c *configv1.CreateRolloutRequest) { c.Rollout.Document = "platform/config/nothing" }, codes.NotFound, fault.ReasonResourceNotFound, ""},
	} {
		_, err := a.HaltRollout(ctx, &configv1.HaltRolloutRequest{Name: made.GetName(), Reason: rolloutReason})
		must(t, err)
		req := rolling("platform/config/notes", `{"v":2}`)
		c.edit(req)
		if _, err = a.CreateRollout(ctx, req); c.reason != "" {
			refused(t, what, err, c.code, c.reason)
		} else if err == nil {
			t.Errorf("%s: taken", what)
		}
	}
}
