package rpc

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/egress"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/mask"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/internal/seal"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/webhook"
)

const (
	webhookURLRefused = "WEBHOOK_URL_REFUSED"
	webhookLimit      = "WEBHOOK_LIMIT"
	webhookDisabled   = "WEBHOOK_DISABLED"
	webhooksOff       = "WEBHOOKS_OFF"

	// maxWebhooks is how many the platform or a tenant may have.
	maxWebhooks    = 10
	defaultOverlap = 24 * time.Hour
	causeGone      = "GONE"
)

// webhookService serves WebhookService.
type webhookService struct {
	configv1.UnimplementedWebhookServiceServer
	Config
}

// owner finds out whose webhooks a call is about, and whose chain it belongs to.
func (s *webhookService) owner(tx *change.Tx, field, name string) (store.WebhookOwner, error) {
	o, err := settings.ParseOwner(name)
	if err != nil || o.Kind != settings.Platform && o.Kind != settings.Tenant {
		return store.WebhookOwner{}, badField(field, "is not the platform's or a tenant's")
	}
	if o.Kind == settings.Platform {
		return store.WebhookOwner{Name: name}, nil
	}
	id, err := tenant.ParseID(o.Name)
	if err != nil {
		return store.WebhookOwner{}, badField(field, "is not the platform's or a tenant's")
	}
	state, ok := s.Trust.Find(id)
	if !ok {
		return store.WebhookOwner{}, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "%s does not exist", name)
	}
	tx.Tenant(state.UID.String())
	return store.WebhookOwner{Name: name, UID: state.UID.String()}, nil
}

// webhookReader is store.ReadWebhook or store.LockWebhook.
type webhookReader func(ctx context.Context, q store.Querier, o store.WebhookOwner, id string) (*configv1.Webhook, error)

// named finds the webhook that a call is about.
func (s *webhookService) named(ctx context.Context, tx *change.Tx, field, name string, read webhookReader) (*configv1.Webhook, error) {
	tx.Audit(name)
	owner, id, _ := strings.Cut(name, "/webhooks/")
	o, err := s.owner(tx, field, owner)
	if err != nil {
		return nil, err
	}
	return read(ctx, tx, o, id)
}

// GetWebhook implements rowhouse.config.v1.WebhookService.
func (s *webhookService) GetWebhook(ctx context.Context, req *configv1.GetWebhookRequest) (*configv1.GetWebhookResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.GetWebhookResponse, error) {
		w, err := s.named(ctx, tx, "name", req.GetName(), store.ReadWebhook)
		return &configv1.GetWebhookResponse{Webhook: w}, err
	})
}

// ListWebhooks implements rowhouse.config.v1.WebhookService.
func (s *webhookService) ListWebhooks(ctx context.Context, req *configv1.ListWebhooksRequest) (*configv1.ListWebhooksResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.ListWebhooksResponse, error) {
		tx.Audit(req.GetParent())
		o, err := s.owner(tx, "parent", req.GetParent())
		if err != nil {
			return nil, err
		}
		p, err := tx.Page(ctx, page.Query{Parent: req.GetParent(), Size: req.GetPageSize(), Token: req.GetPageToken()})
		if err != nil {
			return nil, err
		}
		found, err := store.ListWebhooks(ctx, tx, o, last(p), p.Limit())
		if err != nil {
			return nil, err
		}
		found, next, err := page.Cut(p, found, func(w *configv1.Webhook) []string {
			_, id, _ := strings.Cut(w.GetName(), "/webhooks/")
			return []string{id}
		})
		return &configv1.ListWebhooksResponse{Webhooks: found, NextPageToken: next}, err
	})
}

// CreateWebhook implements rowhouse.config.v1.WebhookService. The secret is added to the answer outside the unit of
// work, so that the request log does not keep it.
func (s *webhookService) CreateWebhook(ctx context.Context, req *configv1.CreateWebhookRequest) (*configv1.CreateWebhookResponse, error) {
	resp, err := change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.CreateWebhookResponse, error) {
		w, err := s.create(ctx, tx, req)
		return &configv1.CreateWebhookResponse{Webhook: w}, err
	})
	if err != nil || req.GetValidateOnly() {
		return resp, err
	}
	resp.Secret, err = s.secret(ctx, resp.GetWebhook())
	return resp, err
}

