package system

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/apiattack"
)

// targets are the services that act for tenants, as the generated attacks see them. What
// crossings has by hand stays: the generator knows services, not what is between them.
var targets = map[string]func(*testing.T, neighbours) apiattack.Target{
	"notes.v1.NotesService": func(t *testing.T, n neighbours) apiattack.Target {
		through := func(id string) apiattack.Party {
			return apiattack.Party{Conn: n.h.front(t, app+"."+id+".localhost", false)}
		}
		return apiattack.Target{Victim: through(n.a), Attacker: through(n.b), Intruders: []apiattack.Intruder{
			{Name: "past the front door", Party: apiattack.Party{Conn: n.h.as(t, "gateway", app)}},
		}}
	},
	importService: attackImports,
	"rowhouse.config.v1.SettingsService": func(t *testing.T, n neighbours) apiattack.Target {
		target := n.behind(t, "config", "quota")
		own := "attacked-" + n.a // of what tenants set themselves
		_, err := configv1.NewNamespaceServiceClient(n.h.operator(t, "config")).CreateNamespace(t.Context(), &configv1.CreateNamespaceRequest{
			NamespaceId: own, Namespace: &configv1.Namespace{Schema: `{"properties":{"title":{"x-tenant-editable":true}}}`},
		})
		if err != nil {
			t.Fatal(err)
		}
		target.Values = map[string]string{
			"rowhouse.config.v1.GetSettingsRequest.namespace":    "brand",
			"rowhouse.config.v1.UpdateSettingsRequest.namespace": own,
			"rowhouse.config.v1.UpdateSettingsRequest.content":   `{"title":"ours"}`,
			"rowhouse.config.v1.ReadSecretRequest.namespace":     app,
			"rowhouse.config.v1.ReadSecretRequest.pointer":       "/key",
		}
		target.Victim.Plant = func(ctx context.Context, secret string) ([]string, error) {
			_, err := configv1.NewDocumentServiceClient(n.h.operator(t, "config")).UpdateDocument(ctx, &configv1.UpdateDocumentRequest{
				Document:     &configv1.Document{Name: "tenants/" + n.a + "/config/brand", Content: `{"name":"` + secret + `"}`},
				AllowMissing: true, Reason: "a test of isolation",
			})
			if err != nil {
				return nil, err
			}
			if err := errors.Join(n.keep(ctx, t, n.a, secret), n.keep(ctx, t, n.b, "of the attacker")); err != nil {
				return nil, err
			}
			settings := configv1.NewSettingsServiceClient(n.h.as(t, app, "config"))
			return nil, n.shows(ctx, t, secret, func(ctx context.Context) (fmt.Stringer, error) {
				return settings.GetSettings(ctx, &configv1.GetSettingsRequest{Namespace: "brand"})
			})
		}
		target.Skip = map[string]string{"/rowhouse.config.v1.SettingsService/WatchSettings": "for peers"}
		return target
	},
	"rowhouse.quota.v1.ReservationService": attackReservations,
	"rowhouse.quota.v1.EntitlementService": attackEntitlements,
	meterService:                           meterTarget,
	"rowhouse.quota.v1.UsageService": func(t *testing.T, n neighbours) apiattack.Target {
		target := n.behind(t, "quota", "config")
		target.Victim.Plant = func(ctx context.Context, secret string) ([]string, error) {
			limit := &quotav1.Limit{Name: "tenants/" + n.a + "/limits/x" + secret, Tokens: 9, Period: durationpb.New(60e9), Burst: 9}
			_, err := quotav1.NewLimitServiceClient(n.h.operator(t, "quota")).UpdateLimit(ctx, &quotav1.UpdateLimitRequest{
				Limit: limit, AllowMissing: true,
			})
			if err != nil {
				return nil, err
			}
			usage := quotav1.NewUsageServiceClient(n.h.as(t, app, "quota"))
			return nil, n.shows(ctx, t, secret, func(ctx context.Context) (fmt.Stringer, error) {
				return usage.ListLimitUsage(ctx, &quotav1.ListLimitUsageRequest{})
			})
		}
		return target
	},
}

// behind is a service of the house behind the gateway: the app calls it with contexts that
// it was given, and a stranger, to whom nobody gives any, with those that it took.
func (n neighbours) behind(t *testing.T, service, stranger string) apiattack.Target {
	of := func(id string) func(context.Context, string, proto.Message) (context.Context, error) {
		return func(ctx context.Context, _ string, _ proto.Message) (context.Context, error) {
			return presenting(ctx, n.h.steal(t, app+"."+id+".localhost")), nil
		}
	}
	conn := n.h.as(t, app, service)
	return apiattack.Target{
		Victim: apiattack.Party{Conn: conn, In: of(n.a)}, Attacker: apiattack.Party{Conn: conn, In: of(n.b)},
		Intruders: []apiattack.Intruder{{Name: "stolen context", Party: apiattack.Party{Conn: n.h.as(t, stranger, service), In: of(n.a)}}},
	}
}

// shows waits until A is answered with the secret: services follow tenancy, a moment later.
func (n neighbours) shows(ctx context.Context, t *testing.T, secret string, ask func(context.Context) (fmt.Stringer, error)) error {
	return poll(ctx, settle, func() error {
		got, err := ask(presenting(ctx, n.h.steal(t, app+"."+n.a+".localhost")))
		if err == nil && !strings.Contains(got.String(), secret) {
			err = errors.New("A does not see its own: " + got.String())
		}
		return err
	})
}

// target is the named service as tenants a and b call it.
func target(t *testing.T, service string, n neighbours) apiattack.Target {
	t.Helper()
	at := targets[service](t, n)
	at.Services, at.Deadline = []string{service}, settle
	return at
}

// One tenant cannot reach another's by any method, field or token that the descriptors
// have, on the way that its calls really go.
func TestGeneratedAttacksHold(t *testing.T) {
	t.Parallel()
	h := hijacked(t)
	for service := range targets {
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			name := strings.ToLower(service[strings.LastIndexByte(service, '.')+1:])
			apiattack.Run(t, target(t, service, meet(t, h, inShared, name+"-a", name+"-b")))
		})
	}
}

// found wants the generated attacks to find the leak that is there.
func found(t *testing.T, service string, n neighbours) {
	t.Helper()
	report, err := apiattack.Attack(t.Context(), target(t, service, n))
	if err != nil || len(report.Findings()) == 0 {
		t.Errorf("the generated attacks on %s find nothing: %v %s", service, err, report.Coverage())
	}
}
