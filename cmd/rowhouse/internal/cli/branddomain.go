package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// showBrand writes the document, and warns of hosts in it that the tenant does not have.
func showBrand(a *app, c *cobra.Command, i *invocation) error {
	response, ok := i.response.(*configv1.UpdateDocumentResponse)
	if !ok {
		return errors.New("brand set gets another response")
	}
	for _, line := range a.strangeHosts(c, response.GetDocument()) {
		if _, err := fmt.Fprintln(c.ErrOrStderr(), printable("warning: "+line)); err != nil {
			return err
		}
	}
	return i.show(c.Context(), a, c)
}

// strangeHosts says which looks of a tenant's brand nobody sees. A host may come later, or be that of a tenant below this
// one, so that is no mistake. Who may not look at domains is told nothing.
func (a *app) strangeHosts(c *cobra.Command, document *configv1.Document) (found []string) {
	const brand = "/config/" + settings.BrandNamespace
	owner, isBrand := strings.CutSuffix(document.GetName(), brand)
	content, err := settings.Parse([]byte(document.GetContent()))
	looks, _ := content["domains"].(settings.Object)
	if !isBrand || !strings.HasPrefix(owner, "tenants/") || err != nil || len(looks) == 0 {
		return nil
	}
	const mostDomains = 1000
	ask := newCall(method("rowhouse.tenancy.v1.DomainService", "ListDomains"))
	ask.request = &tenancyv1.ListDomainsRequest{Parent: owner, PageSize: mostDomains}
	answer, err := a.do(c.Context(), c, ask)
	page, ok := answer.(*tenancyv1.ListDomainsResponse)
	if err != nil || !ok || page.GetNextPageToken() != "" {
		return nil
	}
	hosts := make([]string, 0, len(page.GetDomains()))
	for _, d := range page.GetDomains() {
		hosts = append(hosts, lastID(d.GetName()))
	}
	for _, host := range slices.Sorted(maps.Keys(looks)) {
		if slices.Contains(hosts, host) {
			continue
		}
		line := fmt.Sprintf("%s: %s has no such domain, so this shows nowhere until it has", settings.Pointer("domains", host), owner)
		if near := settings.Nearest(host, hosts); near != "" {
			line += "; did you mean " + near + "?"
		}
		found = append(found, line)
	}
	return found
}
