package change

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"google.golang.org/protobuf/proto"

	"github.com/rowhouse-platform/rowhouse/internal/audit"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
)

const (
	// maxResources bounds the resources that one audit event names.
	maxResources = 100
	maxKey       = 512
	// maxValue keeps an entry within a chunk of a snapshot, maxRevision a revision within one gRPC message.
	maxValue    = 1<<20 - 4096
	maxRevision = 3 << 20
)

// Tx is a transaction in its unit of work. It is for one goroutine, and only until the function that got it returns.
type Tx struct {
	kernel    *Kernel
	tx        pgx.Tx
	now       time.Time
	call      rule.Call
	tenant    string // acting, on the data plane
	writable  bool
	chains    []string
	resources []string
	paths     []string
	entries   map[entryKey][]byte
	size      int
	stamps    []func(ctx context.Context, revision int64) error
	because   []string
}

type entryKey struct{ feed, key string }

// Now returns the database's time at which the transaction began. Times that are stored or compared come from here, so
// that replicas with different clocks agree.
func (t *Tx) Now() time.Time { return t.now }

// Call returns the call that the transaction serves.
func (t *Tx) Call() rule.Call { return t.call }

// Exec runs a statement.
func (t *Tx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return t.tx.Exec(ctx, sql, args...)
}

// Query runs a statement that returns rows.
func (t *Tx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return t.tx.Query(ctx, sql, args...)
}

// QueryRow runs a statement that returns at most one row.
func (t *Tx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return t.tx.QueryRow(ctx, sql, args...)
}

// SendBatch sends several statements in one round trip.
func (t *Tx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	return t.tx.SendBatch(ctx, b)
}

// Savepoint runs fn so that its failure undoes only what fn did.
func (t *Tx) Savepoint(ctx context.Context, fn func() error) error {
	return pgx.BeginFunc(ctx, t.tx, func(pgx.Tx) error { return fn() })
}

// Tenant adds the chain of the tenant with this uid to those that get the call's audit event. Without it the event
// goes to the chain of the acting tenant, or to the platform's on other planes than DATA.
func (t *Tx) Tenant(uid string) {
	if uid != "" && !slices.Contains(t.chains, uid) {
		t.chains = append(t.chains, uid)
	}
}

// chainsOr returns the chains that get the call's event: those of the tenants that were named, or else the acting
// tenant's or the platform's.
func (t *Tx) chainsOr(acting string) []string {
	if len(t.chains) > 0 {
		return t.chains
	}
	return []string{cmp.Or(acting, audit.Platform)}
}

// Audit names a resource that the call concerns, and the field paths that it changed.
func (t *Tx) Audit(resource string, changedPaths ...string) {
	if !slices.Contains(t.resources, resource) && len(t.resources) < maxResources {
		t.resources = append(t.resources, resource)
	}
	for _, p := range changedPaths {
		if !slices.Contains(t.paths, p) {
			t.paths = append(t.paths, p)
		}
	}
}

// Because adds a reason to the call's audit event, behind the one that the caller gave for the call itself.
func (t *Tx) Because(reason string) { t.because = append(t.because, reason) }

// reason is all that the audit event says for a reason.
func (t *Tx) reason() string {
	given := t.because
	if t.call.Reason != "" {
		given = append([]string{t.call.Reason}, given...)
	}
	return strings.Join(given, "; ")
}

// Publish sets key of feed to the encoding of value, or removes the key when value is nil. All that one transaction
// publishes reaches watchers as one revision; of several values for a key the last counts. Nothing is published by a
// call that only validates.
func (t *Tx) Publish(feed, key string, value proto.Message) error {
	if !t.writable {
		return fmt.Errorf("publish %s %s: the transaction only reads", feed, key)
	}
	if feed == "" || key == "" || len(key) > maxKey {
		return fmt.Errorf("publish %q %q: a feed and a key of at most %d bytes are needed", feed, key, maxKey)
	}
	if t.entries == nil {
		t.entries = make(map[entryKey][]byte)
	}
	if value == nil {
		t.entries[entryKey{feed, key}] = nil
		return nil
	}
	b, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend([]byte{}, value)
	if err != nil {
		return fmt.Errorf("publish %s %s: %w", feed, key, err)
	}
	if t.size += len(key) + len(b); len(b) > maxValue || t.size > maxRevision {
		return fmt.Errorf("publish %s %s: more than an entry or a revision may hold", feed, key)
	}
	t.entries[entryKey{feed, key}] = b
	return nil
}

// OnRevision has the transaction take a revision, even if it publishes nothing, and calls fn with it before the answer
// is stored. fn may write the revision into the answer, into rows of this transaction and into entries that it
// publishes under keys that were not published before; since all other changes of the service wait meanwhile, it sends
// at most one short statement. It is not called by a call that only validates.
func (t *Tx) OnRevision(fn func(ctx context.Context, revision int64) error) {
	t.stamps = append(t.stamps, fn)
}

// Page reads the paging arguments of a list; see [page.Open] for its errors. The query's method is the call's.
func (t *Tx) Page(ctx context.Context, q page.Query) (page.Page, error) {
	key, err := t.kernel.pageKey(ctx, t)
	if err != nil {
		return page.Page{}, err
	}
	q.Method = t.call.Method
	return page.Open(key, t.now, q)
}
