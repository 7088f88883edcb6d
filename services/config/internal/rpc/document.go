package rpc

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/mask"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// documentService serves DocumentService.
type documentService struct {
	configv1.UnimplementedDocumentServiceServer
	Config
}

// place finds out whose documents a name means, and whose chain the call belongs to.
func (s *documentService) place(tx *change.Tx, o settings.Owner) (store.Place, error) {
	p, err := s.locate(o)
	if err == nil && o.OfTenant() {
		tx.Tenant(p.Tenant.UID.String())
	}
	return p, err
}

// locate finds out whose documents a name means.
func (c Config) locate(o settings.Owner) (store.Place, error) {
	p := store.Place{Owner: o, ID: o.Name}
	if !o.OfTenant() {
		return p, nil
	}
	id, err := tenant.ParseID(o.Name)
	if err != nil {
		return p, err
	}
	state, ok := c.Trust.Find(id)
	if !ok {
		return p, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "%s does not exist", o)
	}
	return placeAt(o, state), nil
}

// placeAt is the place of a tenant's documents and secrets, or of one of its environments'.
func placeAt(o settings.Owner, state tenant.TenantState) store.Place {
	p := store.Place{Owner: o, ID: state.UID.String(), Tenant: state}
	if o.Kind == settings.Environment {
		p.ID = store.EnvironmentID(state.UID, o.Environment)
	}
	return p
}

// namespaceReader is store.ReadNamespace or store.LockNamespace.
type namespaceReader func(ctx context.Context, q store.Querier, id string) (*configv1.Namespace, error)

// named is place for the name of a document, with its namespace.
func (s *documentService) named(
	ctx context.Context, tx *change.Tx, field, name string, read namespaceReader,
) (store.Place, *configv1.Namespace, error) {
	tx.Audit(name)
	o, namespace, err := settings.ParseName(name)
	if err != nil {
		return store.Place{}, nil, badField(field, "is not the name of a document")
	}
	p, err := s.place(tx, o)
	if err != nil {
		return p, nil, err
	}
	n, err := read(ctx, tx, namespace)
	p.Namespace, p.NamespaceUID = namespace, n.GetUid()
	return p, n, err
}

// GetDocument implements rowhouse.config.v1.DocumentService.
func (s *documentService) GetDocument(ctx context.Context, req *configv1.GetDocumentRequest) (*configv1.GetDocumentResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.GetDocumentResponse, error) {
		p, _, err := s.named(ctx, tx, "name", req.GetName(), store.ReadNamespace)
		if err != nil {
			return nil, err
		}
		d, err := store.ReadDocument(ctx, tx, p)
		return &configv1.GetDocumentResponse{Document: d}, err
	})
}

// ListDocuments implements rowhouse.config.v1.DocumentService.
func (s *documentService) ListDocuments(ctx context.Context, req *configv1.ListDocumentsRequest) (*configv1.ListDocumentsResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.ListDocumentsResponse, error) {
		tx.Audit(req.GetParent())
		if kinds, tenant := settings.ParseWildcard(req.GetParent()); kinds != nil {
			return s.listAcross(ctx, tx, req, kinds, tenant)
		}
		o, err := settings.ParseOwner(req.GetParent())
		if err != nil {
			return nil, badField("parent", "is not the platform, a plan, a region, a tenant or one of its environments")
		}
		owner, err := s.place(tx, o)
		if err != nil {
			return nil, err
		}
		p, err := tx.Page(ctx, page.Query{Parent: req.GetParent(), Size: req.GetPageSize(), Token: req.GetPageToken()})
		if err != nil {
			return nil, err
		}
		p = few(p)
		found, err := store.ListDocuments(ctx, tx, owner, last(p), p.Limit())
		if err != nil {
			return nil, err
		}
		found, next, err := page.Cut(p, found, func(d *configv1.Document) []string {
			_, namespace, _ := settings.ParseName(d.GetName())
			return []string{namespace}
		})
		return &configv1.ListDocumentsResponse{Documents: found, NextPageToken: next}, err
	})
}

