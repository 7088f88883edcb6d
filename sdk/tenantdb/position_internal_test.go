package tenantdb

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// What since returns covers everything that was committed before the time, and last every
// commit of the tenant, whatever was forgotten.
func TestHistoryCoversWhatItIsAskedFor(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	start := time.Now().Add(-24 * time.Hour)
	var h history
	clock, lsn := start, int64(0)
	at := map[time.Time]int64{} // the primary's position by time
	mine := map[tenant.UID]int64{}
	for i := range 30_000 {
		clock = clock.Add(time.Duration(random.IntN(1000)) * time.Millisecond)
		lsn += random.Int64N(100)
		at[clock] = lsn
		if i%3 > 0 {
			var uid tenant.UID
			binary.BigEndian.PutUint32(uid[:], random.Uint32N(20_000))
			mine[uid] = lsn
			h.commit(uid, clock, position{1, lsn})
		} else {
			h.see(clock, position{1, lsn})
		}
		if i%2000 > 0 {
			continue
		}
		for back := time.Millisecond; back < 12*time.Hour; back *= 2 {
			asked := clock.Add(-back)
			p, ok := h.since(asked)
			if back < time.Millisecond*500 && !ok {
				continue // nothing as new as that
			}
			for when, committed := range at {
				if ok && !when.After(asked) && committed > p.lsn {
					t.Fatalf("%s back: position %d lacks %d of %s before", back, p.lsn, committed, asked.Sub(when))
				}
			}
		}
		for uid, committed := range mine {
			if p := h.last(uid); p.lsn < committed {
				t.Fatalf("position %d lacks commit %d", p.lsn, committed)
			}
		}
	}
	if len(h.seen) > sightingsKept || len(h.commits) > commitsKept {
		t.Errorf("%d sightings and %d commits are kept", len(h.seen), len(h.commits))
	}
	// A sighting from far back is still there, so that a report need not wait for more.
	if oldest := clock.Sub(h.seen[0].at); oldest < time.Minute {
		t.Errorf("the oldest sighting is %s old", oldest)
	}
}

func TestHistoryForgetsAnotherTimeline(t *testing.T) {
	t.Parallel()
	var h history
	uid := tenant.UID{1}
	before := time.Now()
	h.commit(uid, before, position{1, 100})
	h.see(before, position{2, 90})
	if p, ok := h.since(before); ok {
		t.Errorf("a sighting from before the failover was seen is taken: %v", p)
	}
	after := time.Now().Add(time.Second)
	h.see(after, position{2, 95})
	if p, ok := h.since(before); !ok || p != (position{2, 95}) || h.last(uid) != (position{}) {
		t.Errorf("after the failover %v, %t, commit %v", p, ok, h.last(uid))
	}
}

// Who cancels commits sends their own tenant's reads to the primary, and nobody else's.
func TestDoubtIsTheTenantsOwn(t *testing.T) {
	t.Parallel()
	r := &readers{}
	doubtful, other := tenant.UID{1}, tenant.UID{2}
	r.history.see(time.Now(), position{1, 100})
	r.history.doubt(doubtful, time.Now())
	within := time.Minute
	if p, why := r.need(want{uid: doubtful, own: true, within: within}); why != whyUnseen {
		t.Errorf("a sighting from before a commit in doubt is taken: %v", p)
	}
	if _, why := r.need(want{uid: doubtful, within: within}); why != "" {
		t.Errorf("a report waits for a commit in doubt: %s", why)
	}
	if _, why := r.need(want{uid: other, own: true, within: within}); why != "" {
		t.Errorf("another tenant waits for it: %s", why)
	}
	r.history.see(time.Now(), position{1, 110})
	if p, why := r.need(want{uid: doubtful, own: true, within: within}); why != "" || p != (position{1, 110}) {
		t.Errorf("after the next sighting: %v, %q", p, why)
	}
	for i := range 2*commitsKept + 1 {
		var uid tenant.UID
		binary.BigEndian.PutUint32(uid[:], uint32(i))
		r.history.doubt(uid, time.Now())
	}
	if len(r.history.doubts) > commitsKept {
		t.Errorf("%d doubts are kept", len(r.history.doubts))
	}
	if p, why := r.need(want{uid: doubtful, own: true, within: within}); why != whyUnseen {
		t.Errorf("a doubt that was forgotten is none: %v", p)
	}
}
