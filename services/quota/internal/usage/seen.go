package usage

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/axiomhq/hyperloglog"
	"github.com/google/uuid"
)

// seen is a set of values, each a 64-bit hash: exact up to [MaxExact] of them, a HyperLogLog sketch beyond.
type seen struct {
	exact  map[uint64]bool
	sketch *hyperloglog.Sketch
}

// The first byte of an encoded set.
const (
	encodedExact  = 1
	encodedSketch = 2
)

var errSeen = errors.New("not an encoded set")

// decodeSeen reads what encode wrote; nothing is the empty set.
func decodeSeen(b []byte) (*seen, error) {
	s := &seen{exact: map[uint64]bool{}}
	if len(b) == 0 {
		return s, nil
	}
	kind, body := b[0], b[1:]
	switch kind {
	case encodedExact:
		if len(body)%8 != 0 {
			return nil, errSeen
		}
		for ; len(body) > 0; body = body[8:] {
			s.exact[binary.BigEndian.Uint64(body)] = true
		}
		return s, nil
	case encodedSketch:
		s.exact, s.sketch = nil, hyperloglog.New14()
		if err := s.sketch.UnmarshalBinary(body); err != nil {
			return nil, fmt.Errorf("%w: %w", errSeen, err)
		}
		return s, nil
	default:
		return nil, errSeen
	}
}

// encode returns the set as it is stored.
func (s *seen) encode() ([]byte, error) {
	if s.sketch != nil {
		b, err := s.sketch.MarshalBinary()
		return append([]byte{encodedSketch}, b...), err
	}
	b := make([]byte, 1, 1+8*len(s.exact))
	b[0] = encodedExact
	for _, v := range slices.Sorted(maps.Keys(s.exact)) {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b, nil
}

func (s *seen) add(v uint64) {
	if s.sketch != nil {
		s.sketch.InsertHash(v)
		return
	}
	if s.exact[v] = true; len(s.exact) > MaxExact {
		s.estimate()
	}
}

// estimate goes over to a sketch.
func (s *seen) estimate() {
	s.sketch = hyperloglog.New14()
	for v := range s.exact {
		s.sketch.InsertHash(v)
	}
	s.exact = nil
}

// merge adds what another one has. Neither is used by anybody else meanwhile.
func (s *seen) merge(o *seen) error {
	if o.sketch == nil {
		for v := range o.exact {
			s.add(v)
		}
		return nil
	}
	if s.sketch == nil {
		s.estimate()
	}
	return s.sketch.Merge(o.sketch)
}

// count is how many different values it has.
func (s *seen) count() int64 {
	if s.sketch != nil {
		return int64(min(s.sketch.Estimate(), 1<<62))
	}
	return int64(len(s.exact))
}

// late is the grain of sets of what came too late.
const late = "late"

// place is where values are kept.
type place struct {
	series           uuid.UUID
	grain            string
	bucket, original time.Time
}

func (p place) compare(o place) int {
	return cmp.Or(
		bytes.Compare(p.series[:], o.series[:]), cmp.Compare(p.grain, o.grain), p.bucket.Compare(o.bucket), p.original.Compare(o.original),
	)
}

// see keeps the values of the events that were counted now.
func (b *batch) see(ctx context.Context, tx Tx, counted map[uuid.UUID]bool) error {
	values := map[place][]uint64{}
	for _, r := range b.rows {
		if !counted[r.id] || b.series[r.series].aggregation != Unique {
			continue
		}
		for _, p := range b.placesOf(r) {
			values[p] = append(values[p], uint64(r.quantity)) //nolint:gosec // bits
		}
	}
	if len(values) == 0 {
		return nil
	}
	places := slices.SortedFunc(maps.Keys(values), place.compare)
	sets, err := b.lockSets(ctx, tx, places)
	if err != nil {
		return fmt.Errorf("keep values: %w", err)
	}
	encoded := make([][]byte, 0, len(places))
	for _, p := range places {
		set, err := decodeSeen(sets[p])
		if err != nil {
			return fmt.Errorf("keep values: %w", err)
		}
		for _, v := range values[p] {
			set.add(v)
		}
		body, err := set.encode()
		if err != nil {
			return fmt.Errorf("keep values: %w", err)
		}
		encoded = append(encoded, body)
	}
	args := append(columnsOf(places), encoded)
	_, err = tx.Exec(ctx, `UPDATE usage.sketch k SET seen = p.seen
		FROM unnest($3::uuid[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::bytea[]) AS p (series, grain, bucket, original, seen)
		WHERE k.tenant_uid = $1 AND k.stripe = $2 AND k.series = p.series AND k.grain = p.grain AND k.bucket = p.bucket
			AND k.original = p.original`, append([]any{[16]byte(b.tenant), b.stripe()}, args...)...)
	if err != nil {
		return fmt.Errorf("keep values: %w", err)
	}
	return nil
}

// placesOf says where an event's value is kept.
func (b *batch) placesOf(r row) []place {
	minute := r.at.Truncate(time.Minute)
	if r.at.Before(b.closed()) {
		return []place{{r.series, late, b.open(), r.at.Truncate(time.Hour)}}
	}
	hour, day := r.at.Truncate(time.Hour), r.at.Truncate(24*time.Hour) //nolint:mnd // UTC has no other days
	return []place{{r.series, "day", day, day}, {r.series, "hour", hour, hour}, {r.series, "minute", minute, minute}}
}

// lockSets makes missing sets and locks them all, in one order.
func (b *batch) lockSets(ctx context.Context, tx Tx, places []place) (map[place][]byte, error) {
	args := append([]any{[16]byte(b.tenant), b.stripe()}, columnsOf(places)...)
	_, err := tx.Exec(ctx, `INSERT INTO usage.sketch (tenant_uid, stripe, series, grain, bucket, original)
		SELECT $1::uuid, $2::smallint, p.series, p.grain, p.bucket, p.original
		FROM unnest($3::uuid[], $4::text[], $5::timestamptz[], $6::timestamptz[]) AS p (series, grain, bucket, original)
		ON CONFLICT DO NOTHING`, args...)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `SELECT k.series, k.grain, k.bucket, k.original, k.seen FROM usage.sketch k
		JOIN unnest($3::uuid[], $4::text[], $5::timestamptz[], $6::timestamptz[]) AS p (series, grain, bucket, original)
			ON k.series = p.series AND k.grain = p.grain AND k.bucket = p.bucket AND k.original = p.original
		WHERE k.tenant_uid = $1 AND k.stripe = $2
		ORDER BY k.series, k.grain COLLATE "C", k.bucket, k.original FOR UPDATE OF k`, args...)
	if err != nil {
		return nil, err
	}
	sets := make(map[place][]byte, len(places))
	for rows.Next() {
		var p place
		var of [16]byte
		var body []byte
		if err := rows.Scan(&of, &p.grain, &p.bucket, &p.original, &body); err != nil {
			return nil, err
		}
		p.series, p.bucket, p.original = of, p.bucket.UTC(), p.original.UTC()
		sets[p] = body
	}
	return sets, rows.Err()
}

// columnsOf returns places as arguments of unnest.
func columnsOf(places []place) []any {
	var of [][16]byte
	var grains []string
	var buckets, originals []time.Time
	for _, p := range places {
		of, grains = append(of, p.series), append(grains, p.grain)
		buckets, originals = append(buckets, p.bucket), append(originals, p.original)
	}
	return []any{of, grains, buckets, originals}
}
