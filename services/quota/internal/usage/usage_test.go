package usage_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/internal/pg/pgdbtest"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/usage"
)

func TestMain(m *testing.M) {
	if dsn := os.Getenv(envWriter); dsn != "" {
		os.Exit(write(dsn))
	}
	os.Exit(pgtest.Main(m))
}

func database() pg.Database {
	return pg.Database{Name: "rowhouse_quota", Migrations: migrations()}
}

// house is quota's database, and two tenants.
type house struct {
	testing.TB
	pool       *pgxpool.Pool
	super      *pgxpool.Pool
	acme, glob tenant.UID
	meters     map[string]usage.Meter
}

func newHouse(t testing.TB) *house {
	t.Helper()
	db := pgdbtest.New(t, database())
	h := &house{
		TB: t, pool: db.Service(t), super: db.Superuser(t), acme: tenanttest.UID("acme"), glob: tenanttest.UID("globex"), meters: map[string]usage.Meter{},
	}
	for id, aggregation := range aggregations() {
		h.meter(id, aggregation)
	}
	return h
}

func aggregations() map[string]usage.Aggregation {
	return map[string]usage.Aggregation{"bytes": usage.Sum, "calls": usage.Number, "peak": usage.Max, "seats": usage.Last, "users": usage.Unique}
}

func (h *house) need(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *house) meter(id string, aggregation usage.Aggregation) {
	h.Helper()
	m := usage.Meter{ID: id, UID: uuid.Must(uuid.NewV7()), Aggregation: aggregation, Dimensions: []string{"region", "route"}, Created: time.Now()}
	h.need(h.tx(func(ctx context.Context, tx pgx.Tx) error { return usage.InsertMeter(ctx, tx, m) }))
	h.meters[id] = m
}

func (h *house) tx(fn func(ctx context.Context, tx pgx.Tx) error) error {
	return pg.Tx(h.Context(), h.pool, pg.TxOptions{}, fn)
}

// count counts events now, or at a time.
func (h *house) count(uid tenant.UID, events []usage.Event, at ...time.Time) []usage.Result {
	h.Helper()
	var results []usage.Result
	h.need(h.tx(func(ctx context.Context, tx pgx.Tx) (err error) {
		if len(at) > 0 {
			results, err = usage.CountAt(ctx, tx, uid, events, at[0])
			return err
		}
		results, err = usage.Count(ctx, tx, uid, events)
		return err
	}))
	return results
}

// ask asks for all of a meter, from four days ago to a day ahead unless an edit says otherwise.
func (h *house) ask(uid tenant.UID, meter string, edits ...func(*usage.Question)) []usage.Row {
	h.Helper()
	q := usage.Question{Meter: h.meters[meter], Start: time.Now().Add(-96 * time.Hour), End: time.Now().Add(24 * time.Hour), Grain: usage.Day}
	for _, edit := range edits {
		edit(&q)
	}
	var rows []usage.Row
	h.need(h.tx(func(ctx context.Context, tx pgx.Tx) (err error) {
		if err := store.AsTenant(ctx, tx, uid); err != nil {
			return err
		}
		rows, err = usage.Query(ctx, tx, uid, q, nil, 10_000)
		return err
	}))
	return rows
}

// total adds up all that was counted, late or not.
func total(rows []usage.Row) (value, events int64) {
	for _, r := range rows {
		value, events = value+r.Value, events+r.Events
		for _, a := range r.Adjustments {
			value, events = value+a.Value, events+a.Events
		}
	}
	return value, events
}

func idAt(at time.Time) uuid.UUID {
	u := uuid.Must(uuid.NewV7())
	ms := at.UnixMilli()
	for i := range 6 {
		u[i] = byte(ms >> (40 - 8*i))
	}
	return u
}

func event(meter string, quantity int64, at time.Time) usage.Event {
	return usage.Event{ID: idAt(at), Meter: meter, Quantity: quantity}
}

