package rpc

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/hook"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/ask"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// WithHooks returns c with what asks hooks before config's own steps.
func (c Config) WithHooks(known *hook.Store) Config {
	s := &hookService{Config: c}
	c.Hooks = hook.New(hook.Config{Store: known, Decide: s.decideHere, Answered: c.Kernel.Answered, Log: c.Log})
	return c
}

// askDocument asks hooks about a write of a document; versions name what is written, where the request does not hold it. What it
// returns is settled in the unit of work, with the locks held.
func (c Config) askDocument(ctx context.Context, name string, versions ...string) hook.Verdict {
	o, namespace, err := settings.ParseName(name)
	if err != nil {
		return hook.Verdict{} // the unit of work says so
	}
	q := &configv1.HookQuestion{Step: configv1.HookStep_HOOK_STEP_DOCUMENT_PUBLISH, Document: name}
	if namespace == sdk.BrandNamespace {
		q.Step = configv1.HookStep_HOOK_STEP_BRAND_PUBLISH
	}
	if id, err := tenant.ParseID(o.Name); err == nil && o.OfTenant() {
		q.Tenant = id.String()
		if t, ok := c.Trust.Find(id); ok {
			q.TenantUid = t.UID.String()
		}
	}
	return c.Hooks.Ask(ctx, q, versions...)
}

// decideHere is DecideHooks for a step of config itself, in the name of whoever takes it.
func (s *hookService) decideHere(ctx context.Context, req *configv1.DecideHooksRequest) (*configv1.DecideHooksResponse, error) {
	call, _ := rule.CallFrom(ctx)
	call.Method, call.RequestID, call.Request = configv1.HookService_DecideHooks_FullMethodName, req.GetRequestId(), req
	call.Rule = &apiv1.MethodRule{Plane: apiv1.Plane_PLANE_PEER, Audit: apiv1.AuditClass_AUDIT_CLASS_CHANGE}
	call.Target, call.Reason = "", ""
	return s.DecideHooks(rule.NewContext(ctx, call), req)
}

// remembered is how long an answer of hooks stands for repeats of its question at most; half of it at least. Hooks change their
// mind, and what they judge changes.
const remembered = time.Minute

// DecideHooks implements rowhouse.config.v1.HookService. Hooks are asked outside the unit of work, which holds a connection
// and the request_id.
func (s *hookService) DecideHooks(ctx context.Context, req *configv1.DecideHooksRequest) (*configv1.DecideHooksResponse, error) {
	hooks, err := store.HooksOf(ctx, s.Pool, req.GetQuestion().GetStep())
	if err != nil {
		return nil, pg.Fault(err)
	}
	ctx, answered, err := s.recall(ctx, hooks)
	if err != nil {
		return nil, err
	}
	var decisions []*configv1.HookDecision
	if !answered {
		if decisions, err = s.decide(ctx, req, hooks); err != nil {
			return nil, pg.Fault(err)
		}
	}
	return change.Do(ctx, s.Kernel, func(_ context.Context, tx *change.Tx) (*configv1.DecideHooksResponse, error) {
		if answered { // and forgotten since
			return nil, fault.New(fault.FailedPrecondition, fault.ReasonHookUnavailable, "the first answer has just been forgotten; try again")
		}
		denied := false
		for _, d := range decisions {
			tx.Audit(d.GetHook())
			denied = denied || d.GetOutcome() == configv1.HookOutcome_HOOK_OUTCOME_DENIED
		}
		if !denied { // what is missing is asked for again by a repeat
			if err := hook.Refusal(decisions); err != nil {
				return nil, err
			}
		}
		return &configv1.DecideHooksResponse{Decisions: decisions}, nil
	})
}

// recall returns ctx for a call that repeats another only if the same hooks answered that one a moment ago, and says whether
// there is one.
func (s *hookService) recall(ctx context.Context, hooks []*configv1.Hook) (context.Context, bool, error) {
	call, _ := rule.CallFrom(ctx)
	if call.RequestID == "" {
		return ctx, false, nil
	}
	request, now := call.RequestID, s.Clock()
	call.RequestID = answerID(request, hooks, now.Add(-remembered/2))
	before := rule.NewContext(ctx, call)
	if answered, err := s.Kernel.Answered(before); err != nil || answered {
		return before, answered, err
	}
	call.RequestID = answerID(request, hooks, now)
	ctx = rule.NewContext(ctx, call)
	answered, err := s.Kernel.Answered(ctx)
	return ctx, answered, err
}

// answerID is under what id the answer to a request is kept: another one for other hooks, for a hook that was changed, and
// after half of the time for which an answer stands.
func answerID(request string, hooks []*configv1.Hook, at time.Time) string {
	parts := []string{request, strconv.FormatInt(at.Truncate(remembered/2).Unix(), 10)}
	for _, h := range hooks {
		parts = append(parts, h.GetUid(), strconv.FormatInt(h.GetRevision(), 10))
	}
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte(strings.Join(parts, " "))).String()
}

