package usage_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/sdk/usage"
)

// quota counts as the service does, and fails when it is told to.
type quota struct {
	mu      sync.Mutex
	counted map[string]int64 // by tenant and id
	calls   int
	largest int
	fail    func(call int) error
	after   func(call int) error // of a call that counted
	outcome quotav1.EventOutcome
}

func newQuota() *quota { return &quota{counted: map[string]int64{}} }

func (q *quota) Invoke(ctx context.Context, _ string, req, resp any, _ ...grpc.CallOption) error {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.calls++
	if q.fail != nil {
		if err := q.fail(q.calls); err != nil {
			return err
		}
	}
	in, out := req.(*quotav1.RecordUsageRequest), resp.(*quotav1.RecordUsageResponse)
	q.largest = max(q.largest, len(in.GetEvents()))
	if len(in.GetEvents()) > 1000 || proto.Size(in) > 1<<20 {
		return status.Error(codes.InvalidArgument, "too much")
	}
	for _, e := range in.GetEvents() {
		if q.outcome != 0 {
			out.Outcomes = append(out.Outcomes, q.outcome)
			continue
		}
		key := tc.ID().String() + "/" + e.GetId()
		_, again := q.counted[key]
		q.counted[key] = e.GetQuantity()
		if again {
			out.Outcomes = append(out.Outcomes, quotav1.EventOutcome_EVENT_OUTCOME_DUPLICATE)
		} else {
			out.Outcomes = append(out.Outcomes, quotav1.EventOutcome_EVENT_OUTCOME_COUNTED)
		}
	}
	if q.after != nil {
		return q.after(q.calls)
	}
	return nil
}

func (q *quota) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.New("there are no streams")
}

func (q *quota) sum() (events int, quantity int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, n := range q.counted {
		quantity += n
	}
	return len(q.counted), quantity
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func open(tb testing.TB, c usage.Config) *usage.Recorder {
	tb.Helper()
	if c.Linger == 0 {
		c.Linger = time.Millisecond
	}
	r, err := usage.Open(tb.Context(), c)
	must(tb, err)
	return r
}

func flushed(tb testing.TB, r *usage.Recorder) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 30*time.Second)
	defer cancel()
	if err := r.Flush(ctx); err != nil {
		tb.Fatalf("%d wait: %v", r.Waiting(), err)
	}
}

