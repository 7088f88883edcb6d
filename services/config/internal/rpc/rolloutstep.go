package rpc

import (
	"context"
	"fmt"
	"time"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/rollout"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/webhook"
)

// lockAsSeen locks a rollout that was judged as it was seen. Judging takes its time, in which a halt is not to wait: whoever
// changed the rollout meanwhile goes first.
func lockAsSeen(ctx context.Context, tx *change.Tx, seen *store.Rollout) (*store.Rollout, error) {
	r, err := store.LockRollout(ctx, tx, seen.Namespace, seen.UID)
	if err != nil {
		return nil, err
	}
	return r, asSeen(r, seen)
}

func asSeen(r, seen *store.Rollout) error {
	if r.Version == seen.Version {
		return nil
	}
	return changedNow(r)
}

func changedNow(r *store.Rollout) error {
	return fault.New(fault.Aborted, fault.ReasonEtagMismatch, "%s was changed this moment: read it again", rolloutName(r.Namespace, r.UID))
}

// advance begins the next step of a rollout.
func (c Config) advance(ctx context.Context, tx *change.Tx, seen *store.Rollout) (*store.Rollout, error) {
	state, err := stateOfRollout(ctx, tx, seen, time.Time{})
	if err != nil {
		return nil, err
	}
	r, err := lockAsSeen(ctx, tx, seen)
	if err != nil {
		return nil, err
	}
	r.Baseline = state.NextBaseline()
	r.Step++
	r.StepTime = tx.Now()
	tx.Audit(rolloutName(r.Namespace, r.UID), "step")
	if err := store.UpdateRollout(ctx, tx, r); err != nil {
		return nil, err
	}
	if err := tell(ctx, tx, r, webhook.RolloutAdvanced); err != nil {
		return nil, err
	}
	return r, publishRollout(tx, r)
}

// tell has webhooks told of a step that a rollout takes.
func tell(ctx context.Context, tx *change.Tx, r *store.Rollout, eventType string) error {
	if tx.Call().ValidateOnly {
		return nil
	}
	layer, uid := string(r.Layer), ""
	switch r.Layer {
	case settings.Platform, settings.Environment:
	case settings.Tenant:
		uid = r.LayerID
	default:
		layer += "s/" + r.LayerID
	}
	of := webhook.Rollout{
		Name: rolloutName(r.Namespace, r.UID), Namespace: r.Namespace, Layer: layer, TenantUID: uid, Version: r.Version,
		Step: r.Step, Cause: r.Cause,
	}
	if r.State == store.RolloutRunning {
		of.SharePercent = r.Plan.Share(r.Step)
	}
	e, err := of.Event(eventType, tx.Now())
	if err != nil {
		return err
	}
	return store.Tell(ctx, tx, e)
}

// haltRollout takes the new content of a rollout that is locked from everybody.
func haltRollout(ctx context.Context, tx *change.Tx, r *store.Rollout, cause rollout.Cause, detail string) error {
	now := tx.Now()
	r.State, r.Cause, r.Detail, r.EndTime = store.RolloutHalted, string(cause), detail, &now
	tx.Audit(rolloutName(r.Namespace, r.UID), "state")
	if err := store.UpdateRollout(ctx, tx, r); err != nil || tx.Call().ValidateOnly {
		return err
	}
	if err := tell(ctx, tx, r, webhook.RolloutHalted); err != nil {
		return err
	}
	return tx.Publish(sdk.FeedName, sdk.RolloutKey(r.Namespace), nil)
}

// placeOf is where the document of a rollout stands.
func (c Config) placeOf(tx *change.Tx, r *store.Rollout) (store.Place, error) {
	o, _, err := settings.ParseName(r.Document)
	p := store.Place{Owner: o, ID: r.LayerID, Namespace: r.Namespace, NamespaceUID: r.NamespaceUID}
	if err != nil || o.Kind != settings.Tenant {
		return p, err
	}
	t, ok := c.tenant(r.LayerID)
	if !ok {
		return p, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "%s does not exist", o)
	}
	p.Tenant = t
	tx.Tenant(r.LayerID)
	return p, nil
}

// final is the write that makes the content of a rollout the document's. The namespace is locked, and the rollout not yet.
func (c Config) final(ctx context.Context, tx *change.Tx, n *configv1.Namespace, r *store.Rollout) (*write, error) {
	p, err := c.placeOf(tx, r)
	if err != nil {
		return nil, err
	}
	w, err := c.begin(ctx, tx, p, n)
	if err != nil {
		return nil, err
	}
	if n.GetUid() != r.NamespaceUID || w.document.GetRevision() != r.BaseRevision {
		return nil, ended(r, "was halted, and "+r.Document+" changed since")
	}
	w.document.Content = r.Content
	if w.object, err = sdk.Parse([]byte(r.Content)); err != nil {
		return nil, fmt.Errorf("the stored content of a rollout: %w", err)
	}
	if w.running != nil && w.running.UID != r.UID {
		return nil, runs(w.running)
	}
	w.running, w.rolled = nil, nil
	if err := w.check(ctx, tx, &sdk.Layer{Object: w.object}); err != nil {
		return nil, err
	}
	if w.required <= r.Approvals {
		return w, nil
	}
	return w, w.agreed(tx) // by a rule that is younger than the rollout
}