func (s *hookService) decide(
	ctx context.Context, req *configv1.DecideHooksRequest, hooks []*configv1.Hook,
) ([]*configv1.HookDecision, error) {
	targets := make([]ask.Target, len(hooks))
	for i, h := range hooks {
		var err error
		if targets[i], err = s.target(ctx, h); err != nil {
			return nil, err
		}
	}
	if len(targets) == 0 {
		return nil, nil
	}
	id, err := s.questionID(req.GetRequestId())
	if err != nil {
		return nil, err
	}
	return s.Ask.Ask(ctx, ask.Question{HookQuestion: req.GetQuestion(), ID: id}, targets), nil
}

// questionID is what a hook knows a repeated question by.
func (s *hookService) questionID(requestID string) (string, error) {
	if requestID != "" {
		return requestID, nil
	}
	uid, err := tenant.NewUID(s.Clock(), rand.Reader)
	return uid.String(), err
}

func (s *hookService) target(ctx context.Context, h *configv1.Hook) (ask.Target, error) {
	keys, err := s.openKeys(ctx, s.Pool, h)
	return ask.Target{
		Name: h.GetName(), UID: h.GetUid(), URL: h.GetUrl(), Timeout: h.GetTimeout().AsDuration(), Keys: keys,
		Closed: h.GetFailure() != configv1.HookFailure_HOOK_FAILURE_OPEN,
	}, err
}

// TestHook implements rowhouse.config.v1.HookService.
func (s *hookService) TestHook(ctx context.Context, req *configv1.TestHookRequest) (*configv1.TestHookResponse, error) {
	answered, err := s.Kernel.Answered(ctx)
	if err != nil {
		return nil, err
	}
	resp := new(configv1.TestHookResponse)
	if !answered && !req.GetValidateOnly() {
		if resp, err = s.test(ctx, req); err != nil {
			err = pg.Fault(err)
		}
	}
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.TestHookResponse, error) {
		tx.Audit(req.GetName())
		if err != nil {
			return nil, err
		}
		_, err := store.ReadHook(ctx, tx, hookID(req.GetName()))
		return resp, err
	})
}

func (s *hookService) test(ctx context.Context, req *configv1.TestHookRequest) (*configv1.TestHookResponse, error) {
	h, err := store.ReadHook(ctx, s.Pool, hookID(req.GetName()))
	if err != nil {
		return nil, err
	}
	if s.Webhooks.Box == nil {
		return nil, hooksOff()
	}
	t, err := s.target(ctx, h)
	if err != nil {
		return nil, err
	}
	id, err := s.questionID("")
	if err != nil {
		return nil, err
	}
	call, _ := rule.CallFrom(ctx)
	q := &configv1.HookQuestion{Step: req.GetStep(), Caller: call.Principal.Name, Method: call.Method}
	if q.GetStep() == configv1.HookStep_HOOK_STEP_UNSPECIFIED {
		q.Step = h.GetSteps()[0]
	}
	start := s.Clock()
	decisions := s.Ask.Ask(ctx, ask.Question{HookQuestion: q, ID: id, Test: true}, []ask.Target{t})
	return &configv1.TestHookResponse{Decision: decisions[0], Duration: durationpb.New(s.Clock().Sub(start))}, nil
}

// WatchHooks implements rowhouse.config.v1.HookService.
func (s *hookService) WatchHooks(req *configv1.WatchHooksRequest, stream grpc.ServerStreamingServer[configv1.WatchHooksResponse]) error {
	if err := s.Kernel.Opened(stream.Context(), "feeds/"+hook.FeedName); err != nil {
		return err
	}
	return s.Feeds.Watch(stream.Context(), hook.FeedName, string(req.GetResumeToken()), func(f *apiv1.FeedFrame) error {
		return stream.Send(&configv1.WatchHooksResponse{Frame: f})
	})
}

// FollowHooks keeps config's own store of hooks up to date, by the client that other services use, without a wire.
func FollowHooks(ctx context.Context, c Config, known *hook.Store) (*feed.Feed, error) {
	public, _ := c.PreviewKey.Public().(ed25519.PublicKey)
	return feed.Start(ctx, feed.Config{
		Name: hook.FeedName, Apply: known.Apply, Keys: []ed25519.PublicKey{public}, Clock: c.Clock, Log: c.Log,
		Metrics: c.Meters,
		Open: func(ctx context.Context, token string) (feed.Stream, error) {
			frames, ended := make(chan *apiv1.FeedFrame), make(chan error, 1)
			go func() {
				select {
				case <-c.Feeds.Ready():
				case <-ctx.Done():
				}
				ended <- c.Feeds.Watch(ctx, hook.FeedName, token, func(f *apiv1.FeedFrame) error {
					select {
					case frames <- f:
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				})
			}()
			return feed.Recv(func() (*apiv1.FeedFrame, error) {
				select {
				case f := <-frames:
					return f, nil
				case err := <-ended:
					if err == nil {
						err = io.EOF
					}
					return nil, err
				}
			}), nil
		},
	})
}
