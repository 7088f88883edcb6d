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
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
)

// Place is where a document stands: in a namespace, at a layer.
type Place struct {
	// Owner is the owner as the caller named it.
	Owner settings.Owner
	// ID is '' for the platform, the id of the plan or region, the tenant's uid, or "{uid}/{environment}".
	ID string
	// Tenant is the owner that is a tenant or one of its environments, as things are now.
	Tenant tenant.TenantState
	// Namespace and NamespaceUID are the namespace.
	Namespace, NamespaceUID string
}

// String returns the document's name.
func (p Place) String() string { return p.Owner.Document(p.Namespace) }

// etag is the document's strong etag at a revision.
func (p Place) etag(revision int64) string {
	return etag.Of(p.NamespaceUID+"/"+string(p.Owner.Kind)+"/"+p.ID, revision)
}

const documentColumns = `coalesce(content, ''), author, reason, revision_time, revision`

func (p Place) scan(row pgx.Row) (*configv1.Document, error) {
	var at time.Time
	d := &configv1.Document{Name: p.String()}
	if err := row.Scan(&d.Content, &d.Author, &d.Reason, &at, &d.Revision); err != nil {
		return nil, err
	}
	p.stamp(d, d.GetRevision(), at)
	return d, nil
}

func (p Place) stamp(d *configv1.Document, revision int64, at time.Time) {
	d.Revision, d.Etag, d.RevisionTime = revision, p.etag(revision), timestamppb.New(at)
}

// Missing is what a write finds where there is no document. Its etag lets a caller of validate_only write the document
// later only if nobody else did.
func (p Place) Missing() *configv1.Document {
	return &configv1.Document{Name: p.String(), Etag: p.etag(0)}
}

// ReadDocument returns a document. A missing one is a fault RESOURCE_NOT_FOUND.
func ReadDocument(ctx context.Context, q Querier, p Place) (*configv1.Document, error) {
	return p.one(q.QueryRow(ctx, `SELECT `+documentColumns+` FROM settings.document
		WHERE namespace_uid = $1 AND layer = $2 AND layer_id = $3`, p.NamespaceUID, string(p.Owner.Kind), p.ID), p.String())
}

// ReadRevision returns a document as it was. What never was is a fault RESOURCE_NOT_FOUND, and so is a deletion.
func ReadRevision(ctx context.Context, q Querier, p Place, revision int64) (*configv1.Document, error) {
	return p.one(q.QueryRow(ctx, `SELECT `+documentColumns+` FROM settings.document_revision
		WHERE namespace_uid = $1 AND layer = $2 AND layer_id = $3 AND revision = $4 AND content IS NOT NULL`,
		p.NamespaceUID, string(p.Owner.Kind), p.ID, revision), p.revision(revision))
}

// RevisionContent returns the content of a document as it was, "" where it was deleted. What never was is a fault
// RESOURCE_NOT_FOUND.
func RevisionContent(ctx context.Context, q Querier, p Place, revision int64) (string, error) {
	d, err := p.one(q.QueryRow(ctx, `SELECT `+documentColumns+` FROM settings.document_revision
		WHERE namespace_uid = $1 AND layer = $2 AND layer_id = $3 AND revision = $4`,
		p.NamespaceUID, string(p.Owner.Kind), p.ID, revision), p.revision(revision))
	return d.GetContent(), err
}

func (p Place) one(row pgx.Row, what string) (*configv1.Document, error) {
	d, err := p.scan(row)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, notFound(what)
	}
	if err != nil {
		return nil, fmt.Errorf("read a document: %w", err)
	}
	return d, nil
}

// ForgetRevisions keeps the newest revisions of a document that its tenant wrote, so many, and all that operators did.
func ForgetRevisions(ctx context.Context, q Querier, p Place, keep int) error {
	const ofTenant = ` FROM settings.document_revision WHERE namespace_uid = $1 AND layer = $2 AND layer_id = $3 AND author LIKE 'tenant:%'`
	_, err := q.Exec(ctx, `DELETE`+ofTenant+` AND revision <= (SELECT revision`+ofTenant+` ORDER BY revision DESC OFFSET $4 LIMIT 1)`,
		p.NamespaceUID, string(p.Owner.Kind), p.ID, keep)
	if err != nil {
		return fmt.Errorf("forget revisions: %w", err)
	}
	return nil
}