// resume begins anew with a halted rollout, by a roll call: processes that were started or mended since have not said that
// they can read it, and the share that it had reached may be where it did harm.
func (c Config) resume(ctx context.Context, tx *change.Tx, n *configv1.Namespace, seen *store.Rollout) (*store.Rollout, error) {
	if _, err := c.final(ctx, tx, n, seen); err != nil {
		return nil, err
	}
	r, err := lockAsSeen(ctx, tx, seen)
	if err != nil {
		return nil, err
	}
	r.State, r.Cause, r.Detail, r.EndTime, r.StepTime = store.RolloutRunning, "", "", nil, tx.Now()
	r.Step, r.Baseline = 0, nil
	tx.Audit(rolloutName(r.Namespace, r.UID), "state", "step")
	if err := store.DeleteReports(ctx, tx, r.UID); err != nil {
		return nil, err
	}
	if err := store.UpdateRollout(ctx, tx, r); err != nil {
		return nil, err
	}
	if err := tell(ctx, tx, r, webhook.RolloutStarted); err != nil {
		return nil, err
	}
	return r, publishRollout(tx, r)
}

// complete makes the content of a rollout the document's, unless it is refused by now: then the rollout halts.
func (c Config) complete(ctx context.Context, tx *change.Tx, n *configv1.Namespace, seen *store.Rollout) (*store.Rollout, error) {
	w, refused := c.final(ctx, tx, n, seen)
	refusal, ok := fault.As(refused)
	if refused != nil && (!ok || refusal.Kind == fault.Internal || refusal.Kind == fault.Unavailable) {
		return nil, refused
	}
	r, err := lockAsSeen(ctx, tx, seen)
	if err != nil {
		return nil, err
	}
	if refused != nil {
		return r, haltRollout(ctx, tx, r, rollout.Conflict, refusal.Error())
	}
	now := tx.Now()
	r.State, r.Detail, r.EndTime = store.RolloutCompleted, "", &now
	tx.Audit(rolloutName(r.Namespace, r.UID), "state")
	tx.Audit(r.Document, "content")
	if tx.Call().ValidateOnly {
		return r, nil
	}
	if err := tx.Publish(sdk.FeedName, sdk.RolloutKey(r.Namespace), nil); err != nil {
		return nil, err
	}
	w.author = r.Author
	if err := w.commit(ctx, tx, r.Reason); err != nil {
		return nil, err
	}
	r.CompletedRevision = w.document.GetRevision()
	if err := store.DeleteReports(ctx, tx, r.UID); err != nil {
		return nil, err
	}
	if err := store.UpdateRollout(ctx, tx, r); err != nil {
		return nil, err
	}
	return r, tell(ctx, tx, r, webhook.RolloutCompleted)
}

// stateOfRollout reads what is decided by. heard is from when on reports would have been heard.
func stateOfRollout(ctx context.Context, q store.Querier, r *store.Rollout, heard time.Time) (rollout.State, error) {
	reports, err := store.Reports(ctx, q, r.UID)
	return rollout.State{Plan: r.Plan, Step: r.Step, Since: r.StepTime, Heard: heard, Baseline: r.Baseline, Reports: reports}, err
}

// ReportRolloutHealth implements rowhouse.config.v1.RolloutService.
func (s *rolloutService) ReportRolloutHealth(
	ctx context.Context, req *configv1.ReportRolloutHealthRequest,
) (*configv1.ReportRolloutHealthResponse, error) {
	reporter, workload := req.GetReplica(), ""
	if id, ok := identity.FromPeer(ctx); ok {
		workload = id.String()
		reporter = workload + "/" + reporter
	}
	reports := make([]store.Reported, 0, len(req.GetReports()))
	for i, from := range req.GetReports() {
		r, err := reported(fmt.Sprintf("reports[%d].", i), from)
		if err != nil {
			return nil, err
		}
		r.Reporter, r.Workload, r.Instance, r.Leaving = reporter, workload, req.GetInstance(), req.GetLeaving()
		reports = append(reports, r)
	}
	for _, r := range reports {
		if err := store.PutReport(ctx, s.Pool, r); err != nil {
			return nil, pg.Fault(err)
		}
		if r.Quarantined != "" || r.Crashed {
			select {
			case s.Harm <- struct{}{}:
			default: // the worker is awake, or there is none in this process
			}
		}
	}
	return &configv1.ReportRolloutHealthResponse{}, nil
}

// reported reads one report, of whomever. field is before the names of its fields.
func reported(field string, from *configv1.RolloutReport) (store.Reported, error) {
	r := store.Reported{Namespace: from.GetNamespace(), Age: max(from.GetAppliedAge().AsDuration(), 0)}
	if id := from.GetRolloutId(); len(id) > 0 {
		var uid tenant.UID
		if len(id) != len(uid) {
			return r, badField(field+"rollout_id", "must have 16 bytes or none")
		}
		copy(uid[:], id)
		r.UID = uid.String()
	}
	r.Report = rollout.Report{
		Step: int(from.GetStep()), Quarantined: from.GetQuarantined(), Crashed: from.GetCrashed(),
		Next: countsOf(from.GetNext()), Current: countsOf(from.GetCurrent()),
	}
	if part, what := r.Next.Check(); what != "" {
		return r, badField(field+"next."+part, what)
	}
	if part, what := r.Current.Check(); what != "" {
		return r, badField(field+"current."+part, what)
	}
	return r, nil
}

func countsOf(t *configv1.RolloutTally) rollout.Counts {
	return rollout.Counts{Requests: t.GetRequests(), Errors: t.GetErrors(), Latency: t.GetLatency()}
}
