package config_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/follower"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/services/config"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/rpc"
)

func later() *timestamppb.Timestamp {
	return timestamppb.New(time.Now().Add(24 * time.Hour).Truncate(time.Second))
}

// beside runs a second replica beside the service, on the same database, until the test ends.
func (r *rig) beside(configure ...func(*config.Config)) {
	r.tb.Helper()
	c := r.config
	for _, fn := range configure {
		fn(&c)
	}
	c.Replica, c.State = "config-2", yamlfile.Path(filepath.Join(r.tb.TempDir(), "state"))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- config.Run(ctx, c, follower.WithLog(r.log)) }()
	r.tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			r.tb.Errorf("the second replica: %v", err)
		}
	})
}

func (a api) schedule(t *testing.T, id string, at *timestamppb.Timestamp) error {
	t.Helper()
	_, err := a.ScheduleChange(t.Context(), &configv1.ScheduleChangeRequest{Name: "changes/" + id, NotBefore: at})
	return err
}

// due has the time of changes come: times are the database's, which a test cannot set, so it sets theirs.
func (r *rig) due(ids ...string) {
	r.tb.Helper()
	_, err := r.db.Owner(r.tb).Exec(r.tb.Context(), `UPDATE settings.change SET not_before = now() WHERE id = ANY ($1)`, ids)
	must(r.tb, err)
}

func (a api) state(t *testing.T, id string) configv1.ChangeState {
	t.Helper()
	c, _ := a.change(t, id)
	return c.GetState()
}

// lookout is the clock of schedulers, which look when the test says so.
type lookout struct {
	mu    sync.Mutex
	now   time.Time
	looks []chan time.Time
}

// another gives a replica this clock.
func (l *lookout) another(c *config.Config) {
	looks := make(chan time.Time)
	l.looks = append(l.looks, looks)
	*c = c.WithPace(rpc.Pace{Looks: looks, Now: func(context.Context) (time.Time, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.now, nil
	}})
}

// look sets the time and returns when all replicas have looked and done what needs no hooks.
func (l *lookout) look(at time.Time) {
	l.mu.Lock()
	l.now = at
	l.mu.Unlock()
	for range 2 { // who takes the second is done with the first
		for _, looks := range l.looks {
			looks <- at
		}
	}
}

// A change becomes live once, whoever looks, not before its time and within a second of it.
func TestScheduledOnce(t *testing.T) {
	t.Parallel()
	clock := &lookout{now: time.Now()}
	r := newRigWith(t, clock.another)
	r.beside(clock.another)
	a := r.as("owner")
	ctx := t.Context()
	r.namespace(a, "portal", `{}`)
	for what, at := range map[string]time.Time{"the past": time.Now().Add(-time.Second), "far away": time.Now().Add(367 * 24 * time.Hour)} {
		_, err := a.propose(t, "at-"+what[:3], patches("platform/config/portal", `{"x":1}`))
		must(t, err)
		if err := a.schedule(t, "at-"+what[:3], timestamppb.New(at)); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", what, err)
		}
	}
	const n, apart = 10, 130 * time.Millisecond
	first := later().AsTime()
	for i := range n {
		id := fmt.Sprintf("c-%d", i)
		_, err := a.propose(t, id, patches(fmt.Sprintf("plans/p%d/config/portal", i), fmt.Sprintf(`{"v":%d}`, i)))
		must(t, err)
		must(t, a.schedule(t, id, timestamppb.New(first.Add(time.Duration(i)*apart))))
	}
	_, err := a.propose(t, "never", patches("plans/free/config/portal", `{"v":1}`))
	must(t, err)
	must(t, a.schedule(t, "never", timestamppb.New(first)))
	_, err = a.CancelChange(ctx, &configv1.CancelChangeRequest{Name: "changes/never"})
	must(t, err)
	live := map[int]bool{}
	for now := first.Add(-2 * rpc.SchedulePoll); now.Before(first.Add(n*apart + time.Second)); now = now.Add(rpc.SchedulePoll) {
		clock.look(now)
		for i := range n {
			if live[i] || a.state(t, fmt.Sprintf("c-%d", i)) != configv1.ChangeState_CHANGE_STATE_LIVE {
				continue
			}
			live[i] = true
			if late := now.Sub(first.Add(time.Duration(i) * apart)); late < 0 || late > time.Second {
				t.Errorf("change %d became live %v after its time", i, late)
			}
		}
	}
	for i := range n {
		doc := fmt.Sprintf("plans/p%d/config/portal", i)
		revisions, err := a.ListDocumentRevisions(ctx, &configv1.ListDocumentRevisionsRequest{Parent: doc})
		must(t, err)
		if len(revisions.GetDocuments()) != 1 || revisions.GetDocuments()[0].GetContent() != fmt.Sprintf(`{"v":%d}`, i) {
			t.Errorf("%s has the revisions %v", doc, revisions)
		}
	}
	if got := a.content(t, "plans/free/config/portal"); got != "" {
		t.Errorf("what was cancelled is live: %s", got)
	}
	events, err := r.as("auditor").ListEvents(ctx, &auditv1.ListEventsRequest{Parent: "chains/platform", PageSize: 500})
	must(t, err)
	fired := 0
	for _, e := range events.GetEvents() {
		if e.GetMethod() == "job/publish-change" {
			fired++
			if !strings.HasSuffix(e.GetReason(), "which operator:owner@static scheduled") {
				t.Errorf("the record says %q", e.GetReason())
			}
		}
	}
	if fired != n {
		t.Errorf("%d events of %d changes", fired, n)
	}
}