// ListDocumentRevisions implements rowhouse.config.v1.DocumentService.
func (s *documentService) ListDocumentRevisions(
	ctx context.Context, req *configv1.ListDocumentRevisionsRequest,
) (*configv1.ListDocumentRevisionsResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.ListDocumentRevisionsResponse, error) {
		where, _, err := s.named(ctx, tx, "parent", req.GetParent(), store.ReadNamespace)
		if err != nil {
			return nil, err
		}
		p, err := tx.Page(ctx, page.Query{Parent: req.GetParent(), Size: req.GetPageSize(), Token: req.GetPageToken()})
		if err != nil {
			return nil, err
		}
		p = few(p)
		before := int64(math.MaxInt64)
		if len(p.After) == 1 {
			if before, err = strconv.ParseInt(p.After[0], 10, 64); err != nil {
				return nil, err
			}
		}
		found, err := store.ListRevisions(ctx, tx, where, before, p.Limit())
		if err != nil {
			return nil, err
		}
		if len(found) == 0 && len(p.After) == 0 {
			return nil, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "%s does not exist", where)
		}
		found, next, err := page.Cut(p, found, func(d *configv1.Document) []string {
			return []string{strconv.FormatInt(d.GetRevision(), 10)}
		})
		return &configv1.ListDocumentRevisionsResponse{Documents: found, NextPageToken: next}, err
	})
}

// few bounds a page of documents or schemas by their number, which is what is read.
func few(p page.Page) page.Page {
	const most = 100
	p.Size = min(p.Size, most)
	return p
}

// UpdateDocument implements rowhouse.config.v1.DocumentService.
func (s *documentService) UpdateDocument(
	ctx context.Context, req *configv1.UpdateDocumentRequest,
) (*configv1.UpdateDocumentResponse, error) {
	verdict := s.askDocument(ctx, req.GetDocument().GetName())
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.UpdateDocumentResponse, error) {
		w, err := s.open(ctx, tx, "document.name", req.GetDocument().GetName(), req.GetDocument().GetEtag())
		if err != nil {
			return nil, err
		}
		if err := s.there(w.place.Owner); err != nil {
			return nil, err
		}
		if err := verdict.Settle(tx); err != nil {
			return nil, err
		}
		if !w.exists() && !req.GetAllowMissing() {
			return nil, w.missing()
		}
		changed, err := w.edit(req)
		if err != nil || !changed {
			return &configv1.UpdateDocumentResponse{Document: w.document}, err
		}
		tx.Audit(w.place.String(), "content")
		err = w.put(ctx, tx, req.GetReason())
		return &configv1.UpdateDocumentResponse{Document: w.document}, err
	})
}

// DiffDocument implements rowhouse.config.v1.DocumentService.
func (s *documentService) DiffDocument(ctx context.Context, req *configv1.DiffDocumentRequest) (*configv1.DiffDocumentResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.DiffDocumentResponse, error) {
		p, _, err := s.named(ctx, tx, "name", req.GetName(), store.ReadNamespace)
		if err != nil {
			return nil, err
		}
		before, err := revisionOf(ctx, tx, p, req.GetFromRevision())
		if err != nil {
			return nil, err
		}
		after, err := revisionOf(ctx, tx, p, req.GetToRevision())
		if err != nil {
			return nil, err
		}
		out := new(configv1.DiffDocumentResponse)
		for _, d := range sdk.Diff(before, after) {
			out.Differences = append(out.Differences, &configv1.LeafDifference{Pointer: d.Pointer, Before: d.Before, After: d.After})
		}
		return out, nil
	})
}

// revisionOf reads a document as it was, or with 0 as it is. One that is deleted is empty.
func revisionOf(ctx context.Context, q store.Querier, p store.Place, revision int64) (sdk.Object, error) {
	var content string
	var err error
	if revision > 0 {
		content, err = store.RevisionContent(ctx, q, p, revision)
	} else {
		var d *configv1.Document
		if d, err = store.ReadDocument(ctx, q, p); fault.KindOf(err) == fault.NotFound {
			err = nil
		}
		content = d.GetContent()
	}
	if err != nil || content == "" {
		return nil, err
	}
	return sdk.Parse([]byte(content))
}

