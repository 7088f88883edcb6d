package system

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"testing"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/clientkey"
)

// Flags and a key that an operator sets are seen on the tenant's host by whoever has the key, and end with it.
func TestFlagsReachClientsOfTheirTenant(t *testing.T) {
	t.Parallel()
	h := shared(t)
	hosts, keys, names := map[string]string{}, map[string]string{}, map[string]string{}
	documents := configv1.NewDocumentServiceClient(h.operator(t, "config"))
	service := configv1.NewClientKeyServiceClient(h.operator(t, "config"))
	for _, id := range []string{"flagged", "unflagged"} {
		hosts[id] = h.tenant(t, id)
		key, digest, err := clientkey.New(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		made, err := service.CreateClientKey(t.Context(), &configv1.CreateClientKeyRequest{Parent: "tenants/" + id, ClientKey: &configv1.ClientKey{
			KeySha256: digest[:], Kind: configv1.ClientKeyKind_CLIENT_KEY_KIND_SERVER, Environment: "production",
		}})
		if err != nil {
			t.Fatal(err)
		}
		keys[id], names[id] = key, made.GetClientKey().GetName()
	}
	_, err := documents.UpdateDocument(t.Context(), &configv1.UpdateDocumentRequest{AllowMissing: true, Reason: "a test of flags",
		Document: &configv1.Document{Name: "tenants/flagged/config/flags", Content: `{"flags":{"mark":{"state":"ENABLED",
			"variants":{"its":"its own","no":"no"},"defaultVariant":"no","targeting":{"if":[{"==":[{"var":"tenant"},"flagged"]},"its"]}}}}`},
	})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(host, key string) answer {
		return h.visit(t, visit{method: http.MethodPost, host: hosts[host], path: "/ofrep/v1/evaluate/flags/mark", tls: true, body: `{}`,
			header: map[string]string{"Authorization": "Bearer " + keys[key]}})
	}
	want := func(host, key string, status int, text string) error {
		if got := ask(host, key); got.status != status || !strings.Contains(got.body, text) {
			return fmt.Errorf("%s's key on %s's host: %d %s", key, host, got.status, got.body)
		}
		return nil
	}
	eventually(t, settle, func() error { return want("flagged", "flagged", http.StatusOK, `"value":"its own"`) })
	eventually(t, settle, func() error { return want("unflagged", "unflagged", http.StatusNotFound, "FLAG_NOT_FOUND") })
	for host, key := range map[string]string{"flagged": "unflagged", "unflagged": "flagged"} {
		if err := want(host, key, http.StatusForbidden, "errorDetails"); err != nil {
			t.Error(err)
		}
	}
	if _, err := service.DeleteClientKey(t.Context(), &configv1.DeleteClientKeyRequest{Name: names["flagged"]}); err != nil {
		t.Fatal(err)
	}
	eventually(t, settle, func() error { return want("flagged", "flagged", http.StatusUnauthorized, "errorDetails") })
}
