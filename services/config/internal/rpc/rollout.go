package rpc

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/hook"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/governance"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/rollout"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/webhook"
)

// rolloutService serves RolloutService.
type rolloutService struct {
	configv1.UnimplementedRolloutServiceServer
	Config

	documents *documentService
}

// rolloutName is the name of a rollout, "" without an id.
func rolloutName(namespace, uid string) string {
	if uid == "" {
		return ""
	}
	return "namespaces/" + namespace + "/rollouts/" + uid
}

// parseRollout reads the name of a rollout.
func parseRollout(name string) (namespace, uid string, err error) {
	namespace, uid, ok := strings.Cut(strings.TrimPrefix(name, "namespaces/"), "/rollouts/")
	if _, wrong := tenant.ParseUID(uid); !ok || wrong != nil {
		return "", "", badField("name", "is not the name of a rollout")
	}
	return namespace, uid, nil
}

// CreateRollout implements rowhouse.config.v1.RolloutService.
func (s *rolloutService) CreateRollout(
	ctx context.Context, req *configv1.CreateRolloutRequest,
) (*configv1.CreateRolloutResponse, error) {
	from := req.GetRollout()
	verdict := s.askDocument(ctx, from.GetDocument())
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.CreateRolloutResponse, error) {
		// A rollout is no way around permissions.
		if err := entitled(tx.Call().Principal, []*configv1.ChangeEdit{{Name: from.GetDocument()}}); err != nil {
			return nil, err
		}
		w, err := s.documents.open(ctx, tx, "rollout.document", from.GetDocument(), req.GetDocumentEtag())
		if err != nil {
			return nil, err
		}
		if err := s.there(w.place.Owner); err != nil {
			return nil, err
		}
		if err := verdict.Settle(tx); err != nil {
			return nil, err
		}
		changed, err := w.edit(&configv1.UpdateDocumentRequest{
			Document:   &configv1.Document{Name: from.GetDocument(), Content: from.GetContent()},
			MergePatch: req.GetMergePatch(), JsonPatch: req.GetJsonPatch(),
		})
		if err == nil && !changed {
			err = badField("rollout.content", "is what the document has already")
		}
		if err != nil {
			return nil, inRollout(err)
		}
		if err := w.agreed(tx); err != nil { // a rollout is no way around an approval
			return nil, err
		}
		r, err := s.plannedFor(w, from)
		if err != nil {
			return nil, err
		}
		if err := w.check(ctx, tx, &sdk.Layer{Object: w.object}); err != nil {
			return nil, inRollout(err)
		}
		r.Reason = req.GetReason()
		err = s.startRollout(ctx, tx, w, r)
		return &configv1.CreateRolloutResponse{Rollout: rolloutOf(r)}, err
	})
}

// inRollout says of a document's fields where they are in the request of a rollout.
func inRollout(err error) error {
	refusal, ok := fault.As(err)
	if !ok {
		return err
	}
	for i, f := range refusal.Fields {
		if rest, ok := strings.CutPrefix(f.Field, "document.content"); ok {
			refusal.Fields[i].Field = "rollout.content" + rest
		}
	}
	return refusal
}

// plannedFor is planned for a write in a namespace in which no rollout runs.
func (c Config) plannedFor(w *write, from *configv1.Rollout) (*store.Rollout, error) {
	if w.running != nil {
		return nil, runs(w.running)
	}
	return c.planned(w.place, from)
}

// startRollout begins a rollout that was planned for w, whose object and content are what it shall have. What a write of the
// document would be refused for was checked, and a reason given.
func (c Config) startRollout(ctx context.Context, tx *change.Tx, w *write, r *store.Rollout) error {
	w.remark(tx)
	uid, err := tenant.NewUID(c.Clock(), rand.Reader)
	if err != nil {
		return err
	}
	if !tx.Call().ValidateOnly { // revisions keep others waiting
		if r.Revision, err = store.Tick(ctx, tx); err != nil {
			return err
		}
	}
	r.UID, r.Content, r.BaseRevision = uid.String(), w.document.GetContent(), w.document.GetRevision()
	r.Author, r.CreateTime, r.StepTime = cmp.Or(w.author, tx.Call().Principal.Name), tx.Now(), tx.Now()
	r.State, r.Version = store.RolloutRunning, 1
	tx.Audit(rolloutName(r.Namespace, r.UID), "content", "steps")
	if err := store.InsertRollout(ctx, tx, r); err != nil {
		return err
	}
	if err := tell(ctx, tx, r, webhook.RolloutStarted); err != nil {
		return err
	}
	return publishRollout(tx, r)
}