// RollbackDocument implements rowhouse.config.v1.DocumentService.
func (s *documentService) RollbackDocument(
	ctx context.Context, req *configv1.RollbackDocumentRequest,
) (*configv1.RollbackDocumentResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.RollbackDocumentResponse, error) {
		w, err := s.open(ctx, tx, "name", req.GetName(), req.GetEtag())
		if err != nil {
			return nil, err
		}
		old, err := store.ReadRevision(ctx, tx, w.place, req.GetRevision())
		if err != nil {
			return nil, err
		}
		w.document.Content = old.GetContent()
		if w.object, err = sdk.Parse([]byte(old.GetContent())); err != nil {
			return nil, malformedField("revision", err)
		}
		tx.Audit(w.place.String(), "content")
		w.restores = true
		err = w.put(ctx, tx, req.GetReason())
		return &configv1.RollbackDocumentResponse{Document: w.document}, err
	})
}

// DeleteDocument implements rowhouse.config.v1.DocumentService.
func (s *documentService) DeleteDocument(
	ctx context.Context, req *configv1.DeleteDocumentRequest,
) (*configv1.DeleteDocumentResponse, error) {
	verdict := s.askDocument(ctx, req.GetName())
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.DeleteDocumentResponse, error) {
		w, err := s.open(ctx, tx, "name", req.GetName(), req.GetEtag())
		if err != nil {
			return nil, err
		}
		if !w.exists() {
			if req.GetAllowMissing() {
				return &configv1.DeleteDocumentResponse{}, nil
			}
			return nil, w.missing()
		}
		if err := verdict.Settle(tx); err != nil {
			return nil, err
		}
		return &configv1.DeleteDocumentResponse{}, w.remove(ctx, tx, req.GetReason())
	})
}

// write is a write of one document, under the lock of its namespace.
type write struct {
	place  store.Place
	before settings.State
	// tenant is the owner, when that is a tenant or one of its environments.
	tenant settings.Own
	// document is what stands now, and then what shall; without a revision it is new.
	document *configv1.Document
	object   sdk.Object
	// required is how many must approve what is written here; restores says that it was live before.
	required int
	restores bool
	// author, unless it is the caller.
	author string
	// running is the rollout that runs in the namespace, nil without one, and rolled what stands for tenants who have its
	// content already.
	running *store.Rollout
	rolled  *settings.State
}

// writable refuses documents that are written in other ways.
func writable(p store.Place) error {
	if p.Namespace == sdk.FlagKillsNamespace || p.Namespace == sdk.KillsNamespace {
		return refuse(fault.FailedPrecondition, namespaceInUse, "only kills and lifts write in namespaces/%s", p.Namespace)
	}
	return nil
}

// open locks what a write is about. A document that is missing is an empty one.
func (s *documentService) open(ctx context.Context, tx *change.Tx, field, name, given string) (*write, error) {
	p, n, err := s.named(ctx, tx, field, name, store.LockNamespace)
	if err != nil {
		return nil, err
	}
	if err := writable(p); err != nil {
		return nil, err
	}
	w, err := s.begin(ctx, tx, p, n)
	if err != nil {
		return nil, err
	}
	return w, etag.Check(given, w.document.GetEtag())
}

// begin reads what a write at p is about, in a namespace that is locked.
func (c Config) begin(ctx context.Context, tx *change.Tx, p store.Place, n *configv1.Namespace) (*write, error) {
	r, err := ruleOf(n)
	if err != nil {
		return nil, err
	}
	before, err := c.around(ctx, tx, n, p)
	if err != nil {
		return nil, err
	}
	w, err := c.beginIn(ctx, tx, p, before)
	if err != nil {
		return nil, err
	}
	w.required = r.Needs(p.Owner)
	return w, nil
}

// beginIn is begin where it is known what the write is judged by.
func (c Config) beginIn(ctx context.Context, tx *change.Tx, p store.Place, before settings.State) (w *write, err error) {
	w = &write{place: p, before: before}
	w.document, err = store.ReadDocument(ctx, tx, p)
	if fault.KindOf(err) == fault.NotFound {
		w.document, err = p.Missing(), nil
	}
	if err != nil {
		return nil, err
	}
	if p.Owner.Kind == settings.Tenant {
		c.adopt(w.before, p.Tenant.UID) // its document may be the first
	}
	w.tenant = c.own(p.Tenant)
	w.running, w.rolled, err = c.rolled(ctx, tx, &configv1.Namespace{Uid: p.NamespaceUID}, w.before)
	return w, err
}

