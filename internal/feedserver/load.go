package feedserver

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
)

// errReload says that the change log no longer joins on to what is in memory.
var errReload = errors.New("the change log does not join on")

// refresh applies what was committed since the last time, or loads everything when that cannot be told.
func (s *Server) refresh(ctx context.Context) error {
	if s.loaded {
		err := s.advance(ctx)
		if !errors.Is(err, errReload) {
			return err
		}
		s.loaded = false
		s.cfg.Log.WarnContext(ctx, "feed server: another history in the database, loading it anew")
	}
	if err := s.load(ctx); err != nil {
		return err
	}
	s.loaded = true
	select {
	case <-s.ready:
	default:
		close(s.ready)
	}
	return nil
}

// LIMIT tells the planner how small these tables are; it would guess thousands of rows, and compile the query.
const headSQL = `SELECT epoch, revision, (SELECT revision FROM kernel.change_floor LIMIT 1) AS floor
FROM kernel.revision_head LIMIT 1`

// One statement sees one snapshot, so the head, the floor and the changes fit together.
const advanceSQL = `SELECT h.epoch, h.revision, h.floor, c.feed, c.revision, c.key, c.value
FROM (` + headSQL + `) h
LEFT JOIN kernel.change_log c ON c.feed = ANY($1) AND c.revision > $2
ORDER BY c.revision, c.feed, c.key`

func (s *Server) advance(ctx context.Context) error {
	rows, err := s.cfg.Pool.Query(ctx, advanceSQL, s.cfg.Feeds, s.polled)
	if err != nil {
		return err
	}
	defer rows.Close()
	var (
		epoch       [16]byte
		head, floor int64
		changes     []logged
	)
	for rows.Next() {
		var feed, key *string
		var revision *int64
		var value []byte
		if err := rows.Scan(&epoch, &head, &floor, &feed, &revision, &key, &value); err != nil {
			return err
		}
		if feed != nil {
			changes = append(changes, newLogged(*feed, *revision, *key, value))
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if epoch != s.epoch || head < s.polled || floor > s.polled {
		return errReload
	}
	s.apply(changes)
	s.polled = head
	for _, f := range s.feeds {
		f.markPolled()
	}
	return nil
}

// logged is a row of the change log.
type logged struct {
	feed     string
	revision int64
	entry    *apiv1.FeedEntry
}

func newLogged(feed string, revision int64, key string, value []byte) logged {
	return logged{feed, revision, &apiv1.FeedEntry{Key: key, Value: value, Deleted: value == nil}}
}

// apply hands each feed its changes, one delta per revision.
func (s *Server) apply(changes []logged) {
	for len(changes) > 0 {
		first := changes[0]
		n := slices.IndexFunc(changes, func(c logged) bool { return c.feed != first.feed || c.revision != first.revision })
		if n < 0 {
			n = len(changes)
		}
		s.feeds[first.feed].advance(first.revision, entriesOf(changes[:n]))
		changes = changes[n:]
	}
}

func entriesOf(changes []logged) []*apiv1.FeedEntry {
	entries := make([]*apiv1.FeedEntry, len(changes))
	for i, c := range changes {
		entries[i] = c.entry
	}
	return entries
}

// image is a feed as the database has it at one moment.
type image struct {
	epoch    [16]byte
	revision int64
	floor    int64
	entries  []*apiv1.FeedEntry
	history  []logged // newest first
}

func (s *Server) load(ctx context.Context) error {
	images := make(map[string]*image, len(s.feeds))
	var epoch [16]byte
	var head int64
	opts := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err := pgx.BeginTxFunc(ctx, s.cfg.Pool, opts, func(tx pgx.Tx) error {
		var floor int64
		if err := tx.QueryRow(ctx, headSQL).Scan(&epoch, &head, &floor); err != nil {
			return err
		}
		for name := range s.feeds {
			im := &image{epoch: epoch, floor: floor}
			if err := im.read(ctx, tx, name, s.cfg.HistoryBytes); err != nil {
				return fmt.Errorf("load feed %s: %w", name, err)
			}
			images[name] = im
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.epoch, s.polled = epoch, head
	for name, im := range images {
		s.feeds[name].reset(im)
	}
	return nil
}

func (im *image) read(ctx context.Context, tx pgx.Tx, feed string, historyBytes int) error {
	err := tx.QueryRow(ctx, `SELECT coalesce(max(revision), 0) FROM kernel.feed_head WHERE feed = $1`, feed).
		Scan(&im.revision)
	if err != nil {
		return err
	}
	rows, err := tx.Query(ctx, `SELECT key, value FROM kernel.feed_state WHERE feed = $1`, feed)
	if err != nil {
		return err
	}
	im.entries, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (*apiv1.FeedEntry, error) {
		e := new(apiv1.FeedEntry)
		return e, row.Scan(&e.Key, &e.Value)
	})
	if err != nil {
		return err
	}
	return im.readHistory(ctx, tx, feed, historyBytes)
}

// readHistory reads the newest changes up to a bound. A revision that is only partly within it is left out and becomes
// the floor.
func (im *image) readHistory(ctx context.Context, tx pgx.Tx, feed string, bound int) error {
	rows, err := tx.Query(ctx, `SELECT revision, key, value FROM kernel.change_log
		WHERE feed = $1 AND revision > $2 ORDER BY revision DESC, key`, feed, im.floor)
	if err != nil {
		return err
	}
	defer rows.Close()
	size := 0
	for rows.Next() {
		var revision int64
		var key string
		var value []byte
		if err := rows.Scan(&revision, &key, &value); err != nil {
			return err
		}
		if size += len(key) + len(value); size > bound {
			im.floor = revision
			im.history = slices.DeleteFunc(im.history, func(c logged) bool { return c.revision == revision })
			break
		}
		im.history = append(im.history, newLogged(feed, revision, key, value))
	}
	rows.Close()
	return rows.Err()
}
