package poolfairness_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/bench/measure"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const (
	connections = 8
	flooders    = 100
	rounds      = 5
	// pause is what a client that was refused does before it comes again.
	pause = 10 * time.Millisecond

	quiet, loud = "quiet", "loud"
	work        = `SELECT FROM pg_sleep(0.005)`
)

var working = tenantdb.Stmt(work)

// way is one way to work for a tenant.
type way struct {
	name string
	work func(context.Context) error
}

// BenchmarkFlood compares. Run it once: -benchtime=1x.
func BenchmarkFlood(b *testing.B) {
	const length = 1500 * time.Millisecond
	b.ReportMetric(0, "ns/op") // the sum over all rounds says nothing
	d := database(b)
	for _, w := range ways(b, d) {
		var alone, flooded, answers []float64
		for range rounds {
			p99, _ := w.round(b, d, 0, length)
			alone = append(alone, p99)
			p99, n := w.round(b, d, flooders, length)
			flooded, answers = append(flooded, p99), append(answers, float64(n)/length.Seconds())
		}
		b.ReportMetric(measure.Median(alone), "ms-"+w.name+"-alone")
		b.ReportMetric(measure.Median(flooded), "ms-"+w.name+"-flood")
		b.ReportMetric(measure.Median(measure.Ratios(flooded, alone)), "ratio-"+w.name)
		b.ReportMetric(measure.Median(answers), "flood-"+w.name+"/s")
	}
}

// TestFlood keeps the benchmark compiled, and holds that the quiet tenant is never refused and
// served while another floods. How long it waits is the benchmark's to measure: a busy machine
// would decide a test.
func TestFlood(t *testing.T) {
	t.Parallel()
	const length = 300 * time.Millisecond
	d := database(t)
	for _, w := range ways(t, d) {
		p99, answers := w.round(t, d, flooders, length)
		if answers == 0 || p99 == 0 {
			t.Errorf("%s: the flood got %d answers, the quiet tenant's p99 is %.1f ms", w.name, answers, p99)
		}
	}
}

func database(tb testing.TB) *dbtest.Database {
	tb.Helper()
	return dbtest.New(tb, dbtest.Configure(func(c *tenantdb.Config) {
		to := c.Cells[tenanttest.Cell]
		to.MaxConns = connections
		c.Cells[tenanttest.Cell] = to
	}))
}

// ways are ours and the peer.
func ways(tb testing.TB, d *dbtest.Database) []way {
	tb.Helper()
	config, err := pgxpool.ParseConfig(d.Config.Cells[tenanttest.Cell].DSN)
	must(tb, err)
	config.MaxConns = connections
	plain, err := pgxpool.NewWithConfig(tb.Context(), config)
	must(tb, err)
	tb.Cleanup(plain.Close)
	return []way{
		{"sealed", func(ctx context.Context) error {
			_, err := d.DB.Exec(ctx, working)
			return err
		}},
		{"plain", func(ctx context.Context) error {
			_, err := plain.Exec(ctx, work)
			return err
		}},
	}
}

// round returns the quiet tenant's p99 in ms, and how many answers the flood got.
func (w way) round(tb testing.TB, d *dbtest.Database, flooders int, length time.Duration) (p99 float64, answers int64) {
	tb.Helper()
	acme, globex := d.In(tb, quiet), d.In(tb, loud) // contexts are short
	must(tb, w.work(acme))
	var n atomic.Int64
	var flood sync.WaitGroup
	end := time.Now().Add(length)
	for range flooders {
		flood.Go(func() {
			for time.Now().Before(end) {
				switch err := w.work(globex); {
				case err == nil:
					n.Add(1)
				case errors.Is(err, tenantdb.ErrAdmission):
					<-time.After(pause)
				default:
					tb.Error(err)
					return
				}
			}
		})
	}
	var took []float64
	for time.Now().Before(end) {
		start := time.Now()
		if err := w.work(acme); err != nil {
			tb.Error(err)
			break
		}
		took = append(took, time.Since(start).Seconds()*1000)
	}
	flood.Wait()
	if len(took) == 0 {
		tb.Fatal("the quiet tenant got nothing")
	}
	slices.Sort(took)
	return took[len(took)*99/100], n.Load()
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
