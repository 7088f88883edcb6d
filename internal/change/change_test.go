package change_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	"github.com/rowhouse-platform/rowhouse/internal/audit"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/change/changetest"
	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

var cluster *changetest.Cluster

func TestMain(m *testing.M) { changetest.Main(m, &cluster) }

// things is a service's own migration: a table, and one whose constraint is checked at the commit only.
func things() fs.FS {
	return fstest.MapFS{"0001_things.sql": {Data: []byte(`
		CREATE TABLE thing (name text PRIMARY KEY, size int NOT NULL DEFAULT 0);
		CREATE TABLE late (name text REFERENCES thing DEFERRABLE INITIALLY DEFERRED);
		GRANT SELECT, INSERT, UPDATE, DELETE ON thing, late TO {{service}};`)}}
}

type fixture struct {
	*changetest.Database
	kernel *change.Kernel
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	db := cluster.Database(t, things())
	return &fixture{db, change.New(change.Config{Pool: db.Pool, Service: "test"})}
}

// insert is a method of a service: it makes a thing, publishes it and answers with its name.
func (f *fixture) insert(ctx context.Context, name string) (*wrapperspb.StringValue, error) {
	return change.Do(ctx, f.kernel, func(ctx context.Context, tx *change.Tx) (*wrapperspb.StringValue, error) {
		if _, err := tx.Exec(ctx, `INSERT INTO thing (name) VALUES ($1)`, name); err != nil {
			if pg.Code(err) == pg.CodeUniqueViolation {
				return nil, fault.New(fault.AlreadyExists, fault.ReasonResourceExists, "%s exists", name)
			}
			return nil, err
		}
		tx.Audit("things/"+name, "name")
		answer := wrapperspb.String("made " + name)
		return answer, tx.Publish("things", "thing/"+name, answer)
	})
}

