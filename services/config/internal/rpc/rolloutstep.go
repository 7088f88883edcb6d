package rpc

import (
	"context"
	"fmt"
	"time"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/rollout"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// rolloutPoll is how often each replica looks whether a rollout is due.
const rolloutPoll = time.Second

// advance begins the next step of a rollout that is locked.
func (c Config) advance(ctx context.Context, tx *change.Tx, r *store.Rollout) error {
	state, err := stateOfRollout(ctx, tx, r, time.Time{})
	if err != nil {
		return err
	}
	r.Baseline = state.NextBaseline()
	r.Step++
	r.StepTime = tx.Now()
	tx.Audit(rolloutName(r.Namespace, r.UID), "step")
	if err := store.UpdateRollout(ctx, tx, r); err != nil {
		return err
	}
	return publishRollout(tx, r)
}

// haltRollout takes the new content of a rollout that is locked from everybody.
func haltRollout(ctx context.Context, tx *change.Tx, r *store.Rollout, cause rollout.Cause, detail string) error {
	now := tx.Now()
	r.State, r.Cause, r.Detail, r.EndTime = store.RolloutHalted, string(cause), detail, &now
	tx.Audit(rolloutName(r.Namespace, r.UID), "state")
	if err := store.UpdateRollout(ctx, tx, r); err != nil || tx.Call().ValidateOnly {
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

// final is the write that makes the content of a rollout the document's. The namespace is locked, and then the rollout.
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
	return w, w.agreed(tx) // by a rule that may be younger than the rollout
}

// resume goes on with a halted rollout.
func (c Config) resume(ctx context.Context, tx *change.Tx, n *configv1.Namespace, r *store.Rollout) error {
	if _, err := c.final(ctx, tx, n, r); err != nil {
		return err
	}
	r.State, r.Cause, r.Detail, r.EndTime, r.StepTime = store.RolloutRunning, "", "", nil, tx.Now()
	tx.Audit(rolloutName(r.Namespace, r.UID), "state")
	if err := store.DeleteReports(ctx, tx, r.UID); err != nil {
		return err
	}
	if err := store.UpdateRollout(ctx, tx, r); err != nil {
		return err
	}
	return publishRollout(tx, r)
}

// complete makes the content of a rollout the document's, unless it is refused by now: then the rollout halts.
func (c Config) complete(ctx context.Context, tx *change.Tx, n *configv1.Namespace, r *store.Rollout) error {
	w, err := c.final(ctx, tx, n, r)
	if refusal, ok := fault.As(err); ok && refusal.Kind != fault.Internal && refusal.Kind != fault.Unavailable {
		return haltRollout(ctx, tx, r, rollout.Conflict, refusal.Error())
	}
	if err != nil {
		return err
	}
	now := tx.Now()
	r.State, r.Detail, r.EndTime = store.RolloutCompleted, "", &now
	tx.Audit(rolloutName(r.Namespace, r.UID), "state")
	tx.Audit(r.Document, "content")
	if tx.Call().ValidateOnly {
		return nil
	}
	if err := tx.Publish(sdk.FeedName, sdk.RolloutKey(r.Namespace), nil); err != nil {
		return err
	}
	w.author = r.Author
	if err := w.commit(ctx, tx, r.Reason); err != nil {
		return err
	}
	r.CompletedRevision = w.document.GetRevision()
	if err := store.DeleteReports(ctx, tx, r.UID); err != nil {
		return err
	}
	return store.UpdateRollout(ctx, tx, r)
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
	reporter := req.GetReplica()
	if id, ok := identity.FromPeer(ctx); ok {
		reporter = id.String() + "/" + reporter
	}
	for i, from := range req.GetReports() {
		r := store.Reported{Namespace: from.GetNamespace(), Instance: req.GetInstance(), Age: max(from.GetAppliedAge().AsDuration(), 0)}
		if id := from.GetRolloutId(); len(id) > 0 {
			var uid tenant.UID
			if len(id) != len(uid) {
				return nil, badField(fmt.Sprintf("reports[%d].rollout_id", i), "must have 16 bytes or none")
			}
			copy(uid[:], id)
			r.UID = uid.String()
		}
		r.Report = rollout.Report{
			Reporter: reporter, Step: int(from.GetStep()), Left: req.GetLeaving(), Quarantined: from.GetQuarantined(), Crashed: from.GetCrashed(),
			Next: countsOf(from.GetNext()), Current: countsOf(from.GetCurrent()),
		}
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

func countsOf(t *configv1.RolloutTally) rollout.Counts {
	return rollout.Counts{Requests: t.GetRequests(), Errors: t.GetErrors(), Latency: t.GetLatency()}
}

// RolloutWorker has rollouts go on, be completed and halt. Any number of replicas have one: what is due is decided by the
// database's clock from rows that are locked while it is done.
type RolloutWorker struct {
	config Config
	// heard is when reports began to be heard, by the database's clock: zero after a failure.
	heard time.Time
}

// NewRolloutWorker returns a worker, whose Run does the work.
func NewRolloutWorker(c Config) *RolloutWorker { return &RolloutWorker{config: c} }

// Run works until ctx ends.
func (w *RolloutWorker) Run(ctx context.Context) error {
	tick := time.NewTicker(rolloutPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-w.config.Harm:
		}
		if err := w.round(ctx); err != nil && ctx.Err() == nil {
			w.heard = time.Time{}
			w.config.Log.WarnContext(ctx, "rollouts: cannot look what is due", "error", err)
		}
	}
}

// round does what is due.
func (w *RolloutWorker) round(ctx context.Context) error {
	found, now, err := store.RunningRollouts(ctx, w.config.Pool)
	if err != nil {
		return err
	}
	if w.heard.IsZero() {
		w.heard = now
	}
	type due struct {
		rollout  *store.Rollout
		decision rollout.Decision
	}
	var halts, others []due
	for _, r := range found {
		state, err := stateOfRollout(ctx, w.config.Pool, r, w.heard)
		if err != nil {
			return err
		}
		switch d := (due{r, state.Decide(now)}); d.decision.Action {
		case rollout.Wait:
		case rollout.Halt:
			halts = append(halts, d)
		default:
			others = append(others, d)
		}
	}
	for _, d := range append(halts, others...) { // a completion may wait for the namespace; no halt waits for it
		log := w.config.Log.With("name", rolloutName(d.rollout.Namespace, d.rollout.UID), "action", d.decision.Action.String(),
			"detail", d.decision.Detail)
		if err := w.act(ctx, d.rollout, d.decision); err != nil { // which keeps no other rollout from what is due
			log.WarnContext(ctx, "rollouts: cannot do what is due", "error", err)
			continue
		}
		log.InfoContext(ctx, "rollouts: done")
	}
	return nil
}

// act does what was decided, unless somebody has changed the rollout since.
func (w *RolloutWorker) act(ctx context.Context, seen *store.Rollout, d rollout.Decision) (err error) {
	defer func() { // one rollout that is poison ends no process
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	ctx = change.NewJob(ctx, "config", "rollout-"+d.Action.String())
	call, _ := rule.CallFrom(ctx)
	call.Reason = d.Detail
	_, err = change.Do(rule.NewContext(ctx, call), w.config.Kernel,
		func(ctx context.Context, tx *change.Tx) (*configv1.HaltRolloutResponse, error) {
			return &configv1.HaltRolloutResponse{}, w.apply(ctx, tx, seen, d)
		})
	return err
}

func (w *RolloutWorker) apply(ctx context.Context, tx *change.Tx, seen *store.Rollout, d rollout.Decision) error {
	var n *configv1.Namespace
	var err error
	if d.Action == rollout.Complete { // the lock comes before that of the rollout, as everywhere
		if n, err = store.LockNamespace(ctx, tx, seen.Namespace); err != nil {
			return err
		}
	}
	r, err := store.LockRollout(ctx, tx, seen.Namespace, seen.UID)
	if err != nil || r.Version != seen.Version {
		return err
	}
	if r.Layer == settings.Tenant {
		tx.Tenant(r.LayerID)
	}
	switch d.Action {
	case rollout.Halt:
		return haltRollout(ctx, tx, r, d.Cause, d.Detail)
	case rollout.Complete:
		return w.config.complete(ctx, tx, n, r)
	default:
		return w.config.advance(ctx, tx, r)
	}
}
