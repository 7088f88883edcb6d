package system

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
)

// What a tenant's requests take is told by the gateway and by the app, each under its own name, and ranked with one advice; and
// nobody tells of what is not its own to tell.
func TestNoisyTenantsAreTold(t *testing.T) {
	t.Parallel()
	h := hijacked(t)
	host := h.tenant(t, "noisy")
	client := h.browser()
	reports := quotav1.NewReportServiceClient(h.operator(t, "quota"))
	eventually(t, 2*settle, func() error {
		a, err := h.ask(t.Context(), client, visit{host: host, path: "/notes"})
		if err != nil || a.status != http.StatusOK {
			return errors.Join(err, fmt.Errorf("%d %s", a.status, a.body))
		}
		got, err := reports.ListNoisyTenants(t.Context(), &quotav1.ListNoisyTenantsRequest{})
		if err != nil {
			return err
		}
		said := map[string]bool{}
		for _, n := range got.GetNoisyTenants() {
			if n.GetTenant() != "tenants/noisy" {
				continue
			}
			if n.GetAction() == 0 || n.GetReason() == "" || n.GetPlan() == "" || n.GetModel() == 0 {
				t.Fatalf("%v", n)
			}
			for _, u := range n.GetUses() {
				said[u.GetReporter()[strings.LastIndexByte(u.GetReporter(), '/')+1:]+" "+u.GetResource().String()] = u.GetAmount() > 0
			}
		}
		for _, want := range []string{"gateway SHARE_RESOURCE_REQUESTS", "gateway SHARE_RESOURCE_IN_FLIGHT", "notes SHARE_RESOURCE_DB_TIME"} {
			if !said[want] {
				return fmt.Errorf("no %s in %v", want, said)
			}
		}
		return nil
	})
	report := func(as string, of quotav1.ShareResource) (*quotav1.ReportSharesResponse, error) {
		amounts := []*quotav1.ShareAmount{{Resource: of, Amount: 1 << 40}}
		return quotav1.NewReportServiceClient(h.as(t, as, "quota")).ReportShares(t.Context(), &quotav1.ReportSharesRequest{
			Replica: "liar", Run: uuid.NewString(), Sequence: 1, Totals: amounts,
			Tenants: []*quotav1.TenantShare{{TenantContext: []byte(h.steal(t, host)), Amounts: amounts}},
		})
	}
	if _, err := report(app, quotav1.ShareResource_SHARE_RESOURCE_REQUESTS); verdict(err) != "PermissionDenied PERMISSION_MISSING" {
		t.Errorf("an app tells of requests: %v", err)
	}
	if _, err := report("config", quotav1.ShareResource_SHARE_RESOURCE_DB_TIME); verdict(err) != "PermissionDenied PERMISSION_MISSING" {
		t.Errorf("config tells: %v", err)
	}
}