// planned is a rollout of the document at p that goes as it is asked for.
func (c Config) planned(p store.Place, from *configv1.Rollout) (*store.Rollout, error) {
	if p.Owner.Kind == settings.Environment || p.Owner.Kind == settings.Tenant && len(c.Trust.Children(p.Tenant.UID)) == 0 {
		return nil, badField("rollout.document", "concerns one tenant; a rollout is for documents of the platform, of plans, "+
			"regions and tenants with children")
	}
	g := from.GetGuards()
	r := &store.Rollout{
		NamespaceUID: p.NamespaceUID, Namespace: p.Namespace, Layer: p.Owner.Kind, LayerID: p.ID, Document: p.String(),
		CanaryNames: append([]string{}, from.GetCanaries()...), Canaries: []string{},
		Plan: rollout.Plan{
			Steps: from.GetSteps(), Bake: rollout.DefaultBake, RequireRequests: g.GetRequireRequests(),
			ErrorPermille: cmp.Or(g.GetMaxErrorPermille(), rollout.DefaultErrors), P99Percent: cmp.Or(g.GetMaxP99Percent(), rollout.DefaultP99),
			Requests: int64(cmp.Or(g.GetMinRequests(), rollout.DefaultRequests)),
		},
	}
	if len(r.Plan.Steps) == 0 {
		r.Plan.Steps = rollout.DefaultSteps()
	}
	if what := rollout.CheckSteps(r.Plan.Steps); what != "" {
		return nil, badField("rollout.steps", what)
	}
	if from.GetBake() != nil {
		r.Plan.Bake = from.GetBake().AsDuration()
	}
	for _, name := range from.GetCanaries() {
		id, err := tenant.ParseID(strings.TrimPrefix(name, "tenants/"))
		if err != nil {
			return nil, badField("rollout.canaries", "must be names of tenants")
		}
		state, ok := c.Trust.Find(id)
		if !ok {
			return nil, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "%s does not exist", name)
		}
		r.Canaries = append(r.Canaries, state.UID.String())
	}
	return r, nil
}

// GetRollout implements rowhouse.config.v1.RolloutService.
func (s *rolloutService) GetRollout(ctx context.Context, req *configv1.GetRolloutRequest) (*configv1.GetRolloutResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.GetRolloutResponse, error) {
		r, err := s.named(ctx, tx, req.GetName(), store.ReadRollout)
		if err != nil {
			return nil, err
		}
		out := rolloutOf(r)
		state, err := stateOfRollout(ctx, tx, r, time.Time{})
		if err != nil {
			return nil, err
		}
		out.Health = healthOf(state.Health())
		if r.State == store.RolloutRunning {
			out.Detail = cmp.Or(state.Decide(tx.Now()).Detail, "goes on in a moment")
		}
		return &configv1.GetRolloutResponse{Rollout: out}, nil
	})
}

// named reads or locks the rollout of a name, which the call concerns.
func (s *rolloutService) named(
	ctx context.Context, tx *change.Tx, name string, read func(context.Context, store.Querier, string, string) (*store.Rollout, error),
) (*store.Rollout, error) {
	tx.Audit(name)
	namespace, uid, err := parseRollout(name)
	if err != nil {
		return nil, err
	}
	r, err := read(ctx, tx, namespace, uid)
	if err == nil && r.Layer == settings.Tenant {
		tx.Tenant(r.LayerID)
	}
	return r, err
}

