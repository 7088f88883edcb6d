package rpc

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"strings"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

const (
	secretInClear   = "SECRET_IN_CLEAR"
	secretUnknown   = "SECRET_UNKNOWN"
	secretInUse     = "SECRET_IN_USE"
	secretDestroyed = "SECRET_DESTROYED"
	secretLimit     = "SECRET_LIMIT"
	secretsOff      = "SECRETS_OFF"

	// maxSecrets is how many an owner may have in a namespace, maxVersions how many versions of each.
	maxSecrets  = 100
	maxVersions = 100
	// rewrapBatch is how many keys one call wraps anew, each by a statement, while it keeps others from using them.
	rewrapBatch = 500
)

// secretService serves SecretService.
type secretService struct {
	configv1.UnimplementedSecretServiceServer
	Config

	documents *documentService
}

// named finds out which secret a call is about; its namespace is read, or locked.
func (s *secretService) named(
	ctx context.Context, tx *change.Tx, name string, read namespaceReader,
) (p store.Place, n *configv1.Namespace, id string, err error) {
	tx.Audit(name)
	document, id, _ := strings.Cut(name, "/secrets/")
	const most = 63
	if len(id) > most {
		return p, nil, "", badField("name", "has an id of more than 63 characters")
	}
	p, n, err = s.place(ctx, tx, "name", document, read)
	return p, n, id, err
}

// place finds out in which layer and namespace a call is.
func (s *secretService) place(
	ctx context.Context, tx *change.Tx, field, document string, read namespaceReader,
) (p store.Place, n *configv1.Namespace, err error) {
	o, namespace, err := settings.ParseName(document)
	if err != nil {
		return p, nil, badField(field, "is not that of a layer's secrets in a namespace")
	}
	if p, err = s.documents.place(tx, o); err != nil {
		return p, nil, err
	}
	n, err = read(ctx, tx, namespace)
	p.Namespace, p.NamespaceUID = namespace, n.GetUid()
	return p, n, err
}

// ListSecrets implements rowhouse.config.v1.SecretService.
func (s *secretService) ListSecrets(ctx context.Context, req *configv1.ListSecretsRequest) (*configv1.ListSecretsResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.ListSecretsResponse, error) {
		tx.Audit(req.GetParent())
		where, _, err := s.place(ctx, tx, "parent", req.GetParent(), store.ReadNamespace)
		if err != nil {
			return nil, err
		}
		p, err := tx.Page(ctx, page.Query{Parent: req.GetParent(), Size: req.GetPageSize(), Token: req.GetPageToken()})
		if err != nil {
			return nil, err
		}
		p = few(p)
		found, err := store.ListSecrets(ctx, tx, where, last(p), p.Limit())
		if err != nil {
			return nil, err
		}
		found, next, err := page.Cut(p, found, func(one *configv1.Secret) []string {
			_, id, _ := strings.Cut(one.GetName(), "/secrets/")
			return []string{id}
		})
		return &configv1.ListSecretsResponse{Secrets: found, NextPageToken: next}, err
	})
}

// PutSecret implements rowhouse.config.v1.SecretService. The value is in no record of the call (see [change.Do]), so a
// repeat is compared with what the first call sealed.
func (s *secretService) PutSecret(ctx context.Context, req *configv1.PutSecretRequest) (*configv1.PutSecretResponse, error) {
	resp, err := change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.PutSecretResponse, error) {
		p, _, id, err := s.named(ctx, tx, req.GetName(), store.LockNamespace)
		if err != nil {
			return nil, err
		}
		if err := s.there(p.Owner); err != nil {
			return nil, err
		}
		if s.Secrets.KEK == nil {
			return nil, refuse(fault.FailedPrecondition, secretsOff, "config has no key to keep secrets under")
		}
		if err := roomFor(ctx, tx, p, id); err != nil {
			return nil, err
		}
		if err := s.put(ctx, tx, p, id, req.GetValue()); err != nil {
			return nil, err
		}
		one, err := store.ReadSecret(ctx, tx, p, id)
		return &configv1.PutSecretResponse{Secret: one}, err
	})
	if err != nil || req.GetRequestId() == "" || req.GetValidateOnly() {
		return resp, err
	}
	return resp, s.sameValue(ctx, req, resp.GetSecret())
}

