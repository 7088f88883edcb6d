package config_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

// crashes cuts all connections of the service to its database, again and again, until the test ends or stop is called:
// whatever is under way is lost, before its commit or after it.
func (r *rig) crashes(every time.Duration) (stop func()) {
	super := r.db.Owner(r.tb)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				_, _ = super.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
					WHERE datname = current_database() AND pid <> pg_backend_pid() AND usename LIKE '%_service'`)
			}
		}
	}()
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); <-done }) }
	r.tb.Cleanup(stop)
	return stop
}

// insist repeats a call, with its request id, until it is answered for good.
func insist[Q, R proto.Message](t *testing.T, call func(context.Context, Q) (R, error), req Q) (R, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		resp, err := call(ctx, req)
		switch status.Code(err) {
		case codes.Unavailable, codes.Unknown, codes.Internal, codes.Aborted:
			if fault.ReasonOf(tenantgrpc.FromStatus(err)) == fault.ReasonEtagMismatch {
				return resp, err
			}
			if ctx.Err() != nil {
				t.Fatalf("never answered: %v", err)
			}
			continue
		}
		return resp, err
	}
}

// modeled is what a change should be.
type modeled struct {
	state     string
	authors   []string
	approvals []string
	leaf      string
	base, to  float64 // of the one leaf that it edits; a base of -1 is none
}

func (m *modeled) agreed() int {
	return len(slices.DeleteFunc(slices.Clone(m.approvals), func(who string) bool { return slices.Contains(m.authors, who) }))
}

func (m *modeled) edited(by string) {
	m.state, m.approvals = "DRAFT", nil
	if !slices.Contains(m.authors, by) {
		m.authors = append(m.authors, by)
	}
}

// model is what all should be: the document's leaves, and the changes.
type model struct {
	leaves  map[string]float64
	changes map[string]*modeled
}

func (m *model) value(leaf string) float64 {
	if v, ok := m.leaves[leaf]; ok {
		return v
	}
	return -1
}

// live makes a change live, or says why that cannot be.
func (m *model) live(c *modeled, required int) string {
	switch now := m.value(c.leaf); {
	case !slices.Contains([]string{"DRAFT", "SUBMITTED", "APPROVED", "SCHEDULED", "HALTED"}, c.state):
		return fault.ReasonWrongState
	case c.agreed() < required:
		return "APPROVAL_REQUIRED"
	case now != c.base && now != c.to:
		return fault.ReasonEtagMismatch
	}
	m.leaves[c.leaf], c.state = c.to, "LIVE"
	return ""
}

// Random histories of several people and changes, with all connections to the database cut again and again: every answer,
// every state and the document are what a small model says.
func TestHistoriesWithCrashes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	people := map[string]api{"operator": r.as("operator"), "operator2": r.as("operator2"), "owner": r.as("owner")}
	names := []string{"operator", "operator2", "owner"}
	r.governed(people["owner"], "portal", `{}`, 1, "platform")
	const doc, required, steps = "platform/config/portal", 1, 150
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	d := rand.New(rand.NewPCG(seed, 1))
	m := model{map[string]float64{}, map[string]*modeled{}}
	var ids [6]string
	stop := r.crashes(40 * time.Millisecond)
	for n := range steps {
		who := names[d.IntN(len(names))]
		slot := d.IntN(len(ids))
		a, id := people[who], ids[slot]
		c := m.changes[id]
		leaf, to := string(rune('a'+d.IntN(3))), float64(d.IntN(50))
		edit := patches(doc, fmt.Sprintf(`{%q:%v}`, leaf, to))
		var err error
		var want string
		step := d.IntN(7)
		switch {
		case c == nil || c.state == "LIVE" || c.state == "CANCELLED":
			if m.value(leaf) == to {
				continue
			}
			id = fmt.Sprintf("c-%d", n) // ids are never free again
			ids[slot] = id
			c = &modeled{leaf: leaf, base: m.value(leaf), to: to}
			c.edited(who)
			m.changes[id] = c
			_, err = insist(t, func(ctx context.Context, q *configv1.CreateChangeRequest) (*configv1.CreateChangeResponse, error) {
				return a.CreateChange(ctx, q)
			}, &configv1.CreateChangeRequest{
				ChangeId: id, Change: &configv1.Change{Reason: why, Edits: []*configv1.ChangeEdit{edit}}, RequestId: newID(),
			})
		case step == 0 && m.value(leaf) != to:
			c.edited(who)
			c.leaf, c.base, c.to = leaf, m.value(leaf), to
			_, err = insist(t, func(ctx context.Context, q *configv1.UpdateChangeRequest) (*configv1.UpdateChangeResponse, error) {
				return a.UpdateChange(ctx, q)
			}, &configv1.UpdateChangeRequest{
				Change: &configv1.Change{Name: "changes/" + id, Reason: fmt.Sprintf("%s %d", why, n), Edits: []*configv1.ChangeEdit{edit}}, RequestId: newID(),
			})
		case step == 1:
			now := m.value(c.leaf)
			switch {
			case c.state != "DRAFT":
				want = fault.ReasonWrongState
			case now != c.base && now != c.to:
				want = fault.ReasonEtagMismatch
			default:
				c.state = "SUBMITTED"
			}
			_, err = insist(t, func(ctx context.Context, q *configv1.SubmitChangeRequest) (*configv1.SubmitChangeResponse, error) {
				return a.SubmitChange(ctx, q)
			}, &configv1.SubmitChangeRequest{Name: "changes/" + id, RequestId: newID()})
		case step <= 3:
			var got *configv1.GetChangeResponse
			got, err = insist(t, func(ctx context.Context, q *configv1.GetChangeRequest) (*configv1.GetChangeResponse, error) {
				return a.GetChange(ctx, q)
			}, &configv1.GetChangeRequest{Name: "changes/" + id})
			must(t, err)
			switch {
			case !slices.Contains([]string{"SUBMITTED", "APPROVED", "SCHEDULED", "HALTED"}, c.state):
				want = fault.ReasonWrongState
			case slices.Contains(c.authors, who):
				want = "SELF_APPROVAL"
			default:
				if !slices.Contains(c.approvals, who) {
					c.approvals = append(c.approvals, who)
				}
				if c.state == "SUBMITTED" {
					c.state = "APPROVED"
				}
			}
			_, err = insist(t, func(ctx context.Context, q *configv1.ApproveChangeRequest) (*configv1.ApproveChangeResponse, error) {
				return a.ApproveChange(ctx, q)
			}, &configv1.ApproveChangeRequest{Name: "changes/" + id, Digest: got.GetChange().GetDigest(), RequestId: newID()})
		case step == 4:
			switch {
			case !slices.Contains([]string{"SUBMITTED", "APPROVED", "SCHEDULED", "HALTED"}, c.state):
				want = fault.ReasonWrongState
			case d.IntN(3) > 0:
				continue // or most would end so
			default:
				c.state = "REJECTED"
			}
			_, err = insist(t, func(ctx context.Context, q *configv1.RejectChangeRequest) (*configv1.RejectChangeResponse, error) {
				return a.RejectChange(ctx, q)
			}, &configv1.RejectChangeRequest{Name: "changes/" + id, Reason: why, RequestId: newID()})
		default:
			want = m.live(c, required)
			_, err = insist(t, func(ctx context.Context, q *configv1.PublishChangeRequest) (*configv1.PublishChangeResponse, error) {
				return a.PublishChange(ctx, q)
			}, &configv1.PublishChangeRequest{Name: "changes/" + id, RequestId: newID()})
		}
		if got := fault.ReasonOf(tenantgrpc.FromStatus(err)); err != nil && got != want || err == nil && want != "" {
			t.Fatalf("step %d: %s with %s, %+v: %v, want %q", n, who, id, *c, err, want)
		}
		got, err := insist(t, func(ctx context.Context, q *configv1.GetChangeRequest) (*configv1.GetChangeResponse, error) {
			return a.GetChange(ctx, q)
		}, &configv1.GetChangeRequest{Name: "changes/" + id})
		must(t, err)
		if state := strings.TrimPrefix(got.GetChange().GetState().String(), "CHANGE_STATE_"); state != c.state ||
			len(got.GetChange().GetApprovals()) != len(c.approvals) || len(got.GetChange().GetAuthors()) != len(c.authors) {
			t.Fatalf("step %d: %s is %v, want %+v", n, id, got.GetChange(), *c)
		}
	}
	stop()
	leaves := map[string]float64{}
	eventually(t, "the document", func() bool {
		resp, err := people["owner"].GetDocument(t.Context(), &configv1.GetDocumentRequest{Name: doc})
		if status.Code(err) == codes.NotFound {
			return true
		}
		return err == nil && json.Unmarshal([]byte(resp.GetDocument().GetContent()), &leaves) == nil
	})
	if fmt.Sprint(leaves) != fmt.Sprint(m.leaves) {
		t.Errorf("the document is %v, want %v", leaves, m.leaves)
	}
}

// Two replicas, their connections cut again and again while changes become due: each becomes live, once.
func TestScheduledThroughCrashes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.beside()
	a := r.as("owner")
	r.namespace(a, "portal", `{}`)
	const n = 24
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprintf("c-%d", i))
		_, err := a.propose(t, ids[i], patches("platform/config/portal", fmt.Sprintf(`{"m%d":1}`, i)), patches("tenants/acme/config/portal", fmt.Sprintf(`{"m%d":1}`, i)))
		must(t, err)
		must(t, a.schedule(t, ids[i], later()))
	}
	stop := r.crashes(15 * time.Millisecond)
	super := r.db.Owner(t)
	for i := 0; i < n; i += 4 {
		_, err := super.Exec(t.Context(), `UPDATE settings.change SET not_before = now() WHERE id = ANY ($1)`, ids[i:i+4])
		must(t, err)
		var live int
		eventually(t, "some are live", func() bool {
			err := super.QueryRow(t.Context(), `SELECT count(*) FROM settings.change WHERE state = 'LIVE'`).Scan(&live)
			return err == nil && live > i
		})
	}
	stop()
	eventually(t, "all are live", func() bool {
		var live int
		err := super.QueryRow(t.Context(), `SELECT count(*) FROM settings.change WHERE state = 'LIVE'`).Scan(&live)
		return err == nil && live == n
	})
	var revisions, events int
	must(t, super.QueryRow(t.Context(), `SELECT count(*) FROM settings.document_revision`).Scan(&revisions))
	must(t, super.QueryRow(t.Context(), `SELECT count(DISTINCT revision) FROM settings.document_revision`).Scan(&events))
	if revisions != 2*n || events != 2*n {
		t.Errorf("%d revisions, %d different, of %d changes of two documents", revisions, events, n)
	}
}
