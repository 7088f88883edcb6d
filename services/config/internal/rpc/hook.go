package rpc

import (
	"context"
	"crypto/rand"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/hook"
	"github.com/rowhouse-platform/rowhouse/internal/mask"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/ask"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/webhook"
)

const (
	hookLimit = "HOOK_LIMIT"
	// maxHooks is how many there may be: all of a step are asked side by side, and each has metrics of its own.
	maxHooks = 20
)

// hookService serves HookService.
type hookService struct {
	configv1.UnimplementedHookServiceServer
	Config
}

func hookID(name string) string { return strings.TrimPrefix(name, "hooks/") }

// GetHook implements rowhouse.config.v1.HookService.
func (s *hookService) GetHook(ctx context.Context, req *configv1.GetHookRequest) (*configv1.GetHookResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.GetHookResponse, error) {
		tx.Audit(req.GetName())
		h, err := store.ReadHook(ctx, tx, hookID(req.GetName()))
		return &configv1.GetHookResponse{Hook: h}, err
	})
}

// ListHooks implements rowhouse.config.v1.HookService.
func (s *hookService) ListHooks(ctx context.Context, req *configv1.ListHooksRequest) (*configv1.ListHooksResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.ListHooksResponse, error) {
		tx.Audit("hooks/-")
		p, err := tx.Page(ctx, page.Query{Size: req.GetPageSize(), Token: req.GetPageToken()})
		if err != nil {
			return nil, err
		}
		found, err := store.ListHooks(ctx, tx, last(p), p.Limit())
		if err != nil {
			return nil, err
		}
		found, next, err := page.Cut(p, found, func(h *configv1.Hook) []string { return []string{hookID(h.GetName())} })
		return &configv1.ListHooksResponse{Hooks: found, NextPageToken: next}, err
	})
}

// CreateHook implements rowhouse.config.v1.HookService. The secret is added to the answer outside the unit of work, so that
// the request log does not keep it.
func (s *hookService) CreateHook(ctx context.Context, req *configv1.CreateHookRequest) (*configv1.CreateHookResponse, error) {
	resp, err := change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.CreateHookResponse, error) {
		h, err := s.create(ctx, tx, req)
		return &configv1.CreateHookResponse{Hook: h}, err
	})
	if err != nil || req.GetValidateOnly() {
		return resp, err
	}
	resp.Secret, err = s.secret(ctx, resp.GetHook())
	return resp, err
}

func (s *hookService) create(ctx context.Context, tx *change.Tx, req *configv1.CreateHookRequest) (*configv1.Hook, error) {
	tx.Audit(store.HookName(req.GetHookId()))
	if err := s.check(req.GetHook()); err != nil {
		return nil, err
	}
	uid, err := tenant.NewUID(s.Clock(), rand.Reader)
	if err != nil {
		return nil, err
	}
	given, now := req.GetHook(), timestamppb.New(tx.Now())
	h := &configv1.Hook{
		Name: store.HookName(req.GetHookId()), Uid: uid.String(), Url: given.GetUrl(), Steps: given.GetSteps(), Failure: given.GetFailure(),
		Timeout: given.GetTimeout(), Description: given.GetDescription(), Signing: given.GetSigning(), Disabled: given.GetDisabled(),
		CreateTime: now, UpdateTime: now,
	}
	if h.GetTimeout() == nil {
		h.Timeout = durationpb.New(ask.MaxTimeout)
	}
	if h.GetSigning() == configv1.WebhookSigning_WEBHOOK_SIGNING_UNSPECIFIED {
		h.Signing = configv1.WebhookSigning_WEBHOOK_SIGNING_HMAC
	}
	if !tx.Call().ValidateOnly {
		if h.Revision, err = store.Tick(ctx, tx); err != nil {
			return nil, err
		}
	}
	made, err := store.InsertHook(ctx, tx, req.GetHookId(), h, maxHooks)
	if err != nil {
		return nil, err
	}
	if !made {
		return nil, refuse(fault.FailedPrecondition, hookLimit, "there are %d hooks, and may be no more", maxHooks)
	}
	if err := s.newKey(ctx, tx, h, tx.Now()); err != nil || tx.Call().ValidateOnly {
		return h, err
	}
	if h, err = store.ReadHook(ctx, tx, req.GetHookId()); err != nil {
		return nil, err
	}
	return h, publishHook(tx, h)
}

// check refuses what the rules beside the fields do not.
func (s *hookService) check(h *configv1.Hook) error {
	switch {
	case len(h.GetSteps()) == 0:
		return badField("hook.steps", "is empty: say before which steps it is asked")
	case h.GetFailure() == configv1.HookFailure_HOOK_FAILURE_UNSPECIFIED:
		return badField("hook.failure", "is missing: say what becomes of a step when it gives no answer")
	default:
		return checkURL(s.Webhooks.Hooks, "hook.url", h.GetUrl())
	}
}

// publishHook tells services of a hook, or that it is not asked any more.
func publishHook(tx *change.Tx, h *configv1.Hook) error {
	if h.GetDisabled() {
		return tx.Publish(hook.FeedName, h.GetName(), nil)
	}
	return tx.Publish(hook.FeedName, h.GetName(), &configv1.HookEntry{Steps: h.GetSteps(), Failure: h.GetFailure()})
}

// newKey gives a hook its next key; those before sign until a time at most.
func (s *hookService) newKey(ctx context.Context, tx *change.Tx, h *configv1.Hook, until time.Time) error {
	if s.Webhooks.Box == nil {
		return hooksOff()
	}
	before, err := store.HookKeys(ctx, tx, h.GetUid())
	if err != nil {
		return err
	}
	k, err := webhook.NewKey(store.HookSigning(h), rand.Reader)
	if err != nil {
		return err
	}
	version := int32(1)
	if len(before) > 0 {
		version = before[0].Version + 1
	}
	sealed := s.Webhooks.Box.Seal(k.Reveal(), hookPlace(h.GetUid(), version)...)
	return store.AddHookKey(ctx, tx, h.GetUid(), store.WebhookKey{Version: version, Sealed: sealed, Public: k.Public()}, until)
}