func roomFor(ctx context.Context, tx *change.Tx, p store.Place, id string) error {
	others, versions, err := store.CountSecrets(ctx, tx, p, id)
	switch {
	case err != nil:
		return err
	case others >= maxSecrets:
		return refuse(fault.ResourceExhausted, secretLimit, "%s has %d secrets, and may have no more", p, others)
	case versions >= maxVersions:
		return refuse(fault.ResourceExhausted, secretLimit, "%s has %d versions that are not destroyed, and may have no more",
			p.SecretName(id), versions)
	default:
		return nil
	}
}

// put seals a value as the next version.
func (s *secretService) put(ctx context.Context, tx *change.Tx, p store.Place, id string, value []byte) error {
	key, err := store.LockDataKeys(ctx, tx, p.KeyOwner()) // before the secret, as all do
	if err != nil {
		return err
	}
	if key.UID == "" || key.Spent(tx.Now()) {
		uid, err := tenant.NewUID(s.Clock(), rand.Reader)
		if err != nil {
			return err
		}
		if key, err = s.Secrets.New(ctx, uid.String(), p.KeyOwner(), tx.Now()); err != nil {
			return err
		}
		if err := store.InsertDataKey(ctx, tx, key); err != nil {
			return err
		}
	}
	uid, err := tenant.NewUID(s.Clock(), rand.Reader)
	if err != nil {
		return err
	}
	one, err := store.NextSecretVersion(ctx, tx, p, uid.String(), id, tx.Now())
	if err != nil {
		return err
	}
	sealed, err := s.Secrets.Seal(ctx, key, value, one.Sealed(p, one.Last))
	if err != nil {
		return err
	}
	if err := store.UseDataKey(ctx, tx, key.UID); err != nil {
		return err
	}
	return store.InsertSecretVersion(ctx, tx, one, store.NewVersion{
		DataKey: key.UID, Author: tx.Call().Principal.Name, Sealed: sealed, Time: tx.Now(),
	})
}

// sameValue refuses a repeat of a call whose value was another: its answer would be about what it did not send.
func (s *secretService) sameValue(ctx context.Context, req *configv1.PutSecretRequest, answered *configv1.Secret) error {
	document, id, _ := strings.Cut(req.GetName(), "/secrets/")
	o, namespace, err := settings.ParseName(document)
	if err != nil || len(answered.GetVersions()) == 0 {
		return err
	}
	p, err := s.locate(o)
	if err != nil {
		return gone(err)
	}
	n, err := store.ReadNamespace(ctx, s.Pool, namespace)
	if err != nil {
		return gone(err)
	}
	p.Namespace, p.NamespaceUID = namespace, n.GetUid()
	value, err := s.value(ctx, s.Pool, p, id, answered.GetVersions()[0].GetVersion())
	if err != nil {
		return gone(err)
	}
	if subtle.ConstantTimeCompare(value, req.GetValue()) != 1 {
		return fault.New(fault.InvalidArgument, fault.ReasonRequestIDReused, "request_id %s was used with another request", req.GetRequestId())
	}
	return nil
}

// gone passes over what was removed, or destroyed, since a call was first answered.
func gone(err error) error {
	if kind := fault.KindOf(err); kind == fault.NotFound || kind == fault.FailedPrecondition {
		return nil
	}
	return pg.Fault(err)
}

// value opens a version of a secret.
func (c Config) value(ctx context.Context, q store.Querier, p store.Place, id string, version int32) ([]byte, error) {
	if c.Secrets.KEK == nil {
		return nil, refuse(fault.FailedPrecondition, secretsOff, "config has no key to open secrets with")
	}
	one, err := store.FindSecret(ctx, q, p, id)
	if err != nil {
		return nil, err
	}
	v, err := store.ReadSecretVersion(ctx, q, p, one, version)
	if err != nil {
		return nil, err
	}
	if v.Destroyed {
		return nil, refuse(fault.FailedPrecondition, secretDestroyed, "version %d of the secret was destroyed", version)
	}
	return c.Secrets.Open(ctx, v.DataKey, v.Sealed, one.Sealed(p, version))
}

