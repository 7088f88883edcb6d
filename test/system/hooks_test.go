package system

import (
	"fmt"
	"strings"
	"testing"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
)

// Tenancy asks config before a step, by the wire and the rights of a real house. The hook is at a name that nobody has, so what it
// declared for its silence decides; an operator who may takes the step without it, and what stops a tenant asks nobody.
func TestHooksOfARealHouse(t *testing.T) {
	t.Parallel()
	h := shared(t)
	h.tenant(t, "hooked")
	hooks := configv1.NewHookServiceClient(h.operator(t, "config"))
	tenants := tenancyv1.NewTenantServiceClient(h.operator(t, "tenancy"))
	made, err := hooks.CreateHook(t.Context(), &configv1.CreateHookRequest{HookId: "contract", Hook: &configv1.Hook{
		Url: "https://hooks.example.com/contract", Failure: configv1.HookFailure_HOOK_FAILURE_CLOSED,
		Steps: []configv1.HookStep{configv1.HookStep_HOOK_STEP_TENANT_PLAN_CHANGE},
	}})
	if err != nil {
		t.Fatal(err)
	}
	plan := "plans/business"
	change := func(skip string) error {
		_, err := tenants.UpdateTenant(t.Context(), &tenancyv1.UpdateTenantRequest{
			Tenant: &tenancyv1.Tenant{Name: "tenants/hooked", Plan: plan}, SkipHooks: skip,
		})
		return err
	}
	eventually(t, settle, func() error { // tenancy learns of the hook by its feed
		err := change("")
		if err == nil { // not yet: back again
			plan = map[string]string{"plans/business": "plans/free", "plans/free": "plans/business"}[plan]
		}
		if got := verdict(err); got != "FailedPrecondition HOOK_UNAVAILABLE" || !strings.Contains(err.Error(), "hooks/contract") {
			return fmt.Errorf("a change of plan: %s: %w", got, err)
		}
		return nil
	})
	_, err = tenants.SuspendTenant(t.Context(), &tenancyv1.SuspendTenantRequest{
		Name: "tenants/hooked", Cause: tenancyv1.SuspensionCause_SUSPENSION_CAUSE_BILLING, Reason: "a test of hooks",
	})
	if err != nil {
		t.Errorf("a suspension: %v", err)
	}
	if err := change("a test of hooks"); err != nil {
		t.Errorf("a change without asking: %v", err)
	}
	if _, err := hooks.DeleteHook(t.Context(), &configv1.DeleteHookRequest{Name: made.GetHook().GetName()}); err != nil {
		t.Error(err)
	}
}

// What happens to a tenant reaches the queue of its own webhooks, from tenancy's transaction by its feed, and nobody else's.
func TestEventsOfARealHouse(t *testing.T) {
	t.Parallel()
	h := shared(t)
	webhooks := configv1.NewWebhookServiceClient(h.operator(t, "config"))
	tenants := tenancyv1.NewTenantServiceClient(h.operator(t, "tenancy"))
	for _, id := range []string{"eventful", "uneventful"} {
		h.tenant(t, id)
		eventually(t, settle, func() error { // config follows tenancy
			_, err := webhooks.CreateWebhook(t.Context(), &configv1.CreateWebhookRequest{
				Parent: "tenants/" + id, WebhookId: "mine", Webhook: &configv1.Webhook{Url: "https://hooks.example.com/" + id},
			})
			return err
		})
	}
	_, err := tenants.SuspendTenant(t.Context(), &tenancyv1.SuspendTenantRequest{
		Name: "tenants/eventful", Cause: tenancyv1.SuspensionCause_SUSPENSION_CAUSE_BILLING, Reason: "a test of events",
	})
	if err != nil {
		t.Fatal(err)
	}
	told := func(id string) string {
		resp, err := webhooks.ListWebhookDeliveries(t.Context(), &configv1.ListWebhookDeliveriesRequest{Parent: "tenants/" + id + "/webhooks/mine"})
		if err != nil {
			t.Error(err)
		}
		var types []string
		for _, d := range resp.GetDeliveries() {
			types = append(types, d.GetEventType())
		}
		return strings.Join(types, " ")
	}
	eventually(t, settle, func() error {
		if got := told("eventful"); strings.Count(got, "tenant.suspended") != 1 || strings.Count(got, "operation.done") != 1 {
			return fmt.Errorf("it was told %q", got)
		}
		return nil
	})
	if got := told("uneventful"); strings.Contains(got, "tenant.suspended") {
		t.Errorf("its neighbour was told %q", got)
	}
}
