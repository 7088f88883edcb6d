package config_test

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/clientkey"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// newKey makes a secret and the request that makes a key of it.
func newKey(tb testing.TB, parent string, kind configv1.ClientKeyKind, origins ...string) (clientkey.Digest, *configv1.CreateClientKeyRequest) {
	tb.Helper()
	_, digest, err := clientkey.New(rand.Reader)
	must(tb, err)
	return digest, &configv1.CreateClientKeyRequest{Parent: parent, ClientKey: &configv1.ClientKey{
		KeySha256: digest[:], Kind: kind, Environment: "production", Origins: origins,
	}}
}

const (
	browserKey = configv1.ClientKeyKind_CLIENT_KEY_KIND_BROWSER
	serverKey  = configv1.ClientKeyKind_CLIENT_KEY_KIND_SERVER
)

func TestClientKeysReachGatewaysAndAreRevoked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	keys := r.as("operator")
	digest, req := newKey(t, "tenants/acme", browserKey, "https://app.acme.example")
	req.ClientKey.ExpireTime = timestamppb.New(time.Now().Add(time.Hour))
	made, err := keys.CreateClientKey(t.Context(), req)
	must(t, err)
	name := made.GetClientKey().GetName()
	if want := fmt.Sprintf("tenants/acme/clientKeys/k%x", digest[:8]); name != want || len(made.GetClientKey().GetKeySha256()) != 0 {
		t.Errorf("created %v, want %s and no digest", made, want)
	}
	public, err := keyfile.Public(r.path("feed.pub"))
	must(t, err)
	store := new(clientkey.Store)
	follower, err := clientkey.Follow(t.Context(), clientkey.FollowConfig{
		Config: r.gateway(), FeedKeys: public, Replica: "gateway-1", Store: store,
	})
	must(t, err)
	t.Cleanup(follower.Close)
	var k *clientkey.Key
	eventually(t, "the key", func() bool { k = store.Find(digest, time.Now()); return k != nil })
	if k.Tenant != tenanttest.UID("acme") || k.Kind != clientkey.Browser || !k.Allows("https://app.acme.example") || k.Environment != "production" {
		t.Fatalf("the gateway knows %+v", k)
	}
	if store.Find(digest, time.Now().Add(2*time.Hour)) != nil {
		t.Error("an expired key is found")
	}
	if _, err := keys.DeleteClientKey(t.Context(), &configv1.DeleteClientKeyRequest{Name: name}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the revocation", func() bool { return store.Find(digest, time.Now()) == nil })
	if store.Named(tenanttest.UID("acme"), k.ID, time.Now()) != nil {
		t.Error("a revoked key is found")
	}
}

func TestClientKeysOfOneTenantAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	keys := r.as("operator")
	_, req := newKey(t, "tenants/acme", serverKey)
	made, err := keys.CreateClientKey(t.Context(), req)
	must(t, err)
	id := strings.TrimPrefix(made.GetClientKey().GetName(), "tenants/acme/clientKeys/")
	listed, err := keys.ListClientKeys(t.Context(), &configv1.ListClientKeysRequest{Parent: "tenants/globex"})
	if must(t, err); len(listed.GetClientKeys()) != 0 {
		t.Errorf("globex sees %v", listed)
	}
	_, err = keys.DeleteClientKey(t.Context(), &configv1.DeleteClientKeyRequest{Name: "tenants/globex/clientKeys/" + id})
	refused(t, "a key", err, codes.NotFound, "RESOURCE_NOT_FOUND")
	req.Parent, req.RequestId = "tenants/globex", uuid.NewString()
	_, err = keys.CreateClientKey(t.Context(), req) // acme's secret, for globex
	refused(t, "a key", err, codes.AlreadyExists, "RESOURCE_EXISTS")
	listed, err = keys.ListClientKeys(t.Context(), &configv1.ListClientKeysRequest{Parent: "tenants/acme"})
	must(t, err)
	if len(listed.GetClientKeys()) != 1 || listed.GetClientKeys()[0].GetName() != made.GetClientKey().GetName() ||
		len(listed.GetClientKeys()[0].GetKeySha256()) != 0 {
		t.Errorf("acme sees %v", listed)
	}
}

func TestClientKeysRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	keys := r.as("operator")
	_, withOrigin := newKey(t, "tenants/acme", serverKey, "https://app.acme.example")
	_, unknown := newKey(t, "tenants/none", serverKey)
	_, path := newKey(t, "tenants/acme", browserKey, "https://app.acme.example/x")
	_, short := newKey(t, "tenants/acme", serverKey)
	short.ClientKey.KeySha256 = short.ClientKey.GetKeySha256()[:31]
	_, kindless := newKey(t, "tenants/acme", 0)
	for what, c := range map[string]struct {
		req    *configv1.CreateClientKeyRequest
		code   codes.Code
		reason string
	}{
		"origins of a server": {withOrigin, codes.InvalidArgument, "INVALID_FIELD"},
		"unknown tenant":      {unknown, codes.NotFound, "RESOURCE_NOT_FOUND"},
		"origin with a path":  {path, codes.InvalidArgument, "INVALID_FIELD"},
		"short digest":        {short, codes.InvalidArgument, "INVALID_FIELD"},
		"no kind":             {kindless, codes.InvalidArgument, "INVALID_FIELD"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			_, err := keys.CreateClientKey(t.Context(), c.req)
			refused(t, "a key", err, c.code, c.reason)
		})
	}
	viewer := r.as("viewer")
	_, req := newKey(t, "tenants/acme", serverKey)
	_, err := viewer.CreateClientKey(t.Context(), req)
	refused(t, "a key", err, codes.PermissionDenied, "PERMISSION_MISSING")
	stream, err := viewer.WatchClientKeys(t.Context(), &configv1.WatchClientKeysRequest{Replica: "x"})
	must(t, err)
	_, err = stream.Recv()
	refused(t, "a watch by an operator", err, codes.Unauthenticated, "CREDENTIAL_MISSING")
}

func TestClientKeysAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	keys := r.as("operator")
	for range 100 {
		_, req := newKey(t, "tenants/acme", serverKey)
		_, err := keys.CreateClientKey(t.Context(), req)
		must(t, err)
	}
	_, req := newKey(t, "tenants/acme", serverKey)
	_, err := keys.CreateClientKey(t.Context(), req)
	refused(t, "a key", err, codes.ResourceExhausted, "CLIENT_KEY_LIMIT")
	_, req = newKey(t, "tenants/globex", serverKey)
	if _, err := keys.CreateClientKey(t.Context(), req); err != nil {
		t.Errorf("another tenant is bounded, too: %v", err)
	}
}