// ListRollouts implements rowhouse.config.v1.RolloutService.
func (s *rolloutService) ListRollouts(ctx context.Context, req *configv1.ListRolloutsRequest) (*configv1.ListRolloutsResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.ListRolloutsResponse, error) {
		tx.Audit(req.GetParent())
		namespace := strings.TrimPrefix(req.GetParent(), "namespaces/")
		if namespace == "-" {
			namespace = ""
		} else if _, err := store.ReadNamespace(ctx, tx, namespace); err != nil {
			return nil, err
		}
		p, err := tx.Page(ctx, page.Query{Parent: req.GetParent(), Size: req.GetPageSize(), Token: req.GetPageToken()})
		if err != nil {
			return nil, err
		}
		found, err := store.ListRollouts(ctx, tx, namespace, cmp.Or(last(p), "ffffffff-ffff-ffff-ffff-ffffffffffff"), p.Limit())
		if err != nil {
			return nil, err
		}
		out := make([]*configv1.Rollout, 0, len(found))
		for _, r := range found {
			out = append(out, rolloutOf(r))
		}
		out, next, err := page.Cut(p, out, func(r *configv1.Rollout) []string {
			return []string{r.GetName()[strings.LastIndexByte(r.GetName(), '/')+1:]}
		})
		return &configv1.ListRolloutsResponse{Rollouts: out, NextPageToken: next}, err
	})
}

// AdvanceRollout implements rowhouse.config.v1.RolloutService.
func (s *rolloutService) AdvanceRollout(
	ctx context.Context, req *configv1.AdvanceRolloutRequest,
) (*configv1.AdvanceRolloutResponse, error) {
	verdict, asked, err := s.askToResume(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.AdvanceRolloutResponse, error) {
		namespace, _, err := parseRollout(req.GetName())
		if err != nil {
			return nil, err
		}
		n, err := store.LockNamespace(ctx, tx, namespace) // before the rollout, as everybody does
		if err != nil {
			return nil, err
		}
		r, err := s.named(ctx, tx, req.GetName(), store.ReadRollout) // which is locked once it is judged
		if err != nil {
			return nil, err
		}
		if err := etag.Check(req.GetEtag(), rolloutEtag(r)); err != nil {
			return nil, err
		}
		switch {
		case r.State == store.RolloutCompleted:
			err = ended(r, "is completed")
		case hurries(r, tx.Call().Principal.Name):
			err = refuse(fault.PermissionDenied, governance.ReasonSelfApproval, "who wrote what was approved may not go on without waiting")
		case r.State == store.RolloutHalted && !asked:
			err = changedNow(r) // it was halted since hooks would have been asked
		case r.State == store.RolloutHalted:
			if err = verdict.Settle(tx); err == nil {
				r, err = s.resume(ctx, tx, n, r)
			}
		case r.Step >= len(r.Plan.Steps):
			r, err = s.complete(ctx, tx, n, r)
		default:
			r, err = s.advance(ctx, tx, r)
		}
		if err != nil {
			return nil, err
		}
		return &configv1.AdvanceRolloutResponse{Rollout: rolloutOf(r)}, nil
	})
}

// askToResume asks hooks about the document of a halted rollout: what begins anew is published, as at its beginning. Of
// another rollout nothing is asked.
func (s *rolloutService) askToResume(ctx context.Context, name string) (v hook.Verdict, asked bool, err error) {
	namespace, uid, err := parseRollout(name)
	if err != nil {
		return v, false, nil //nolint:nilerr // the unit of work says so
	}
	r, err := store.ReadRollout(ctx, s.Pool, namespace, uid)
	switch {
	case fault.KindOf(err) == fault.NotFound:
		return v, false, nil // as above
	case err != nil:
		return v, false, pg.Fault(err)
	case r.State != store.RolloutHalted:
		return v, false, nil
	}
	return s.askDocument(ctx, r.Document), true, nil
}

// HaltRollout implements rowhouse.config.v1.RolloutService. It locks the rollout alone, with which nobody judges anything
// or waits for a namespace.
func (s *rolloutService) HaltRollout(ctx context.Context, req *configv1.HaltRolloutRequest) (*configv1.HaltRolloutResponse, error) {
	return change.DoUrgently(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.HaltRolloutResponse, error) {
		r, err := s.named(ctx, tx, req.GetName(), store.LockRollout)
		if err != nil {
			return nil, err
		}
		if err := etag.Check(req.GetEtag(), rolloutEtag(r)); err != nil {
			return nil, err
		}
		switch r.State {
		case store.RolloutCompleted:
			return nil, ended(r, "is completed; roll its document back instead")
		case store.RolloutRunning:
			err = haltRollout(ctx, tx, r, rollout.Operator, tx.Call().Principal.Name+": "+req.GetReason())
		}
		return &configv1.HaltRolloutResponse{Rollout: rolloutOf(r)}, err
	})
}