func (s *webhookService) create(ctx context.Context, tx *change.Tx, req *configv1.CreateWebhookRequest) (*configv1.Webhook, error) {
	name := req.GetParent() + "/webhooks/" + req.GetWebhookId()
	tx.Audit(name)
	o, err := s.owner(tx, "parent", req.GetParent())
	if err != nil {
		return nil, err
	}
	if err := checkURL(s.Webhooks.Client, "webhook.url", req.GetWebhook().GetUrl()); err != nil {
		return nil, err
	}
	if err := checkTypes(req.GetWebhook().GetEventTypes()); err != nil {
		return nil, err
	}
	uid, err := tenant.NewUID(s.Clock(), rand.Reader)
	if err != nil {
		return nil, err
	}
	given, now := req.GetWebhook(), timestamppb.New(tx.Now())
	w := &configv1.Webhook{
		Name: name, Uid: uid.String(), Url: given.GetUrl(), EventTypes: given.GetEventTypes(), Description: given.GetDescription(),
		Signing: given.GetSigning(), Disabled: given.GetDisabled(), CreateTime: now, UpdateTime: now,
	}
	if w.EventTypes == nil {
		w.EventTypes = []string{}
	}
	if w.GetSigning() == configv1.WebhookSigning_WEBHOOK_SIGNING_UNSPECIFIED {
		w.Signing = configv1.WebhookSigning_WEBHOOK_SIGNING_HMAC
	}
	if !tx.Call().ValidateOnly {
		if w.Revision, err = store.Tick(ctx, tx); err != nil {
			return nil, err
		}
	}
	made, err := store.InsertWebhook(ctx, tx, o, req.GetWebhookId(), w, maxWebhooks)
	if err != nil {
		return nil, err
	}
	if !made {
		return nil, refuse(fault.FailedPrecondition, webhookLimit, "%s has %d webhooks, and may have no more", o.Name, maxWebhooks)
	}
	if err := s.newKey(ctx, tx, w, tx.Now()); err != nil || tx.Call().ValidateOnly {
		return w, err
	}
	return store.ReadWebhook(ctx, tx, o, req.GetWebhookId())
}

// newKey gives a webhook its next key; those before sign until a time at most.
func (s *webhookService) newKey(ctx context.Context, tx *change.Tx, w *configv1.Webhook, until time.Time) error {
	if s.Webhooks.Box == nil {
		return refuse(fault.FailedPrecondition, webhooksOff, "config has no key to keep webhooks' secrets under")
	}
	before, err := store.NewestWebhookKey(ctx, tx, w.GetUid())
	if err != nil {
		return err
	}
	k, err := webhook.NewKey(store.SigningOf(w), rand.Reader)
	if err != nil {
		return err
	}
	version := before.Version + 1
	sealed := s.Webhooks.Box.Seal(k.Reveal(), sealPlace(w.GetUid(), version)...)
	return store.AddWebhookKey(ctx, tx, w.GetUid(), store.WebhookKey{Version: version, Sealed: sealed, Public: k.Public()}, until)
}

// sealPlace is where alone a sealed key opens.
func sealPlace(endpointUID string, version int32) []string {
	return []string{"webhook", endpointUID, strconv.Itoa(int(version))}
}

// OpenWebhookKey opens a key that newKey sealed.
func OpenWebhookKey(box *seal.Box, endpointUID string, version int32, signing webhook.Signing, sealed []byte) (webhook.Key, error) {
	secret, err := box.Open(sealed, sealPlace(endpointUID, version)...)
	if err != nil {
		return webhook.Key{}, err
	}
	return webhook.OpenKey(signing, secret)
}

// secret is a webhook's newest secret, for the caller that made it. It is "" for one that was changed or deleted since:
// the answer may be a repeated one.
func (s *webhookService) secret(ctx context.Context, w *configv1.Webhook) (string, error) {
	current, err := store.NewestWebhookKey(ctx, s.Pool, w.GetUid())
	if err != nil || current.Version == 0 {
		return "", pg.Fault(err)
	}
	revision, err := store.WebhookRevision(ctx, s.Pool, w.GetUid())
	if err != nil || revision != w.GetRevision() {
		return "", pg.Fault(err)
	}
	k, err := OpenWebhookKey(s.Webhooks.Box, w.GetUid(), current.Version, store.SigningOf(w), current.Sealed)
	return k.Secret(), err
}

// checkTypes refuses what no event can ever be of.
func checkTypes(wanted []string) error {
	for i, t := range wanted {
		if !webhook.Fires(t) {
			return badField(fmt.Sprintf("webhook.event_types[%d]", i), fmt.Sprintf("is %q, which no event is of; there are %s, and "+
				"their beginnings up to a dot with a star", t, strings.Join(webhook.Types(), ", ")))
		}
	}
	return nil
}

