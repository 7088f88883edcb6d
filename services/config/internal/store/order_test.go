package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/secret"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// vault is what the transactions of TestKeysAreLockedInOneOrder work on: a tenant's secrets in several namespaces.
type vault struct{ places []store.Place }

func newVault(h *house) vault {
	h.tb.Helper()
	uid := tenanttest.UID("acme")
	var v vault
	for i := range 3 {
		p := store.Place{
			Owner: settings.Owner{Kind: settings.Tenant, Name: "acme"}, ID: uid.String(), Tenant: sdk.TenantState{UID: uid},
			Namespace: fmt.Sprintf("n%d", i), NamespaceUID: uuid.NewString(),
		}
		h.exec(`INSERT INTO settings.namespace (uid, id, schema, create_time, update_time, revision) VALUES ($1, $2, '{}', $3, $3, 1)`,
			p.NamespaceUID, p.Namespace, time.Now())
		v.places = append(v.places, p)
	}
	return v
}

// put seals a value, each time under a data key of its own.
func (v vault) put(ctx context.Context, tx pgx.Tx, p store.Place) error {
	if _, err := store.LockNamespace(ctx, tx, p.Namespace); err != nil { // as the calls do
		return err
	}
	if _, err := store.LockDataKeys(ctx, tx, p.KeyOwner()); err != nil {
		return err
	}
	now := time.Now()
	key := secret.DataKey{UID: uuid.Must(uuid.NewV7()).String(), Owner: p.KeyOwner(), KEK: "old", Wrapped: []byte{1}, CreateTime: now}
	if err := store.InsertDataKey(ctx, tx, key); err != nil {
		return err
	}
	one, err := store.NextSecretVersion(ctx, tx, p, uuid.Must(uuid.NewV7()).String(), "s", now)
	if err != nil {
		return err
	}
	return store.InsertSecretVersion(ctx, tx, one, store.NewVersion{DataKey: key.UID, Author: "x", Sealed: []byte{1}, Time: now})
}

func (v vault) destroy(ctx context.Context, tx pgx.Tx, p store.Place) error {
	if _, err := store.LockNamespace(ctx, tx, p.Namespace); err != nil {
		return err
	}
	one, err := store.FindSecret(ctx, tx, p, "s")
	if err == nil {
		err = store.DestroySecretVersion(ctx, tx, p, one, one.Last, time.Now())
	}
	return missing(err)
}

func (v vault) remove(ctx context.Context, tx pgx.Tx, p store.Place) error {
	if _, err := store.LockNamespace(ctx, tx, p.Namespace); err != nil {
		return err
	}
	one, err := store.FindSecret(ctx, tx, p, "s")
	if err == nil {
		err = store.DeleteSecret(ctx, tx, p, one, time.Now())
	}
	return missing(err)
}

// missing passes over what another transaction has removed.
func missing(err error) error {
	if fault.KindOf(err) == fault.NotFound {
		return nil
	}
	return err
}

func (v vault) erase(ctx context.Context, tx pgx.Tx, p store.Place) error {
	_, err := store.EraseTenant(ctx, tx, p.ID, "tenants/"+p.Owner.Name, time.Now())
	return err
}

func (v vault) rewrap(ctx context.Context, tx pgx.Tx, _ store.Place) error {
	kek := uuid.NewString()
	old, err := store.LockOldKeys(ctx, tx, kek, 1000)
	for _, k := range old {
		if err == nil {
			err = store.PutWrapped(ctx, tx, kek, k)
		}
	}
	return err
}

// rotate gives the tenant's webhook, which it makes if there is none, another key.
func (v vault) rotate(ctx context.Context, tx pgx.Tx, p store.Place) error {
	var uid string
	var next int32
	err := tx.QueryRow(ctx, `INSERT INTO webhook.endpoint (uid, tenant_uid, id, url, event_types, description, signing, disabled,
			create_time, update_time, revision)
		VALUES (gen_random_uuid(), $1, 'w', 'https://x.example', '{}', '', 1, false, $2, $2, 1)
		ON CONFLICT (tenant_uid, id) DO UPDATE SET update_time = now() RETURNING uid::text`, p.ID, time.Now()).Scan(&uid)
	if err == nil {
		err = tx.QueryRow(ctx, `SELECT coalesce(max(version), 0) + 1 FROM webhook.key WHERE endpoint_uid = $1`, uid).Scan(&next)
	}
	if err != nil {
		return err
	}
	return store.AddWebhookKey(ctx, tx, uid, store.WebhookKey{Version: next, Sealed: []byte{1}}, time.Now().Add(time.Hour))
}

// All that changes keys of a tenant may run at once: no two transactions wait for each other. The service would try one of
// them again, so here nothing does.
func TestKeysAreLockedInOneOrder(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	v, pool := newVault(h), h.db.Service(t)
	var g errgroup.Group
	for worker, does := range []func(context.Context, pgx.Tx, store.Place) error{
		v.put, v.put, v.put, v.destroy, v.remove, v.erase, v.rewrap, v.rotate,
	} {
		g.Go(func() error {
			for i := range 150 {
				err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
					return does(t.Context(), tx, v.places[(worker+i)%len(v.places)])
				})
				if code := pg.Code(err); code == "40P01" {
					return fmt.Errorf("worker %d waits in a circle: %w", worker, err)
				} else if err != nil {
					return fmt.Errorf("worker %d: %w", worker, err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
