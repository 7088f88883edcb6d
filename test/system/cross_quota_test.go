package system

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/uuid"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/apiattack"
)

// spender is quota as the app reaches it.
func (n neighbours) spender(t *testing.T) quotav1.ReservationServiceClient {
	return quotav1.NewReservationServiceClient(n.h.as(t, app, "quota"))
}

// setQuota sets a quota of a layer.
func (n neighbours) setQuota(ctx context.Context, t *testing.T, name string, amount int64) error {
	_, err := quotav1.NewQuotaServiceClient(n.h.operator(t, "quota")).UpdateQuota(ctx, &quotav1.UpdateQuotaRequest{
		Quota: &quotav1.Quota{Name: name, Amount: amount}, AllowMissing: true,
	})
	return err
}

func reserve(quota string) *quotav1.ReserveRequest {
	return &quotav1.ReserveRequest{Amounts: []*quotav1.QuotaAmount{{Quota: quota, Amount: 1}}, RequestId: uuid.NewString()}
}

// reserved has A hold one of a quota that both have.
func (n neighbours) reserved(ctx context.Context, t *testing.T) (name string, err error) {
	if err := n.setQuota(ctx, t, "platform/quotas/both-"+n.a, 9); err != nil {
		return "", err
	}
	err = poll(ctx, settle, func() error {
		got, err := n.spender(t).Reserve(presenting(ctx, n.h.steal(t, app+"."+n.a+".localhost")), reserve("both-"+n.a))
		name = got.GetReservation().GetName()
		return err
	})
	return name, err
}

// stillHeld wants A's reservation to be as it was: A can commit it.
func (n neighbours) stillHeld(ctx context.Context, t *testing.T, name string) error {
	got, err := n.spender(t).Commit(presenting(ctx, n.h.steal(t, app+"."+n.a+".localhost")), &quotav1.CommitRequest{Name: name})
	if err != nil || got.GetReservation().GetLate() {
		return fmt.Errorf("%w: A's reservation is now %v, %w", errCrossed, got, err)
	}
	return nil
}

func crossReserve(ctx context.Context, t *testing.T, n neighbours) error {
	only := "only-" + n.a
	if err := n.setQuota(ctx, t, "tenants/"+n.a+"/quotas/"+only, 9); err != nil {
		return err
	}
	ask := func(id string) error {
		_, err := n.spender(t).Reserve(presenting(ctx, n.h.steal(t, app+"."+id+".localhost")), reserve(only))
		return err
	}
	if err := poll(ctx, settle, func() error { return ask(n.a) }); err != nil {
		return err
	}
	switch got := verdict(ask(n.b)); got {
	case "InvalidArgument QUOTA_UNKNOWN":
		return nil
	case "OK":
		return errCrossed
	default:
		return errors.New(got)
	}
}

func crossCommit(ctx context.Context, t *testing.T, n neighbours) error {
	name, err := n.reserved(ctx, t)
	if err != nil {
		return err
	}
	_, err = n.spender(t).Commit(presenting(ctx, n.h.steal(t, app+"."+n.b+".localhost")), &quotav1.CommitRequest{Name: name})
	return errors.Join(absent(err), n.stillHeld(ctx, t, name))
}

func crossRelease(ctx context.Context, t *testing.T, n neighbours) error {
	name, err := n.reserved(ctx, t)
	if err != nil {
		return err
	}
	_, err = n.spender(t).Release(presenting(ctx, n.h.steal(t, app+"."+n.b+".localhost")), &quotav1.ReleaseRequest{Name: name})
	return errors.Join(absent(err), n.stillHeld(ctx, t, name))
}

func crossQuotaUsage(ctx context.Context, t *testing.T, n neighbours) error {
	mark := "marked-" + n.a
	if err := n.setQuota(ctx, t, "tenants/"+n.a+"/quotas/"+mark, 9); err != nil {
		return err
	}
	ask := func(host string) (string, error) {
		got, err := n.spender(t).ListQuotaUsage(presenting(ctx, n.h.steal(t, host)), &quotav1.ListQuotaUsageRequest{})
		return got.String(), err
	}
	return n.contrast(ctx, ask, mark)
}

func crossEntitlements(ctx context.Context, t *testing.T, n neighbours) error {
	mark := "marked-" + n.a
	if err := n.entitle(ctx, t, mark); err != nil {
		return err
	}
	entitlements := quotav1.NewEntitlementServiceClient(n.h.as(t, app, "quota"))
	ask := func(host string) (string, error) {
		got, err := entitlements.ListEntitlements(presenting(ctx, n.h.steal(t, host)), &quotav1.ListEntitlementsRequest{})
		return got.String(), err
	}
	return n.contrast(ctx, ask, mark)
}

// entitle gives A a feature.
func (n neighbours) entitle(ctx context.Context, t *testing.T, feature string) error {
	_, err := quotav1.NewEntitlementAdminServiceClient(n.h.operator(t, "quota")).UpdateEntitlement(ctx, &quotav1.UpdateEntitlementRequest{
		Entitlement: &quotav1.Entitlement{
			Name: "tenants/" + n.a + "/entitlements/" + feature, Kind: quotav1.EntitlementKind_ENTITLEMENT_KIND_BOOLEAN, Enabled: true,
		}, AllowMissing: true,
	})
	return err
}

// copiedReservation gives B what A reserves.
const copiedReservation = `IF NEW.tenant_uid <> '%[1]s' THEN
	NEW.tenant_uid := '%[1]s';
	INSERT INTO quota.reservation SELECT NEW.*;
END IF;`

func attackReservations(t *testing.T, n neighbours) apiattack.Target {
	target := n.behind(t, "quota", "config")
	both := "both-" + n.a
	target.Values = map[string]string{"rowhouse.quota.v1.QuotaAmount.quota": both, "rowhouse.quota.v1.QuotaAmount.amount": "1"}
	// What they name is gone with the first call that succeeds; crossings tries them with another tenant's.
	const once = "ends what it names"
	target.Skip = map[string]string{
		"/rowhouse.quota.v1.ReservationService/Commit": once, "/rowhouse.quota.v1.ReservationService/Release": once,
	}
	target.Victim.Plant = func(ctx context.Context, secret string) ([]string, error) {
		if err := n.setQuota(ctx, t, "platform/quotas/"+both, 1_000_000); err != nil {
			return nil, err
		}
		if err := n.setQuota(ctx, t, "tenants/"+n.a+"/quotas/x"+secret, 9); err != nil {
			return nil, err
		}
		return nil, n.shows(ctx, t, secret, func(ctx context.Context) (fmt.Stringer, error) {
			return n.spender(t).ListQuotaUsage(ctx, &quotav1.ListQuotaUsageRequest{})
		})
	}
	return target
}

func attackEntitlements(t *testing.T, n neighbours) apiattack.Target {
	target := n.behind(t, "quota", "config")
	target.Victim.Plant = func(ctx context.Context, secret string) ([]string, error) {
		if err := n.entitle(ctx, t, "x"+secret); err != nil {
			return nil, err
		}
		entitlements := quotav1.NewEntitlementServiceClient(n.h.as(t, app, "quota"))
		return nil, n.shows(ctx, t, secret, func(ctx context.Context) (fmt.Stringer, error) {
			return entitlements.ListEntitlements(ctx, &quotav1.ListEntitlementsRequest{})
		})
	}
	return target
}
