package settings

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"strings"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// wholeShare is how many parts a share is counted in.
const wholeShare = 10_000

// Rollout is a new content of one document and the tenants who have it. It is immutable.
type Rollout struct {
	// ID is the rollout's id. It alone, with a tenant's, decides in which order tenants come to the new content.
	ID tenant.UID
	// Namespace is the document's, and Kind its layer: LevelPlatform, LevelPlan, LevelRegion or LevelTenant. Owner is the
	// id of the plan or region, Tenant the tenant: its document holds for itself and, as their parent's, for its children.
	Namespace string
	Kind      Level
	Owner     string
	Tenant    tenant.UID
	// Share is the share of tenants that have the new content, in percent. Canaries have it at any share.
	Share    int
	Canaries map[tenant.UID]bool
	// Step counts the steps that have begun.
	Step int
	// Revision and Object are the new content.
	Revision int64
	Object   Object
}

// Has reports whether a tenant is on the side of the new content, where the rollout concerns it. The same tenants have
// it in all processes, and none of them loses it while the share grows.
func (r *Rollout) Has(uid tenant.UID) bool {
	if r.Canaries[uid] {
		return true
	}
	if r.Share <= 0 {
		return false
	}
	var seed [2 * len(uid)]byte
	copy(seed[:], r.ID[:])
	copy(seed[len(uid):], uid[:])
	sum := sha256.Sum256(seed[:])
	bucket, _ := bits.Mul64(binary.BigEndian.Uint64(sum[:]), wholeShare)
	return bucket < uint64(r.Share)*(wholeShare/100)
}

// level is where the rolling document stands for a reader with this parent; 0 if it does not concern the reader.
func (r *Rollout) level(who *Reader, parent tenant.UID) Level {
	switch {
	case r.Kind == LevelPlatform,
		r.Kind == LevelPlan && r.Owner == who.Plan,
		r.Kind == LevelRegion && r.Owner == who.Region,
		r.Kind == LevelTenant && r.Tenant == who.UID:
		return r.Kind
	case r.Kind == LevelTenant && r.Tenant == parent:
		return LevelParent
	default:
		return 0
	}
}

// For says where the rollout stands for a reader with this parent, nil if it does not concern the reader. A nil rollout
// concerns nobody.
func (r *Rollout) For(who Reader, parent tenant.UID) *Rolling {
	if r == nil {
		return nil
	}
	level := r.level(&who, parent)
	if level == 0 {
		return nil
	}
	out := &Rolling{Rollout: r, level: level, Next: r.Has(who.UID)}
	if out.Next {
		out.layer = Layer{Revision: r.Revision, Object: r.Object, Rollout: r.ID.String(), Name: out.name(who)}
	}
	return out
}

// Rolling is where a rollout stands for one reader.
type Rolling struct {
	// Rollout is the rollout.
	Rollout *Rollout
	// Next reports whether the reader has the new content in the place of the document's.
	Next bool

	level Level
	layer Layer // if Next
}

// Layer is the new content as the reader's layers have it; false for a reader without it.
func (r *Rolling) Layer() (l Layer, ok bool) {
	if r == nil || !r.Next {
		return l, false
	}
	return r.layer, true
}

// personal reports whether the rollout is of the reader's own document, whose layer has the reader's name.
func (r *Rolling) personal() bool { return r != nil && r.level == LevelTenant }

func (r *Rolling) name(who Reader) string {
	switch r.level {
	case LevelPlan:
		return LayerPlan(r.Rollout.Owner)
	case LevelRegion:
		return LayerRegion(r.Rollout.Owner)
	case LevelParent:
		return LayerParent
	case LevelTenant:
		return LayerTenant(who.name())
	default:
		return LayerPlatform
	}
}

// put puts the new content in the place of the document's, in layers from the platform's on.
func (r *Rolling) put(layers []*Layer) {
	if r != nil && r.Next {
		layers[r.level-LevelPlatform] = &r.layer
	}
}

var errRollout = errors.New("not a rollout")

// RolloutOf reads the feed's entry of a namespace's rollout.
func RolloutOf(namespace string, entry *configv1.SettingsEntry) (*Rollout, error) {
	from := entry.GetRollout()
	r := &Rollout{
		Namespace: namespace, Revision: entry.GetRevision(), Share: int(from.GetSharePercent()), Step: int(from.GetStep()),
		Canaries: make(map[tenant.UID]bool, len(from.GetCanaries())),
	}
	if copy(r.ID[:], from.GetId()) != len(from.GetId()) || len(from.GetId()) != len(r.ID) || r.Share < 0 || r.Share > 100 {
		return nil, errRollout
	}
	for _, c := range from.GetCanaries() {
		var uid tenant.UID
		if len(c) != len(uid) {
			return nil, errRollout
		}
		copy(uid[:], c)
		r.Canaries[uid] = true
	}
	if err := r.readKey(from.GetDocumentKey()); err != nil {
		return nil, err
	}
	var err error
	r.Object, err = Parse([]byte(entry.GetContent()))
	return r, err
}

// readKey reads the key of the document that the rollout is of.
func (r *Rollout) readKey(key string) error {
	parts := strings.Split(key, "/")
	if len(parts) < 3 || parts[0] != "doc" || parts[1] != r.Namespace {
		return errRollout
	}
	var err error
	switch {
	case parts[2] == "platform" && len(parts) == 3:
		r.Kind = LevelPlatform
	case len(parts) != 4 || parts[3] == "":
		err = errRollout
	case parts[2] == "plan":
		r.Kind, r.Owner = LevelPlan, parts[3]
	case parts[2] == "region":
		r.Kind, r.Owner = LevelRegion, parts[3]
	case parts[2] == "tenant":
		r.Kind = LevelTenant
		r.Tenant, err = tenant.ParseUID(parts[3])
	default:
		err = errRollout
	}
	return err
}

// decodeRollout reads the entry of a namespace's rollout.
func decodeRollout(in string, e feed.Entry) (edit, error) {
	var r *Rollout
	if !e.Deleted {
		entry := new(configv1.SettingsEntry)
		err := proto.Unmarshal(e.Value, entry)
		if err == nil {
			r, err = RolloutOf(in, entry)
		}
		if err != nil {
			return edit{}, fmt.Errorf("decode: %w", err)
		}
	}
	out := edit{namespace: in, rollout: true}
	var concerned []*Rollout // what it was before, and what it is
	out.apply = func(n *namespace) {
		if n.rollout != nil {
			concerned = append(concerned, n.rollout.Rollout)
		}
		n.roll(r)
		n.forget()
	}
	out.concerns = func(c *Change) {
		if r != nil {
			concerned = append(concerned, r)
		}
		for _, r := range concerned {
			switch r.Kind {
			case LevelPlan:
				add(&c.Plans, r.Owner)
			case LevelRegion:
				add(&c.Regions, r.Owner)
			case LevelTenant:
				c.of(r.Tenant)
			default:
				c.All = true
			}
		}
	}
	return out, nil
}
