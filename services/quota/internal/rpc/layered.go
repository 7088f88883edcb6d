package rpc

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/mask"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/meter"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/store"
)

// resource is what is set layer by layer.
type resource interface {
	proto.Message
	GetName() string
	GetUid() string
	GetEtag() string
	GetRevision() int64
}

// kept is the store of such resources.
type kept[M resource] interface {
	Read(ctx context.Context, q store.Querier, p store.Place, id string) (M, error)
	Lock(ctx context.Context, q store.Querier, p store.Place, id string) (M, error)
	List(ctx context.Context, q store.Querier, p store.Place, after string, n int) ([]M, error)
	Put(ctx context.Context, q store.Querier, p store.Place, id string, m M) error
	Stamp(ctx context.Context, q store.Querier, p store.Place, id string, revision int64) error
	Delete(ctx context.Context, q store.Querier, p store.Place, id string) error
}

// layered are the calls that administer such resources.
type layered[M resource] struct {
	Config

	store kept[M]
	// collection is their part of names, "quotas".
	collection string
	// create makes a new one.
	create func(name, uid string, now time.Time) M
	// complete fills in defaults, checks the fields against each other, and notes when it changed.
	complete func(m M, now time.Time) error
	// stamped notes the revision of a change.
	stamped func(m M, revision int64, etag string)
}

// place finds out whose layer a name means, has the transaction see its rows, and says whose chain the call belongs to.
func (c Config) layerPlace(ctx context.Context, tx *change.Tx, o meter.Owner) (store.Place, error) {
	p := store.Place{Owner: o, ID: o.Name}
	if o.Layer != meter.Tenant {
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
	p.ID = state.UID.String()
	tx.Tenant(p.ID)
	return p, store.AsTenant(ctx, tx, state.UID)
}

// named is layerPlace for the name of a resource.
func (l layered[M]) named(ctx context.Context, tx *change.Tx, name string) (p store.Place, id string, err error) {
	tx.Audit(name)
	owner, id, ok := strings.Cut(name, "/"+l.collection+"/")
	o, err := meter.ParseOwner(owner)
	const most = 63
	if !ok || err != nil || id == "" || len(id) > most || strings.Contains(id, "/") {
		return p, "", badField("name", "is not a name in "+l.collection)
	}
	p, err = l.layerPlace(ctx, tx, o)
	return p, id, err
}

func (l layered[M]) get(ctx context.Context, tx *change.Tx, name string) (m M, err error) {
	p, id, err := l.named(ctx, tx, name)
	if err != nil {
		return m, err
	}
	return l.store.Read(ctx, tx, p, id)
}

// listing asks for a page.
type listing interface {
	GetParent() string
	GetPageSize() int32
	GetPageToken() string
}

func (l layered[M]) list(ctx context.Context, tx *change.Tx, req listing) (found []M, next string, err error) {
	tx.Audit(req.GetParent())
	o, err := meter.ParseOwner(req.GetParent())
	if err != nil {
		return nil, "", badField("parent", "is not the platform, a plan or a tenant")
	}
	place, err := l.layerPlace(ctx, tx, o)
	if err != nil {
		return nil, "", err
	}
	p, err := tx.Page(ctx, page.Query{Parent: place.ID, Filter: string(o.Layer), Size: req.GetPageSize(), Token: req.GetPageToken()})
	if err != nil {
		return nil, "", err
	}
	after := ""
	if len(p.After) == 1 {
		after = p.After[0]
	}
	if found, err = l.store.List(ctx, tx, place, after, p.Limit()); err != nil {
		return nil, "", err
	}
	return page.Cut(p, found, func(m M) []string { return []string{lastPart(m.GetName())} })
}

func lastPart(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

// update sets a resource, and makes it where it is missing and may be.
func (l layered[M]) update(ctx context.Context, tx *change.Tx, want M, paths *fieldmaskpb.FieldMask, allowMissing bool) (m M, err error) {
	p, id, err := l.named(ctx, tx, want.GetName())
	if err != nil {
		return m, err
	}
	m, err = l.store.Lock(ctx, tx, p, id)
	if fault.KindOf(err) == fault.NotFound && allowMissing {
		uid, uidErr := tenant.NewUID(l.Clock(), rand.Reader)
		if uidErr != nil {
			return m, uidErr
		}
		m, err = l.create(want.GetName(), uid.String(), tx.Now()), nil
	}
	if err != nil {
		return m, err
	}
	if err := etag.Check(want.GetEtag(), m.GetEtag()); err != nil {
		return m, err
	}
	changed, err := mask.Apply(m, want, paths)
	if err != nil || len(changed) == 0 && m.GetRevision() > 0 {
		return m, err
	}
	tx.Audit(want.GetName(), changed...)
	if err := l.complete(m, tx.Now()); err != nil {
		return m, err
	}
	if err := l.store.Put(ctx, tx, p, id, m); err != nil {
		return m, err
	}
	l.stamped(m, m.GetRevision(), etag.Of(m.GetUid(), m.GetRevision()))
	tx.OnRevision(func(ctx context.Context, revision int64) error {
		l.stamped(m, revision, etag.Of(m.GetUid(), revision))
		return l.store.Stamp(ctx, tx, p, id, revision)
	})
	return m, nil
}

// deletion names what is to be removed.
type deletion interface {
	GetName() string
	GetEtag() string
	GetAllowMissing() bool
}

func (l layered[M]) remove(ctx context.Context, tx *change.Tx, req deletion) error {
	p, id, err := l.named(ctx, tx, req.GetName())
	if err != nil {
		return err
	}
	m, err := l.store.Lock(ctx, tx, p, id)
	if fault.KindOf(err) == fault.NotFound && req.GetAllowMissing() {
		return nil
	}
	if err != nil {
		return err
	}
	if err := etag.Check(req.GetEtag(), m.GetEtag()); err != nil {
		return err
	}
	return l.store.Delete(ctx, tx, p, id)
}
