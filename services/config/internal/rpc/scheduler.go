package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/audit"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

const (
	// schedulePoll keeps the promise that a change is live within a second of its time, with room for the work itself.
	schedulePoll  = 250 * time.Millisecond
	scheduleBatch = 20
)

// Scheduler makes changes live at their time. Any number of processes may have one: a change is locked by the one that
// makes it live, and is no longer scheduled when that one is done. The time is the database's.
type Scheduler struct {
	changes *changeService
	rests   rests
}

// NewScheduler returns a Scheduler, whose Run does the work.
func NewScheduler(c Config) *Scheduler {
	return &Scheduler{&changeService{Config: c, documents: &documentService{Config: c}}, make(rests)}
}

// Run makes changes live until ctx ends. What a crash interrupts was not done, and is done by the next process that looks.
func (s *Scheduler) Run(ctx context.Context) error {
	poll := time.NewTicker(schedulePoll)
	defer poll.Stop()
	for {
		s.round(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
		}
	}
}

// round tries what is due.
func (s *Scheduler) round(ctx context.Context) {
	now := s.changes.Clock()
	var resting []string
	for id := range s.rests {
		if s.rests.resting(id, now) {
			resting = append(resting, id)
		}
	}
	slices.Sort(resting)
	due, err := store.DueChanges(ctx, s.changes.Pool, append([]string{}, resting...), scheduleBatch)
	if err != nil {
		if ctx.Err() == nil {
			s.changes.Log.WarnContext(ctx, "cannot look for scheduled changes", "error", err)
		}
		return
	}
	for _, id := range due {
		if ctx.Err() != nil {
			return
		}
		if err := s.fire(ctx, id); err != nil {
			s.tire(ctx, id, err)
			continue
		}
		s.rests.done(id)
	}
}

// tire leaves a change alone for a while.
func (s *Scheduler) tire(ctx context.Context, id string, err error) {
	if ctx.Err() != nil {
		return
	}
	after := s.rests.tire(id, s.changes.Clock(), longRest)
	s.changes.Log.ErrorContext(ctx, "cannot make a scheduled change live; it is tried again", "change", changePrefix+id,
		"after", after, "error", err)
}

// fire makes one change live, or halts it. It does nothing for one that another process has or had.
func (s *Scheduler) fire(ctx context.Context, id string) (err error) {
	defer func() {
		if v := recover(); v != nil { // one bad change is no reason to end the process, and then the next one
			err = fmt.Errorf("the change panicked: %v", v)
		}
	}()
	ctx = change.NewJob(ctx, "config", "publish-change")
	call, _ := rule.CallFrom(ctx)
	call.Reason, call.Request = "the time of "+changePrefix+id+" has come", publication(changePrefix+id)
	ctx = rule.NewContext(ctx, call)
	asked, err := s.changes.ask(ctx, changePrefix+id)
	if err != nil {
		return err
	}
	// Not done is not audited: an unavailable answer leaves no record.
	taken := fault.New(fault.Unavailable, fault.ReasonOverloaded, "another process has the change")
	_, err = change.Do(ctx, s.changes.Kernel,
		func(ctx context.Context, tx *change.Tx) (*configv1.PublishChangeResponse, error) {
			c, err := store.LockDueChange(ctx, tx, id)
			if err != nil {
				return nil, err
			}
			if c == nil {
				return nil, taken
			}
			tx.Tenant(audit.Platform)
			tx.Audit(c.GetName(), pathState)
			concern(tx, c)
			return &configv1.PublishChangeResponse{Change: c.Change}, s.changes.publishOrHalt(ctx, tx, c, asked)
		})
	if errors.Is(err, taken) {
		return nil
	}
	return err
}

// publishOrHalt decides about a change whose time has come, as PublishChange would. What that would be refused with, the
// change keeps.
func (s *changeService) publishOrHalt(ctx context.Context, tx *change.Tx, c *store.Change, asked asked) error {
	p, err := s.plan(ctx, tx, c, store.LockNamespace)
	if err == nil {
		err = p.keepKills(ctx, tx)
	}
	if err != nil {
		return err
	}
	way := wayOf(c)
	if refusal := cmp.Or(p.allowed(way), asked.settle(tx, c)); refusal != nil {
		way = wayOf(c) // the step was not taken
		if err := way.Halt(); err != nil {
			return err
		}
		c.Refusal = tenantgrpc.StatusIn(ctx, refusal).Proto()
		s.Log.WarnContext(ctx, "a scheduled change was halted", "change", c.GetName(), "reason", fault.ReasonOf(refusal))
	} else if err := s.goLive(ctx, tx, c, p); err != nil {
		return err
	}
	take(tx, c, way)
	return store.UpdateChange(ctx, tx, c)
}
