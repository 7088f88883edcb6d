// Package hook asks hooks before a step of the admin plane: addresses that operators registered with config and that may
// refuse it.
//
// A service follows config's feed of hooks, so it knows without asking anybody that there is none for a step, which is the
// usual case, and what a hook's silence means while config cannot be reached. It is for calls of the admin plane alone, and
// for those whose request has a field skip_hooks: any other call is refused, so that no request of a tenant ever waits for
// one. Nothing that stops or takes back asks. Start at [Asker.Ask] and [Verdict.Settle].
package hook

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

const (
	// SkipPermission is what operators need to have hooks not asked.
	SkipPermission = "config.hooks.skip"
	// WarningHeader is the trailer that carries what hooks want people to read, in UTF-8.
	WarningHeader = "rowhouse-warning-bin"

	// patience is how long config may take: its hooks take two seconds at most.
	patience = 3 * time.Second
	// loadPatience is how long the first state of the feed is waited for, when the caller gives that long. Config starts
	// after tenancy, which then needs some seconds at most to find it.
	loadPatience = 8 * time.Second
)

// Config is what an Asker needs.
type Config struct {
	// Store knows which hooks there are.
	Store *Store
	// Decide asks them; it is config's RPC.
	Decide func(ctx context.Context, req *configv1.DecideHooksRequest) (*configv1.DecideHooksResponse, error)
	// Answered reports whether the call that ctx serves repeats one that was answered, so that nothing is about to happen.
	Answered func(ctx context.Context) (bool, error)
	Log      *slog.Logger
}

// Asker asks hooks. A nil Asker knows of none. It is safe for concurrent use.
type Asker struct{ cfg Config }

// New returns an Asker.
func New(cfg Config) *Asker { return &Asker{cfg} }

// Knows reports whether there are hooks of a step.
func (a *Asker) Knows(step configv1.HookStep) bool { return a != nil && len(a.cfg.Store.For(step)) > 0 }

// Verdict is what hooks said about one step, or that there was nobody to ask. The zero Verdict is about no step.
type Verdict struct {
	step    configv1.HookStep
	err     error
	skipped []string
	reason  string
}

// Unit is the unit of work of a step, as far as hooks matter.
type Unit interface {
	// Audit names a resource that the call concerns, and what it did to it.
	Audit(resource string, changedPaths ...string)
	// Because adds a reason to the call's audit event.
	Because(reason string)
}

// Covers reports whether hooks have been asked about a step, as far as there are any.
func (v Verdict) Covers(step configv1.HookStep) bool { return v.step == step }

// Settle ends a step that was refused, and records that hooks were skipped. It belongs into the unit of work, so that a
// refusal is audited as the call's. Errors: HOOK_DENIED, HOOK_UNAVAILABLE, PERMISSION_MISSING.
func (v Verdict) Settle(u Unit) error {
	for _, name := range v.skipped {
		u.Audit(name, "skip_hooks")
	}
	if v.reason != "" {
		u.Because("hooks skipped: " + v.reason)
	}
	return v.err
}

// skipper is a request of a step before which hooks are asked.
type skipper interface{ GetSkipHooks() string }

// Ask asks all hooks of a step, for as long as patience says at most; a process that has never heard which hooks there are
// waits for that first, up to loadPatience. It belongs before the unit of work, which must not wait for them.
// What the step writes and neither the request nor the question holds is named by versions: an answer is not remembered for
// another one.
func (a *Asker) Ask(ctx context.Context, q *configv1.HookQuestion, versions ...string) Verdict {
	v := Verdict{step: q.GetStep()}
	call, _ := rule.CallFrom(ctx)
	request, ok := call.Request.(skipper)
	if !ok || call.Rule.GetPlane() != apiv1.Plane_PLANE_ADMIN {
		v.err = fault.New(fault.Internal, fault.ReasonInternal, "%s is no call before which hooks are asked", call.Method)
		return v
	}
	skip := request.GetSkipHooks()
	if skip != "" && !call.Principal.Has(SkipPermission) {
		v.err = fault.New(fault.PermissionDenied, fault.ReasonPermissionMissing, "the caller lacks the permission %s", SkipPermission).
			WithMetadata("permission", SkipPermission)
		return v
	}
	if a == nil {
		return v
	}
	if skip != "" {
		v.skipped, v.reason = names(a.cfg.Store.For(q.GetStep())), skip
		return v
	}
	if !a.cfg.Store.await(ctx, loadPatience) {
		v.err = fault.New(fault.FailedPrecondition, fault.ReasonHookUnavailable,
			"config has not said yet which hooks there are; try again, or skip them")
		return v
	}
	known := a.cfg.Store.For(q.GetStep())
	if len(known) == 0 || call.ValidateOnly {
		return v
	}
	answered, err := a.cfg.Answered(ctx)
	if err != nil {
		v.err = err
		return v
	}
	if answered { // a repeat settles nothing, unless its first answer is forgotten before the unit of work begins
		v.err = fault.New(fault.FailedPrecondition, fault.ReasonHookUnavailable, "the first answer has just been forgotten; try again")
		return v
	}
	q.Caller, q.Method, q.Reason = call.Principal.Name, call.Method, call.Reason
	id, err := requestID(call, q, versions)
	if err != nil {
		v.err = err
		return v
	}
	v.err = a.decide(ctx, &configv1.DecideHooksRequest{Question: q, RequestId: id}, known)
	return v
}