// DestroySecretVersion implements rowhouse.config.v1.SecretService.
func (s *secretService) DestroySecretVersion(
	ctx context.Context, req *configv1.DestroySecretVersionRequest,
) (*configv1.DestroySecretVersionResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.DestroySecretVersionResponse, error) {
		p, n, id, err := s.named(ctx, tx, req.GetName(), store.LockNamespace)
		if err != nil {
			return nil, err
		}
		one, err := store.FindSecret(ctx, tx, p, id)
		if err != nil {
			return nil, err
		}
		if !req.GetForce() {
			if err := s.unused(ctx, tx, n, p, id, req.GetVersion()); err != nil {
				return nil, err
			}
		}
		if err := store.DestroySecretVersion(ctx, tx, p, one, req.GetVersion(), tx.Now()); err != nil {
			return nil, err
		}
		left, err := store.ReadSecret(ctx, tx, p, id)
		return &configv1.DestroySecretVersionResponse{Secret: left}, err
	})
}

// unused refuses while the layer's document refers to a version of a secret, 0 for any.
func (s *secretService) unused(ctx context.Context, tx *change.Tx, n *configv1.Namespace, p store.Place, id string, version int32) error {
	before, err := s.around(ctx, tx, n, p)
	if err != nil {
		return err
	}
	if before.Refers(p.Owner, id, version) {
		return refuse(fault.FailedPrecondition, secretInUse, "%s refers to it", p)
	}
	r, rolled, err := s.rolled(ctx, tx, n, before)
	if err != nil || rolled == nil {
		return err
	}
	if rolled.Refers(p.Owner, id, version) {
		return refuse(fault.FailedPrecondition, secretInUse, "what %s brings to %s refers to it", rolloutName(r.Namespace, r.UID), p)
	}
	return nil
}

// DeleteSecret implements rowhouse.config.v1.SecretService.
func (s *secretService) DeleteSecret(ctx context.Context, req *configv1.DeleteSecretRequest) (*configv1.DeleteSecretResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.DeleteSecretResponse, error) {
		p, n, id, err := s.named(ctx, tx, req.GetName(), store.LockNamespace)
		if err != nil {
			return nil, err
		}
		one, err := store.FindSecret(ctx, tx, p, id)
		if fault.KindOf(err) == fault.NotFound && req.GetAllowMissing() {
			return &configv1.DeleteSecretResponse{}, nil
		}
		if err == nil {
			err = s.unused(ctx, tx, n, p, id, 0)
		}
		if err != nil {
			return nil, err
		}
		return &configv1.DeleteSecretResponse{}, store.DeleteSecret(ctx, tx, p, one, tx.Now())
	})
}

// RewrapSecrets implements rowhouse.config.v1.SecretService.
func (s *secretService) RewrapSecrets(ctx context.Context, req *configv1.RewrapSecretsRequest) (*configv1.RewrapSecretsResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.RewrapSecretsResponse, error) {
		tx.Audit(req.GetParent())
		if s.Secrets.KEK == nil || s.Webhooks.Box == nil {
			return nil, refuse(fault.FailedPrecondition, secretsOff, "config has no key to wrap secrets' keys under")
		}
		kek := s.Secrets.KEK.ID()
		old, err := store.LockOldKeys(ctx, tx, kek, rewrapBatch)
		if err != nil {
			return nil, err
		}
		for _, k := range old {
			if k, err = s.rewrap(ctx, k); err != nil {
				return nil, err // nothing is half done: the operator has to put the key back that is missing
			}
			if err := store.PutWrapped(ctx, tx, kek, k); err != nil {
				return nil, err
			}
		}
		remaining, err := store.CountOldKeys(ctx, tx, kek)
		return &configv1.RewrapSecretsResponse{
			KeyEncryptionKey: kek, Rewrapped: int32(len(old)), Remaining: remaining, //nolint:gosec // at most rewrapBatch
		}, err
	})
}

// rewrap wraps a key anew.
func (s *secretService) rewrap(ctx context.Context, k store.WrappedKey) (_ store.WrappedKey, err error) {
	var place []string
	switch {
	case k.Webhook != "":
		place = sealPlace(k.Webhook, k.Version)
	case k.Hook != "":
		place = hookPlace(k.Hook, k.Version)
	default:
		k.DataKey, err = s.Secrets.Rewrap(ctx, k.DataKey)
		return k, err
	}
	plain, err := s.Webhooks.Box.Open(k.Sealed, place...)
	if err != nil {
		return k, err
	}
	k.Sealed = s.Webhooks.Box.Seal(plain, place...)
	return k, nil
}