func outcomes(results []usage.Result) (names []string) {
	for _, r := range results {
		names = append(names, r.String())
	}
	return names
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	now := time.Now()
	good, again := event("bytes", 5, now), event("bytes", 7, now)
	with := func(e usage.Event, edit func(*usage.Event)) usage.Event { edit(&e); return e }
	results := h.count(h.acme, []usage.Event{
		good,
		good,
		with(good, func(e *usage.Event) { e.Quantity = 6 }),
		event("bytes", 1, now.Add(-73*time.Hour)),
		event("bytes", 1, now.Add(6*time.Minute)),
		with(event("bytes", 1, now), func(e *usage.Event) { e.Time = now.Add(-73 * time.Hour) }),
		event("nothing", 1, now),
		event("bytes", usage.MaxQuantity+1, now),
		with(event("bytes", 1, now), func(e *usage.Event) { e.Dimensions = map[string]string{"colour": "red"} }),
		with(event("bytes", 1, now), func(e *usage.Event) { e.ID = uuid.New() }),
		event("users", 0, now),
		with(event("bytes", 1, now), func(e *usage.Event) { e.Value = "x" }),
		event("calls", 3, now),
		event("bytes", usage.MaxQuantity, now.Add(-71*time.Hour)),
		again,
	})
	want := []string{
		"COUNTED", "DUPLICATE", "EVENT_ID_REUSED", "EVENT_TOO_OLD", "EVENT_IN_FUTURE", "EVENT_TOO_OLD", "UNKNOWN_METER", "INVALID_EVENT",
		"INVALID_EVENT", "INVALID_EVENT", "INVALID_EVENT", "INVALID_EVENT", "INVALID_EVENT", "COUNTED", "COUNTED",
	}
	if diff := cmp.Diff(want, outcomes(results)); diff != "" {
		t.Error(diff)
	}
	results = h.count(h.acme, []usage.Event{
		with(again, func(e *usage.Event) { e.Dimensions = map[string]string{"region": "eu"} }), again,
		with(good, func(e *usage.Event) { e.Time = now.Add(-time.Minute) }), good,
	})
	if diff := cmp.Diff([]string{"EVENT_ID_REUSED", "DUPLICATE", "EVENT_ID_REUSED", "DUPLICATE"}, outcomes(results)); diff != "" {
		t.Error(diff)
	}
	if got := outcomes(h.count(h.acme, []usage.Event{again, good})); !slices.Equal(got, []string{"DUPLICATE", "DUPLICATE"}) {
		t.Errorf("sent again: %v", got)
	}
	if value, events := total(h.ask(h.acme, "bytes")); value != 12+usage.MaxQuantity || events != 3 {
		t.Errorf("%d in %d events", value, events)
	}
}

// An id of B's that A sends counts for A only, and B's own counts all the same.
func TestIDsAreTheTenantsOwn(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	e := event("bytes", 5, time.Now())
	stolen := e
	stolen.Quantity = 1000
	for uid, sent := range map[tenant.UID]usage.Event{h.glob: e, h.acme: stolen} {
		if got := outcomes(h.count(uid, []usage.Event{sent})); got[0] != "COUNTED" {
			t.Errorf("%v", got)
		}
	}
	if value, _ := total(h.ask(h.glob, "bytes")); value != 5 {
		t.Errorf("B has %d", value)
	}
	if value, _ := total(h.ask(h.acme, "bytes")); value != 1000 {
		t.Errorf("A has %d", value)
	}
	// Row security holds where a query forgets whose rows it asks for.
	h.need(h.tx(func(ctx context.Context, tx pgx.Tx) error {
		for who, want := range map[string]int{h.acme.String(): 1, h.glob.String(): 1, tenanttest.UID("initrode").String(): 0} {
			var n int
			if _, err := tx.Exec(ctx, `SELECT set_config($1, $2, true)`, store.TenantSetting, who); err != nil {
				return err
			}
			if err := tx.QueryRow(ctx, `SELECT count(*) FROM usage.event`).Scan(&n); err != nil || n != want {
				t.Errorf("%s sees %d events: %v", who, n, err)
			}
		}
		return nil
	}))
	for _, sql := range []string{`SELECT FROM usage.event`, `SELECT FROM usage.rollup`, `SELECT FROM usage.series`, `SELECT FROM usage.sketch`} {
		tag, err := h.pool.Exec(t.Context(), sql)
		if err != nil || tag.RowsAffected() != 0 {
			t.Errorf("without a tenant %s sees %d rows: %v", sql, tag.RowsAffected(), err)
		}
	}
}

func TestForeignIDs(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	now := time.Now().Truncate(time.Microsecond)
	of := func(source, id string, at time.Time) usage.Event {
		return usage.Event{ID: usage.ForeignID(source, id, at), Meter: "bytes", Quantity: 1, Time: at}
	}
	got := outcomes(h.count(h.acme, []usage.Event{
		of("shop", "order-1", now), of("shop", "order-1", now), of("shop", "order-2", now), of("till", "order-1", now),
		of("shopo", "rder-1", now), of("shop", "order-1", now.Add(-time.Microsecond)),
	}))
	want := []string{"COUNTED", "DUPLICATE", "COUNTED", "COUNTED", "COUNTED", "COUNTED"}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if id := of("shop", "x", now).ID; id.Version() != 8 || id.Variant() != uuid.RFC4122 {
		t.Errorf("%s is like an id of ours", id)
	}
}