// runs refuses what a running rollout is in the way of.
func runs(r *store.Rollout) error {
	name := rolloutName(r.Namespace, r.UID)
	return refuse(fault.FailedPrecondition, rolloutRunning, "%s of %s runs; halt it, or wait until it is completed", name, r.Document).
		WithMetadata("rollout", name)
}

func ended(r *store.Rollout, why string) error {
	return refuse(fault.FailedPrecondition, rolloutEnded, "%s %s", rolloutName(r.Namespace, r.UID), why)
}

// rolling refuses to write the document of a running rollout.
func (w *write) rolling() error {
	if r := w.running; r != nil && r.Layer == w.place.Owner.Kind && r.LayerID == w.place.ID {
		return runs(r)
	}
	return nil
}

func rolloutEtag(r *store.Rollout) string { return etag.Of(r.UID, r.Version) }

// rolloutOf is a rollout on the wire.
func rolloutOf(r *store.Rollout) *configv1.Rollout {
	out := &configv1.Rollout{
		Name: rolloutName(r.Namespace, r.UID), Document: r.Document, Content: r.Content, Steps: r.Plan.Steps, Canaries: r.CanaryNames,
		Bake: durationpb.New(r.Plan.Bake), Guards: &configv1.RolloutGuards{
			MaxErrorPermille: r.Plan.ErrorPermille, MaxP99Percent: r.Plan.P99Percent, RequireRequests: r.Plan.RequireRequests,
			MinRequests: int32(r.Plan.Requests), //nolint:gosec // came as one
		},
		State: configv1.RolloutState(configv1.RolloutState_value["ROLLOUT_STATE_"+r.State]), Step: int32(r.Step), //nolint:gosec // at most 20
		Detail: r.Detail, BaseRevision: r.BaseRevision, Author: r.Author, Reason: r.Reason, CompletedRevision: r.CompletedRevision,
		CreateTime: timestamppb.New(r.CreateTime), StepTime: timestamppb.New(r.StepTime), Revision: r.Revision, Etag: rolloutEtag(r),
	}
	if r.Cause != "" {
		out.Halt = configv1.RolloutHalt(configv1.RolloutHalt_value["ROLLOUT_HALT_"+r.Cause])
	}
	if r.State == store.RolloutRunning {
		out.SharePercent = r.Plan.Share(r.Step)
	}
	if r.EndTime != nil {
		out.EndTime = timestamppb.New(*r.EndTime)
	}
	return out
}

func healthOf(h rollout.Health) *configv1.RolloutHealth {
	side := func(c rollout.Counts) *configv1.RolloutOutcomes {
		out := &configv1.RolloutOutcomes{Requests: c.Requests, Errors: c.Errors}
		if p99 := c.P99(); p99 > 0 {
			out.P99 = durationpb.New(p99)
		}
		return out
	}
	return &configv1.RolloutHealth{
		Reporters: int32(h.Reporters), Applied: int32(h.Applied), Next: side(h.Next), Current: side(h.Current), //nolint:gosec // processes
	}
}

// entryOf is what consumers are told of a rollout that runs.
func entryOf(r *store.Rollout) (*configv1.SettingsEntry, error) {
	uid, err := tenant.ParseUID(r.UID)
	if err != nil {
		return nil, fmt.Errorf("the stored id of a rollout: %w", err)
	}
	entry := &configv1.RolloutEntry{
		Id: uid[:], DocumentKey: feedKey(r.Layer, r.Namespace, r.LayerID), SharePercent: r.Plan.Share(r.Step),
		Step: int32(r.Step), //nolint:gosec // at most 20
	}
	for _, text := range r.Canaries {
		canary, err := tenant.ParseUID(text)
		if err != nil {
			return nil, fmt.Errorf("the stored canaries of a rollout: %w", err)
		}
		if r.Step > 0 {
			entry.Canaries = append(entry.Canaries, canary[:])
		}
	}
	return &configv1.SettingsEntry{Content: r.Content, Revision: r.Revision, Rollout: entry}, nil
}

