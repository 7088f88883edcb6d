package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
)

// TenancyFeed is the name of tenancy's feed of events.
const TenancyFeed = "events"

// Recorder keeps what happened elsewhere until messages are made of it.
type Recorder interface {
	// Record keeps those events of a source that are behind the revision up to which all are recorded, and then moves
	// that to the given one, in one transaction. The first call of all for a source says where the past ends, and keeps
	// nothing.
	Record(ctx context.Context, source string, revision int64, events []Event) error
}

// Intake takes another service's feed of events in. The state of that feed is what happened lately, so a snapshot holds what
// was missed, and the recorded revision says what of it is new: no event is lost or told twice by a restart on either side, or
// when the feed has to start over.
//
// Apply never fails and waits for nothing: a feed takes an entry that cannot be applied for a broken one. What is not yet
// in the database when the process ends comes again with the next snapshot.
type Intake struct {
	source   string
	read     func(key string, value []byte) (Event, error)
	recorder Recorder
	log      *slog.Logger

	mu      sync.Mutex
	waiting []revisionEvents
	wake    chan struct{}
}

// revisionEvents is one change of the feed.
type revisionEvents struct {
	revision int64
	events   []Event
}

// NewTenancy returns an Intake of tenancy's events, whose Run writes what Apply takes in.
func NewTenancy(r Recorder, log *slog.Logger) *Intake {
	return newIntake(SourceTenancy, tenancyEvent, r, log)
}

func newIntake(source string, read func(string, []byte) (Event, error), r Recorder, log *slog.Logger) *Intake {
	return &Intake{source: source, read: read, recorder: r, log: log, wake: make(chan struct{}, 1)}
}

// Apply takes one change of the feed in; see [feed.Config].
func (t *Intake) Apply(c feed.Change) error {
	r := revisionEvents{revision: c.Revision}
	for _, e := range c.Entries {
		if e.Deleted {
			continue // it is only old
		}
		event, err := t.read(e.Key, e.Value)
		if err != nil {
			t.log.Warn("webhooks: cannot read an event", "source", t.source, "key", e.Key, "error", err)
			continue
		}
		r.events = append(r.events, event)
	}
	t.mu.Lock()
	t.waiting = append(t.waiting, r)
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
	return nil
}

// tenancyEvent reads an entry.
func tenancyEvent(key string, value []byte) (Event, error) {
	m := new(tenancyv1.TenancyEvent)
	if err := proto.Unmarshal(value, m); err != nil {
		return Event{}, err
	}
	body, err := json.Marshal(data{
		Tenant: m.GetTenantId(), TenantUID: m.GetTenantUid(), State: stateName(m.GetState()), PreviousState: stateName(m.GetPreviousState()),
		Plan: m.GetPlan(), PreviousPlan: m.GetPreviousPlan(), Host: m.GetHost(), App: m.GetApp(), Operation: m.GetOperation(),
		Verb: m.GetVerb(), Error: m.GetError(),
	})
	if err != nil {
		return Event{}, err
	}
	_, rest, ok := strings.Cut(key, "/")
	if !ok || m.GetType() == "" || m.GetTenantUid() == "" {
		return Event{}, fmt.Errorf("it is no event of a tenant: %q", m.GetType())
	}
	return Event{
		Source: SourceTenancy, Revision: m.GetRevision(), Key: rest, Type: m.GetType(), Time: m.GetTime().AsTime(), Data: string(body),
	}, nil
}

func stateName(s tenancyv1.TenantState) string {
	if s == tenancyv1.TenantState_TENANT_STATE_UNSPECIFIED {
		return ""
	}
	return strings.TrimPrefix(s.String(), "TENANT_STATE_")
}

// Run writes until ctx ends what Apply took in, in its order.
func (t *Intake) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.wake:
		}
		for _, r := range t.take() {
			if !t.record(ctx, r) {
				return nil
			}
		}
	}
}

func (t *Intake) take() []revisionEvents {
	t.mu.Lock()
	defer t.mu.Unlock()
	taken := t.waiting
	t.waiting = nil
	return taken
}

// record tries until it is done, or until ctx ends: then it is false.
func (t *Intake) record(ctx context.Context, r revisionEvents) bool {
	for {
		err := t.recorder.Record(ctx, t.source, r.revision, r.events)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		t.log.WarnContext(ctx, "webhooks: cannot record events", "source", t.source, "error", err)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(errorPause):
		}
	}
}