// What is late changes nothing that is closed, and is all in the adjustments of the minute in which it came.
func TestLateEventsLeaveClosedBucketsUntouched(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	now := time.Now()
	then := now.Add(-30 * time.Hour)
	var first []usage.Event
	for i := range 50 {
		e := event("bytes", 10, then.Add(-time.Duration(i)*time.Minute))
		first = append(first, e)
	}
	h.count(h.acme, first, then)
	closed := func() (text string) {
		h.need(h.super.QueryRow(t.Context(), `SELECT count(*) || ' rows, ' || md5(string_agg(r::text, ';' ORDER BY r::text)) FROM usage.rollup r
			WHERE bucket + ('1 ' || grain)::interval < $1`, now.Add(-time.Hour)).Scan(&text))
		return text
	}
	before := closed()
	late := []usage.Event{event("bytes", 3, then), event("bytes", 4, then.Add(-time.Hour)), event("bytes", 100, now)}
	if got := outcomes(h.count(h.acme, late)); !slices.Equal(got, []string{"COUNTED", "COUNTED", "COUNTED"}) {
		t.Fatalf("%v", got)
	}
	h.count(h.acme, late)
	if after := closed(); after != before || strings.HasPrefix(before, "0") {
		t.Errorf("closed buckets changed from %s to %s", before, after)
	}
	if value, events := total(h.ask(h.acme, "bytes")); value != 607 || events != 53 {
		t.Errorf("%d in %d events", value, events)
	}
	rows := h.ask(h.acme, "bytes", func(q *usage.Question) { q.Grain, q.Start = usage.Hour, now.Add(-30*time.Minute) })
	var adjusted, own int64
	for _, r := range rows {
		own += r.Value
		for _, a := range r.Adjustments {
			adjusted += a.Value
			if hour := then.UTC().Truncate(time.Hour); !a.Original.Equal(hour) && !a.Original.Equal(hour.Add(-time.Hour)) {
				t.Errorf("an adjustment of %s", a.Original)
			}
		}
	}
	if adjusted != 7 || own < 100 {
		t.Errorf("%d adjusted beside %d", adjusted, own)
	}
}

// A minute is open until an hour after its end, by the microsecond.
func TestWhenBucketsClose(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	now := time.Now().UTC().Truncate(time.Minute).Add(30 * time.Second)
	open := now.Truncate(time.Minute).Add(-time.Hour)
	h.count(h.acme, []usage.Event{event("bytes", 1, open), event("bytes", 10, open.Add(-time.Millisecond))}, now)
	var own, late int64
	for _, r := range h.ask(h.acme, "bytes") {
		own += r.Value
		for _, a := range r.Adjustments {
			late += a.Value
		}
	}
	if own != 1 || late != 10 {
		t.Errorf("%d in time, %d late", own, late)
	}
}

// Months end where they end, also in leap years, and hours, days and months add up to the same.
func TestMonthEnds(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for _, end := range []time.Time{
		time.Date(2028, 3, 1, 0, 0, 0, 0, time.UTC), time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2027, 5, 1, 0, 0, 0, 0, time.UTC),
	} {
		_, err := h.pool.Exec(t.Context(), `SELECT usage.keep_partitions($1, 2)`, end)
		h.need(err)
		now := end.Add(10 * time.Minute)
		h.count(h.acme, []usage.Event{
			event("bytes", 1, end.Add(-time.Millisecond)), event("bytes", 2, end.Add(-30*time.Minute)), event("bytes", 10, end),
			event("bytes", 20, end.Add(time.Minute)), event("bytes", 100, end.Add(-25*time.Hour)),
		}, now)
		for _, grain := range []usage.Grain{usage.Minute, usage.Hour, usage.Day, usage.Month} {
			rows := h.ask(h.acme, "bytes", func(q *usage.Question) {
				q.Grain, q.Start, q.End = grain, end.Add(-26*time.Hour), end.Add(time.Hour)
			})
			var before, after, late int64
			for _, r := range rows {
				if r.Start.Before(end) {
					before += r.Value
				} else {
					after += r.Value
				}
				for _, a := range r.Adjustments {
					late += a.Value
				}
			}
			if before != 3 || after != 30 || late != 100 {
				t.Errorf("%s, by %s: %d before, %d after, %d late", end, grain, before, after, late)
			}
			if last := rows[len(rows)-1].Start; grain == usage.Month && !last.Equal(end) || grain.Start(end.Add(-time.Nanosecond)).Equal(end) {
				t.Errorf("the month begins at %s", last)
			}
		}
	}
}