func (w *write) exists() bool { return w.document.GetRevision() > 0 }

func (w *write) missing() error {
	return fault.New(fault.NotFound, fault.ReasonResourceNotFound, "%s does not exist", w.place)
}

// edit gives the document the content that a request wants, and says whether that is another.
func (w *write) edit(req *configv1.UpdateDocumentRequest) (changed bool, err error) {
	wanted, ok := proto.Clone(req.GetDocument()).(*configv1.Document)
	if !ok {
		return false, nil
	}
	current := cmp.Or(w.document.GetContent(), "{}")
	switch {
	case req.GetMergePatch() && req.GetJsonPatch():
		return false, badField("json_patch", "is set beside merge_patch")
	case req.GetMergePatch():
		w.object, wanted.Content, err = settings.Patched(current, wanted.GetContent())
	case req.GetJsonPatch():
		w.object, wanted.Content, err = settings.JSONPatched(current, wanted.GetContent())
	default:
		w.object, wanted.Content, err = settings.Content(wanted.GetContent())
	}
	if err != nil {
		return false, malformedField("document.content", err)
	}
	paths, err := mask.Apply(w.document, wanted, req.GetUpdateMask())
	if err != nil {
		return false, err
	}
	if len(paths) == 0 && !w.exists() {
		return false, badField("update_mask", "does not name the content of a document that is new")
	}
	return len(paths) > 0, nil
}

// as is the write as its namespace sees it; without a layer the document is removed.
func (w *write) as(layer *sdk.Layer) settings.Change {
	return settings.Change{Before: w.before, Owner: w.place.Owner, Layer: layer, Tenant: w.tenant}
}

// judge refuses the write if it would break an effective value, on either side of a rollout.
func (w *write) judge(layer *sdk.Layer) error {
	c := w.as(layer)
	if err := judge(c); err != nil || w.rolled == nil {
		return err
	}
	c.Before = *w.rolled
	return judge(c)
}

// check refuses a document that may not be live, or one that may not be gone. Whether somebody must approve it is not
// asked here.
func (w *write) check(ctx context.Context, tx *change.Tx, layer *sdk.Layer) error {
	if err := w.rolling(); err != nil {
		return err
	}
	if layer != nil {
		if err := judgeAssets(ctx, tx, w.place, layer.Object); err != nil {
			return err
		}
	}
	if err := w.judge(layer); err != nil || layer == nil {
		return err
	}
	return w.judgeReferences(ctx, tx)
}

// agreed refuses a write that somebody else must approve. What was live once may come back, and that is on record.
func (w *write) agreed(tx *change.Tx) error {
	if w.required > 0 && w.restores {
		tx.Audit(w.place.String(), "content.unapproved")
		return nil
	}
	return needsChange(w.place.String(), w.required)
}

// remark puts on record who lets colours pass that are hard to read.
func (w *write) remark(tx *change.Tx) {
	if w.place.Namespace == sdk.BrandNamespace && settings.HasExceptions(w.object) {
		tx.Audit(w.place.String(), "content.exceptions")
	}
}

// put checks, writes and publishes the document.
func (w *write) put(ctx context.Context, tx *change.Tx, reason string) error {
	if err := w.check(ctx, tx, &sdk.Layer{Object: w.object}); err != nil {
		return err
	}
	if err := w.agreed(tx); err != nil || tx.Call().ValidateOnly {
		return err
	}
	w.remark(tx)
	return w.commit(ctx, tx, reason)
}

// commit writes and publishes the document.
func (w *write) commit(ctx context.Context, tx *change.Tx, reason string) error {
	revision, err := store.Tick(ctx, tx)
	if err != nil {
		return err
	}
	w.document.Author, w.document.Reason = cmp.Or(w.author, tx.Call().Principal.Name), reason
	if err := store.Put(ctx, tx, w.place, w.document, revision, tx.Now()); err != nil {
		return err
	}
	return tx.Publish(sdk.FeedName, w.key(), &configv1.SettingsEntry{Content: w.document.GetContent(), Revision: revision})
}

// remove checks, deletes and publishes that.
func (w *write) remove(ctx context.Context, tx *change.Tx, reason string) error {
	if err := w.check(ctx, tx, nil); err != nil {
		return err
	}
	if err := w.agreed(tx); err != nil || tx.Call().ValidateOnly {
		return err
	}
	_, err := w.drop(ctx, tx, reason)
	return err
}

