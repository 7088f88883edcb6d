package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
)

const namespaceColumns = `id, uid::text, schema, approval_layers, approval_count, create_time, update_time, revision`

func scanNamespace(row pgx.Row) (*configv1.Namespace, error) {
	var id string
	var created, updated time.Time
	n, a := new(configv1.Namespace), new(configv1.NamespaceApproval)
	if err := row.Scan(&id, &n.Uid, &n.Schema, &a.Layers, &a.Count, &created, &updated, &n.Revision); err != nil {
		return nil, err
	}
	if a.GetCount() > 0 {
		n.Approval = a
	}
	n.Name = "namespaces/" + id
	n.CreateTime, n.UpdateTime = timestamppb.New(created), timestamppb.New(updated)
	n.Etag = etag.Of(n.GetUid(), n.GetRevision())
	return n, nil
}

// ReadNamespace returns a namespace. A missing one is a fault RESOURCE_NOT_FOUND.
func ReadNamespace(ctx context.Context, q Querier, id string) (*configv1.Namespace, error) {
	return readNamespace(ctx, q, id, "")
}

// LockNamespace returns a namespace and keeps all others from writing in it until the
// transaction ends. Whoever locks several does it in the order of [CompareLocks].
func LockNamespace(ctx context.Context, q Querier, id string) (*configv1.Namespace, error) {
	return readNamespace(ctx, q, id, " FOR UPDATE")
}

// CompareLocks compares the ids of namespaces by the order in which they are locked: by their bytes, and the kills of settings
// after all others. So a kill waits for the check of no large write, and what is killed can be looked up once the schema is
// known.
func CompareLocks(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == sdk.KillsNamespace:
		return 1
	case b == sdk.KillsNamespace:
		return -1
	default:
		return strings.Compare(a, b)
	}
}

func readNamespace(ctx context.Context, q Querier, id, lock string) (*configv1.Namespace, error) {
	n, err := scanNamespace(q.QueryRow(ctx, `SELECT `+namespaceColumns+` FROM settings.namespace WHERE id = $1`+lock, id))
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, notFound("namespaces/" + id)
	}
	if err != nil {
		return nil, fmt.Errorf("read a namespace: %w", err)
	}
	return n, nil
}

// ListNamespaces returns up to n namespaces whose ids come after the given one.
func ListNamespaces(ctx context.Context, q Querier, after string, n int) ([]*configv1.Namespace, error) {
	rows, err := q.Query(ctx, `SELECT `+namespaceColumns+` FROM settings.namespace WHERE id > $1 ORDER BY id LIMIT $2`, after, n)
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*configv1.Namespace, error) { return scanNamespace(row) })
}

// InsertNamespace makes a namespace. One that exists is a fault RESOURCE_EXISTS.
func InsertNamespace(ctx context.Context, q Querier, id string, n *configv1.Namespace) error {
	_, err := q.Exec(ctx, `INSERT INTO settings.namespace
			(uid, id, schema, create_time, update_time, revision, approval_layers, approval_count)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		n.GetUid(), id, n.GetSchema(), n.GetCreateTime().AsTime(), n.GetUpdateTime().AsTime(), n.GetRevision(),
		layersOf(n), n.GetApproval().GetCount())
	if pg.Code(err) == pg.CodeUniqueViolation {
		return fault.New(fault.AlreadyExists, fault.ReasonResourceExists, "namespaces/%s exists", id)
	}
	if err != nil {
		return fmt.Errorf("insert a namespace: %w", err)
	}
	return nil
}

// layersOf are the layers that need approval, never NULL.
func layersOf(n *configv1.Namespace) []string {
	return append([]string{}, n.GetApproval().GetLayers()...)
}

// UpdateNamespace writes a namespace's schema, approval rule, time and revision.
func UpdateNamespace(ctx context.Context, q Querier, n *configv1.Namespace) error {
	_, err := q.Exec(ctx, `UPDATE settings.namespace SET schema = $2, update_time = $3, revision = $4, approval_layers = $5,
			approval_count = $6 WHERE uid = $1`,
		n.GetUid(), n.GetSchema(), n.GetUpdateTime().AsTime(), n.GetRevision(), layersOf(n), n.GetApproval().GetCount())
	if err != nil {
		return fmt.Errorf("update a namespace: %w", err)
	}
	return nil
}

// DeleteNamespace removes a namespace. It is false when documents or secrets exist in it.
func DeleteNamespace(ctx context.Context, q Querier, uid string) (bool, error) {
	// What is left of deleted secrets goes with it: another namespace of that name has another uid.
	if _, err := q.Exec(ctx, `DELETE FROM secret.secret WHERE namespace_uid = $1 AND delete_time IS NOT NULL`, uid); err != nil {
		return false, fmt.Errorf("delete a namespace: %w", err)
	}
	tag, err := q.Exec(ctx, `DELETE FROM settings.namespace n WHERE uid = $1
		AND NOT EXISTS (SELECT FROM settings.document d WHERE d.namespace_uid = n.uid)
		AND NOT EXISTS (SELECT FROM secret.secret s WHERE s.namespace_uid = n.uid)`, uid)
	if err != nil {
		return false, fmt.Errorf("delete a namespace: %w", err)
	}
	return tag.RowsAffected() == 1, nil
}
