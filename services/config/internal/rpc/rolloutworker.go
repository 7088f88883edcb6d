package rpc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/rollout"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

const (
	// rolloutPoll is how often the replica whose turn it is looks whether a rollout is due.
	rolloutPoll = time.Second
	// rolloutTurn is for how long a look keeps the turn: when a replica is gone, another one has it after that.
	rolloutTurn = 3 * time.Second
	// rolloutRest bounds how long no halt is tried after one that failed.
	rolloutRest = 5 * time.Second
	// rolloutSweep is how often reports of rollouts that are over are forgotten.
	rolloutSweep = time.Minute
)

// RolloutWorker has rollouts go on, be completed and halt. Any number of replicas have one, of which one at a time reads what was
// reported; a replica that hears of harm looks at once. What is due is decided by the database's clock, and done under a lock
// if nobody has changed the rollout since.
type RolloutWorker struct {
	config Config
	// name tells this worker from others.
	name string
	// heard is when reports began to be heard, by the database's clock: zero after a failure.
	heard time.Time
	// rests are those of looks, by the name look, and of halts.
	rests rests
	// others takes what is due but for halts, while nothing of that is being done: a completion judges, and no halt waits for it.
	others chan []due
}

// due is what is to be done with a rollout.
type due struct {
	rollout  *store.Rollout
	decision rollout.Decision
}

// look is the name of the rest after a look that failed.
const look = ""

// NewRolloutWorker returns a worker, whose Run does the work.
func NewRolloutWorker(c Config) *RolloutWorker {
	return &RolloutWorker{config: c, name: rand.Text(), rests: make(rests), others: make(chan []due)}
}

// Run works until ctx ends.
func (w *RolloutWorker) Run(ctx context.Context) error {
	var others sync.WaitGroup
	defer others.Wait()
	others.Go(func() { w.doOthers(ctx) })
	tick, sweep := time.NewTicker(rolloutPoll), time.NewTicker(rolloutSweep)
	defer tick.Stop()
	defer sweep.Stop()
	for {
		harm := false
		select {
		case <-ctx.Done():
			return nil
		case <-sweep.C:
			if err := store.SweepReports(ctx, w.config.Pool); err != nil && ctx.Err() == nil {
				w.config.Log.WarnContext(ctx, "rollouts: cannot forget what was reported", "error", err)
			}
			continue
		case <-tick.C:
		case <-w.config.Harm:
			harm = true
		}
		if w.rests.resting(look, w.config.Clock()) {
			continue
		}
		if err := w.round(ctx, harm); err == nil {
			w.rests.done(look)
		} else if ctx.Err() == nil {
			w.heard = time.Time{}
			after := w.rests.tire(look, w.config.Clock(), rolloutRest)
			w.config.Log.WarnContext(ctx, "rollouts: cannot look what is due", "after", after, "error", err)
		}
	}
}

// round does what is due, if it is this worker's turn or somebody suffers.
func (w *RolloutWorker) round(ctx context.Context, harm bool) error {
	found, now, err := store.RunningRollouts(ctx, w.config.Pool)
	if err != nil {
		return err
	}
	if w.heard.IsZero() {
		w.heard = now
	}
	if len(found) == 0 {
		return nil
	}
	if turn, err := store.TakeTurn(ctx, w.config.Pool, w.name, rolloutTurn); err != nil || !turn && !harm {
		return err
	}
	var others []due
	for _, r := range found {
		state, err := stateOfRollout(ctx, w.config.Pool, r, w.heard)
		if err != nil {
			return err
		}
		switch d := (due{r, state.Decide(now)}); d.decision.Action {
		case rollout.Wait:
		case rollout.Halt:
			w.do(ctx, d, w.rests, rolloutRest)
		default:
			others = append(others, d)
		}
	}
	if len(others) > 0 {
		select {
		case w.others <- others:
		default: // the next look finds what is left
		}
	}
	return nil
}

// doOthers does what is due beside halts, until ctx ends.
func (w *RolloutWorker) doOthers(ctx context.Context) {
	tired := make(rests)
	for {
		select {
		case <-ctx.Done():
			return
		case others := <-w.others:
			for _, d := range others {
				w.do(ctx, d, tired, longRest)
			}
		}
	}
}

// do does what was decided about one rollout. What fails keeps no other one from what is due, and is tried again later
// and later.
func (w *RolloutWorker) do(ctx context.Context, d due, tired rests, longest time.Duration) {
	name := d.rollout.UID
	if tired.resting(name, w.config.Clock()) {
		return
	}
	log := w.config.Log.With("name", rolloutName(d.rollout.Namespace, name), "action", d.decision.Action.String(), "detail", d.decision.Detail)
	if err := w.act(ctx, d); err == nil {
		tired.done(name)
		log.InfoContext(ctx, "rollouts: done")
	} else if ctx.Err() == nil {
		after := tired.tire(name, w.config.Clock(), longest)
		log.WarnContext(ctx, "rollouts: cannot do what is due; it is tried again", "after", after, "error", err)
	}
}

// act does what was decided, unless somebody has changed the rollout since.
func (w *RolloutWorker) act(ctx context.Context, d due) (err error) {
	defer func() { // one rollout that is poison ends no process
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	ctx = change.NewJob(ctx, "config", "rollout-"+d.decision.Action.String())
	call, _ := rule.CallFrom(ctx)
	call.Reason = d.decision.Detail
	// Not done is not audited: an unavailable answer leaves no record.
	changed := fault.New(fault.Unavailable, fault.ReasonOverloaded, "somebody has changed the rollout")
	do := change.Do[*configv1.HaltRolloutResponse]
	if d.decision.Action == rollout.Halt {
		do = change.DoUrgently
	}
	_, err = do(rule.NewContext(ctx, call), w.config.Kernel,
		func(ctx context.Context, tx *change.Tx) (*configv1.HaltRolloutResponse, error) {
			err := w.apply(ctx, tx, d.rollout, d.decision)
			if fault.ReasonOf(err) == fault.ReasonEtagMismatch {
				err = changed
			}
			return &configv1.HaltRolloutResponse{}, err
		})
	if errors.Is(err, changed) {
		return nil
	}
	return err
}

func (w *RolloutWorker) apply(ctx context.Context, tx *change.Tx, seen *store.Rollout, d rollout.Decision) error {
	if seen.Layer == settings.Tenant {
		tx.Tenant(seen.LayerID)
	}
	switch d.Action {
	case rollout.Halt:
		r, err := lockAsSeen(ctx, tx, seen)
		if err != nil {
			return err
		}
		return haltRollout(ctx, tx, r, d.Cause, d.Detail)
	case rollout.Complete:
		n, err := store.LockNamespace(ctx, tx, seen.Namespace) // before the rollout, as everybody does
		if err != nil {
			return err
		}
		r, err := store.ReadRollout(ctx, tx, seen.Namespace, seen.UID) // with its content
		if err == nil {
			err = asSeen(r, seen)
		}
		if err != nil {
			return err
		}
		_, err = w.config.complete(ctx, tx, n, r)
		return err
	default:
		_, err := w.config.advance(ctx, tx, seen)
		return err
	}
}
