package tenantdb_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/exaring/otelpgx"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantotel"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// wire counts turns: a read that follows a write is one round trip.
type wire struct {
	mu    sync.Mutex
	wrote bool // guarded by mu
	turns int  // guarded by mu
}

func (w *wire) note(write bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !write && w.wrote {
		w.turns++
	}
	w.wrote = write
}

func (w *wire) take() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.turns
	w.turns = 0
	return n
}

type countedConn struct {
	net.Conn
	wire *wire
}

func (c countedConn) Write(b []byte) (int, error) { c.wire.note(true); return c.Conn.Write(b) }

func (c countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.wire.note(false)
	}
	return n, err
}

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return countedConn{conn, w}, nil
}

func TestRoundTrips(t *testing.T) {
	t.Parallel()
	for _, pooler := range []tenantdb.Pooler{tenantdb.Direct, tenantdb.TransactionPooler} {
		w := &wire{}
		d := notes(t, dbtest.Configure(oneConnection), dbtest.Configure(func(c *tenantdb.Config) {
			for name, to := range c.Cells {
				to.Dial, to.Pooler = w.dial, pooler
				c.Cells[name] = to
			}
		}))
		ctx := d.In(t, "acme")
		var s string
		point := func(tx *tenantdb.Tx) error { return tx.QueryRow(ctx, getNote, 1).Scan(&s) }
		for _, test := range []struct {
			name string
			want int
			call func() error
		}{
			{"QueryRow", 1, func() error { return d.DB.QueryRow(ctx, getNote, 1).Scan(&s) }},
			{"Query", 1, func() error { _, err := titles(ctx, d.DB); return err }},
			{"Exec", 1, func() error { _, err := d.DB.Exec(ctx, renameAll); return err }},
			{"Batch", 1, func() error { return d.DB.Batch(ctx, batchOf(renameAll, renameAll, renameAll)) }},
			{"empty Tx", 0, func() error { return d.DB.Tx(ctx, func(*tenantdb.Tx) error { return nil }) }},
			{"Tx of one", 2, func() error { return d.DB.Tx(ctx, point) }}, // and COMMIT
			{"ReadTx of one", 2, func() error { return d.DB.ReadTx(ctx, point) }},
			{"Tx of three", 4, func() error {
				return d.DB.Tx(ctx, func(tx *tenantdb.Tx) error {
					for range 3 {
						if err := point(tx); err != nil {
							return err
						}
					}
					return nil
				})
			}},
		} {
			idle := func() { // takes one round trip, behind the end of a read that nobody waited for
				if err := d.DB.QueryRow(ctx, getNote, 1).Scan(&s); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // the first call prepares
				idle()
				w.take()
				if err := test.call(); err != nil {
					t.Fatalf("%s: %v", test.name, err)
				}
			}
			idle()
			if got := w.take() - 1; got != test.want {
				t.Errorf("pooler %d: %s took %d round trips, want %d", pooler, test.name, got, test.want)
			}
		}
	}
}

func TestSpansStandUnderTheCallersAndHoldNoSecrets(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	d := notes(t, dbtest.Configure(func(c *tenantdb.Config) {
		c.Tracer = otelpgx.NewTracer(otelpgx.WithTracerProvider(provider), otelpgx.WithIncludeQueryParameters())
	}))
	spans.Reset()
	ctx, parent := provider.Tracer("test").Start(d.In(t, "acme"), "handler")
	if _, err := d.DB.Exec(ctx, addNote, 50, "a secret title"); err != nil {
		t.Fatal(err)
	}
	err := d.DB.Tx(ctx, func(tx *tenantdb.Tx) error {
		_, err1 := tx.Exec(ctx, addNote, 51, "a secret name")
		_, err2 := tx.Exec(ctx, addNote, 52, "a secret word")
		return errors.Join(err1, err2)
	})
	if err != nil {
		t.Fatal(err)
	}
	described := func() (n int) {
		for _, span := range spans.Ended() {
			if slices.Contains(span.Attributes(), attribute.String("tenant.id", "acme")) {
				n++
			}
		}
		return n
	}
	if n := described(); n < 3 {
		t.Errorf("%d spans say tenant.id", n)
	}
	insert := func(from, n int) int { // returns how many spans of it do
		t.Helper()
		before := described()
		titles := numbered(n, func(i int) []any { return []any{from + i, fmt.Sprint("a secret title ", from+i)} })
		if _, err := d.DB.InsertRows(ctx, tenantdb.Into("app.note", "id int", "title text"), titles); err != nil {
			t.Fatal(err)
		}
		return described() - before
	}
	insert(100, 1) // prepares
	if one, many := insert(200, 1), insert(1000, 6000); one < 1 || many != one+1 {
		t.Errorf("%d spans of an insertion in one chunk, %d of one in many; want one more for those in the pipeline", one, many)
	}
	parent.End()
	for _, span := range spans.Ended() {
		if span.SpanContext().TraceID() != parent.SpanContext().TraceID() {
			t.Errorf("span %q is in another trace", span.Name())
		}
		for _, kv := range span.Attributes() {
			if strings.Contains(kv.Value.String(), "secret") || strings.Contains(string(kv.Key), "parameter") && kv.Value.String() != "[]" {
				t.Errorf("span %q holds an argument: %s", span.Name(), kv.Key)
			}
		}
	}
}

