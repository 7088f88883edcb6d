package worker

import (
	"crypto/ed25519"

	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
)

// Certify returns the certificate that the trust root signs for a key: every audience, the key's cells, the given
// classes.
func Certify(root ed25519.PrivateKey, k store.ContextKey, holder identity.ID, classes tenant.Classes) ([]byte, error) {
	return tenant.SignKeyCertificate(root, tenant.KeyCertificate{
		PublicKey: k.PublicKey,
		Minter:    k.Minter,
		SPIFFE:    holder,
		Cells:     k.Cells,
		Audience:  ^tenant.Audience(0),
		Classes:   classes,
		NotBefore: k.NotBefore,
		NotAfter:  k.NotAfter,
	})
}