func hooksOff() error {
	return refuse(fault.FailedPrecondition, webhooksOff, "config has no key to keep hooks' secrets under")
}

// hookPlace is where alone a sealed key opens.
func hookPlace(uid string, version int32) []string {
	return []string{"hook", uid, strconv.Itoa(int(version))}
}

// openKeys opens what signs a hook's calls now, the newest first. One none of whose keys opens has none.
func (s *hookService) openKeys(ctx context.Context, q store.Querier, h *configv1.Hook) ([]webhook.Key, error) {
	if s.Webhooks.Box == nil {
		return nil, nil
	}
	sealed, err := store.HookKeys(ctx, q, h.GetUid())
	if err != nil {
		return nil, err
	}
	var keys []webhook.Key
	for _, k := range sealed {
		secret, err := s.Webhooks.Box.Open(k.Sealed, hookPlace(h.GetUid(), k.Version)...)
		if err != nil {
			continue
		}
		if key, err := webhook.OpenKey(store.HookSigning(h), secret); err == nil {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// secret is a hook's newest secret, for the caller that made it. It is "" for one that was changed or deleted since: the
// answer may be a repeated one.
func (s *hookService) secret(ctx context.Context, h *configv1.Hook) (string, error) {
	revision, err := store.HookRevision(ctx, s.Pool, h.GetUid())
	if err != nil || revision != h.GetRevision() {
		return "", pg.Fault(err)
	}
	keys, err := s.openKeys(ctx, s.Pool, h)
	if err != nil || len(keys) == 0 {
		return "", pg.Fault(err)
	}
	return keys[0].Secret(), nil
}

// UpdateHook implements rowhouse.config.v1.HookService.
func (s *hookService) UpdateHook(ctx context.Context, req *configv1.UpdateHookRequest) (*configv1.UpdateHookResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.UpdateHookResponse, error) {
		tx.Audit(req.GetHook().GetName())
		h, err := store.LockHook(ctx, tx, hookID(req.GetHook().GetName()))
		if err != nil {
			return nil, err
		}
		if err := etag.Check(req.GetHook().GetEtag(), h.GetEtag()); err != nil {
			return nil, err
		}
		paths, err := mask.Apply(h, req.GetHook(), req.GetUpdateMask())
		if err != nil || len(paths) == 0 {
			return &configv1.UpdateHookResponse{Hook: h}, err
		}
		if h.GetTimeout() == nil {
			h.Timeout = durationpb.New(ask.MaxTimeout)
		}
		if err := s.check(h); err != nil {
			return nil, err
		}
		return &configv1.UpdateHookResponse{Hook: h}, s.put(ctx, tx, h, paths...)
	})
}

// put writes a hook that was changed.
func (s *hookService) put(ctx context.Context, tx *change.Tx, h *configv1.Hook, paths ...string) (err error) {
	tx.Audit(h.GetName(), paths...)
	h.UpdateTime = timestamppb.New(tx.Now())
	if !tx.Call().ValidateOnly {
		if h.Revision, err = store.Tick(ctx, tx); err != nil {
			return err
		}
		h.Etag = etag.Of(h.GetUid(), h.GetRevision())
	}
	if err := store.UpdateHook(ctx, tx, h); err != nil {
		return err
	}
	return publishHook(tx, h)
}

// DeleteHook implements rowhouse.config.v1.HookService.
func (s *hookService) DeleteHook(ctx context.Context, req *configv1.DeleteHookRequest) (*configv1.DeleteHookResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.DeleteHookResponse, error) {
		tx.Audit(req.GetName())
		h, err := store.LockHook(ctx, tx, hookID(req.GetName()))
		if fault.KindOf(err) == fault.NotFound && req.GetAllowMissing() {
			return &configv1.DeleteHookResponse{}, nil
		}
		if err != nil {
			return nil, err
		}
		if err := etag.Check(req.GetEtag(), h.GetEtag()); err != nil {
			return nil, err
		}
		if err := store.DeleteHook(ctx, tx, h.GetUid()); err != nil {
			return nil, err
		}
		return &configv1.DeleteHookResponse{}, tx.Publish(hook.FeedName, h.GetName(), nil)
	})
}

// RotateHookSecret implements rowhouse.config.v1.HookService.
func (s *hookService) RotateHookSecret(
	ctx context.Context, req *configv1.RotateHookSecretRequest,
) (*configv1.RotateHookSecretResponse, error) {
	resp, err := change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.RotateHookSecretResponse, error) {
		tx.Audit(req.GetName())
		h, err := store.LockHook(ctx, tx, hookID(req.GetName()))
		if err != nil {
			return nil, err
		}
		if err := etag.Check(req.GetEtag(), h.GetEtag()); err != nil {
			return nil, err
		}
		overlap := defaultOverlap
		if req.GetOverlap() != nil {
			overlap = req.GetOverlap().AsDuration()
		}
		if err := s.newKey(ctx, tx, h, tx.Now().Add(overlap)); err != nil {
			return nil, err
		}
		if err := s.put(ctx, tx, h, "secret"); err != nil {
			return nil, err
		}
		h, err = store.ReadHook(ctx, tx, hookID(req.GetName()))
		return &configv1.RotateHookSecretResponse{Hook: h}, err
	})
	if err != nil || req.GetValidateOnly() {
		return resp, err
	}
	resp.Secret, err = s.secret(ctx, resp.GetHook())
	return resp, err
}
