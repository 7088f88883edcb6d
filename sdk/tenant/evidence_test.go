package tenant_test

import (
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// What a token said is proved after its time, and nothing else is.
func TestEvidence(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0).UTC()
	i := tenanttest.NewIssuer(t, func() time.Time { return now })
	token := i.Token(t, "acme", tenanttest.As("ann"))
	other := tenanttest.NewIssuer(t, func() time.Time { return now })
	now = now.Add(6 * 24 * time.Hour)
	id, err := tenant.EvidenceKey(token)
	if err != nil || id != i.Certificate().KeyID {
		t.Errorf("the key %x, %v; want %x", id, err, i.Certificate().KeyID)
	}
	c, err := tenant.Evidence(token, i.Certificate())
	if err != nil || c.TenantUID != tenanttest.UID("acme") || c.PrincipalKind != tenant.PrincipalUser {
		t.Errorf("%+v, %v", c, err)
	}
	narrow, ended := i.Certificate(), i.Certificate()
	narrow.Audience, ended.NotAfter = tenant.AudienceApp(17), c.IssueTime
	for name, f := range map[string]struct {
		token  string
		cert   tenant.KeyCertificate
		reason string
	}{
		"another key":           {token, other.Certificate(), fault.ReasonContextInvalid},
		"a changed byte":        {token[:40] + string(token[40]^1) + token[41:], i.Certificate(), fault.ReasonContextInvalid},
		"nothing":               {"", i.Certificate(), fault.ReasonContextInvalid},
		"what the key may not":  {token, narrow, fault.ReasonPresenterRefused},
		"after the key's time":  {token, ended, fault.ReasonContextInvalid},
		"more than one context": {token + token, i.Certificate(), fault.ReasonContextInvalid},
	} {
		if c, err := tenant.Evidence(f.token, f.cert); fault.ReasonOf(err) != f.reason {
			t.Errorf("%s: %+v, %v; want %s", name, c, err, f.reason)
		}
	}
	if _, err := tenant.EvidenceKey("x"); fault.ReasonOf(err) != fault.ReasonContextInvalid {
		t.Error(err)
	}
}