// One thing has one name, and one spelling of its values, in the spans of calls and of SQL.
func TestSpansNameTheTenantAsTelemetryDoes(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	d := notes(t, dbtest.Configure(func(c *tenantdb.Config) {
		c.Tracer = otelpgx.NewTracer(otelpgx.WithTracerProvider(provider))
	}))
	spans.Reset()
	ctx, parent := provider.Tracer("test").Start(d.In(t, "acme"), "handler")
	defer parent.End()
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := map[attribute.Key]string{"rowhouse.placement.generation": strconv.FormatUint(tc.PlacementGeneration(), 10)}
	for _, kv := range tenantotel.Attributes(tc) {
		want[kv.Key] = kv.Value.String()
	}
	wantTitles(ctx, t, d.DB, "acme one", "acme two")
	seen := map[attribute.Key]bool{}
	for _, span := range spans.Ended() {
		for _, kv := range span.Attributes() {
			if !strings.HasPrefix(string(kv.Key), "rowhouse.") && !strings.HasPrefix(string(kv.Key), "tenant.") {
				continue
			}
			seen[kv.Key] = true
			if kv.Key == "rowhouse.db.admission_wait" && kv.Value.AsFloat64() >= 0 {
				continue
			}
			if got, ok := want[kv.Key]; !ok || got != kv.Value.String() {
				t.Errorf("span %q says %s=%s, want %q", span.Name(), kv.Key, kv.Value.String(), got)
			}
		}
	}
	for _, key := range []attribute.Key{
		tenantotel.KeyTenantID, tenantotel.KeyTenantUID, tenantotel.KeyPlan, tenantotel.KeyCell, tenantotel.KeyIsolation,
		"rowhouse.db.admission_wait",
	} {
		if !seen[key] {
			t.Errorf("no span says %s", key)
		}
	}
}

// An end whose answer is withheld keeps nobody waiting.
func TestReadTxDoesNotWaitForItsEnd(t *testing.T) {
	t.Parallel()
	h := &holdup{}
	d := notes(t, dbtest.Configure(func(c *tenantdb.Config) {
		to := c.Cells[tenanttest.Cell]
		to.Dial = h.dial
		c.Cells[tenanttest.Cell] = to
	}))
	ctx := d.In(t, "acme")
	err := d.DB.ReadTx(ctx, func(tx *tenantdb.Tx) error {
		var title string
		err := tx.QueryRow(ctx, getNote, 1).Scan(&title)
		h.close()
		return err
	})
	if err != nil {
		t.Error(err)
	}
	h.open()
}

// holdup lets connections be read only while it is open, which it is at first.
type holdup struct {
	mu   sync.Mutex
	gate chan struct{} // nil while open
}

func (h *holdup) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gate = make(chan struct{})
}

func (h *holdup) open() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gate != nil {
		close(h.gate)
	}
	h.gate = nil
}

func (h *holdup) wait() {
	h.mu.Lock()
	gate := h.gate
	h.mu.Unlock()
	if gate != nil {
		<-gate
	}
}

func (h *holdup) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return heldConn{conn, h}, nil
}

type heldConn struct {
	net.Conn
	h *holdup
}

func (c heldConn) Read(b []byte) (int, error) {
	c.h.wait()
	return c.Conn.Read(b)
}
