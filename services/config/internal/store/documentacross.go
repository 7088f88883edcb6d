package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
)

// Row is a document of any layer. It has no name yet, which needs to know tenants.
type Row struct {
	// Kind and ID are the layer, as in [Place].
	Kind settings.Kind
	ID   string
	// Namespace is the id of its namespace.
	Namespace string
	Document  *configv1.Document

	namespaceUID string
}

// Key is the row's place in the list.
func (r Row) Key() []string { return []string{r.namespaceUID, string(r.Kind), r.ID} }

// ListAcross returns up to n documents of layers of these kinds that come after the one with the given key. Unless it is
// "", uid leaves out all but the environments of that tenant.
func ListAcross(ctx context.Context, q Querier, kinds []settings.Kind, uid string, after []string, n int) ([]Row, error) {
	if len(after) == 0 {
		after = []string{"00000000-0000-0000-0000-000000000000", "", ""}
	}
	layers := make([]string, len(kinds))
	for i, k := range kinds {
		layers[i] = string(k)
	}
	which, arg := `d.layer = ANY ($1)`, any(layers)
	if uid != "" { // in each namespace there is an index of just these
		which, arg = `d.layer = 'environment' AND split_part(d.layer_id, '/', 1) = $1`, uid
	}
	rows, err := q.Query(ctx, `SELECT n.id, n.uid::text, d.layer, d.layer_id, d.content, d.author, d.reason, d.revision_time, d.revision
		FROM settings.document d JOIN settings.namespace n ON n.uid = d.namespace_uid
		WHERE `+which+` AND (d.namespace_uid, d.layer, d.layer_id) > ($2::uuid, $3, $4)
		ORDER BY d.namespace_uid, d.layer, d.layer_id LIMIT $5`, arg, after[0], after[1], after[2], n)
	if err != nil {
		return nil, fmt.Errorf("list documents: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Row, error) {
		var at time.Time
		d := new(configv1.Document)
		r := Row{Document: d}
		err := row.Scan(&r.Namespace, &r.namespaceUID, &r.Kind, &r.ID, &d.Content, &d.Author, &d.Reason, &at, &d.Revision)
		p := Place{Owner: settings.Owner{Kind: r.Kind}, ID: r.ID, NamespaceUID: r.namespaceUID}
		p.stamp(d, d.GetRevision(), at)
		return r, err
	})
}