// Events of many goroutines and tenants all count once, through failures before and after the server counted.
func TestEverythingCountsOnce(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"", t.TempDir()} {
		q := newQuota()
		lost := func(call int) error {
			if call%3 == 0 {
				return status.Error(codes.Unavailable, "lost")
			}
			return nil
		}
		q.after = lost
		r := open(t, usage.Config{Quota: q, Dir: dir})
		issuer := tenanttest.NewIssuer(t, nil)
		acme, globex := issuer.In(t.Context(), t, "acme"), issuer.In(t.Context(), t, "globex")
		var writers sync.WaitGroup
		for w := range 4 {
			writers.Go(func() {
				for i := range 300 {
					ctx := acme
					if (w+i)%2 == 0 {
						ctx = globex
					}
					if err := r.Record(ctx, usage.Event{Meter: "bytes", Quantity: int64(i)}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		writers.Wait()
		flushed(t, r)
		must(t, r.Close(t.Context()))
		if n, sum := q.sum(); n != 1200 || sum != 4*299*300/2 {
			t.Errorf("with dir %q: %d in %d events", dir, sum, n)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*.usage")); dir != "" && len(left) > 0 {
			t.Errorf("left over: %v", left)
		}
	}
}

// What was recorded is sent by the next process, whatever the last one was doing when it ended.
func TestDiskOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	down := newQuota()
	down.fail = func(int) error { return status.Error(codes.Unavailable, "down") }
	issuer := tenanttest.NewIssuer(t, nil)
	ctx := issuer.In(t.Context(), t, "acme")
	r := open(t, usage.Config{Quota: down, Dir: dir})
	for i := range 50 {
		must(t, r.Record(ctx, usage.Event{Meter: "bytes", Quantity: int64(i)}))
	}
	if _, err := usage.Open(t.Context(), usage.Config{Quota: down, Dir: dir}); err == nil {
		t.Error("two processes share a folder")
	}
	// What a crash leaves: the files as they are, the last one cut within a record.
	files, err := filepath.Glob(filepath.Join(dir, "*.usage"))
	must(t, err)
	crashed := t.TempDir()
	for _, f := range files {
		b, err := os.ReadFile(f)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(crashed, filepath.Base(f)), append(b, b[:20]...), 0o600))
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.Close(short); err == nil {
		t.Error("Close says that all is counted")
	}
	up := newQuota()
	next := open(t, usage.Config{Quota: up, Dir: crashed, Contexts: func(ctx context.Context, uid tenant.UID) (context.Context, error) {
		if uid != tenanttest.UID("acme") {
			t.Errorf("a context of %s", uid)
		}
		return issuer.In(ctx, t, "acme"), nil
	}})
	if next.Waiting() != 50 {
		t.Errorf("%d wait", next.Waiting())
	}
	flushed(t, next)
	must(t, next.Close(t.Context()))
	if n, sum := up.sum(); n != 50 || sum != 49*50/2 {
		t.Errorf("%d in %d events", sum, n)
	}
}

// A tenant whose context has ended keeps nobody else's events, and goes on with its next event.
func TestEventsWaitForAContext(t *testing.T) {
	t.Parallel()
	q := newQuota()
	var mu sync.Mutex
	now := time.Now()
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	q.fail = func(int) error { return status.Error(codes.Unavailable, "down") }
	r := open(t, usage.Config{Quota: q, Dir: t.TempDir(), Clock: clock})
	issuer := tenanttest.NewIssuer(t, clock)
	must(t, r.Record(issuer.In(t.Context(), t, "acme"), usage.Event{Meter: "bytes", Quantity: 1}))
	mu.Lock()
	now = now.Add(time.Hour)
	mu.Unlock()
	q.mu.Lock()
	q.fail = nil
	q.mu.Unlock()
	must(t, r.Record(issuer.In(t.Context(), t, "globex"), usage.Event{Meter: "bytes", Quantity: 10}))
	for r.Waiting() > 1 {
		time.Sleep(time.Millisecond) //nolint:forbidigo // another goroutine sends
	}
	if _, sum := q.sum(); sum != 10 {
		t.Errorf("%d was counted", sum)
	}
	must(t, r.Record(issuer.In(t.Context(), t, "acme"), usage.Event{Meter: "bytes", Quantity: 100}))
	flushed(t, r)
	must(t, r.Close(t.Context()))
	if _, sum := q.sum(); sum != 111 {
		t.Errorf("%d was counted", sum)
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	q := newQuota()
	q.fail = func(int) error { return status.Error(codes.Unavailable, "down") }
	ctx := tenanttest.NewIssuer(t, nil).In(t.Context(), t, "acme")
	e := usage.Event{Meter: "bytes", Quantity: 1}
	for name, c := range map[string]usage.Config{"memory": {MaxEvents: 10}, "disk": {Dir: t.TempDir(), MaxBytes: 1000}} {
		c.Quota = q
		r := open(t, c)
		taken := 0
		var err error
		for err == nil && taken < 1000 {
			if err = r.Record(ctx, e); err == nil {
				taken++
			}
		}
		if !errors.Is(err, usage.ErrFull) || taken < 5 || r.Waiting() != taken {
			t.Errorf("%s: %d were taken, %d wait: %v", name, taken, r.Waiting(), err)
		}
		over, cancel := context.WithCancel(t.Context())
		cancel()
		_ = r.Close(over)
		if err := r.Record(ctx, e); !errors.Is(err, usage.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := open(t, usage.Config{Quota: newQuota()})
	if err := r.Record(t.Context(), e); fault.ReasonOf(err) != fault.ReasonContextMissing {
		t.Errorf("without a tenant: %v", err)
	}
	for what, e := range map[string]usage.Event{
		"no meter": {}, "a bad id": {Meter: "m", ID: "order-1"}, "no time": {Meter: "m", ID: "order-1", Source: "shop"},
		"no UTF-8": {Meter: "m", Value: "\xff"}, "an empty value": {Meter: "m", Dimensions: map[string]string{"a": ""}},
	} {
		if err := r.Record(ctx, e); !errors.Is(err, usage.ErrEvent) {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, r.Close(t.Context()))
}

// Requests stay within what the server takes, and what it will never count is told once.
func TestBatchesAndRefusals(t *testing.T) {
	t.Parallel()
	q := newQuota()
	ctx := tenanttest.NewIssuer(t, nil).In(t.Context(), t, "acme")
	r := open(t, usage.Config{Quota: q, Linger: 50 * time.Millisecond})
	long := map[string]string{"a": fmt.Sprintf("%0200d", 1), "b": fmt.Sprintf("%0200d", 2), "c": fmt.Sprintf("%0200d", 3), "d": fmt.Sprintf("%0200d", 4)}
	var events []usage.Event
	for i := range 3000 {
		e := usage.Event{Meter: "bytes", Quantity: 1, Dimensions: long}
		if i%2 == 0 {
			e.Dimensions = nil
		}
		events = append(events, e)
	}
	must(t, r.Record(ctx, events...))
	flushed(t, r)
	must(t, r.Close(t.Context()))
	if n, _ := q.sum(); n != 3000 || q.calls > 6 || q.largest > 1000 {
		t.Errorf("%d events in %d calls, %d at most", n, q.calls, q.largest)
	}
	var told []usage.Outcome
	q.outcome = quotav1.EventOutcome_EVENT_OUTCOME_UNKNOWN_METER
	r = open(t, usage.Config{Quota: q, Refused: func(uid tenant.UID, e usage.Event, why usage.Outcome) {
		if uid != tenanttest.UID("acme") || e.Meter != "none" || e.ID == "" {
			t.Errorf("%s %+v", uid, e)
		}
		told = append(told, why)
	}})
	must(t, r.Record(ctx, usage.Event{Meter: "none", Quantity: 1}))
	flushed(t, r)
	must(t, r.Close(t.Context()))
	if len(told) != 1 || told[0] != "UNKNOWN_METER" {
		t.Errorf("%v", told)
	}
}
