package cli

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
)

// What a brand says of a domain that is not there is kept, and said: the domain may come later.
func TestBrandWarnsOfStrangeDomains(t *testing.T) {
	t.Parallel()
	page := &tenancyv1.ListDomainsResponse{Domains: []*tenancyv1.Domain{{Name: "tenants/acme/domains/shop.acme.example"}}}
	const looks = `{"domains":{"shop.acme.example":{},"shop.acme.exmaple":{},"other.example":{}}}`
	for name, tt := range map[string]struct {
		layer, content string
		domains        answer
		want           []string
	}{
		"strange": {"tenants/acme", looks, always(page), []string{
			"warning: /domains/other.example: tenants/acme has no such domain, so this shows nowhere until it has",
			"/domains/shop.acme.exmaple: tenants/acme has no such domain, so this shows nowhere until it has; did you mean shop.acme.example?",
		}},
		"known":       {"tenants/acme", `{"domains":{"shop.acme.example":{}}}`, always(page), nil},
		"none":        {"tenants/acme", `{}`, refuse(status.Error(codes.Internal, "asked for nothing")), nil},
		"plan":        {"plans/free", looks, always(page), nil},
		"not allowed": {"tenants/acme", looks, refuse(status.Error(codes.PermissionDenied, "no")), nil},
		"very many":   {"tenants/acme", looks, always(&tenancyv1.ListDomainsResponse{NextPageToken: "x"}), nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &house{answers: map[string]answer{
				"DocumentService/UpdateDocument": always(&configv1.UpdateDocumentResponse{Document: &configv1.Document{
					Name: tt.layer + "/config/brand", Content: tt.content,
				}}),
				"DomainService/ListDomains": tt.domains,
			}}
			got := h.run(t, "brand", "set", tt.layer, "--name", "Acme")
			if got.code != 0 || !strings.Contains(got.out, tt.layer+"/config/brand") {
				t.Errorf("status %d, wrote %q", got.code, got.out)
			}
			if strings.Count(got.err, "warning: ") != len(tt.want) {
				t.Errorf("said %q", got.err)
			}
			for _, want := range tt.want {
				if !strings.Contains(got.err, want) {
					t.Errorf("said %q, want %q", got.err, want)
				}
			}
		})
	}
}