// drop deletes the document, publishes that and returns the revision.
func (w *write) drop(ctx context.Context, tx *change.Tx, reason string) (int64, error) {
	revision, err := store.Tick(ctx, tx)
	if err != nil {
		return 0, err
	}
	gone := &configv1.Document{Revision: revision, Author: cmp.Or(w.author, tx.Call().Principal.Name), Reason: reason}
	if err := store.Delete(ctx, tx, w.place, gone, tx.Now()); err != nil {
		return 0, err
	}
	return revision, tx.Publish(sdk.FeedName, w.key(), nil)
}

// key is the document's key in the feed.
func (w *write) key() string { return feedKey(w.place.Owner.Kind, w.place.Namespace, w.place.ID) }

// feedKey is the key in the feed of a document of a layer with this id.
func feedKey(kind settings.Kind, namespace, id string) string {
	switch kind {
	case settings.Plan:
		return sdk.PlanKey(namespace, id)
	case settings.Region:
		return sdk.RegionKey(namespace, id)
	case settings.Tenant:
		return sdk.TenantKey(namespace, id)
	case settings.Environment:
		uid, environment := store.CutEnvironment(id)
		return sdk.EnvironmentKey(namespace, uid, environment)
	default:
		return sdk.PlatformKey(namespace)
	}
}

// ExplainSettings implements rowhouse.config.v1.DocumentService.
func (s *documentService) ExplainSettings(
	ctx context.Context, req *configv1.ExplainSettingsRequest,
) (*configv1.ExplainSettingsResponse, error) {
	resp := new(configv1.ExplainSettingsResponse)
	failed := s.atOnce(ctx, func(ctx context.Context, q store.Querier) (err error) {
		resp, err = s.explain(ctx, q, req.GetName())
		return err
	})
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.ExplainSettingsResponse, error) {
		p, _, err := s.named(ctx, tx, "name", req.GetName(), store.ReadNamespace)
		if err != nil {
			return nil, err
		}
		if !p.Owner.OfTenant() {
			return nil, badField("name", "is not that of a tenant's settings")
		}
		return resp, failed
	})
}

// explain reads what holds for the tenant of a document, and who said so.
func (s *documentService) explain(ctx context.Context, q store.Querier, name string) (*configv1.ExplainSettingsResponse, error) {
	o, namespace, err := settings.ParseName(name)
	if err != nil {
		return nil, err
	}
	p, err := s.locate(o)
	if err != nil || !o.OfTenant() {
		return nil, err // the unit of work says so
	}
	n, err := store.ReadNamespace(ctx, q, namespace)
	if err != nil {
		return nil, err
	}
	p.Namespace, p.NamespaceUID = namespace, n.GetUid()
	stack, found, err := stackOf(ctx, q, n, readerOf(p), p.Tenant.ID)
	if err != nil {
		return nil, err
	}
	effective := effectiveOf(p.Namespace, stack, true)
	if effective.Content, err = explained(stack.Schema, effective.GetContent()); err != nil {
		return nil, err
	}
	return &configv1.ExplainSettingsResponse{Effective: effective, Layers: s.sources(p, stack, found)}, nil
}

// sources tells who wrote the layers of an effective value, the widest first.
func (s *documentService) sources(p store.Place, stack sdk.Stack, found []store.Written) []*configv1.LayerSource {
	var out []*configv1.LayerSource
	for _, l := range stack.Layers() {
		i := slices.IndexFunc(found, func(w store.Written) bool { return w.Layer.Name == l.Name })
		if i < 0 {
			continue // the schema's defaults
		}
		layer := l.Name
		if parent, ok := s.Trust.Tenant(p.Tenant.Parent); ok && layer == sdk.LayerParent {
			layer = sdk.LayerTenant(parent.ID.String())
		}
		w := found[i]
		out = append(out, &configv1.LayerSource{
			Layer: l.Name, Document: layer + "/config/" + p.Namespace, Revision: w.Layer.Revision, Author: w.Author, Reason: w.Reason,
			RevisionTime: timestamppb.New(w.Time),
		})
	}
	return out
}