// What cannot become live at its time is halted with the reason, and nothing of it is done.
func TestHalted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b := r.as("owner"), r.as("operator")
	ctx := t.Context()
	n := r.governed(a, "portal", portal, 1, "platform")
	const free, business = "plans/free/config/portal", "plans/business/config/portal"
	r.set(a, free, `{"price":1,"size":1}`)
	halted := func(id string, code codes.Code) *configv1.Change {
		t.Helper()
		r.due(id)
		eventually(t, id+" halted", func() bool { return a.state(t, id) == configv1.ChangeState_CHANGE_STATE_HALTED })
		c, _ := a.change(t, id)
		if c.GetRefusal().GetCode() != int32(code) {
			t.Errorf("%s: %v", id, c.GetRefusal())
		}
		return c
	}
	_, err := a.propose(t, "conflict", patches(business, `{"size":2}`), patches(free, `{"price":2}`))
	must(t, err)
	must(t, a.schedule(t, "conflict", later()))
	r.set(a, free, `{"price":3,"size":7}`)
	c := halted("conflict", codes.Aborted)
	if v := broken(status.FromProto(c.GetRefusal()).Err()); len(v) != 1 || v[0] != "change.edits[1].content/price: was 1, is 3 now, and the change wants 2" {
		t.Errorf("the refusal says %q", v)
	}
	if got := a.content(t, business); got != "" {
		t.Errorf("a part is live: %s", got)
	}
	// When what was in its way is gone, it can be had again.
	r.set(a, free, `{"price":1,"size":7}`)
	live, err := a.publish(t, "conflict")
	must(t, err)
	if live.GetRefusal() != nil || a.content(t, free) != `{"price":2,"size":7}` || a.content(t, business) != `{"size":2}` {
		t.Errorf("published %v: %s", live, a.content(t, free))
	}

	_, err = a.propose(t, "invalid", patches(free, `{"size":900}`))
	must(t, err)
	must(t, a.schedule(t, "invalid", later()))
	_, err = a.propose(t, "schema", patches("namespaces/portal", `{"schema":{"properties":{"size":{"maximum":100}}}}`))
	must(t, err)
	must(t, a.submit(t, "schema"))
	must(t, b.approve(t, "schema"))
	_, err = a.publish(t, "schema")
	must(t, err)
	halted("invalid", codes.InvalidArgument)

	// An approval rule that became stricter holds at the time, not the one of the schedule.
	_, err = b.propose(t, "rule", patches(free, `{"size":8}`))
	must(t, err)
	must(t, b.schedule(t, "rule", later()))
	_, err = a.UpdateNamespace(ctx, &configv1.UpdateNamespaceRequest{
		Namespace:  &configv1.Namespace{Name: n.GetName(), Approval: &configv1.NamespaceApproval{Layers: []string{"platform", "plan"}, Count: 1}},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"approval"}},
	})
	must(t, err)
	halted("rule", codes.FailedPrecondition)
	must(t, a.approve(t, "rule"))
	must(t, b.schedule(t, "rule", later()))
	r.due("rule")
	eventually(t, "rule", func() bool { return a.state(t, "rule") == configv1.ChangeState_CHANGE_STATE_LIVE })
	if got := a.content(t, free); got != `{"price":2,"size":8}` {
		t.Errorf("live is %s", got)
	}
}
