// Package rollout decides what becomes of a staged rollout: whether it waits, goes on, is completed or halts.
//
// It knows neither wire nor database nor clock: [Decide] is a function of the plan, of what consumers reported and of the
// time. Who has the new content is not decided here but in sdk/settings.
package rollout

import (
	"fmt"
	"time"

	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
)

const (
	// RollCall is how long consumers have, at most, to report themselves before the first step.
	RollCall = 3 * sdk.ReportEvery
	// Silence is after how long a reporter counts as silent.
	Silence = 4 * sdk.ReportEvery
	// Fatal is how long a process must outlive a step for its death not to be held against it.
	Fatal = time.Minute
	// MaxReporters is about how many processes of one workload may report on a rollout. What is wrong with one beyond that
	// is heard all the same.
	MaxReporters = 256
	// MaxReports is MaxReporters for all workloads together.
	MaxReports = 4096
)

// Default values of a plan.
const (
	DefaultBake         = 10 * time.Minute
	DefaultErrors       = 10
	DefaultP99          = 200
	DefaultRequests     = 100
	DefaultFirstPercent = 1
)

// DefaultSteps are the shares of a plan that names none.
func DefaultSteps() []int32 { return []int32{DefaultFirstPercent, 5, 20, 50, 100} }

// Plan is how a rollout is to go.
type Plan struct {
	// Steps are shares in percent, growing to 100.
	Steps []int32
	// Bake is how long each step must be healthy.
	Bake time.Duration
	// ErrorPermille, P99Percent and Requests are the guards; see rowhouse.config.v1.RolloutGuards.
	ErrorPermille, P99Percent int32
	Requests                  int64
	// RequireRequests has a step wait for Requests.
	RequireRequests bool
}

// CheckSteps says what is wrong with the steps of a plan, "" if nothing is.
func CheckSteps(steps []int32) string {
	if len(steps) == 0 || steps[len(steps)-1] != 100 {
		return "must end with 100"
	}
	for i := 1; i < len(steps); i++ {
		if steps[i] <= steps[i-1] {
			return "must grow from step to step"
		}
	}
	return ""
}

// Share is the share of tenants, in percent, after so many steps have begun.
func (p Plan) Share(step int) int32 {
	if step <= 0 {
		return 0
	}
	return p.Steps[min(step, len(p.Steps))-1]
}

// Report is what one process last said.
type Report struct {
	// Reporter names the process, Workload the certificate by which it is known. The first is what it calls itself.
	Reporter, Workload string
	// Step is the one that it has applied.
	Step int
	// At is when it said so.
	At time.Time
	// Quarantined is why it could not read the new content, empty if it could.
	Quarantined string
	// Crashed says that it died within [Fatal] of applying the rollout.
	Crashed bool
	// Next and Current are the requests of the step, good by [Counts.Check].
	Next, Current Counts
}

// State is a running rollout as it stands.
type State struct {
	Plan Plan
	// Step counts the steps that have begun, the last one at Since; 0 is the roll call.
	Step  int
	Since time.Time
	// Heard is from when on reports would have been heard: nobody fell silent before that.
	Heard time.Time
	// Baseline are the requests of each workload without the new content in the last step that had enough of them.
	Baseline map[string]Counts
	// Reports are those of processes that have not said that they end.
	Reports []Report
}

// Cause is why a rollout halts.
type Cause string

// Causes, as in rowhouse.config.v1.RolloutHalt.
const (
	Operator   Cause = "OPERATOR"
	Quarantine Cause = "QUARANTINE"
	Crash      Cause = "CRASH"
	Errors     Cause = "ERRORS"
	Latency    Cause = "LATENCY"
	Quiet      Cause = "SILENCE"
	Conflict   Cause = "CONFLICT"
)

// Action is what is to be done.
type Action int

// What is to be done with a rollout: nothing yet, halt it, begin the next step, or make its content the document's.
const (
	Wait Action = iota
	Halt
	Advance
	Complete
)

// String names the action.
func (a Action) String() string { return [...]string{"wait", "halt", "advance", "complete"}[a] }

// Decision is what is to be done, and why.
type Decision struct {
	Action Action
	// Cause is that of a halt.
	Cause Cause
	// Detail says for people what is waited for, or what is wrong. It holds no value of a setting.
	Detail string
}

func halt(cause Cause, format string, args ...any) Decision {
	return Decision{Halt, cause, fmt.Sprintf(format, args...)}
}

// Health sums up what is reported of the step.
type Health struct {
	// Reporters are the processes that report; Applied those of them that have applied the step.
	Reporters, Applied int
	Next, Current      Counts
}

// Health sums up the reports.
func (s State) Health() Health {
	var h Health
	h.Reporters = len(s.Reports)
	for _, r := range s.Reports {
		if r.Step == s.Step {
			h.Applied++
			h.Next.Add(r.Next)
			h.Current.Add(r.Current)
		}
	}
	return h
}

// Decide says what is to be done at a time.
func (s State) Decide(now time.Time) Decision {
	if d := s.harm(now); d.Action == Halt {
		return d
	}
	if d := s.compare(); d.Action == Halt {
		return d
	}
	h := s.Health()
	least := s.Plan.Bake
	if s.Step == 0 {
		least = min(least, RollCall)
	}
	baked := now.Sub(s.Since) - least
	switch {
	case h.Applied == 0 && h.Reporters == 0 && now.Sub(later(s.Since, s.Heard)) > max(least, Silence):
		return halt(Quiet, "nobody reports; a rollout that nobody watches does not go on")
	case h.Applied < h.Reporters && now.Sub(later(s.Since, s.Heard)) > max(least, Silence):
		return halt(Quiet, "%d of %d processes have not applied the step", h.Reporters-h.Applied, h.Reporters)
	case h.Reporters == 0:
		return Decision{Detail: "waiting for a first report"}
	case h.Applied < h.Reporters:
		return Decision{Detail: fmt.Sprintf("applied by %d of %d processes", h.Applied, h.Reporters)}
	case baked < 0:
		return Decision{Detail: fmt.Sprintf("healthy so far; goes on in %s", (-baked).Round(time.Second))}
	case s.Step > 0 && s.Plan.RequireRequests && h.Next.Requests < s.Plan.Requests:
		return Decision{Detail: fmt.Sprintf("waiting for requests: %d of %d", h.Next.Requests, s.Plan.Requests)}
	case s.Step >= len(s.Plan.Steps):
		return Decision{Action: Complete}
	default:
		return Decision{Action: Advance}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// harm looks for a process that suffers.
func (s State) harm(now time.Time) Decision {
	for _, r := range s.Reports {
		switch {
		case r.Quarantined != "":
			return halt(Quarantine, "%s cannot use the new content: %s", r.Reporter, r.Quarantined)
		case r.Crashed:
			return halt(Crash, "%s died within %s of applying it", r.Reporter, Fatal)
		case now.Sub(later(r.At, s.Heard)) > Silence:
			return halt(Quiet, "%s fell silent", r.Reporter)
		}
	}
	return Decision{}
}
