package tenant_test

import (
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// FuzzParseToken reads any bytes as a token whose signature is taken for good.
// What is accepted must be the one encoding of its claims, and protobuf-go must
// read the same from it.
func FuzzParseToken(f *testing.F) {
	worst := worstClaims(f)
	f.Add([]byte(tenant.SignUnchecked(newSigner(f), worst)))
	issuer := tenanttest.NewIssuer(f, func() time.Time { return time.Unix(1_800_000_000, 0) })
	f.Add([]byte(issuer.Token(f, "acme")))
	f.Add([]byte(issuer.Token(f, "acme", tenanttest.For([16]byte{1}))))
	f.Add([]byte(tenant.SignUnchecked(newSigner(f), renewedClaims(f))))
	f.Add([]byte(issuer.Token(f, "acme", renewed)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		payload, ok := tenant.CutToken(string(b))
		if !ok {
			return
		}
		var c tenant.Claims
		if tenant.DecodePayload(payload, &c) != nil {
			return
		}
		if again := tenant.AppendPayload(nil, &c); string(again) != payload {
			t.Fatalf("accepted %x, which is written %x", payload, again)
		}
		var m tenancyv1.TenantContextPayload
		if err := proto.Unmarshal([]byte(payload), &m); err != nil {
			t.Fatalf("protobuf-go refuses what we accept: %v", err)
		}
		if diff := cmp.Diff(message(c), &m, protocmp.Transform()); diff != "" {
			t.Fatalf("protobuf-go reads something else (-ours +theirs):\n%s", diff)
		}
	})
}

// FuzzParseID compares the parser with the API's pattern.
func FuzzParseID(f *testing.F) {
	pattern := regexp.MustCompile(`\A[a-z](-?[a-z0-9])*\z`)
	for _, s := range []string{"acme", "a-b", "a--b", "ab-", "-ab", "Acme", "xn--abc", "a1", "", "acme\n", "acmé"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want := pattern.MatchString(s) && len(s) >= 3 && len(s) <= 63
		id, err := tenant.ParseID(s)
		if (err == nil) != want || want && id.String() != s {
			t.Fatalf("ParseID(%q) = %v, %v; the pattern says %v", s, id, err, want)
		}
	})
}