// revision is how a refusal names a revision. Of a tenant it may be one that was forgotten.
func (p Place) revision(n int64) string {
	name := fmt.Sprintf("revision %d of %s", n, p)
	if p.Owner.Kind == settings.Tenant {
		name += " (of what a tenant writes itself the newest are kept, and older ones are forgotten)"
	}
	return name
}

// ListRevisions returns up to n revisions of a document, the newest first, that are older than before.
func ListRevisions(ctx context.Context, q Querier, p Place, before int64, n int) ([]*configv1.Document, error) {
	rows, err := q.Query(ctx, `SELECT `+documentColumns+` FROM settings.document_revision
		WHERE namespace_uid = $1 AND layer = $2 AND layer_id = $3 AND revision < $4 ORDER BY revision DESC LIMIT $5`,
		p.NamespaceUID, string(p.Owner.Kind), p.ID, before, n)
	if err != nil {
		return nil, fmt.Errorf("list revisions: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*configv1.Document, error) { return p.scan(row) })
}

// ListDocuments returns up to n documents of one owner, by namespaces that come after the given one.
func ListDocuments(ctx context.Context, q Querier, owner Place, after string, n int) ([]*configv1.Document, error) {
	rows, err := q.Query(ctx, `SELECT n.id, n.uid::text, d.content, d.author, d.reason, d.revision_time, d.revision
		FROM settings.document d JOIN settings.namespace n ON n.uid = d.namespace_uid
		WHERE d.layer = $1 AND d.layer_id = $2 AND n.id > $3 ORDER BY n.id LIMIT $4`,
		string(owner.Owner.Kind), owner.ID, after, n)
	if err != nil {
		return nil, fmt.Errorf("list documents: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*configv1.Document, error) {
		p := owner
		var at time.Time
		d := new(configv1.Document)
		err := row.Scan(&p.Namespace, &p.NamespaceUID, &d.Content, &d.Author, &d.Reason, &at, &d.Revision)
		d.Name = p.String()
		p.stamp(d, d.GetRevision(), at)
		return d, err
	})
}

// Put writes a document as it shall be, and its new revision.
func Put(ctx context.Context, q Querier, p Place, d *configv1.Document, revision int64, at time.Time) error {
	p.stamp(d, revision, at)
	_, err := q.Exec(ctx, `WITH written AS (
			INSERT INTO settings.document (namespace_uid, layer, layer_id, content, author, reason, revision_time, revision)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
			ON CONFLICT (namespace_uid, layer, layer_id) DO UPDATE SET content = excluded.content, author = excluded.author,
				reason = excluded.reason, revision_time = excluded.revision_time, revision = excluded.revision
			RETURNING namespace_uid, layer, layer_id, revision, content, author, reason, revision_time)
		INSERT INTO settings.document_revision (namespace_uid, layer, layer_id, revision, content, author, reason, revision_time)
		SELECT namespace_uid, layer, layer_id, revision, content, author, reason, revision_time FROM written`,
		p.NamespaceUID, string(p.Owner.Kind), p.ID, d.GetContent(), d.GetAuthor(), d.GetReason(), at, revision)
	if err != nil {
		return fmt.Errorf("write a document: %w", err)
	}
	return nil
}

// Delete removes a document and keeps that as a revision.
func Delete(ctx context.Context, q Querier, p Place, gone *configv1.Document, at time.Time) error {
	_, err := q.Exec(ctx, `WITH gone AS (
			DELETE FROM settings.document WHERE namespace_uid = $1 AND layer = $2 AND layer_id = $3
			RETURNING namespace_uid, layer, layer_id)
		INSERT INTO settings.document_revision (namespace_uid, layer, layer_id, revision, author, reason, revision_time)
		SELECT namespace_uid, layer, layer_id, $4, $5, $6, $7 FROM gone`,
		p.NamespaceUID, string(p.Owner.Kind), p.ID, gone.GetRevision(), gone.GetAuthor(), gone.GetReason(), at)
	if err != nil {
		return fmt.Errorf("delete a document: %w", err)
	}
	return nil
}

// Reader is whose settings are merged: a tenant as things are, in an environment or "".
type Reader struct {
	Plan, Region string
	// Parent is zero for a tenant without one.
	Parent, Tenant tenant.UID
	Environment    string
}

// Written is a document as it is merged, with who wrote it.
type Written struct {
	Kind           settings.Kind
	ID             string
	Author, Reason string
	Time           time.Time
	Layer          sdk.Layer
}

// Layers returns the documents of a namespace that hold for a reader. Their layers have no names yet.
func Layers(ctx context.Context, q Querier, namespaceUID string, r Reader) ([]Written, error) {
	k := keys{}
	k.add(settings.Platform, "")
	k.add(settings.Plan, r.Plan)
	k.add(settings.Region, r.Region)
	k.add(settings.Tenant, r.Tenant.String())
	if !r.Parent.IsZero() {
		k.add(settings.Tenant, r.Parent.String())
	}
	if r.Environment != "" {
		k.add(settings.Environment, EnvironmentID(r.Tenant, r.Environment))
	}
	rows, err := q.Query(ctx, `SELECT layer, layer_id, d.content, d.revision, d.author, d.reason, d.revision_time
		FROM unnest($2::text[], $3::text[]) AS k (layer, layer_id) JOIN settings.document d USING (layer, layer_id)
		WHERE d.namespace_uid = $1`, namespaceUID, k.layers, k.ids)
	if err != nil {
		return nil, fmt.Errorf("read documents: %w", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (w Written, err error) {
		var content string
		if err := row.Scan(&w.Kind, &w.ID, &content, &w.Layer.Revision, &w.Author, &w.Reason, &w.Time); err != nil {
			return w, err
		}
		w.Layer.Object, err = sdk.Parse([]byte(content))
		return w, err
	})
	if err != nil {
		return nil, fmt.Errorf("read documents: %w", err)
	}
	return found, nil
}

// EnvironmentID is the id of the layer of a tenant's environment.
func EnvironmentID(uid tenant.UID, environment string) string {
	return uid.String() + "/" + environment
}

// CutEnvironment takes an EnvironmentID apart.
func CutEnvironment(id string) (uid, environment string) {
	uid, environment, _ = strings.Cut(id, "/")
	return uid, environment
}

// keys names layers in two columns.
type keys struct{ layers, ids []string }

func (k *keys) add(layer settings.Kind, id string) {
	k.layers, k.ids = append(k.layers, string(layer)), append(k.ids, id)
}

// Scope says which documents of a namespace [EachText] reads. The zero value is all of them.
type Scope struct {
	// Plan and Region leave out the documents of other plans and regions.
	Plan, Region string
	// Tenants, unless it is nil, leaves out the documents of other tenants and of their environments.
	Tenants []tenant.UID
}

// EachText gives fn the documents of a namespace as they come from the database, and holds none of them. Documents of
// one layer with the same text come once, with the ids of all their owners.
func EachText(
	ctx context.Context, q Querier, namespaceUID string, s Scope, fn func(k settings.Kind, ids []string, text string) error,
) error {
	const all = `FROM settings.document WHERE namespace_uid = $1`
	// Each part finds its rows by an index, however many tenants have documents.
	const some = `FROM (SELECT layer, layer_id, content FROM settings.document
			WHERE namespace_uid = $1 AND layer IN ('platform', 'plan', 'region')
		UNION ALL SELECT layer, layer_id, content FROM settings.document
			WHERE namespace_uid = $1 AND layer = 'tenant' AND layer_id = ANY ($4)
		UNION ALL SELECT layer, layer_id, content FROM settings.document
			WHERE namespace_uid = $1 AND layer = 'environment' AND split_part(layer_id, '/', 1) = ANY ($4)) AS d WHERE true`
	from, args := all, []any{namespaceUID, s.Plan, s.Region}
	if s.Tenants != nil {
		uids := make([]string, 0, len(s.Tenants))
		for _, uid := range s.Tenants {
			uids = append(uids, uid.String())
		}
		from, args = some, append(args, uids)
	}
	rows, err := q.Query(ctx, `SELECT layer, array_agg(layer_id), content `+from+`
		AND ($2 = '' OR layer <> 'plan' OR layer_id = $2) AND ($3 = '' OR layer <> 'region' OR layer_id = $3)
		GROUP BY layer, content`, args...)
	if err != nil {
		return fmt.Errorf("read documents: %w", err)
	}
	var kind settings.Kind
	var ids []string
	var text string
	if _, err := pgx.ForEachRow(rows, []any{&kind, &ids, &text}, func() error { return fn(kind, ids, text) }); err != nil {
		return fmt.Errorf("read documents: %w", err)
	}
	return nil
}
