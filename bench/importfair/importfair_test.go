package importfair_test

import (
	"context"
	"iter"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rowhouse-platform/rowhouse/bench/measure"
	"github.com/rowhouse-platform/rowhouse/examples/notes"
	notesv1 "github.com/rowhouse-platform/rowhouse/gen/notes/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/jobs"
	"github.com/rowhouse-platform/rowhouse/sdk/jobs/jobstest"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const (
	partRows = 2500
	// every is how often the reader asks.
	every = 5 * time.Millisecond
	// share is the example app's.
	share = 0.25

	reader, large, small = "reader", "large", "small"
)

var plainRows = tenantdb.Into("app.note", "id uuid", "title text", "body text")

// street is a database in which two tenants have imports, and a third reads.
type street struct {
	*dbtest.Database
	notes *notes.Notes
	dsn   string
	rows  int64
	name  string // of the large import
}

func newStreet(tb testing.TB, rows int64) *street {
	tb.Helper()
	db := dbtest.New(tb, dbtest.Migrations(notes.Migrations()))
	s := &street{Database: db, notes: notes.New(db.DB, func(context.Context) notes.Settings { return notes.Settings{} }), rows: rows}
	s.dsn = jobstest.Database(tb)
	for i := range 200 {
		_, err := s.notes.Create(db.In(tb, reader), "", "note "+strconv.Itoa(i), "")
		must(tb, err)
	}
	imports := notes.NewImports(db.DB, s.queue(tb))
	s.name = s.stage(tb, imports, large, rows)
	_, err := imports.Start(db.In(tb, large), s.name)
	must(tb, err)
	return s
}

// stage keeps rows of an import.
func (s *street) stage(tb testing.TB, imports *notes.Imports, id string, rows int64) (name string) {
	tb.Helper()
	name = "imports/" + uuid.NewString()
	for number := int32(0); rows > 0; number++ {
		part := make([]*notesv1.ImportRow, min(rows, partRows))
		for i := range part {
			part[i] = &notesv1.ImportRow{Title: "imported " + strconv.Itoa(i), Body: "as everybody's rows are"}
		}
		must(tb, imports.Add(s.In(tb, id), name, number, part))
		rows -= int64(len(part))
	}
	return name
}

// queue is a new queue over the same jobs: one runs once.
func (s *street) queue(tb testing.TB) *jobs.Queue {
	tb.Helper()
	return jobstest.Open(tb, s.Database, jobs.Config{
		DSN: s.dsn, Kinds: []jobs.Kind{notes.ImportJob()}, Classes: map[string]jobs.Class{"bulk": {Workers: 1, Share: share}},
	})
}

// read asks at a fixed rate for so long, and returns the p99 of the answers in ms.
func (s *street) read(tb testing.TB, length time.Duration) float64 {
	tb.Helper()
	ctx := s.In(tb, reader) // shorter than its life
	var took []float64
	for due, end := time.Now(), time.Now().Add(length); due.Before(end); due = due.Add(every) {
		<-time.After(time.Until(due))
		if _, err := s.notes.List(ctx, 50, ""); err != nil {
			tb.Fatal(err)
		}
		took = append(took, time.Since(due).Seconds()*1000)
	}
	slices.Sort(took)
	return took[len(took)*99/100]
}

// done is how many rows of the large import are notes.
func (s *street) done(tb testing.TB, q *jobs.Queue) (rows int64, live bool) {
	tb.Helper()
	m, err := notes.NewImports(s.DB, q).Get(s.In(tb, large), s.name)
	must(tb, err)
	return m.GetRowsDone(), m.GetEndTime() == nil
}

// beside reads while the import goes on.
func (s *street) beside(tb testing.TB, length time.Duration) (p99, rate float64, live bool) {
	tb.Helper()
	q := s.queue(tb)
	stop := jobstest.Run(tb, q)
	before, _ := s.done(tb, q)
	start := time.Now()
	p99 = s.read(tb, length)
	after, live := s.done(tb, q)
	rate = float64(after-before) / time.Since(start).Seconds()
	stop()
	return p99, rate, live
}

// plain reads while a loop inserts as fast as it can.
func (s *street) plain(tb testing.TB, length time.Duration) (p99, rate float64) {
	tb.Helper()
	ctx := s.In(tb, large)
	var loop sync.WaitGroup
	var over atomic.Bool
	var n int64
	start := time.Now()
	loop.Go(func() {
		for first := true; first || !over.Load(); first = false {
			some, err := s.DB.InsertRows(ctx, plainRows, someRows(&over))
			if err != nil {
				tb.Error(err)
				return
			}
			n += some
		}
	})
	p99 = s.read(tb, length)
	over.Store(true)
	loop.Wait()
	return p99, float64(n) / time.Since(start).Seconds()
}

// someRows are a transaction's, at least one, or fewer once it is over.
func someRows(over *atomic.Bool) iter.Seq[[]any] {
	return func(yield func([]any) bool) {
		for i := range 50_000 {
			if i > 0 && over.Load() || !yield([]any{[16]byte(uuid.New()), "imported", "as everybody's rows are"}) {
				return
			}
		}
	}
}

// ten imports ten rows of a third tenant beside the large import, and returns how long that took in ms.
func (s *street) ten(tb testing.TB) float64 {
	tb.Helper()
	q := s.queue(tb)
	stop := jobstest.Run(tb, q)
	defer stop()
	imports := notes.NewImports(s.DB, q)
	for before, _ := s.done(tb, q); ; <-time.After(10 * time.Millisecond) { // until the large one has its turns
		if now, live := s.done(tb, q); now > before || !live {
			break
		}
	}
	name, start := s.stage(tb, imports, small, 10), time.Now()
	_, err := imports.Start(s.In(tb, small), name)
	must(tb, err)
	for {
		m, err := imports.Get(s.In(tb, small), name)
		must(tb, err)
		if m.GetEndTime() != nil {
			return time.Since(start).Seconds() * 1000
		}
		<-time.After(time.Millisecond)
	}
}

// BenchmarkImport compares. Run it once: -benchtime=1x.
func BenchmarkImport(b *testing.B) {
	const length, rounds = 5 * time.Second, 100
	b.ReportMetric(0, "ns/op") // the sum over all rounds says nothing
	s := newStreet(b, 2_000_000)
	waited := s.ten(b)
	var alone, beside, plain, fast, slow []float64
	for live, i := true, 0; live && i < rounds; i++ {
		alone = append(alone, s.read(b, length))
		p99, rate, more := s.beside(b, length)
		beside, slow, live = append(beside, p99), append(slow, rate), more
		if i < 5 {
			p99, rate = s.plain(b, length)
			plain, fast = append(plain, p99), append(fast, rate)
		}
	}
	b.ReportMetric(measure.Median(alone), "ms-alone")
	b.ReportMetric(measure.Median(beside), "ms-jobs")
	b.ReportMetric(measure.Median(plain), "ms-plain")
	b.ReportMetric(measure.Median(measure.Ratios(beside, alone)), "ratio-jobs")
	b.ReportMetric(measure.Median(measure.Ratios(plain, alone[:len(plain)])), "ratio-plain")
	b.ReportMetric(measure.Median(slow), "rows/s-jobs")
	b.ReportMetric(measure.Median(fast), "rows/s-plain")
	b.ReportMetric(waited, "ms-small")
	b.ReportMetric(float64(s.rows)/measure.Median(slow), "s-fifo")
}

// TestImport keeps the benchmark compiled, and holds that reads are answered and ten rows written beside an import. How fast is the
// benchmark's to measure.
func TestImport(t *testing.T) {
	t.Parallel()
	const length = 300 * time.Millisecond
	s := newStreet(t, 100_000)
	if waited := s.ten(t); waited <= 0 {
		t.Error(waited)
	}
	alone := s.read(t, length)
	p99, _, live := s.beside(t, length)
	plain, rate := s.plain(t, length)
	if alone == 0 || p99 == 0 || plain == 0 || rate == 0 || !live {
		t.Errorf("p99 %.1f ms alone, %.1f ms beside an import (which goes on: %v), %.1f ms beside a loop", alone, p99, live, plain)
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