func publishRollout(tx *change.Tx, r *store.Rollout) error {
	if tx.Call().ValidateOnly {
		return nil
	}
	entry, err := entryOf(r)
	if err != nil {
		return err
	}
	return tx.Publish(sdk.FeedName, sdk.RolloutKey(r.Namespace), entry)
}

// rolled returns the rollout that runs in a namespace, nil without one, and what stands for tenants who have its content.
func (c Config) rolled(
	ctx context.Context, q store.Querier, n *configv1.Namespace, s settings.State,
) (*store.Rollout, *settings.State, error) {
	r, err := store.RunningRollout(ctx, q, n.GetUid())
	if r == nil || err != nil {
		return nil, nil, err
	}
	o, _, err := settings.ParseName(r.Document)
	if err != nil {
		return nil, nil, fmt.Errorf("the stored document of a rollout: %w", err)
	}
	object, err := sdk.Parse([]byte(r.Content))
	if err != nil {
		return nil, nil, fmt.Errorf("the stored content of a rollout: %w", err)
	}
	var own settings.Own
	if o.Kind == settings.Tenant {
		t, ok := c.tenant(r.LayerID)
		if !ok {
			return r, nil, nil // it is gone for good, and nobody has its content
		}
		c.adopt(s, t.UID)
		own = c.own(t)
	}
	rolled := s.Rolled(o, &sdk.Layer{Object: object}, own)
	return r, &rolled, nil
}

// rollingOf says where the rollout that runs in a namespace stands for a reader, and puts its content among what was found
// for the reader.
func rollingOf(
	ctx context.Context, q store.Querier, n *configv1.Namespace, who store.Reader, id tenant.ID, found []store.Written,
) (*sdk.Rolling, []store.Written, error) {
	r, err := store.RunningRollout(ctx, q, n.GetUid())
	if r == nil || err != nil {
		return nil, found, err
	}
	entry, err := entryOf(r)
	if err != nil {
		return nil, found, err
	}
	running, err := sdk.RolloutOf(r.Namespace, entry)
	if err != nil {
		return nil, found, fmt.Errorf("the stored rollout: %w", err)
	}
	rolling := running.For(sdk.Reader{UID: who.Tenant, ID: id, Plan: who.Plan, Region: who.Region, Environment: who.Environment}, who.Parent)
	layer, ok := rolling.Layer()
	if !ok {
		return rolling, found, nil
	}
	w := store.Written{Kind: r.Layer, ID: r.LayerID, Author: r.Author, Reason: r.Reason, Time: r.CreateTime, Layer: layer}
	out := []store.Written{w}
	for _, f := range found {
		if f.Layer.Name != layer.Name {
			out = append(out, f)
		}
	}
	return rolling, out, nil
}

// sideOf is where a rollout stands for a tenant, on the wire.
func sideOf(r *sdk.Rolling) *configv1.RolloutSide {
	if r == nil {
		return nil
	}
	document := map[sdk.Level]string{
		sdk.LevelPlatform: sdk.LayerPlatform, sdk.LevelPlan: sdk.LayerPlan(r.Rollout.Owner), sdk.LevelRegion: sdk.LayerRegion(r.Rollout.Owner),
		sdk.LevelTenant: sdk.LayerParent,
	}[r.Rollout.Kind]
	return &configv1.RolloutSide{
		Rollout: rolloutName(r.Rollout.Namespace, r.Rollout.ID.String()), Document: document + "/config/" + r.Rollout.Namespace, Next: r.Next,
		SharePercent: int32(r.Rollout.Share), //nolint:gosec // at most 100
	}
}

// besideRollout judges a change of a namespace's schema by what holds for the tenants on the new side of a rollout, and refuses
// another approval rule while one runs.
func (c Config) besideRollout(
	ctx context.Context, q store.Querier, n, next *configv1.Namespace, to settings.Change, judge func(settings.Change) error,
) error {
	r, rolled, err := c.rolled(ctx, q, n, to.Before)
	if err != nil || r == nil {
		return err
	}
	if !proto.Equal(n.GetApproval(), next.GetApproval()) {
		return runs(r)
	}
	if rolled == nil {
		return nil
	}
	to.Before = *rolled
	return judge(to)
}