func TestAggregations(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	now := time.Now().UTC().Truncate(time.Minute)
	at := func(s int) time.Time { return now.Add(-time.Duration(s) * time.Second) }
	var events []usage.Event
	for i, q := range []int64{5, -3, 9, 4} { // the latest first
		for _, meter := range []string{"bytes", "peak", "seats"} {
			events = append(events, event(meter, q, at(i)))
		}
		events = append(events, event("calls", 0, at(i)))
		user := event("users", 0, at(i))
		user.Value = []string{"ann", "bob", "ann", "cy"}[i]
		events = append(events, user)
	}
	rand.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	for part := range slices.Chunk(events, 3) { // on several stripes
		h.count(h.acme, part)
		h.count(h.acme, part)
	}
	want := map[string]int64{"bytes": 15, "calls": 4, "peak": 9, "seats": 5, "users": 3}
	for meter, value := range want {
		rows := h.ask(h.acme, meter, func(q *usage.Question) { q.Grain = usage.Month })
		if len(rows) == 2 { // the month ended meanwhile
			continue
		}
		if len(rows) != 1 || rows[0].Value != value || rows[0].Events != 4 {
			t.Errorf("%s: %+v, want %d", meter, rows, value)
		}
	}
	if negative := event("seats", -8, now.Add(time.Second)); outcomes(h.count(h.acme, []usage.Event{negative}))[0] != "COUNTED" {
		t.Error("a negative quantity")
	}
	if rows := h.ask(h.acme, "seats"); rows[len(rows)-1].Value != -8 {
		t.Errorf("the last is %+v", rows)
	}
}

// Different values are told apart exactly to 4,096, and within 2 % beyond, whatever the stripes and however often they come.
func TestUniqueValues(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	now := time.Now()
	send := func(from, to int) {
		var events []usage.Event
		for i := from; i < to; i++ {
			for range 2 {
				e := event("users", 0, now)
				e.Value = fmt.Sprint("user-", i)
				events = append(events, e)
			}
		}
		for part := range slices.Chunk(events, 1000) {
			h.count(h.acme, part)
		}
	}
	distinct := func() int64 {
		rows := h.ask(h.acme, "users", func(q *usage.Question) { q.Start = now.Add(-time.Minute) })
		return rows[0].Value
	}
	send(0, 4000)
	if n := distinct(); n != 4000 {
		t.Errorf("%d of 4,000", n)
	}
	send(3000, usage.MaxExact)
	if n := distinct(); n != usage.MaxExact {
		t.Errorf("%d of 4,096", n)
	}
	send(0, 12_000)
	if n := distinct(); n < 11_760 || n > 12_240 {
		t.Errorf("%d of 12,000", n)
	}
	late := event("users", 0, now.Add(-5*time.Hour))
	late.Value = "user-1"
	h.count(h.acme, []usage.Event{late})
	found := false
	for _, r := range h.ask(h.acme, "users") {
		for _, a := range r.Adjustments {
			found = found || a.Value == 1 && a.Events == 1
		}
	}
	if !found {
		t.Error("a late value is in no adjustment")
	}
}

