package webhook

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Sources of events.
const (
	SourceConfig  = "config"
	SourceTenancy = "tenancy"
	SourceQuota   = "quota"
	SourceRollout = "rollout"
	SourceChange  = "change"
	sourceTest    = "test"
)

// Types of events of rollouts and changes, which are told by whoever takes the step.
const (
	RolloutStarted   = "rollout.started"
	RolloutAdvanced  = "rollout.advanced"
	RolloutHalted    = "rollout.halted"
	RolloutCompleted = "rollout.completed"
	ChangeHalted     = "change.halted"
)

// TestType is the type of the event that an operator asks for.
const TestType = "webhook.test"

// maxBody bounds a message. The database holds it too.
const maxBody = 20 << 10

// Event is something that happened.
type Event struct {
	// Source, Revision and Key name it once and for all.
	Source   string
	Revision int64
	Key      string
	// Type is "settings.updated" and the like. When it is empty it follows from Key and Removed.
	Type    string
	Removed bool
	Time    time.Time
	// Data is what a message says of an event of another service, as JSON.
	Data string
}

// data is what a message says of an event. It names what changed and holds none of it: values may be secret, and
// whoever wants them asks with rights of its own.
type data struct {
	Tenant    string `json:"tenant,omitempty"`
	TenantUID string `json:"tenantUid,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Layer     string `json:"layer,omitempty"`
	// What follows is of rollouts and changes.
	Rollout      string `json:"rollout,omitempty"`
	Step         int    `json:"step,omitempty"`
	SharePercent int32  `json:"sharePercent,omitempty"`
	Cause        string `json:"cause,omitempty"`
	Change       string `json:"change,omitempty"`
	Reason       string `json:"reason,omitempty"`
	// What follows is of events of tenancy.
	State         string `json:"state,omitempty"`
	PreviousState string `json:"previousState,omitempty"`
	Plan          string `json:"plan,omitempty"`
	PreviousPlan  string `json:"previousPlan,omitempty"`
	Host          string `json:"host,omitempty"`
	App           string `json:"app,omitempty"`
	Operation     string `json:"operation,omitempty"`
	Verb          string `json:"verb,omitempty"`
	Error         string `json:"error,omitempty"`
	// What follows is of notices of quota.
	Quota        string `json:"quota,omitempty"`
	Meter        string `json:"meter,omitempty"`
	Percent      int32  `json:"percent,omitempty"`
	Used         *int64 `json:"used,omitempty"`
	Limit        *int64 `json:"limit,omitempty"`
	PeriodStart  string `json:"periodStart,omitempty"`
	PeriodEnd    string `json:"periodEnd,omitempty"`
	ForecastTime string `json:"forecastTime,omitempty"`
	Revision     int64  `json:"revision"`
}

// Message is an event as it is sent, and to whom.
type Message struct {
	Event

	// TenantUID is whose event it is, "" for the platform's.
	TenantUID string
	Body      string
}

// Names finds a tenant's id by its uid, "" when it is not known.
type Names func(uid string) (id string)

// Rollout is what is told of a step of a rollout. Of who is a canary, what processes said and what the content is nothing is.
type Rollout struct {
	// Name, Namespace and Layer are as the API has them: "plans/free", or "tenant" with its uid.
	Name, Namespace, Layer, TenantUID string
	// Version counts the changes of the rollout.
	Version      int64
	Step         int
	SharePercent int32
	// Cause is why it halted, "" otherwise.
	Cause string
}

// Event is the event that a rollout took a step of a type. A tenant is told of rollouts of its own document alone: those of
// wider layers are the operators' business, and would tell it how far others are.
func (r Rollout) Event(eventType string, at time.Time) (Event, error) {
	return newEvent(Event{Source: SourceRollout, Revision: r.Version, Key: r.Name, Type: eventType, Time: at}, data{
		Rollout: r.Name, Namespace: r.Namespace, Layer: r.Layer, TenantUID: r.TenantUID, Step: r.Step, SharePercent: r.SharePercent,
		Cause: r.Cause,
	})
}

// NewChangeHalted is the event that a scheduled change was refused when its time had come, with the reason of the refusal.
// Only the platform is told: a change may be of several tenants, and is always the operators'.
func NewChangeHalted(name string, version int64, reason string, at time.Time) (Event, error) {
	e := Event{Source: SourceChange, Revision: version, Key: name, Type: ChangeHalted, Time: at}
	return newEvent(e, data{Change: name, Reason: reason})
}

// newEvent is e with what it says.
func newEvent(e Event, d data) (Event, error) {
	body, err := json.Marshal(d)
	e.Data = string(body)
	return e, err
}

// Message writes the event for receivers. ok is false for an event of a kind that nobody is told of.
func (e Event) Message(names Names) (m Message, ok bool) {
	d := data{Revision: e.Revision}
	part := strings.Split(e.Key, "/")
	switch {
	case e.Source == SourceTenancy, e.Source == SourceQuota:
		if json.Unmarshal([]byte(e.Data), &d) != nil || d.TenantUID == "" {
			return m, false
		}
		m.TenantUID, d.Revision = d.TenantUID, e.Revision
	case e.Source == SourceRollout, e.Source == SourceChange:
		if json.Unmarshal([]byte(e.Data), &d) != nil || !slices.Contains(Types(), e.Type) {
			return m, false
		}
		m.TenantUID, d.Revision = d.TenantUID, e.Revision
	case len(part) == 2 && part[0] == "namespace":
		d.Namespace = part[1]
		e.typed("schema")
	case len(part) >= 3 && part[0] == "doc":
		d.Namespace, d.Layer = part[1], part[2]
		switch part[2] {
		case "platform":
		case "tenant", "environment":
			m.TenantUID = part[3]
		default:
			d.Layer = part[2] + "s/" + strings.Join(part[3:], "/")
		}
		e.typed(family(part[1]))
	case e.Type != TestType:
		return m, false
	}
	if m.TenantUID != "" {
		d.TenantUID, d.Tenant = m.TenantUID, cmp.Or(d.Tenant, names(m.TenantUID))
	}
	body, err := json.Marshal(struct {
		Type      string    `json:"type"`
		Timestamp time.Time `json:"timestamp"`
		Data      data      `json:"data"`
	}{e.Type, e.Time.UTC(), d})
	if err != nil || len(body) > maxBody {
		return m, false
	}
	m.Event, m.Body = e, string(body)
	return m, true
}

// typed gives the event its type.
func (e *Event) typed(family string) {
	e.Type = family + ".updated"
	if e.Removed {
		e.Type = family + ".deleted"
	}
}

// family is the first part of the types of a namespace's events.
func family(namespace string) string {
	switch namespace {
	case "brand", "flags":
		return namespace
	default:
		return "settings"
	}
}

// Wants says whether a webhook that is told of types is told of this one.
func Wants(types []string, eventType string) bool {
	for _, t := range types {
		prefix, all := strings.CutSuffix(t, "*")
		if t == eventType || all && strings.HasPrefix(eventType, prefix) {
			return true
		}
	}
	return len(types) == 0
}

// Types are all types of events that there are, in order. Those of tenancy are in docs/guides/webhooks.md, as all others.
func Types() []string {
	return []string{
		"brand.deleted", "brand.updated", ChangeHalted, "domain.attached", "domain.removed", "flags.deleted", "flags.updated",
		"operation.done", QuotaForecast, QuotaThreshold, RolloutAdvanced, RolloutCompleted, RolloutHalted, RolloutStarted,
		"schema.deleted", "schema.updated",
		"settings.deleted", "settings.updated", "tenant.active", "tenant.created", "tenant.deleted", "tenant.failed",
		"tenant.plan_changed", "tenant.removed", "tenant.suspended", TestType,
	}
}

// Fires says whether there is a type of event that a webhook is told of by what it is to be told of.
func Fires(wanted string) bool {
	return slices.ContainsFunc(Types(), func(t string) bool { return Wants([]string{wanted}, t) })
}

// NewTest is the event of one test of a webhook.
func NewTest(id string, now time.Time) Event {
	return Event{Source: sourceTest, Key: id, Type: TestType, Time: now}
}

// Name is how an event is shown.
func (e Event) Name() string { return fmt.Sprintf("%s/%d", e.Source, e.Revision) }
