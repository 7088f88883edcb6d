package registry

import (
	"slices"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// reserved returns the ids that no tenant may have: they would stand beside platform hosts ("www.rowhouse.example"),
// look official in mail, or clash with names in our own URLs.
func reserved() []string {
	return []string{
		"about", "abuse", "account", "accounts", "admin", "administrator", "api", "app", "apps", "assets", "auth",
		"autoconfig", "autodiscover", "billing", "blog", "broadcasthost", "cdn", "config", "console", "contact",
		"dashboard", "dev", "dns", "docs", "download", "downloads", "email", "example", "ftp", "gateway", "grpc",
		"health", "healthz", "help", "hostmaster", "imap", "info", "internal", "invalid", "isatap", "legal", "local",
		"localhost", "localdomain", "login", "logout", "mail", "metrics", "mta-sts", "mx", "news", "noreply",
		"no-reply", "ns1", "ns2", "ns3", "oauth", "ops", "platform", "pop", "pop3", "postmaster", "privacy", "public",
		"quota", "register", "root", "rowhouse", "sales", "security", "signin", "signup", "sip", "smtp", "ssl", "sso",
		"static", "status", "support", "sysadmin", "system", "tenancy", "tenant", "tenants", "terms", "test", "tls",
		"trust", "usenet", "uucp", "vpn", "web", "webmaster", "webmail", "wpad", "www", "www1", "www2",
	}
}

// IsReserved reports whether the label is kept for the platform.
func IsReserved(label string) bool { return slices.Contains(reserved(), label) }

// ParseID reads the id of a new tenant. Errors: INVALID_FIELD; TENANT_ID_RESERVED.
func ParseID(s string) (tenant.ID, error) {
	id, err := tenant.ParseID(s)
	if err != nil {
		return tenant.ID{}, err
	}
	if IsReserved(s) {
		return tenant.ID{}, refuse(fault.InvalidArgument, ReasonTenantIDReserved, "the id %q is kept for the platform", s).
			WithField(fault.FieldViolation{Field: "tenant_id", Description: "kept for the platform"})
	}
	return id, nil
}
