package rpc

import (
	"context"
	"strings"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/audit"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/clientkey"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// EraseTenant implements rowhouse.config.v1.SecretService. It asks for a tenant that is deleted: what cannot be taken back
// must not follow from a name alone.
func (s *secretService) EraseTenant(ctx context.Context, req *configv1.EraseTenantRequest) (*configv1.EraseTenantResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.EraseTenantResponse, error) {
		tx.Audit(req.GetName())
		id, err := tenant.ParseID(strings.TrimPrefix(req.GetName(), "tenants/"))
		if err != nil {
			return nil, badField("name", "is not a tenant's")
		}
		t, ok := s.Trust.Find(id)
		if !ok {
			return nil, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "%s does not exist", req.GetName())
		}
		tx.Tenant(t.UID.String())
		if t.State != tenant.StateDeleted {
			return nil, fault.New(fault.FailedPrecondition, fault.ReasonWrongState,
				"%s is %s; only a deleted tenant is erased", req.GetName(), t.State).WithMetadata("state", t.State.String())
		}
		e, err := store.EraseTenant(ctx, tx, t.UID.String(), req.GetName(), tx.Now())
		if err != nil {
			return nil, err
		}
		for _, rolling := range e.Rolling {
			r, err := store.ReadRollout(ctx, tx, rolling.Namespace, rolling.UID)
			if err != nil {
				return nil, err
			}
			if err := publishRollout(tx, r); err != nil {
				return nil, err
			}
		}
		if err := tx.ForgetTenant(ctx, t.UID.String()); err != nil {
			return nil, err
		}
		return &configv1.EraseTenantResponse{
			Secrets: e.Secrets, DataKeys: e.DataKeys, Webhooks: e.Webhooks, BrandDrafts: e.BrandDrafts,
			ClientKeys: store.Count(len(e.ClientKeys)), Documents: store.Count(len(e.Documents)), Changes: e.Changes, Rollouts: e.Rollouts,
			BrandAssets: e.BrandAssets,
		}, unpublish(tx, e)
	})
}

// unpublish takes what was erased out of the feeds, and names what others see go.
func unpublish(tx *change.Tx, e store.Erased) error {
	for _, digest := range e.ClientKeys {
		if err := tx.Publish(clientkey.FeedName, clientkey.FeedKey([32]byte(digest)), nil); err != nil {
			return err
		}
	}
	for _, d := range e.Documents {
		if err := tx.Publish(sdk.FeedName, feedKey(d.Layer, d.Namespace, d.LayerID), nil); err != nil {
			return err
		}
	}
	for _, namespace := range e.Running {
		if err := tx.Publish(sdk.FeedName, sdk.RolloutKey(namespace), nil); err != nil {
			return err
		}
	}
	for _, id := range e.Cancelled {
		tx.Tenant(audit.Platform)
		tx.Audit(changePrefix+id, pathState)
	}
	return nil
}
