package rpc

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/clientkey"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// maxClientKeys is how many keys a tenant may have.
const maxClientKeys = 100

// clientKeyService serves ClientKeyService.
type clientKeyService struct {
	configv1.UnimplementedClientKeyServiceServer
	Config
}

// owner finds the tenant that a name means, whose chain the call belongs to.
func (s *clientKeyService) owner(tx *change.Tx, field, name string) (tenant.UID, error) {
	tx.Audit(name)
	text, _, _ := strings.Cut(strings.TrimPrefix(name, "tenants/"), "/")
	id, err := tenant.ParseID(text)
	if err != nil {
		return tenant.UID{}, badField(field, "is not the name of a tenant")
	}
	state, ok := s.Trust.Find(id)
	if !ok {
		return tenant.UID{}, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "tenants/%s does not exist", id)
	}
	tx.Tenant(state.UID.String())
	return state.UID, nil
}

// ListClientKeys implements rowhouse.config.v1.ClientKeyService.
func (s *clientKeyService) ListClientKeys(
	ctx context.Context, req *configv1.ListClientKeysRequest,
) (*configv1.ListClientKeysResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.ListClientKeysResponse, error) {
		uid, err := s.owner(tx, "parent", req.GetParent())
		if err != nil {
			return nil, err
		}
		p, err := tx.Page(ctx, page.Query{Parent: req.GetParent(), Size: req.GetPageSize(), Token: req.GetPageToken()})
		if err != nil {
			return nil, err
		}
		found, err := store.ListClientKeys(ctx, tx, req.GetParent(), uid.String(), last(p), p.Limit())
		if err != nil {
			return nil, err
		}
		found, next, err := page.Cut(p, found, func(k *configv1.ClientKey) []string {
			_, id, _ := strings.Cut(k.GetName(), "/clientKeys/")
			return []string{id}
		})
		return &configv1.ListClientKeysResponse{ClientKeys: found, NextPageToken: next}, err
	})
}

// CreateClientKey implements rowhouse.config.v1.ClientKeyService.
func (s *clientKeyService) CreateClientKey(
	ctx context.Context, req *configv1.CreateClientKeyRequest,
) (*configv1.CreateClientKeyResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.CreateClientKeyResponse, error) {
		uid, err := s.owner(tx, "parent", req.GetParent())
		if err != nil {
			return nil, err
		}
		k, _ := proto.Clone(req.GetClientKey()).(*configv1.ClientKey)
		if k.GetKind() == configv1.ClientKeyKind_CLIENT_KEY_KIND_SERVER && len(k.GetOrigins()) > 0 {
			return nil, badField("client_key.origins", "belong to keys of kind BROWSER")
		}
		id := store.ClientKeyID(k.GetKeySha256())
		k.Name, k.Author, k.CreateTime = req.GetParent()+"/clientKeys/"+id, tx.Call().Principal.Name, timestamppb.New(tx.Now())
		tx.Audit(k.GetName())
		if err := s.insert(ctx, tx, uid, k); err != nil {
			return nil, err
		}
		err = tx.Publish(clientkey.FeedName, clientkey.FeedKey([32]byte(k.GetKeySha256())), &configv1.ClientKeyEntry{
			Id: id, TenantUid: uid[:], Kind: k.GetKind(), Environment: k.GetEnvironment(), Origins: k.GetOrigins(), ExpireTime: k.GetExpireTime(),
		})
		k.KeySha256 = nil
		return &configv1.CreateClientKeyResponse{ClientKey: k}, err
	})
}

// insert writes a key, if the tenant may have one more.
func (s *clientKeyService) insert(ctx context.Context, tx *change.Tx, uid tenant.UID, k *configv1.ClientKey) error {
	// Its row is locked until the commit, so that two calls do not count the same.
	if _, err := store.Tick(ctx, tx); err != nil {
		return err
	}
	n, err := store.CountClientKeys(ctx, tx, uid.String())
	if err != nil {
		return err
	}
	if n >= maxClientKeys {
		return refuse(fault.ResourceExhausted, clientKeyLimit, "a tenant has at most %d client keys", maxClientKeys)
	}
	return store.InsertClientKey(ctx, tx, uid.String(), k)
}

// DeleteClientKey implements rowhouse.config.v1.ClientKeyService.
func (s *clientKeyService) DeleteClientKey(
	ctx context.Context, req *configv1.DeleteClientKeyRequest,
) (*configv1.DeleteClientKeyResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.DeleteClientKeyResponse, error) {
		uid, err := s.owner(tx, "name", req.GetName())
		if err != nil {
			return nil, err
		}
		_, id, _ := strings.Cut(req.GetName(), "/clientKeys/")
		digest, err := store.DeleteClientKey(ctx, tx, uid.String(), id)
		switch {
		case err != nil:
			return nil, err
		case digest != nil:
			return &configv1.DeleteClientKeyResponse{}, tx.Publish(clientkey.FeedName, clientkey.FeedKey([32]byte(digest)), nil)
		case req.GetAllowMissing():
			return &configv1.DeleteClientKeyResponse{}, nil
		default:
			return nil, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "%s does not exist", req.GetName())
		}
	})
}

// WatchClientKeys implements rowhouse.config.v1.ClientKeyService.
func (s *clientKeyService) WatchClientKeys(
	req *configv1.WatchClientKeysRequest, stream grpc.ServerStreamingServer[configv1.WatchClientKeysResponse],
) error {
	if err := s.Kernel.Opened(stream.Context(), "feeds/"+clientkey.FeedName); err != nil {
		return err
	}
	return s.Feeds.Watch(stream.Context(), clientkey.FeedName, string(req.GetResumeToken()), func(f *apiv1.FeedFrame) error {
		return stream.Send(&configv1.WatchClientKeysResponse{Frame: f})
	})
}
