package usage

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

const (
	ours    = 7 // the version of UUIDs that the SDK makes
	foreign = 8 // of those that stand for a foreign id
)

// ForeignID returns the id by which an event of another system is known again: the time, which is therefore part of the
// identity, and a hash of source and id. It never meets an id of version 7.
func ForeignID(source, id string, at time.Time) uuid.UUID {
	h := sha256.New()
	for _, part := range []string{source, id} {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part)))) //nolint:gosec // a request has at most 1 MiB
		h.Write([]byte(part))
	}
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(at.UnixMicro())))
	var u uuid.UUID
	copy(u[6:], h.Sum(nil))
	var stamp [8]byte
	binary.BigEndian.PutUint64(stamp[:], uint64(max(at.UnixMilli(), 0)))
	copy(u[:6], stamp[2:])
	u[6] = u[6]&0x0f | foreign<<4
	u[8] = u[8]&0x3f | 0x80
	return u
}

// timeOf is the time in an id.
func timeOf(u uuid.UUID) time.Time {
	var stamp [8]byte
	copy(stamp[2:], u[:6])
	return time.UnixMilli(int64(binary.BigEndian.Uint64(stamp[:]))).UTC() //nolint:gosec // 48 bits
}

// row is an event as it is stored.
type row struct {
	id       uuid.UUID
	series   uuid.UUID
	quantity int64
	at       time.Time
}

func (r row) same(o row) bool {
	return r.series == o.series && r.quantity == o.quantity && r.at.Equal(o.at)
}

// series is a combination of a meter and values of its dimensions.
type series struct {
	id          uuid.UUID
	meter       uuid.UUID
	aggregation Aggregation
	dimensions  map[string]string
}

// text is the series' dimensions as JSON.
func (s series) text() string {
	b, err := json.Marshal(s.dimensions)
	if err != nil || s.dimensions == nil {
		return "{}"
	}
	return string(b)
}

// batch is what one call counts.
type batch struct {
	tenant  tenant.UID
	now     time.Time
	own     *int16 // the batch's own stripe
	meters  map[string]Meter
	results []Result
	rows    []row // by id, each once
	judged  []row // of each event
	at      map[uuid.UUID][]int
	series  map[uuid.UUID]series
	known   map[string]uuid.UUID // by what their id is a hash of
	key     []byte
}

func newBatch(tenantUID tenant.UID, now time.Time, meters map[string]Meter) *batch {
	return &batch{tenant: tenantUID, now: now, meters: meters, series: map[uuid.UUID]series{}, known: map[string]uuid.UUID{}}
}

// add judges the events. What is left in rows is to be stored: of several events with one id the first.
func (b *batch) add(events []Event) {
	b.results, b.judged, b.at = make([]Result, len(events)), make([]row, len(events)), make(map[uuid.UUID][]int, len(events))
	for i, e := range events {
		r, result := b.judge(e)
		if b.results[i], b.judged[i] = result, r; result.Outcome != 0 {
			continue
		}
		if b.at[r.id] == nil {
			b.rows = append(b.rows, r)
		}
		b.at[r.id] = append(b.at[r.id], i)
	}
	slices.SortFunc(b.rows, func(x, y row) int { return bytes.Compare(x.id[:], y.id[:]) })
}

// judge turns an event into a row, or says why there is none.
func (b *batch) judge(e Event) (row, Result) {
	if v := e.ID.Version(); v != ours && v != foreign || e.ID.Variant() != uuid.RFC4122 {
		return row{}, invalid("id", "is not a UUID of version 7")
	}
	r := row{id: e.ID, quantity: e.Quantity, at: timeOf(e.ID)}
	if outcome := b.window(r.at); outcome != 0 {
		return r, Result{Outcome: outcome}
	}
	if !e.Time.IsZero() {
		r.at = e.Time.UTC().Truncate(time.Microsecond)
		if outcome := b.window(r.at); outcome != 0 {
			return r, Result{Outcome: outcome}
		}
	}
	m, ok := b.meters[e.Meter]
	if !ok {
		return r, Result{Outcome: UnknownMeter}
	}
	result := b.measure(&r, m, e)
	if result.Outcome == 0 {
		r.series, result = b.seriesOf(m, e.Dimensions)
	}
	return r, result
}

