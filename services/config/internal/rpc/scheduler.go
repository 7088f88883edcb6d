package rpc

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/audit"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/webhook"
)

const (
	// SchedulePoll keeps the promise that a change is live within a second of its time, with room for the work itself.
	SchedulePoll = 250 * time.Millisecond
	// HookPatience is until how long after a change's time hooks are asked that give no answer.
	HookPatience = 15 * time.Minute

	// scheduleLease is how long a replica has what it claimed. It outlasts the hooks; the rest is done with the row locked.
	scheduleLease = 10 * time.Second
	// maxAsking bounds the changes that one replica asks hooks about at once, and maxMaking those of them that hold a
	// connection.
	maxAsking = 32
	maxMaking = 4
)

// Pace is when a Scheduler looks for what is due, and by which clock. The zero value is each SchedulePoll, by the
// database's.
type Pace struct {
	Looks <-chan time.Time
	Now   func(context.Context) (time.Time, error)
}

// Scheduler makes changes live at their time. Any number of processes may have one: who claims a change tries it, and
// all others leave it alone meanwhile.
type Scheduler struct {
	changes *changeService
	pace    Pace
	asking  sync.WaitGroup
	slots   chan struct{}
	making  chan struct{}
}

// NewScheduler returns a Scheduler, whose Run does the work.
func NewScheduler(c Config) *Scheduler {
	s := &Scheduler{
		changes: &changeService{Config: c, documents: &documentService{Config: c}}, pace: c.Pace,
		slots: make(chan struct{}, maxAsking), making: make(chan struct{}, maxMaking),
	}
	if s.pace.Now == nil {
		s.pace.Now = func(ctx context.Context) (time.Time, error) { return store.Now(ctx, c.Pool) }
	}
	return s
}

