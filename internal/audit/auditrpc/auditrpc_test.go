package auditrpc_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	"github.com/rowhouse-platform/rowhouse/internal/audit"
	"github.com/rowhouse-platform/rowhouse/internal/audit/auditrpc"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/change/changetest"
	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

var cluster *changetest.Cluster

func TestMain(m *testing.M) { changetest.Main(m, &cluster) }

type rig struct {
	*testing.T
	db     *changetest.Database
	kernel *change.Kernel
	server *auditrpc.Server
}

func newRig(t *testing.T) *rig {
	t.Helper()
	db := cluster.Database(t)
	k := change.New(change.Config{Pool: db.Pool, Service: "test"})
	return &rig{t, db, k, auditrpc.New(k, db.Pool)}
}

// call is a context for the audit service's own method.
func (r *rig) call(method string) context.Context {
	return rule.NewContext(r.Context(), rule.Call{
		Method: "/rowhouse.audit.v1.AuditService/" + method, Principal: operator.NewPrincipal(operator.KindOperator, "eve"),
		Rule: &apiv1.MethodRule{Plane: apiv1.Plane_PLANE_ADMIN, Audit: apiv1.AuditClass_AUDIT_CLASS_READ},
	})
}

// record adds n events to the chain of a tenant and returns its uid.
func (r *rig) record(n int) string {
	r.Helper()
	uid := uuid.NewString()
	for i := range n {
		_, err := r.kernel.Change(changetest.Call(r.Context(), nil, ""), func(_ context.Context, tx *change.Tx) (proto.Message, error) {
			tx.Tenant(uid)
			tx.Audit(fmt.Sprintf("things/%d", i))
			return wrapperspb.String(""), nil
		})
		if err != nil {
			r.Fatal(err)
		}
	}
	return uid
}

func TestListPagesNewestFirst(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	parent := "chains/" + r.record(5)
	var seen []string
	token := ""
	for {
		res, err := r.server.ListEvents(r.call("ListEvents"), &auditv1.ListEventsRequest{Parent: parent, PageSize: 2, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range res.GetEvents() {
			seen = append(seen, e.GetResources()[0])
		}
		if token = res.GetNextPageToken(); token == "" {
			break
		}
	}
	if got := strings.Join(seen, " "); got != "things/4 things/3 things/2 things/1 things/0" {
		t.Errorf("seen %s", got)
	}
	res, err := r.server.ListEvents(r.call("ListEvents"), &auditv1.ListEventsRequest{Parent: "chains/platform"})
	if err != nil || len(res.GetEvents()) != 3 || res.GetEvents()[0].GetPrincipal() != "eve" {
		t.Errorf("the reads themselves: %v, %v", res, err)
	}
	_, err = r.server.ListEvents(r.call("ListEvents"), &auditv1.ListEventsRequest{Parent: parent, PageToken: "x"})
	if fault.ReasonOf(err) != fault.ReasonPageTokenInvalid {
		t.Error(err)
	}
}

func TestGetEvent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	uid := r.record(2)
	get := func(name string) (*auditv1.Event, error) {
		res, err := r.server.GetEvent(r.call("GetEvent"), &auditv1.GetEventRequest{Name: name})
		return res.GetEvent(), err
	}
	name := "chains/" + uid + "/events/2"
	if e, err := get(name); err != nil || e.GetName() != name || e.GetSeq() != 2 || e.GetChain() != uid || len(e.GetHash()) != 32 {
		t.Errorf("%v, %v", e, err)
	}
	for name, reason := range map[string]string{
		"chains/" + uid + "/events/3": fault.ReasonResourceNotFound, "chains/none/events/1": fault.ReasonResourceNotFound,
		"chains/" + uid + "/events/02": fault.ReasonInvalidField, "chains/" + uid: fault.ReasonInvalidField,
		"chains/A/events/1": fault.ReasonInvalidField, "chains/x/events/-1": fault.ReasonInvalidField,
	} {
		if _, err := get(name); fault.ReasonOf(err) != reason {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestVerifyFindsEveryChange lets the superuser, past all triggers, do to a chain what can be done.
func TestVerifyFindsEveryChange(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		sql string
		bad int64
	}{
		"sound":         {`SELECT`, 0},
		"event changed": {`UPDATE audit.event SET event = set_byte(event, 3, get_byte(event, 3) # 1) WHERE chain = $1 AND seq = 3`, 3},
		"hash changed":  {`UPDATE audit.event SET hash = set_byte(hash, 0, get_byte(hash, 0) # 1) WHERE chain = $1 AND seq = 4`, 4},
		"removed":       {`DELETE FROM audit.event WHERE chain = $1 AND seq = 2`, 2},
		"first removed": {`DELETE FROM audit.event WHERE chain = $1 AND seq = 1`, 1},
		"cut off":       {`DELETE FROM audit.event WHERE chain = $1 AND seq > 4`, 5},
		"all removed":   {`DELETE FROM audit.event WHERE chain = $1`, 1},
		"swapped": {`UPDATE audit.event e SET event = o.event FROM audit.event o
			WHERE e.chain = $1 AND o.chain = $1 AND (e.seq, o.seq) IN ((2, 3), (3, 2))`, 2},
		"added":      {`INSERT INTO audit.event SELECT chain, 7, event, hash FROM audit.event WHERE chain = $1 AND seq = 6`, 7},
		"renumbered": {`UPDATE audit.event SET seq = seq + 1 WHERE chain = $1 AND seq = 6`, 6},
		"head moved": {`UPDATE audit.head SET seq = 5 WHERE chain = $1`, 7},
		"from another chain": {`UPDATE audit.event e SET event = o.event, hash = o.hash FROM audit.event o
			WHERE e.chain = $1 AND o.chain <> $1 AND e.seq = 2 AND o.seq = 2`, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.record(3)
			uid := r.record(6)
			admin := r.db.Connect(t, "")
			sql := `SET session_replication_role = replica; ` + strings.ReplaceAll(tt.sql, "$1", "'"+uid+"'")
			if _, err := admin.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
			res, err := r.server.VerifyChain(r.call("VerifyChain"), &auditv1.VerifyChainRequest{Name: "chains/" + uid})
			if err != nil {
				t.Fatal(err)
			}
			if res.GetFirstBadSeq() != tt.bad || res.GetSound() != (tt.bad == 0) || (res.GetProblem() == "") != (tt.bad == 0) {
				t.Errorf("%v, want %d", res, tt.bad)
			}
		})
	}
}

func TestVerifyOfNoChain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, err := r.server.VerifyChain(r.call("VerifyChain"), &auditv1.VerifyChainRequest{Name: "chains/none"})
	if fault.ReasonOf(err) != fault.ReasonResourceNotFound {
		t.Error(err)
	}
}

// TestGoAndSQLHashAlike recomputes by hand what the database stored.
func TestGoAndSQLHashAlike(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	uid := r.record(3)
	rows, err := r.db.Pool.Query(t.Context(), `SELECT event, hash FROM audit.event WHERE chain = $1 ORDER BY seq`, uid)
	if err != nil {
		t.Fatal(err)
	}
	last, seq := audit.Genesis(uid), int64(0)
	var event, hash []byte
	_, err = pgx.ForEachRow(rows, []any{&event, &hash}, func() error {
		seq++
		last = audit.Next(last, seq, event)
		if !slices.Equal(last[:], hash) {
			t.Errorf("event %d: Go and SQL differ", seq)
		}
		return nil
	})
	if err != nil || seq != 3 {
		t.Errorf("%d events, %v", seq, err)
	}
}