func (b *batch) window(at time.Time) Outcome {
	switch {
	case at.Before(b.now.Add(-MaxAge)):
		return TooOld
	case at.After(b.now.Add(MaxAhead)):
		return InFuture
	default:
		return 0
	}
}

// measure puts into the row what the meter counts of the event.
func (b *batch) measure(r *row, m Meter, e Event) Result {
	if (e.Value != "") != (m.Aggregation == Unique) {
		return invalid("value", "is for meters of UNIQUE, and required there")
	}
	switch m.Aggregation {
	case Unique:
		if len(e.Value) > maxText || e.Quantity != 0 {
			return invalid("value", "must have at most 200 bytes, and no quantity beside it")
		}
		r.quantity = b.hash(m, e.Value)
	case Number:
		if e.Quantity != 0 && e.Quantity != 1 {
			return invalid("quantity", "is not for meters of COUNT")
		}
		r.quantity = 1
	default:
		if e.Quantity > MaxQuantity || e.Quantity < -MaxQuantity {
			return invalid("quantity", "must be between -2^40 and 2^40")
		}
	}
	return Result{}
}

// hash is what is kept of a value: enough to tell it apart, within the tenant and the meter.
func (b *batch) hash(m Meter, value string) int64 {
	h := sha256.New()
	h.Write(b.tenant[:])
	h.Write(m.UID[:])
	h.Write([]byte(value))
	return int64(binary.BigEndian.Uint64(h.Sum(nil))) //nolint:gosec // bits
}

// seriesOf finds the series of an event, and checks its dimensions when it is the first of them.
func (b *batch) seriesOf(m Meter, dimensions map[string]string) (uuid.UUID, Result) {
	b.key = append(b.key[:0], m.UID[:]...)
	names := make([]string, 0, 4) //nolint:mnd // a meter has at most 4
	for name := range dimensions {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, part := range [2]string{name, dimensions[name]} {
			b.key = binary.BigEndian.AppendUint32(b.key, uint32(len(part))) //nolint:gosec // a request has at most 1 MiB
			b.key = append(b.key, part...)
		}
	}
	if id, ok := b.known[string(b.key)]; ok {
		return id, Result{}
	}
	for _, name := range names {
		value := dimensions[name]
		switch {
		case !slices.Contains(m.Dimensions, name):
			return uuid.UUID{}, invalid("dimensions", fmt.Sprintf("%.63q is not declared by the meter", name))
		case value == "" || len(value) > maxText || !utf8.ValidString(value) || strings.IndexByte(value, 0) >= 0:
			return uuid.UUID{}, invalid("dimensions", "a value must have 1 to 200 bytes, and no zero byte")
		}
	}
	sum := sha256.Sum256(b.key)
	id := uuid.UUID(sum[:16])
	b.known[string(b.key)] = id
	b.series[id] = series{id: id, meter: m.UID, aggregation: m.Aggregation, dimensions: maps.Clone(dimensions)}
	return id, Result{}
}

// refuse takes the rows of some series out.
func (b *batch) refuse(unwanted map[uuid.UUID]bool) {
	b.rows = slices.DeleteFunc(b.rows, func(r row) bool {
		if unwanted[r.series] {
			for _, i := range b.at[r.id] {
				b.results[i].Outcome = TooManySeries
			}
		}
		return unwanted[r.series]
	})
	maps.DeleteFunc(b.series, func(id uuid.UUID, _ series) bool { return unwanted[id] })
}

// settle says what became of the events with an id, of which this one is stored, by this batch or before it.
func (b *batch) settle(stored row, now bool) {
	for n, i := range b.at[stored.id] {
		switch {
		case now && n == 0:
			b.results[i].Outcome = Counted
		case b.judged[i].same(stored):
			b.results[i].Outcome = Duplicate
		default:
			b.results[i].Outcome = IDReused
		}
	}
}

// ordered returns the batch's series by id.
func (b *batch) ordered() []series {
	return slices.SortedFunc(maps.Values(b.series), func(x, y series) int {
		return bytes.Compare(x.id[:], y.id[:])
	})
}

func invalid(field, fault string) Result { return Result{Outcome: Invalid, Field: field, Fault: fault} }
