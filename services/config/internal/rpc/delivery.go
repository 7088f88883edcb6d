package rpc

import (
	"context"
	"crypto/rand"
	"math"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/egress"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/internal/seal"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/webhook"
)

// Webhooks is what the service of webhooks needs.
type Webhooks struct {
	// Client calls receivers.
	Client *egress.Client
	// Hooks calls hooks, which have less time and more to say.
	Hooks *egress.Client
	// Box seals their secrets. Without it no webhook can be made, and nothing is sent.
	Box *seal.Box
}

// sendable refuses what a disabled webhook cannot do.
func sendable(w *configv1.Webhook) error {
	if w.GetDisabled() {
		return refuse(fault.FailedPrecondition, webhookDisabled, "%s is disabled", w.GetName())
	}
	return nil
}

// TestWebhook implements rowhouse.config.v1.WebhookService.
func (s *webhookService) TestWebhook(ctx context.Context, req *configv1.TestWebhookRequest) (*configv1.TestWebhookResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.TestWebhookResponse, error) {
		w, err := s.named(ctx, tx, "name", req.GetName(), store.LockWebhook)
		if err != nil {
			return nil, err
		}
		if s.Webhooks.Box == nil {
			return nil, refuse(fault.FailedPrecondition, webhooksOff, "config has no key to open webhooks' secrets with")
		}
		if err := sendable(w); err != nil {
			return nil, err
		}
		uid, err := tenant.NewUID(s.Clock(), rand.Reader)
		if err != nil {
			return nil, err
		}
		m, _ := webhook.NewTest(uid.String(), tx.Now()).Message(func(string) string { return "" })
		if err := store.InsertDelivery(ctx, tx, w.GetUid(), uid.String(), m); err != nil {
			return nil, err
		}
		return &configv1.TestWebhookResponse{Delivery: &configv1.WebhookDelivery{
			Name: w.GetName() + "/deliveries/" + uid.String(), EventType: m.Type, Body: m.Body, Event: m.Name(),
			State:      configv1.WebhookDeliveryState_WEBHOOK_DELIVERY_STATE_PENDING,
			CreateTime: timestamppb.New(tx.Now()), NextAttemptTime: timestamppb.New(tx.Now()),
		}}, nil
	})
}

// ListWebhookDeliveries implements rowhouse.config.v1.WebhookService.
func (s *webhookService) ListWebhookDeliveries(
	ctx context.Context, req *configv1.ListWebhookDeliveriesRequest,
) (*configv1.ListWebhookDeliveriesResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.ListWebhookDeliveriesResponse, error) {
		w, err := s.named(ctx, tx, "parent", req.GetParent(), store.ReadWebhook)
		if err != nil {
			return nil, err
		}
		p, err := tx.Page(ctx, page.Query{Parent: req.GetParent(), Size: req.GetPageSize(), Token: req.GetPageToken()})
		if err != nil {
			return nil, err
		}
		before, uid := pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}, "ffffffff-ffff-ffff-ffff-ffffffffffff"
		if len(p.After) == 2 {
			at, err := time.Parse(time.RFC3339Nano, p.After[0])
			if err != nil {
				return nil, err
			}
			before, uid = pgtype.Timestamptz{Time: at, Valid: true}, p.After[1]
		}
		found, err := store.ListDeliveries(ctx, tx, w, before, uid, p.Limit())
		if err != nil {
			return nil, err
		}
		found, next, err := page.Cut(p, found, func(d *configv1.WebhookDelivery) []string {
			return []string{d.GetCreateTime().AsTime().Format(time.RFC3339Nano), d.GetName()[strings.LastIndexByte(d.GetName(), '/')+1:]}
		})
		return &configv1.ListWebhookDeliveriesResponse{Deliveries: found, NextPageToken: next}, err
	})
}

