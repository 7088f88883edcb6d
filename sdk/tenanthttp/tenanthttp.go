// Package tenanthttp gives net/http applications behind the gateway their tenant.
//
// The gateway passes the tenant context in the header [Header]. [Handler]
// verifies it, and who presented it, before the application sees the request;
// handlers then read it by tenant.FromContext. [WriteProblem] answers refusals
// as problem documents (RFC 9457).
//
// It is for services that speak HTTP themselves, behind mTLS. What faces
// customers is the gateway.
package tenanthttp

import (
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Header carries the tenant context: its bytes in standard base64, one value.
const Header = "Rowhouse-Tenant-Bin"

// Config says how requests are verified.
type Config struct {
	// Verifier checks the contexts. Required.
	Verifier *tenant.Verifier
	// Log is told the causes that callers are not. Default: slog.Default.
	Log *slog.Logger
}

// Handler returns a handler that verifies each request's tenant context and
// passes the request on with it, without the header. Requests without a good
// context, or from a peer that may not present one, are answered by
// [WriteProblem] and go no further. It panics without a verifier: that is a
// mistake in the program.
func Handler(cfg Config, next http.Handler) http.Handler {
	if cfg.Verifier == nil {
		panic("tenanthttp: Config.Verifier is missing")
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		verified, err := verify(cfg.Verifier, r)
		if err != nil {
			presenter, _ := identity.FromTLS(r.TLS)
			cfg.Log.LogAttrs(r.Context(), slog.LevelInfo, "the request was refused",
				slog.String("error", err.Error()), slog.String("peer", presenter.String()))
			WriteProblem(w, r, err)
			return
		}
		r = r.Clone(tenant.NewContext(r.Context(), verified))
		r.Header.Del(Header)
		next.ServeHTTP(w, r)
	})
}

func verify(verifier *tenant.Verifier, r *http.Request) (tenant.Context, error) {
	token, err := tokenOf(r.Header.Values(Header))
	if err != nil {
		return tenant.Context{}, err
	}
	presenter, _ := identity.FromTLS(r.TLS) // The verifier refuses the zero identity.
	return verifier.Verify(token, presenter)
}

func tokenOf(values []string) (string, error) {
	switch len(values) {
	case 0:
		return "", fault.New(fault.Unauthenticated, fault.ReasonContextMissing,
			"the request needs a tenant context and has none")
	case 1:
	default:
		return "", fault.New(fault.Unauthenticated, fault.ReasonContextInvalid,
			"the request carries more than one tenant context")
	}
	token, err := base64.StdEncoding.Strict().DecodeString(values[0])
	// The decoder skips line breaks; one meaning has one spelling here.
	if err == nil && base64.StdEncoding.EncodeToString(token) != values[0] {
		err = errors.New("another spelling")
	}
	if err != nil {
		return "", fault.New(fault.Unauthenticated, fault.ReasonContextInvalid,
			"the tenant context cannot be read").WithCause(err)
	}
	return string(token), nil
}
