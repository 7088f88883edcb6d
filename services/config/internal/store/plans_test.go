package store_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// explaining keeps the plan of a query before it runs it.
type explaining struct {
	store.Querier

	plan string
}

func (e *explaining) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	rows, err := e.Querier.Query(ctx, "EXPLAIN "+sql, args...)
	if err != nil {
		return nil, err
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	e.plan = strings.Join(lines, "\n")
	return e.Querier.Query(ctx, sql, args...)
}

// The environments of one tenant are found without a look at those of all others.
func TestEnvironmentsOfATenantAreFoundByAnIndex(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	uid := tenanttest.UID("acme").String()
	for _, id := range []string{"flags", "notes", "portal"} {
		namespace := uuid.NewString()
		h.exec(`INSERT INTO settings.namespace (uid, id, schema, create_time, update_time, revision) VALUES ($1, $2, '{}', $3, $3, 1)`, namespace, id, time.Now())
		h.exec(`INSERT INTO settings.document (namespace_uid, layer, layer_id, content, author, reason, revision_time, revision)
			SELECT $1::uuid, 'environment', gen_random_uuid()::text || '/staging', '{}', 'x', '', now(), 1 FROM generate_series(1, 3000)
			UNION ALL SELECT $1::uuid, 'environment', $2::text || '/staging', '{}', 'x', '', now(), 1`, namespace, uid)
	}
	h.exec(`ANALYZE`)
	q := &explaining{Querier: h.db.Service(t)}
	found, err := store.ListAcross(t.Context(), q, []settings.Kind{settings.Environment}, uid, nil, 50)
	if err != nil || len(found) != 3 {
		t.Fatalf("found %v, %v", found, err)
	}
	if !strings.Contains(q.plan, "document_environment") || strings.Contains(q.plan, "Seq Scan on document") {
		t.Errorf("by the plan\n%s", q.plan)
	}
}

// Whoever changes a schema locks its namespace and then the kills; whoever erases a tenant must not hold the kills before.
func TestKillsAreLockedLast(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	uid := tenanttest.UID("acme").String()
	for _, id := range []string{"setting-kills", "zeta"} {
		namespace := uuid.NewString()
		h.exec(`INSERT INTO settings.namespace (uid, id, schema, create_time, update_time, revision) VALUES ($1, $2, '{}', $3, $3, 1)`, namespace, id, time.Now())
		h.exec(`INSERT INTO settings.document (namespace_uid, layer, layer_id, content, author, reason, revision_time, revision)
			VALUES ($1, 'tenant', $2, '{}', 'x', '', now(), 1)`, namespace, uid)
	}
	if store.CompareLocks("setting-kills", "zeta") <= 0 || store.CompareLocks("a", "setting-kills") >= 0 || store.CompareLocks("a", "b") >= 0 {
		t.Error("another order")
	}
	schema, err := h.super.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = schema.Rollback(t.Context()) }()
	if _, err := store.LockNamespace(t.Context(), schema, "zeta"); err != nil {
		t.Fatal(err)
	}
	erased := make(chan error, 1)
	go func() {
		erased <- pgx.BeginFunc(t.Context(), h.db.Service(t), func(tx pgx.Tx) error {
			_, err := store.EraseTenant(t.Context(), tx, uid, "tenants/acme", time.Now())
			return err
		})
	}()
	for waiting := false; !waiting && t.Context().Err() == nil; {
		if err := h.super.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)`).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := schema.Exec(t.Context(), `SELECT FROM settings.namespace WHERE id = 'setting-kills' FOR UPDATE NOWAIT`); err != nil {
		t.Errorf("the kills are held by who waits for a namespace: %v (%s)", err, pg.Code(err))
	}
	_ = schema.Rollback(t.Context())
	if err := <-erased; err != nil {
		t.Error(err)
	}
}