// RedeliverWebhook implements rowhouse.config.v1.WebhookService.
func (s *webhookService) RedeliverWebhook(
	ctx context.Context, req *configv1.RedeliverWebhookRequest,
) (*configv1.RedeliverWebhookResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.RedeliverWebhookResponse, error) {
		name, uid, _ := strings.Cut(req.GetName(), "/deliveries/")
		w, err := s.named(ctx, tx, "name", name, store.LockWebhook)
		if err != nil {
			return nil, err
		}
		tx.Audit(req.GetName())
		if err := sendable(w); err != nil {
			return nil, err
		}
		n, err := store.Redeliver(ctx, tx, w.GetUid(), uid)
		if err == nil && n == 0 && uid != "-" {
			err = fault.New(fault.NotFound, fault.ReasonResourceNotFound, "%s does not exist", req.GetName())
		}
		return &configv1.RedeliverWebhookResponse{Redelivered: int32(min(n, math.MaxInt32))}, err //nolint:gosec // bounded
	})
}

// NewDispatcher returns what sends the messages of webhooks, nil when there is no key to open their secrets with.
func NewDispatcher(c Config) *webhook.Dispatcher {
	if c.Webhooks.Box == nil {
		return nil
	}
	return webhook.NewDispatcher(webhook.Config{Queue: c.queue(), Poster: c.Webhooks.Client, Clock: c.Clock, Log: c.Log, Meters: c.Meters})
}

// NewTenancy returns what takes in the events of tenancy, nil when there are no webhooks.
func NewTenancy(c Config) *webhook.Intake {
	if c.Webhooks.Box == nil {
		return nil
	}
	return webhook.NewTenancy(c.queue(), c.Log)
}

// NewQuota returns what takes in the notices of quota, nil when there are no webhooks.
func NewQuota(c Config) *webhook.Intake {
	if c.Webhooks.Box == nil {
		return nil
	}
	return webhook.NewQuota(c.queue(), c.Log)
}

func (c Config) queue() *store.Queue {
	return &store.Queue{
		Pool: c.Pool,
		Names: func(uid string) string {
			t, ok := c.tenant(uid)
			if !ok {
				return ""
			}
			return t.ID.String()
		},
		NewUID: func() (string, error) {
			uid, err := tenant.NewUID(c.Clock(), rand.Reader)
			return uid.String(), err
		},
		OpenKey: func(uid string, version int32, s webhook.Signing, sealed []byte) (webhook.Key, error) {
			return OpenWebhookKey(c.Webhooks.Box, uid, version, s, sealed)
		},
		Served: c.served, Gone: c.gone,
	}
}

// served says whether a tenant's webhooks are called: not after it was deleted. What a suspended one is told may be why it
// is. Before tenancy was ever heard nobody is known, and everybody's are.
func (c Config) served(tenantUID string) bool {
	if tenantUID == "" {
		return true // the platform
	}
	t, ok := c.tenant(tenantUID)
	if !ok {
		return c.Trust.Silence() == math.MaxInt64
	}
	return t.State != tenant.StateDeleted
}

// gone disables a webhook whose receiver said that it is gone.
func (c Config) gone(ctx context.Context, endpointUID string) error {
	ctx = change.NewJob(ctx, "config", "webhook-gone")
	_, err := change.Do(ctx, c.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.UpdateWebhookResponse, error) {
		o, w, err := store.LockWebhookByUID(ctx, tx, endpointUID)
		if err != nil {
			return nil, err
		}
		tx.Tenant(o.UID)
		owner := sdk.LayerPlatform
		if t, ok := c.tenant(o.UID); ok {
			owner = "tenants/" + t.ID.String()
		}
		w.Name = owner + w.GetName()
		if w.GetDisabled() {
			return &configv1.UpdateWebhookResponse{}, nil
		}
		w.Disabled, w.DisabledCause = true, causeGone
		return &configv1.UpdateWebhookResponse{}, c.putWebhook(ctx, tx, w, "disabled")
	})
	if fault.KindOf(err) == fault.NotFound {
		return nil
	}
	return err
}
