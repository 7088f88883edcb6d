package tenantdb

import (
	"cmp"
	"fmt"
	"strconv"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// position is a place in the write-ahead log of a cell: bytes since its beginning, on one
// timeline. The zero position is before everything.
type position struct {
	timeline int32
	lsn      int64
}

// positionSQL asks a primary how far its log holds what is committed. A commit that did not
// wait for the disk is visible before it is there. Whether commits wait is read from the session
// that asks, in the database of the shared models: it must not be off for other databases or
// roles alone.
const positionSQL = `SELECT ('x' || left(pg_walfile_name(lsn), 8))::bit(32)::int, (lsn - '0/0'::pg_lsn)::bigint
FROM (SELECT CASE current_setting('synchronous_commit') WHEN 'off' THEN pg_current_wal_insert_lsn()
	ELSE pg_current_wal_flush_lsn() END) p(lsn)`

// replayedSQL asks a replica, or one that was promoted, for the same as await_lsn() does.
const replayedSQL = `SELECT CASE WHEN pg_is_in_recovery()
	THEN greatest((pg_control_checkpoint()).timeline_id, (pg_control_recovery()).min_recovery_end_timeline)
	ELSE ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::int END,
	(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END - '0/0'::pg_lsn)::bigint`

// parsePosition reads what those queries answer, in text.
func parsePosition(row [][]byte) (position, error) {
	if len(row) != 2 {
		return position{}, fmt.Errorf("position of %d columns", len(row))
	}
	timeline, err := strconv.ParseInt(string(row[0]), 10, 32)
	if err != nil {
		return position{}, fmt.Errorf("timeline: %w", err)
	}
	lsn, err := strconv.ParseInt(string(row[1]), 10, 64)
	if err != nil {
		return position{}, fmt.Errorf("position: %w", err)
	}
	return position{int32(timeline), lsn}, nil
}

// has reports whether who is at p has what was at q. Of another timeline nothing is known.
func (p position) has(q position) bool { return p.timeline == q.timeline && p.lsn >= q.lsn }

// later returns the one of two that covers the other, of commits that were answered. What was
// committed on a timeline begins behind all that is left of those before.
func later(p, q position) position {
	if cmp.Or(cmp.Compare(p.timeline, q.timeline), cmp.Compare(p.lsn, q.lsn)) < 0 {
		return q
	}
	return p
}

// sighting says that all that a primary had committed before the time is before the position.
type sighting struct {
	at time.Time
	position
}

const (
	sightingsKept = 64
	commitsKept   = 10_000
)

// history is what this process knows of the log of a cell's primary.
type history struct {
	seen []sighting // oldest first, the older the further apart
	// commits are the last ones of this process, by tenant; those that were forgotten are
	// not after floor.
	commits map[tenant.UID]position
	floor   position
	// doubts are when commits of this process may have happened of which the position is not
	// known, by tenant. What was seen before does not cover them.
	doubts map[tenant.UID]time.Time
	// unsure is when that may have been so for any tenant.
	unsure time.Time
}

// see notes what a primary said when it was asked at that time.
func (h *history) see(at time.Time, p position) {
	if len(h.seen) > 0 && h.seen[0].timeline != p.timeline { // another server took over
		*h = history{unsure: time.Now()}
	}
	if n := len(h.seen); n > 0 && !at.After(h.seen[n-1].at) {
		return
	}
	h.seen = append(h.seen, sighting{at, p})
	if len(h.seen) <= sightingsKept {
		return
	}
	kept := h.seen[:0]
	for i, s := range h.seen {
		if i >= sightingsKept/2 || i%2 == 0 {
			kept = append(kept, s)
		}
	}
	h.seen = kept
}

// commit notes a commit for the tenant. The end of it is covered by p.
func (h *history) commit(uid tenant.UID, sent time.Time, p position) {
	h.see(sent, p)
	if h.commits == nil {
		h.commits = map[tenant.UID]position{}
	}
	if known := h.commits[uid]; !known.has(p) {
		h.commits[uid] = p
	}
	if len(h.commits) <= commitsKept {
		return
	}
	for _, p := range h.commits {
		if !h.floor.has(p) {
			h.floor = p
		}
	}
	h.commits = nil
}

// doubt notes that there may be a commit for the tenant.
func (h *history) doubt(uid tenant.UID, at time.Time) {
	if len(h.doubts) == commitsKept {
		h.doubts, h.unsure = nil, at
	}
	if h.doubts == nil {
		h.doubts = map[tenant.UID]time.Time{}
	}
	h.doubts[uid] = at
}

// since returns a position that covers what was committed before that time, the earliest that
// is known, and false when none is.
func (h *history) since(t time.Time) (position, bool) {
	if t.Before(h.unsure) {
		t = h.unsure
	}
	for _, s := range h.seen {
		if !s.at.Before(t) {
			return s.position, true
		}
	}
	return position{}, false
}

// last covers the last commit of this process for the tenant.
func (h *history) last(uid tenant.UID) position {
	if p, ok := h.commits[uid]; ok {
		return p
	}
	return h.floor
}
