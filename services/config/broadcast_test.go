package config_test

import (
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
)

// TestPlanChangeIsOneRowAndOneBroadcast changes a plan's document that holds for many tenants who have documents of
// their own, and counts: one document and one revision of it, one entry for the feed, encoded once, and one delta with
// the same bytes for each watcher.
func TestPlanChangeIsOneRowAndOneBroadcast(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", `{}`)
	for id := range plans() {
		r.set(a, "tenants/"+id+"/config/notes", `{"own":true}`)
		r.set(a, "tenants/"+id+"/environments/staging/config/notes", `{"own":true}`)
	}
	old := r.set(a, "plans/business/config/notes", `{"v":0}`)
	watchers := make([]func() *apiv1.FeedFrame, 5)
	conn := r.gateway()
	for i := range watchers {
		stream, err := configv1.NewSettingsServiceClient(conn).WatchSettings(t.Context(), &configv1.WatchSettingsRequest{Replica: strconv.Itoa(i)})
		must(t, err)
		watchers[i] = func() *apiv1.FeedFrame {
			res, err := stream.Recv()
			must(t, err)
			return res.GetFrame()
		}
		for f := watchers[i](); f.GetBookmark().GetRevision() < old.GetRevision(); f = watchers[i]() {
		}
	}
	owner := r.db.Owner(t)
	count := func() map[string]int {
		got := map[string]int{}
		for _, table := range []string{"settings.document", "settings.document_revision", "kernel.change_log", "kernel.feed_state"} {
			var n int
			must(t, owner.QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&n))
			got[table] = n
		}
		return got
	}
	before := count()
	r.set(a, "plans/business/config/notes", `{"v":1}`)
	after := count()
	before["settings.document_revision"]++
	before["kernel.change_log"]++
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("rows (-want +got)\n%s", diff)
	}
	r.set(a, "platform/config/notes", `{"end":true}`)
	var first []byte
	for i, next := range watchers {
		var deltas []*apiv1.FeedDelta
		for len(deltas) < 2 {
			if d := next().GetDelta(); d != nil {
				deltas = append(deltas, d)
			}
		}
		if len(deltas[0].GetChanges()) != 1 || deltas[0].GetChanges()[0].GetKey() != "doc/notes/plan/business" {
			t.Fatalf("watcher %d gets %v", i, deltas[0])
		}
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(deltas[0])
		must(t, err)
		if i == 0 {
			first = b
		}
		if string(b) != string(first) || len(b) > 200 {
			t.Errorf("watcher %d gets %d bytes: %v", i, len(b), deltas[0])
		}
	}
}