func (f *fixture) count(t *testing.T, sql string, args ...any) int {
	t.Helper()
	var n int
	if err := f.Pool.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// state is all that a change may leave behind.
func (f *fixture) state(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("things %d, late %d, head %d, log %d, feed %d, requests %d",
		f.count(t, `SELECT count(*) FROM thing`), f.count(t, `SELECT count(*) FROM late`),
		f.count(t, `SELECT revision FROM kernel.revision_head`), f.count(t, `SELECT count(*) FROM kernel.change_log`),
		f.count(t, `SELECT count(*) FROM kernel.feed_state`), f.count(t, `SELECT count(*) FROM kernel.request_log`))
}

func (f *fixture) events(t *testing.T, chain string) []*auditv1.Event {
	t.Helper()
	events, err := audit.List(t.Context(), f.Pool, chain, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func TestChangeCommitsAllTogether(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := uuid.NewString()
	answer, err := f.insert(changetest.Call(t.Context(), wrapperspb.String("a"), id), "a")
	if err != nil || answer.GetValue() != "made a" {
		t.Fatalf("%v, %v", answer, err)
	}
	if got, want := f.state(t), "things 1, late 0, head 1, log 1, feed 1, requests 1"; got != want {
		t.Errorf("state %q, want %q", got, want)
	}
	events := f.events(t, audit.Platform)
	if len(events) != 1 {
		t.Fatalf("%d events", len(events))
	}
	e := events[0]
	if e.GetPrincipal() != "operator:ada@test" || e.GetService() != "test" || e.GetRequestId() != id ||
		e.GetOutcome() != auditv1.Outcome_OUTCOME_OK || len(e.GetRequestDigest()) != 32 || e.GetTime() == nil ||
		strings.Join(e.GetResources(), ",") != "things/a" || strings.Join(e.GetChangedPaths(), ",") != "name" {
		t.Errorf("event %v", e)
	}
}

func TestFailureLeavesOnlyItsEvent(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	refused := fault.New(fault.FailedPrecondition, fault.ReasonWrongState, "no")
	tests := []struct {
		name   string
		fn     func(ctx context.Context, tx *change.Tx) error
		reason string
	}{
		{"a fault", func(context.Context, *change.Tx) error { return refused }, fault.ReasonWrongState},
		{"a defect", func(context.Context, *change.Tx) error { return errors.New("oops") }, "INTERNAL"},
		{"at the commit", func(ctx context.Context, tx *change.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO late VALUES ('missing')`)
			return err
		}, "INTERNAL"},
	}
	for i, tt := range tests {
		ctx := changetest.Call(t.Context(), wrapperspb.String(tt.name), uuid.NewString())
		_, err := f.kernel.Change(ctx, func(ctx context.Context, tx *change.Tx) (proto.Message, error) {
			if _, err := tx.Exec(ctx, `INSERT INTO thing (name) VALUES ('x')`); err != nil {
				return nil, err
			}
			if err := tx.Publish("things", "thing/x", wrapperspb.String("x")); err != nil {
				return nil, err
			}
			return wrapperspb.String("done"), tt.fn(ctx, tx)
		})
		if err == nil {
			t.Errorf("%s: no error", tt.name)
		}
		if got, want := f.state(t), "things 0, late 0, head 0, log 0, feed 0, requests 0"; got != want {
			t.Errorf("%s: state %q", tt.name, got)
		}
		events := f.events(t, audit.Platform)
		if len(events) != i+1 || events[0].GetOutcome() != auditv1.Outcome_OUTCOME_FAILED ||
			events[0].GetReasonCode() != tt.reason {
			t.Errorf("%s: events %v", tt.name, events)
		}
	}
}

func TestTwinsHaveOneEffectAndOneAnswer(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const twins = 32
	id := uuid.NewString()
	var g errgroup.Group
	start := make(chan struct{})
	for range twins {
		g.Go(func() error {
			<-start
			answer, err := f.insert(changetest.Call(t.Context(), wrapperspb.String("a"), id), "a")
			if err == nil && answer.GetValue() != "made a" {
				err = fmt.Errorf("answer %v", answer)
			}
			return err
		})
	}
	close(start)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if got, want := f.state(t), "things 1, late 0, head 1, log 1, feed 1, requests 1"; got != want {
		t.Errorf("state %q, want %q", got, want)
	}
	replays := 0
	for _, e := range f.events(t, audit.Platform) {
		if strings.Join(e.GetResources(), ",") != "things/a" || e.GetOutcome() != auditv1.Outcome_OUTCOME_OK {
			t.Errorf("event %v", e)
		}
		if e.GetReplay() {
			replays++
		}
	}
	if replays != twins-1 {
		t.Errorf("%d of %d replays were audited", replays, twins-1)
	}
}

// A replay is on record where the first call is, and a caller gets no answer that is not.
func TestReplayIsAuditedLikeTheFirst(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	chain := uuid.NewString()
	ctx := changetest.Call(t.Context(), wrapperspb.String("x"), uuid.NewString())
	ask := func() error {
		_, err := f.kernel.Change(ctx, func(_ context.Context, tx *change.Tx) (proto.Message, error) {
			tx.Tenant(chain)
			tx.Audit("things/a", "size")
			return wrapperspb.String("x"), nil
		})
		return err
	}
	if err := errors.Join(ask(), ask()); err != nil {
		t.Fatal(err)
	}
	events := f.events(t, chain)
	if len(events) != 2 || !events[0].GetReplay() || events[1].GetReplay() ||
		strings.Join(events[0].GetResources(), ",") != "things/a" || len(events[0].GetChangedPaths()) != 0 {
		t.Errorf("events %v", events)
	}
	owner := f.Connect(t, "")
	if _, err := owner.Exec(t.Context(), `ALTER TABLE audit.event ADD CONSTRAINT full_disk CHECK (false) NOT VALID`); err != nil {
		t.Fatal(err)
	}
	if err := ask(); fault.ReasonOf(err) != fault.ReasonAuditUnavailable {
		t.Errorf("without an audit: %v", err)
	}
}

func TestRequestIDBelongsToCallerMethodAndRequest(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := uuid.NewString()
	ctx := changetest.Call(t.Context(), wrapperspb.String("a"), id)
	if _, err := f.insert(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	_, err := f.insert(changetest.Call(t.Context(), wrapperspb.String("other"), id), "b")
	if fault.ReasonOf(err) != fault.ReasonRequestIDReused {
		t.Errorf("another request: %v", err)
	}
	for name, bad := range map[string]string{"no uuid": "x", "zero": uuid.Nil.String()} {
		if _, err := f.insert(changetest.Call(t.Context(), nil, bad), "b"); fault.ReasonOf(err) != fault.ReasonInvalidField {
			t.Errorf("%s: %v", name, err)
		}
	}
	others := map[string]func(*rule.Call){
		"b": func(c *rule.Call) { c.Method = "/other" },
		"c": func(c *rule.Call) { c.Principal = operator.NewPrincipal(operator.KindOperator, "operator:eve@test") },
	}
	for name, change := range others {
		call, _ := rule.CallFrom(ctx)
		change(&call)
		answer, err := f.insert(rule.NewContext(t.Context(), call), name)
		if err != nil || answer.GetValue() != "made "+name {
			t.Errorf("%s got another's answer: %v, %v", name, answer, err)
		}
	}
}

// TestReplayComparesMeaning stores the request as another build may have encoded it.
func TestReplayComparesMeaning(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := uuid.NewString()
	request := &auditv1.ListEventsRequest{Parent: "chains/platform", PageSize: 3}
	if _, err := f.insert(changetest.Call(t.Context(), request, id), "a"); err != nil {
		t.Fatal(err)
	}
	swapped := append([]byte{0x10, 3, 0x0a, 15}, "chains/platform"...)
	if _, err := f.Pool.Exec(t.Context(), `UPDATE kernel.request_log SET request = $1`, swapped); err != nil {
		t.Fatal(err)
	}
	if answer, err := f.insert(changetest.Call(t.Context(), request, id), "a"); err != nil || answer.GetValue() != "made a" {
		t.Errorf("%v, %v", answer, err)
	}
}

func TestRequestIDIsForgottenAfterADay(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := uuid.NewString()
	ctx := changetest.Call(t.Context(), wrapperspb.String("a"), id)
	age := func(by string) {
		t.Helper()
		_, err := f.Pool.Exec(t.Context(), `UPDATE kernel.request_log SET create_time = now() - $1::interval`, by)
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.insert(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	age("23 hours 59 minutes")
	if err := f.kernel.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.insert(ctx, "a"); err != nil {
		t.Errorf("within the day: %v", err)
	}
	age("24 hours 1 second")
	if _, err := f.insert(ctx, "a"); fault.ReasonOf(err) != fault.ReasonResourceExists {
		t.Errorf("after a day the call did not run: %v", err)
	}
	age("24 hours 1 second")
	if err := f.kernel.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := f.count(t, `SELECT count(*) FROM kernel.request_log`); n != 0 {
		t.Errorf("%d request ids left", n)
	}
}

func TestValidateOnly(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	validate := func(fn change.Func) error {
		call, _ := rule.CallFrom(changetest.Call(t.Context(), wrapperspb.String("v"), uuid.NewString()))
		call.ValidateOnly = true
		_, err := f.kernel.Change(rule.NewContext(t.Context(), call), fn)
		return err
	}
	err := validate(func(ctx context.Context, tx *change.Tx) (proto.Message, error) {
		if _, err := tx.Exec(ctx, `INSERT INTO thing (name) VALUES ('x')`); err != nil {
			return nil, err
		}
		tx.Audit("things/x")
		tx.OnRevision(func(context.Context, int64) error { return errors.New("a validation took a revision") })
		return wrapperspb.String("ok"), tx.Publish("things", "thing/x", wrapperspb.String("x"))
	})
	if err != nil {
		t.Error(err)
	}
	err = validate(func(ctx context.Context, tx *change.Tx) (proto.Message, error) {
		_, err := tx.Exec(ctx, `INSERT INTO late VALUES ('missing')`)
		return wrapperspb.String("ok"), err
	})
	if pg.Code(err) != pg.CodeForeignKeyViolation {
		t.Errorf("what the commit would refuse passed: %v", err)
	}
	if got, want := f.state(t), "things 0, late 0, head 0, log 0, feed 0, requests 0"; got != want {
		t.Errorf("state %q, want %q", got, want)
	}
	events := f.events(t, audit.Platform)
	if len(events) != 2 || !events[0].GetValidateOnly() || !events[1].GetValidateOnly() ||
		events[1].GetOutcome() != auditv1.Outcome_OUTCOME_OK || len(events[1].GetResources()) != 1 {
		t.Errorf("events %v", events)
	}
}

func TestReadIsAuditedAndMayNotPublish(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := changetest.Call(t.Context(), wrapperspb.String("r"), "")
	_, err := change.View(ctx, f.kernel, func(ctx context.Context, tx *change.Tx) (*wrapperspb.Int64Value, error) {
		tx.Audit("things/-")
		v := new(wrapperspb.Int64Value)
		return v, tx.QueryRow(ctx, `SELECT count(*) FROM thing`).Scan(&v.Value)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.kernel.Opened(ctx, "feeds/things"); err != nil {
		t.Fatal(err)
	}
	events := f.events(t, audit.Platform)
	if len(events) != 2 || events[0].GetResources()[0] != "feeds/things" {
		t.Errorf("events %v", events)
	}
	_, err = f.kernel.Read(ctx, func(_ context.Context, tx *change.Tx) (proto.Message, error) {
		return nil, tx.Publish("things", "k", wrapperspb.String("x"))
	})
	if err == nil {
		t.Error("a read could publish")
	}
	if _, err := f.kernel.Read(t.Context(), nil); fault.KindOf(err) != fault.Internal {
		t.Errorf("a read without a call: %v", err)
	}
}

func TestUnauditedMethodLeavesNoEvent(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := rule.NewContext(t.Context(), rule.Call{Method: "/m", Rule: &apiv1.MethodRule{
		Plane: apiv1.Plane_PLANE_PEER, Audit: apiv1.AuditClass_AUDIT_CLASS_NONE,
	}})
	if _, err := f.insert(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	f.kernel.Denied(ctx, rule.Call{Method: "/m"}, errors.New("x"))
	if n := f.count(t, `SELECT count(*) FROM audit.event`); n != 0 {
		t.Errorf("%d events", n)
	}
}

func TestChainsOfTenants(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a, b := uuid.NewString(), uuid.NewString()
	// Each goroutine names the chains in another order; without an order of our own they would wait in a circle.
	var g errgroup.Group
	for i := range 20 {
		g.Go(func() error {
			ctx := changetest.Call(t.Context(), nil, "")
			_, err := f.kernel.Change(ctx, func(_ context.Context, tx *change.Tx) (proto.Message, error) {
				if i%2 == 0 {
					tx.Tenant(a)
					tx.Tenant(b)
				} else {
					tx.Tenant(b)
					tx.Tenant(a)
				}
				tx.Tenant(a)
				return wrapperspb.String(""), nil
			})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, chain := range []string{a, b} {
		events := f.events(t, chain)
		if len(events) != 20 || events[0].GetTenantUid() != chain || events[0].GetName() != "chains/"+chain+"/events/20" {
			t.Errorf("chain %s: %d events, newest %v", chain, len(events), events[0])
		}
		report, err := audit.Verify(t.Context(), f.Pool, chain)
		if err != nil || report.FirstBad != 0 || report.Events != 20 {
			t.Errorf("chain %s: %+v, %v", chain, report, err)
		}
	}
	if n := len(f.events(t, audit.Platform)); n != 0 {
		t.Errorf("%d events of tenants in the platform's chain", n)
	}
	// A deadlock would be tried again, so only the server knows of it.
	if n := f.count(t, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`); n != 0 {
		t.Errorf("%d deadlocks", n)
	}
}

func TestNoAuditNoChange(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	owner := f.Connect(t, "")
	if _, err := owner.Exec(t.Context(), `ALTER TABLE audit.event ADD CONSTRAINT full_disk CHECK (false)`); err != nil {
		t.Fatal(err)
	}
	_, err := f.insert(changetest.Call(t.Context(), wrapperspb.String("a"), uuid.NewString()), "a")
	if fault.ReasonOf(err) != fault.ReasonAuditUnavailable {
		t.Errorf("change: %v", err)
	}
	if err := f.kernel.Opened(changetest.Call(t.Context(), nil, ""), "x"); fault.ReasonOf(err) != fault.ReasonAuditUnavailable {
		t.Errorf("read: %v", err)
	}
	if got, want := f.state(t), "things 0, late 0, head 0, log 0, feed 0, requests 0"; got != want {
		t.Errorf("state %q, want %q", got, want)
	}
}

func TestDeniedIsBounded(t *testing.T) {
	t.Parallel()
	db := cluster.Database(t)
	var mu sync.Mutex
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	f := &fixture{db, change.New(change.Config{Pool: db.Pool, Service: "test", Clock: clock})}
	call, _ := rule.CallFrom(changetest.Call(t.Context(), wrapperspb.String("x"), ""))
	call.Target = "things/a"
	denied := fault.New(fault.PermissionDenied, "PERMISSION_MISSING", "no")
	flood := func(n int) {
		for range n {
			f.kernel.Denied(t.Context(), call, denied)
		}
	}
	flood(130)
	events := f.events(t, audit.Platform)
	if len(events) != 100 {
		t.Errorf("%d events", len(events))
	}
	if events[0].GetOutcome() != auditv1.Outcome_OUTCOME_DENIED || events[0].GetReasonCode() != "PERMISSION_MISSING" ||
		strings.Join(events[0].GetResources(), ",") != "things/a" {
		t.Errorf("event %v", events[0])
	}
	call.Method = "/another"
	flood(1)
	mu.Lock()
	now = now.Add(time.Minute)
	mu.Unlock()
	flood(1)
	if n := len(f.events(t, audit.Platform)); n != 102 {
		t.Errorf("%d events; another method and another minute have budgets of their own", n)
	}
	// Also when the caller has gone.
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	f.kernel.Denied(gone, call, denied)
	if n := len(f.events(t, audit.Platform)); n != 103 {
		t.Errorf("%d events; a caller that hung up left none", n)
	}
}

// What a unit of work had named until it failed is in its event.
func TestFailureSaysOnWhat(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a, b := uuid.NewString(), uuid.NewString()
	call, _ := rule.CallFrom(changetest.Call(t.Context(), wrapperspb.String("x"), ""))
	call.Target = "things/" + strings.Repeat("ü", 300)
	fail := func(name func(*change.Tx)) {
		t.Helper()
		_, err := f.kernel.Change(rule.NewContext(t.Context(), call), func(_ context.Context, tx *change.Tx) (proto.Message, error) {
			name(tx)
			return nil, fault.New(fault.FailedPrecondition, fault.ReasonWrongState, "no")
		})
		if fault.ReasonOf(err) != fault.ReasonWrongState {
			t.Fatal(err)
		}
	}
	fail(func(tx *change.Tx) { tx.Tenant(b); tx.Tenant(a); tx.Audit("things/a"); tx.Audit("things/b") })
	for _, chain := range []string{a, b} {
		events := f.events(t, chain)
		if len(events) != 1 || strings.Join(events[0].GetResources(), ",") != "things/a,things/b" ||
			events[0].GetOutcome() != auditv1.Outcome_OUTCOME_FAILED || events[0].GetTime() == nil {
			t.Errorf("chain %s: %v", chain, events)
		}
	}
	if n := len(f.events(t, audit.Platform)); n != 0 {
		t.Errorf("%d events of tenants in the platform's chain", n)
	}
	fail(func(*change.Tx) {})
	events := f.events(t, audit.Platform)
	if len(events) != 1 || len(events[0].GetResources()) != 1 {
		t.Fatalf("of a call that named nothing: %v", events)
	}
	if got := events[0].GetResources()[0]; len(got) > 512 || !strings.HasPrefix(call.Target, got) {
		t.Errorf("resource %q", got)
	}
}

// What is over the budget is counted and told; who fails much cannot hide that they were denied.
func TestSuppressedIsReported(t *testing.T) {
	t.Parallel()
	db := cluster.Database(t)
	metrics := sdkmetric.NewManualReader()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f := &fixture{db, change.New(change.Config{
		Pool: db.Pool, Service: "test", Clock: func() time.Time { return now },
		Meters: sdkmetric.NewMeterProvider(sdkmetric.WithReader(metrics)),
	})}
	call, _ := rule.CallFrom(changetest.Call(t.Context(), nil, ""))
	for range 103 {
		f.kernel.Denied(t.Context(), call, fault.New(fault.InvalidArgument, fault.ReasonReasonRequired, "no"))
	}
	f.kernel.Denied(t.Context(), call, fault.New(fault.PermissionDenied, fault.ReasonPermissionMissing, "no"))
	events := f.events(t, audit.Platform)
	if len(events) != 101 || events[0].GetOutcome() != auditv1.Outcome_OUTCOME_DENIED {
		t.Errorf("%d events, the last %v", len(events), events[0])
	}
	var got metricdata.ResourceMetrics
	if err := metrics.Collect(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	sum, ok := got.ScopeMetrics[0].Metrics[0].Data.(metricdata.Sum[int64])
	if !ok || got.ScopeMetrics[0].Metrics[0].Name != "rowhouse.audit.suppressed" || sum.DataPoints[0].Value != 3 {
		t.Errorf("metrics %v", got.ScopeMetrics)
	}
	// One that cannot be written now is told later, and each is told once. Run tells the rest at its end.
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if f.kernel.ReportSuppressed(gone) == nil {
		t.Error("reported without a database")
	}
	if err := errors.Join(f.kernel.Run(gone), f.kernel.ReportSuppressed(t.Context())); err != nil {
		t.Error(err)
	}
	events = f.events(t, audit.Platform)
	if len(events) != 102 || events[0].GetMethod() != "job/suppressed" || events[0].GetPrincipal() != "service:test" ||
		events[0].GetReason() != "3 refused calls left no event" {
		t.Errorf("%d events, the last %v", len(events), events[0])
	}
}

func TestOnRevision(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := uuid.NewString()
	run := func(publish bool) *wrapperspb.Int64Value {
		t.Helper()
		ctx := changetest.Call(t.Context(), wrapperspb.String("r"), id)
		answer, err := change.Do(ctx, f.kernel, func(ctx context.Context, tx *change.Tx) (*wrapperspb.Int64Value, error) {
			answer := new(wrapperspb.Int64Value)
			tx.OnRevision(func(ctx context.Context, revision int64) error {
				answer.Value = revision
				_, err := tx.Exec(ctx, `INSERT INTO thing (name, size) VALUES ('r' || $1::int::text, $1::int)`, revision)
				return err
			})
			if publish {
				return answer, tx.Publish("things", "k", wrapperspb.String("x"))
			}
			return answer, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	if got := run(true).GetValue(); got != 1 {
		t.Errorf("revision %d", got)
	}
	if got := run(true).GetValue(); got != 1 {
		t.Errorf("the stored answer has revision %d", got)
	}
	id = uuid.NewString()
	if got := run(false).GetValue(); got != 2 {
		t.Errorf("revision %d without anything published", got)
	}
	if n := f.count(t, `SELECT size FROM thing WHERE name = 'r2'`); n != 2 {
		t.Errorf("row has %d", n)
	}
}

func TestPublishLastValueCounts(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := changetest.Call(t.Context(), nil, "")
	publish := func(fn func(tx *change.Tx) error) error {
		_, err := f.kernel.Change(ctx, func(_ context.Context, tx *change.Tx) (proto.Message, error) {
			return wrapperspb.String(""), fn(tx)
		})
		return err
	}
	err := publish(func(tx *change.Tx) error {
		return errors.Join(tx.Publish("f", "k", wrapperspb.String("1")), tx.Publish("f", "k", nil),
			tx.Publish("f", "k", wrapperspb.String("2")), tx.Publish("f", "empty", wrapperspb.String("")),
			tx.Publish("f", "gone", nil))
	})
	if err != nil {
		t.Fatal(err)
	}
	rows, err := f.Pool.Query(t.Context(), `SELECT key FROM kernel.feed_state WHERE value IS NOT NULL ORDER BY key`)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || strings.Join(keys, ",") != "empty,k" {
		t.Errorf("keys %q, %v", keys, err)
	}
	if n := f.count(t, `SELECT count(*) FROM kernel.change_log WHERE value IS NULL`); n != 1 {
		t.Errorf("%d deletions", n)
	}
	for name, fn := range map[string]func(tx *change.Tx) error{
		"no key":   func(tx *change.Tx) error { return tx.Publish("f", "", nil) },
		"long key": func(tx *change.Tx) error { return tx.Publish("f", strings.Repeat("x", 513), nil) },
		"large":    func(tx *change.Tx) error { return tx.Publish("f", "k", wrapperspb.String(strings.Repeat("x", 1<<20))) },
		"many": func(tx *change.Tx) error {
			for i := range 4 {
				v := wrapperspb.String(strings.Repeat("x", 900<<10))
				if err := tx.Publish("f", strconv.Itoa(i), v); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		if publish(fn) == nil {
			t.Errorf("%s: published", name)
		}
	}
}

// TestRevisionsFollowCommits holds one publishing transaction open after its revision and shows that a second one
// cannot commit a later revision before it.
func TestRevisionsFollowCommits(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	taken, release := make(chan int64), make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		_, err := f.kernel.Change(changetest.Call(t.Context(), nil, ""), func(_ context.Context, tx *change.Tx) (proto.Message, error) {
			tx.OnRevision(func(_ context.Context, revision int64) error {
				taken <- revision
				<-release
				return nil
			})
			return wrapperspb.String(""), tx.Publish("f", "first", wrapperspb.String("1"))
		})
		return err
	})
	if got := <-taken; got != 1 {
		t.Errorf("revision %d", got)
	}
	done := make(chan error, 1)
	go func() {
		_, err := f.kernel.Change(changetest.Call(t.Context(), nil, ""), func(_ context.Context, tx *change.Tx) (proto.Message, error) {
			tx.Tenant(uuid.NewString()) // another chain, so that only the head makes it wait
			return wrapperspb.String(""), tx.Publish("f", "second", wrapperspb.String("2"))
		})
		done <- err
	}()
	// The second waits for the head's lock, which the database can tell.
	waitUntil(t, func() bool {
		return f.count(t, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
			AND wait_event_type = 'Lock' AND query LIKE '%kernel.publish%'`) == 1
	})
	close(release)
	if err := errors.Join(g.Wait(), <-done); err != nil {
		t.Fatal(err)
	}
	if n := f.count(t, `SELECT count(*) FROM kernel.change_log
		WHERE (revision, key) IN ((1, 'first'), (2, 'second'))`); n != 2 {
		t.Errorf("%d rows as expected", n)
	}
}

func waitUntil(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-t.Context().Done():
			t.Fatal("gave up waiting")
		case <-tick.C:
		}
	}
}

// An entry that holds its own revision is published under just that revision.
func TestPublishOnRevision(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := changetest.Call(t.Context(), wrapperspb.String("r"), uuid.NewString())
	_, err := change.Do(ctx, f.kernel, func(_ context.Context, tx *change.Tx) (*wrapperspb.Int64Value, error) {
		tx.OnRevision(func(_ context.Context, revision int64) error {
			return tx.Publish("things", "late", wrapperspb.Int64(revision))
		})
		return new(wrapperspb.Int64Value), tx.Publish("things", "early", wrapperspb.Int64(0))
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := f.count(t, `SELECT count(*) FROM kernel.change_log WHERE revision = 1 AND feed = 'things'`); n != 2 {
		t.Errorf("%d entries in revision 1, want 2", n)
	}
	if n := f.count(t, `SELECT count(*) FROM kernel.change_log WHERE revision <> 1`); n != 0 {
		t.Errorf("%d entries elsewhere", n)
	}
}