// checkURL refuses an address that its caller, that of webhooks or that of hooks, does not call.
func checkURL(client *egress.Client, field, url string) error {
	err := client.CheckURL(url)
	if err == nil {
		return nil
	}
	class := string(egress.ClassOf(err))
	what := "is not an address that is called: " + class
	if class == string(egress.BadURL) {
		what += ", wanted are https, a port that egress.ports allows (usually 443 or 8443), no user and no fragment"
	}
	return refuse(fault.InvalidArgument, webhookURLRefused, "the URL %s", what).WithMetadata("class", class).
		WithField(fault.FieldViolation{Field: field, Description: what, Reason: webhookURLRefused})
}

// UpdateWebhook implements rowhouse.config.v1.WebhookService.
func (s *webhookService) UpdateWebhook(ctx context.Context, req *configv1.UpdateWebhookRequest) (*configv1.UpdateWebhookResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.UpdateWebhookResponse, error) {
		w, err := s.named(ctx, tx, "webhook.name", req.GetWebhook().GetName(), store.LockWebhook)
		if err != nil {
			return nil, err
		}
		if err := etag.Check(req.GetWebhook().GetEtag(), w.GetEtag()); err != nil {
			return nil, err
		}
		paths, err := mask.Apply(w, req.GetWebhook(), req.GetUpdateMask())
		if err != nil || len(paths) == 0 {
			return &configv1.UpdateWebhookResponse{Webhook: w}, err
		}
		if err := checkURL(s.Webhooks.Client, "webhook.url", w.GetUrl()); err != nil {
			return nil, err
		}
		if slices.Contains(paths, "event_types") { // those that stand from before stop nobody
			if err := checkTypes(w.GetEventTypes()); err != nil {
				return nil, err
			}
		}
		w.DisabledCause = ""
		return &configv1.UpdateWebhookResponse{Webhook: w}, s.putWebhook(ctx, tx, w, paths...)
	})
}

// putWebhook writes a webhook that was changed.
func (c Config) putWebhook(ctx context.Context, tx *change.Tx, w *configv1.Webhook, paths ...string) (err error) {
	tx.Audit(w.GetName(), paths...)
	w.UpdateTime = timestamppb.New(tx.Now())
	if w.EventTypes == nil {
		w.EventTypes = []string{}
	}
	if !tx.Call().ValidateOnly {
		if w.Revision, err = store.Tick(ctx, tx); err != nil {
			return err
		}
		w.Etag = etag.Of(w.GetUid(), w.GetRevision())
	}
	return store.UpdateWebhook(ctx, tx, w)
}

// DeleteWebhook implements rowhouse.config.v1.WebhookService.
func (s *webhookService) DeleteWebhook(ctx context.Context, req *configv1.DeleteWebhookRequest) (*configv1.DeleteWebhookResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.DeleteWebhookResponse, error) {
		w, err := s.named(ctx, tx, "name", req.GetName(), store.LockWebhook)
		if fault.KindOf(err) == fault.NotFound && req.GetAllowMissing() {
			return &configv1.DeleteWebhookResponse{}, nil
		}
		if err != nil {
			return nil, err
		}
		if err := etag.Check(req.GetEtag(), w.GetEtag()); err != nil {
			return nil, err
		}
		return &configv1.DeleteWebhookResponse{}, store.DeleteWebhook(ctx, tx, w.GetUid())
	})
}

// RotateWebhookSecret implements rowhouse.config.v1.WebhookService.
func (s *webhookService) RotateWebhookSecret(
	ctx context.Context, req *configv1.RotateWebhookSecretRequest,
) (*configv1.RotateWebhookSecretResponse, error) {
	resp, err := change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.RotateWebhookSecretResponse, error) {
		w, err := s.named(ctx, tx, "name", req.GetName(), store.LockWebhook)
		if err != nil {
			return nil, err
		}
		if err := etag.Check(req.GetEtag(), w.GetEtag()); err != nil {
			return nil, err
		}
		overlap := defaultOverlap
		if req.GetOverlap() != nil {
			overlap = req.GetOverlap().AsDuration()
		}
		if err := s.newKey(ctx, tx, w, tx.Now().Add(overlap)); err != nil {
			return nil, err
		}
		if err := s.putWebhook(ctx, tx, w, "secret"); err != nil {
			return nil, err
		}
		owner, id, _ := strings.Cut(w.GetName(), "/webhooks/")
		o, err := s.owner(tx, "name", owner)
		if err != nil {
			return nil, err
		}
		w, err = store.ReadWebhook(ctx, tx, o, id)
		return &configv1.RotateWebhookSecretResponse{Webhook: w}, err
	})
	if err != nil || req.GetValidateOnly() {
		return resp, err
	}
	resp.Secret, err = s.secret(ctx, resp.GetWebhook())
	return resp, err
}