func TestQueriesGroupAndPage(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	now := time.Now().UTC().Truncate(time.Hour).Add(-10 * time.Minute)
	var events []usage.Event
	for i := range 60 {
		e := event("bytes", int64(i), now.Add(-time.Duration(i%3)*time.Minute))
		e.Dimensions = map[string]string{"region": []string{"eu", "us"}[i%2], "route": fmt.Sprint("/r", i%5)}
		if i%7 == 0 {
			delete(e.Dimensions, "route")
		}
		events = append(events, e)
	}
	h.count(h.acme, events, now)
	ask := func(q usage.Question, size int) (all []usage.Row) {
		q.Meter, q.Start, q.End, q.Grain = h.meters["bytes"], now.Add(-4*time.Hour), now.Add(time.Hour), usage.Minute
		var after []string
		for {
			var rows []usage.Row
			h.need(h.tx(func(ctx context.Context, tx pgx.Tx) (err error) {
				if err := store.AsTenant(ctx, tx, h.acme); err != nil {
					return err
				}
				rows, err = usage.Query(ctx, tx, h.acme, q, after, size)
				return err
			}))
			all = append(all, rows...)
			if len(rows) < size {
				return all
			}
			after = rows[len(rows)-1].Key()
		}
	}
	for _, by := range [][]string{nil, {"region"}, {"route"}, {"region", "route"}} {
		whole, paged := ask(usage.Question{GroupBy: by}, 1000), ask(usage.Question{GroupBy: by}, 2)
		if diff := cmp.Diff(whole, paged, cmp.AllowUnexported(usage.Row{})); diff != "" || len(whole) < 3 {
			t.Errorf("by %v pages differ:\n%s", by, diff)
		}
		if value, n := total(whole); value != 59*60/2 || n != 60 {
			t.Errorf("by %v: %d in %d", by, value, n)
		}
	}
	value, n := total(ask(usage.Question{Where: map[string]string{"region": "us"}, GroupBy: []string{"route"}}, 1000))
	if value != 900 || n != 30 {
		t.Errorf("of one region: %d in %d", value, n)
	}
}

func TestSeriesAreBounded(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	_, err := h.super.Exec(t.Context(), `INSERT INTO usage.series SELECT $1, gen_random_uuid(), $2, jsonb_build_object('route', n)
		FROM generate_series(1, $3) AS n`, h.acme.String(), h.meters["bytes"].UID.String(), usage.MaxSeries-1)
	h.need(err)
	in := func(route string) usage.Event {
		e := event("bytes", 1, time.Now())
		e.Dimensions = map[string]string{"route": route}
		return e
	}
	got := outcomes(h.count(h.acme, []usage.Event{in("/a"), in("/a"), in("/b"), event("calls", 0, time.Now())}))
	if slices.Sort(got); !slices.Equal(got, []string{"COUNTED", "COUNTED", "COUNTED", "TOO_MANY_SERIES"}) &&
		!slices.Equal(got, []string{"COUNTED", "COUNTED", "TOO_MANY_SERIES", "TOO_MANY_SERIES"}) {
		t.Errorf("%v", got)
	}
	if got := outcomes(h.count(h.acme, []usage.Event{in("/c")})); got[0] != "TOO_MANY_SERIES" {
		t.Errorf("%v", got)
	}
	if got := outcomes(h.count(h.glob, []usage.Event{in("/c")})); got[0] != "COUNTED" {
		t.Errorf("another tenant: %v", got)
	}
}

// Partitions are made ahead and twice makes no difference; a partition goes only when all its ids are refused.
func TestPartitions(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ctx, today := t.Context(), time.Now().UTC()
	old := today.AddDate(0, 0, -5)
	first := func(d time.Time) string { return fmt.Sprintf("usage.first_id('%s')", d.Format(time.DateOnly)) }
	var low, high string
	h.need(h.super.QueryRow(ctx, `SELECT `+first(old)+`::text, `+first(old.AddDate(0, 0, 1))+`::text`).Scan(&low, &high))
	_, err := h.super.Exec(ctx, fmt.Sprintf(`CREATE TABLE usage.event_%s PARTITION OF usage.event FOR VALUES FROM ('%s') TO ('%s')`,
		old.Format("20060102"), low, high))
	h.need(err)
	h.need(usage.Keep(ctx, h.pool))
	h.need(usage.Keep(ctx, h.pool))
	rows, err := h.super.Query(ctx, `SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'usage.event'::regclass ORDER BY 1`)
	h.need(err)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	h.need(err)
	for d := -3; d <= 7; d++ {
		if name := "usage.event_" + today.AddDate(0, 0, d).Format("20060102"); !slices.Contains(names, name) {
			t.Errorf("%s is missing", name)
		}
	}
	if slices.Contains(names, "usage.event_"+old.Format("20060102")) {
		t.Error("an old partition is kept")
	}
	for _, sql := range []string{`DROP TABLE ` + names[0], `SELECT FROM ` + names[0], `TRUNCATE usage.event`, `UPDATE usage.event SET quantity = 0`} {
		if _, err := h.pool.Exec(ctx, sql); err == nil || !strings.Contains(err.Error(), "42501") {
			t.Errorf("the service may %s: %v", sql, err)
		}
	}
}

func TestEraseLeavesNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	now := time.Now()
	user := event("users", 0, now)
	user.Value = "ann"
	events := []usage.Event{event("bytes", 1, now), event("bytes", 1, now.Add(-9*time.Hour)), user}
	h.count(h.acme, events)
	h.count(h.glob, events)
	h.need(h.tx(func(ctx context.Context, tx pgx.Tx) error {
		if err := store.AsEvery(ctx, tx); err != nil {
			return err
		}
		removed, err := usage.Erase(ctx, tx, h.acme)
		if removed["usage.event"] != 3 || removed["usage.series"] != 2 {
			t.Errorf("removed %v", removed)
		}
		return err
	}))
	for _, table := range []string{"event", "rollup", "adjustment", "sketch", "series"} {
		var left, others int
		h.need(h.super.QueryRow(t.Context(), `SELECT count(*) FILTER (WHERE tenant_uid = $1), count(*) FILTER (WHERE tenant_uid <> $1)
			FROM usage.`+table, h.acme.String()).Scan(&left, &others))
		if left != 0 || others == 0 {
			t.Errorf("of usage.%s %d rows are left, and others have %d", table, left, others)
		}
	}
}

// A meter that is deleted takes what was counted with it only when that is asked for; made again it begins anew.
func TestDeletedMeters(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.count(h.acme, []usage.Event{event("bytes", 7, time.Now())})
	drop := func(force bool) error {
		return h.tx(func(ctx context.Context, tx pgx.Tx) error {
			return usage.DeleteMeter(ctx, tx, h.meters["bytes"], force)
		})
	}
	if err := drop(false); err == nil || !strings.Contains(err.Error(), "WRONG_STATE") {
		t.Errorf("%v", err)
	}
	h.need(drop(true))
	if got := outcomes(h.count(h.acme, []usage.Event{event("bytes", 7, time.Now())})); got[0] != "UNKNOWN_METER" {
		t.Errorf("%v", got)
	}
	h.meter("bytes", usage.Sum)
	if rows := h.ask(h.acme, "bytes"); len(rows) != 0 {
		t.Errorf("%+v", rows)
	}
	more, err := usage.Sweep(t.Context(), h.pool)
	var left int
	h.need(h.super.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM usage.rollup) + (SELECT count(*) FROM usage.series)`).Scan(&left))
	if more || err != nil || left != 0 {
		t.Errorf("%d rows are left: %v %v", left, more, err)
	}
}

// Many writers of the same events at once: none waits in a circle, and each event counts once.
func TestWritersOfTheSameEvents(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	now := time.Now()
	var events []usage.Event
	want := int64(0)
	for i := range 600 {
		e := event("bytes", int64(i), now.Add(-time.Duration(i)*time.Second))
		e.Dimensions = map[string]string{"route": fmt.Sprint("/", i%40)}
		events, want = append(events, e), want+int64(i)
	}
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			mine := slices.Clone(events)
			rand.Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
			for part := range slices.Chunk(mine, 50) {
				err := pg.Tx(t.Context(), h.pool, pg.TxOptions{Tries: 1}, func(ctx context.Context, tx pgx.Tx) error {
					_, err := usage.Count(ctx, tx, h.acme, part)
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	if value, n := total(h.ask(h.acme, "bytes")); value != want || n != 600 {
		t.Errorf("%d in %d events, want %d in 600", value, n, want)
	}
	var deadlocks int
	h.need(h.super.QueryRow(t.Context(), `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`).Scan(&deadlocks))
	if deadlocks != 0 {
		t.Errorf("%d deadlocks", deadlocks)
	}
}

// RecordIn is part of its caller's transaction.
func TestRecordIn(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	e := event("bytes", 5, time.Now())
	errUndo := errors.New("undo")
	err := h.tx(func(ctx context.Context, tx pgx.Tx) error {
		if err := usage.RecordIn(ctx, tx, h.acme, []usage.Event{e}); err != nil {
			return err
		}
		return errUndo
	})
	if err == nil || len(h.ask(h.acme, "bytes")) != 0 {
		t.Errorf("%v, and it was counted", err)
	}
	for range 2 {
		h.need(h.tx(func(ctx context.Context, tx pgx.Tx) error { return usage.RecordIn(ctx, tx, h.acme, []usage.Event{e}) }))
	}
	if value, _ := total(h.ask(h.acme, "bytes")); value != 5 {
		t.Errorf("%d", value)
	}
	err = h.tx(func(ctx context.Context, tx pgx.Tx) error {
		return usage.RecordIn(ctx, tx, h.acme, []usage.Event{event("none", 5, time.Now())})
	})
	if err == nil {
		t.Error("an unknown meter is no error")
	}
}