func names(known []Known) []string {
	out := make([]string, len(known))
	for i, k := range known {
		out[i] = k.Name
	}
	return out
}

// decide asks config, and says what the known hooks' silence means when it cannot be asked.
func (a *Asker) decide(ctx context.Context, req *configv1.DecideHooksRequest, known []Known) error {
	asked, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	resp, err := a.cfg.Decide(asked, req)
	if err == nil {
		warn(ctx, resp.GetDecisions())
		return Refusal(resp.GetDecisions())
	}
	if reason := fault.ReasonOf(err); reason == fault.ReasonHookUnavailable || reason == fault.ReasonRequestIDReused {
		return err
	}
	if ctx.Err() != nil {
		return fault.New(fault.DeadlineExceeded, fault.ReasonDeadlineTooShort, "the time ended before hooks had answered")
	}
	a.cfg.Log.WarnContext(ctx, "hooks cannot be asked", "step", req.GetQuestion().GetStep().String(), "error", err)
	for _, k := range known {
		if k.Closed {
			return silent(k.Name)
		}
	}
	return nil
}

// requestID is one id for a question of a call and of all its repeats. It is made of all that the caller sent, so that an
// answer to one request is never taken for one to another that carries the same request_id.
func requestID(call rule.Call, q *configv1.HookQuestion, versions []string) (string, error) {
	if call.RequestID == "" {
		return "", nil
	}
	parts := append([]string{call.Principal.Name, call.Method, call.Target, call.RequestID}, versions...)
	for _, m := range []proto.Message{call.Request, q} {
		encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			return "", fmt.Errorf("encode what hooks are asked about: %w", err)
		}
		parts = append(parts, string(encoded))
	}
	digest := sha256.New()
	for _, part := range parts {
		_, _ = fmt.Fprintf(digest, "%d:%s", len(part), part) // hashes do not fail
	}
	return uuid.NewSHA1(uuid.NameSpaceURL, digest.Sum(nil)).String(), nil
}

// Refusal is the error of a step that hooks refused, nil for one that none did.
func Refusal(decisions []*configv1.HookDecision) error {
	for _, d := range decisions {
		if d.GetOutcome() == configv1.HookOutcome_HOOK_OUTCOME_DENIED {
			return fault.New(fault.FailedPrecondition, fault.ReasonHookDenied, "%s refused the step: %s", d.GetHook(), d.GetReason()).
				WithMetadata("hook", d.GetHook()).WithMetadata("reason", d.GetReason())
		}
	}
	for _, d := range decisions {
		if d.GetOutcome() == configv1.HookOutcome_HOOK_OUTCOME_FAILED_CLOSED {
			return silent(d.GetHook())
		}
	}
	return nil
}

func silent(name string) error {
	return fault.New(fault.FailedPrecondition, fault.ReasonHookUnavailable,
		"%s gave no answer, and the step is not taken without one; try again, or skip hooks", name).WithMetadata("hook", name)
}

// warn sends what hooks want people to read with the answer.
func warn(ctx context.Context, decisions []*configv1.HookDecision) {
	var warnings []string
	for _, d := range decisions {
		for _, w := range d.GetWarnings() {
			warnings = append(warnings, WarningHeader, d.GetHook()+": "+w)
		}
	}
	if len(warnings) > 0 {
		_ = grpc.SetTrailer(ctx, metadata.Pairs(warnings...)) // a job has nobody to warn
	}
}

// TypeOf is the name of a step for receivers: "tenant.create".
func TypeOf(step configv1.HookStep) string {
	noun, verb, _ := strings.Cut(strings.ToLower(strings.TrimPrefix(step.String(), "HOOK_STEP_")), "_")
	return noun + "." + verb
}