// Run makes changes live until ctx ends. What a crash interrupts was not done, and is done by the next process that looks.
func (s *Scheduler) Run(ctx context.Context) error {
	defer s.asking.Wait()
	looks := s.pace.Looks
	if looks == nil {
		poll := time.NewTicker(SchedulePoll)
		defer poll.Stop()
		looks = poll.C
	}
	for {
		if err := s.round(ctx); err != nil && ctx.Err() == nil {
			s.changes.Log.WarnContext(ctx, "cannot look for scheduled changes", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-looks:
		}
	}
}

// round tries what is due. Where hooks have a say each change waits for its own. Else one is claimed and made after the
// other, in the order of their times, so that other replicas go on when one has to wait for a lock.
func (s *Scheduler) round(ctx context.Context) error {
	for ctx.Err() == nil {
		hooks := s.changes.Hooks.Knows(configv1.HookStep_HOOK_STEP_DOCUMENT_PUBLISH) ||
			s.changes.Hooks.Knows(configv1.HookStep_HOOK_STEP_BRAND_PUBLISH)
		room := 1
		if hooks {
			room = cap(s.slots) - len(s.slots)
		}
		now, err := s.pace.Now(ctx)
		if err != nil {
			return err
		}
		due, err := store.ClaimDueChanges(ctx, s.changes.Pool, now, scheduleLease, room)
		if err != nil || len(due) == 0 {
			return err
		}
		for _, d := range due {
			if !hooks {
				s.try(ctx, d)
				continue
			}
			s.slots <- struct{}{} // there is room
			s.asking.Go(func() {
				defer func() { <-s.slots }()
				s.try(ctx, d)
			})
		}
	}
	return nil
}

// try makes one change live, halts it, or puts it off. What cannot be tried, because the database is away or by a defect,
// is tried again when the claim ends, and keeps no other one waiting.
func (s *Scheduler) try(ctx context.Context, d store.Due) {
	if err := s.fire(ctx, d); err != nil && ctx.Err() == nil {
		s.changes.Log.ErrorContext(ctx, "cannot make a scheduled change live; it is tried again", "change", changePrefix+d.ID,
			"after", scheduleLease, "error", err)
	}
}

// fire is try without the log. It does nothing for a change that another process had meanwhile.
func (s *Scheduler) fire(ctx context.Context, d store.Due) (err error) {
	defer func() {
		if v := recover(); v != nil { // one bad change is no reason to end the process, and then the next one
			err = fmt.Errorf("the change panicked: %v", v)
		}
	}()
	ctx = change.NewJob(ctx, "config", "publish-change")
	call, _ := rule.CallFrom(ctx)
	call.Reason, call.Request = "the time of "+changePrefix+d.ID+" has come", publication(changePrefix+d.ID)
	if d.Scheduler != "" {
		call.Reason += ", which " + d.Scheduler + " scheduled"
	}
	asked, err := s.changes.ask(rule.NewContext(ctx, question(call, d)), changePrefix+d.ID)
	if err != nil || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	if why := asked.unanswered(); why != nil {
		now, err := s.pace.Now(ctx)
		if err != nil {
			return err
		}
		if late := now.Sub(d.NotBefore); late < HookPatience {
			until := now.Add(min(max(late/2, firstRest), longRest))
			s.changes.Log.WarnContext(ctx, "hooks gave no answer about a scheduled change; it is tried again", "change", changePrefix+d.ID,
				"until", until, "error", why)
			return store.RestChange(ctx, s.changes.Pool, d, until, tenantgrpc.StatusIn(ctx, why).Proto())
		}
	}
	s.making <- struct{}{}
	defer func() { <-s.making }()
	// Not done is not audited: an unavailable answer leaves no record.
	taken := fault.New(fault.Unavailable, fault.ReasonOverloaded, "another process has the change")
	_, err = change.Do(rule.NewContext(ctx, call), s.changes.Kernel,
		func(ctx context.Context, tx *change.Tx) (*configv1.PublishChangeResponse, error) {
			c, err := store.LockDueChange(ctx, tx, d)
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

// question is the call in whose name hooks are asked in a try. Its id is that of the try, so that a process that goes on
// with it after a crash has the same question.
func question(call rule.Call, d store.Due) rule.Call {
	call.RequestID = uuid.NewSHA1(uuid.NameSpaceURL, []byte(changePrefix+d.UID+"/attempts/"+strconv.FormatInt(d.Attempt, 10))).String()
	return call
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
	way := s.wayOf(c)
	refusal := s.mayStill(c)
	if refusal == nil {
		refusal = p.allowed(way)
	}
	if refusal == nil {
		refusal = tooLate(asked.settle(tx, c))
	}
	if refusal == nil {
		if err := s.goLive(ctx, tx, c, p); err != nil {
			return err
		}
		take(tx, c, way)
		return store.UpdateChange(ctx, tx, c)
	}
	way = s.wayOf(c) // the step was not taken
	if err := way.Halt(); err != nil {
		return err
	}
	c.Refusal = tenantgrpc.StatusIn(ctx, refusal).Proto()
	s.Log.WarnContext(ctx, "a scheduled change was halted", "change", c.GetName(), "reason", fault.ReasonOf(refusal))
	take(tx, c, way)
	if err := store.UpdateChange(ctx, tx, c); err != nil {
		return err
	}
	e, err := webhook.NewChangeHalted(c.GetName(), c.Version(), fault.ReasonOf(refusal), tx.Now())
	if err != nil {
		return err
	}
	return store.Tell(ctx, tx, e)
}

// mayStill refuses what somebody scheduled who could not publish it now. What the house knows of them is what
// operators.yaml and peers.yaml say.
func (s *changeService) mayStill(c *store.Change) error {
	if c.GetScheduler() == "" {
		return nil // a release scheduled it that did not write down who did
	}
	who := s.Caller(c.GetScheduler())
	who.Name = c.GetScheduler()
	if !who.Has(publishing) {
		return lacking(who, publishing, "a change")
	}
	return entitledTo(who, c)
}

// tooLate says of hooks' silence that there was enough of it.
func tooLate(err error) error {
	f, ok := fault.As(err)
	if !ok || f.Reason != fault.ReasonHookUnavailable {
		return err
	}
	out := fault.New(f.Kind, f.Reason, "hooks were asked until %v after the change's time, in vain: %s", HookPatience, f.Message).
		WithDomain(f.Domain)
	out.Metadata = f.Metadata
	return out
}
