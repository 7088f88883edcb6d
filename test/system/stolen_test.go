package system

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"

	notesv1 "github.com/rowhouse-platform/rowhouse/gen/notes/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
)

// thief is a second app of the house, which keeps the contexts that it gets.
const thief = "thief"

// caller makes one call of a service with tenant contexts in its metadata.
type caller func(ctx context.Context, tokens ...string) error

// callers are the calls with which an app could act for a tenant, by who makes them and
// where: everything that takes a tenant context.
func (h *house) callers(t *testing.T, who string) map[string]caller {
	t.Helper()
	notes := notesv1.NewNotesServiceClient(h.as(t, who, app))
	config := configv1.NewSettingsServiceClient(h.as(t, who, "config"))
	quota := h.as(t, who, "quota")
	refresh := func(service string) caller {
		renewals := tenancyv1.NewContextRenewalServiceClient(h.as(t, who, service))
		return func(ctx context.Context, tokens ...string) error {
			var first []byte
			if len(tokens) > 0 {
				first = []byte(tokens[0])
			}
			_, err := renewals.RefreshContext(ctx, &tenancyv1.RefreshContextRequest{TenantContext: first})
			return err
		}
	}
	return map[string]caller{
		"notes, unary": func(ctx context.Context, tokens ...string) error {
			_, err := notes.ListNotes(presenting(ctx, tokens...), &notesv1.ListNotesRequest{})
			return err
		},
		"notes, stream": func(ctx context.Context, tokens ...string) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			stream, err := notes.WatchNotes(presenting(ctx, tokens...), &notesv1.WatchNotesRequest{})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		},
		"config": func(ctx context.Context, tokens ...string) error {
			_, err := config.GetSettings(presenting(ctx, tokens...), &configv1.GetSettingsRequest{Namespace: "brand"})
			return err
		},
		"quota, usage": func(ctx context.Context, tokens ...string) error {
			_, err := quotav1.NewUsageServiceClient(quota).ListLimitUsage(presenting(ctx, tokens...), &quotav1.ListLimitUsageRequest{})
			return err
		},
		"tenancy, refresh": refresh("tenancy"),
		"gateway, refresh": refresh("gateway"),
	}
}

// refreshes are the calls that take the context in their request.
func refreshes(where string) bool { return strings.HasSuffix(where, ", refresh") }

// An app with its own valid identity that writes the context itself is refused
// everywhere; what it may do with a context that it was really given is stated here too.
func TestAppForgesNoContext(t *testing.T) {
	t.Parallel()
	h := hijacked(t)
	mine, other := h.tenantIn(t, "forger-a", inSchema), h.tenantIn(t, "forger-b", inDatabase)
	h.write(t, mine, "of a")
	h.write(t, other, "of b")
	stolen, second := h.steal(t, mine), h.steal(t, other)
	longer := stolen + "\x00"
	changed := []byte(stolen)
	changed[len(changed)-1] ^= 1
	payload := []byte(stolen)
	payload[20] ^= 1 // in the tenant's uid
	spliced := second[:len(second)-64] + stolen[len(stolen)-64:]
	for name, c := range map[string]struct {
		tokens []string
		want   []string // the verdicts that are right: of calls by metadata, and of RefreshContext
	}{
		"none":              {nil, []string{"Unauthenticated CONTEXT_MISSING", "InvalidArgument INVALID_FIELD"}},
		"empty":             {[]string{""}, []string{"Unauthenticated CONTEXT_MISSING", "InvalidArgument INVALID_FIELD"}},
		"a bare id":         {[]string{"forger-b"}, []string{"Unauthenticated CONTEXT_INVALID", "InvalidArgument INVALID_FIELD"}},
		"signature changed": {[]string{string(changed)}, []string{"Unauthenticated CONTEXT_INVALID"}},
		"tenant changed":    {[]string{string(payload)}, []string{"Unauthenticated CONTEXT_INVALID"}},
		"spliced":           {[]string{spliced}, []string{"Unauthenticated CONTEXT_INVALID"}},
		"longer":            {[]string{longer}, []string{"Unauthenticated CONTEXT_INVALID"}},
		"cut":               {[]string{stolen[:100]}, []string{"Unauthenticated CONTEXT_INVALID"}},
	} {
		for _, who := range []string{app, "gateway"} {
			for where, call := range h.callers(t, who) {
				got := verdict(call(t.Context(), c.tokens...))
				if who == app && strings.HasPrefix(where, "notes") && got == "PermissionDenied PRESENTER_REFUSED" {
					continue // refused before anybody looks at the token
				}
				want := c.want[0]
				if refreshes(where) {
					want = c.want[len(c.want)-1]
				}
				if got != want {
					t.Errorf("%s as %s at %s: %s, want %s", name, who, where, got, want)
				}
			}
		}
	}
	for where, call := range h.callers(t, "gateway") {
		if refreshes(where) {
			continue // takes one in its request
		}
		for _, pair := range [][]string{{stolen, second}, {second, stolen}} {
			if got := verdict(call(t.Context(), pair...)); got != "Unauthenticated CONTEXT_INVALID" {
				t.Errorf("two contexts at %s: %s", where, got)
			}
		}
	}
}

// The presenter's rule. A context that the gateway made for the app is good in the hands
// of the app only where the operator lets the app present, and for the tenant that it
// names: notes itself takes contexts from the gateway alone.
func TestStolenContextIsBoundToItsPresenters(t *testing.T) {
	t.Parallel()
	h := hijacked(t)
	eachModel(t, func(t *testing.T, model tenancyv1.IsolationModel, name string) {
		h.presents(t, h.tenantIn(t, "stolen-a-"+name, model), h.tenantIn(t, "stolen-b-"+name, model))
	})
}

// presents has each process present a context of the tenant mine.
func (h *house) presents(t *testing.T, mine, other string) {
	t.Helper()
	h.write(t, mine, "of a")
	h.write(t, other, "of b")
	a := h.steal(t, mine)
	want := map[string]map[string]string{
		// The app may have its own contexts renewed and call our services for their tenant: the
		// tenants whose contexts it received, while those live.
		app: {
			"notes, unary": "PermissionDenied PRESENTER_REFUSED", "notes, stream": "PermissionDenied PRESENTER_REFUSED",
			"config": "OK", "quota, usage": "OK", "tenancy, refresh": "OK", "gateway, refresh": "OK",
		},
		"gateway": {
			"notes, unary": "OK", "notes, stream": "OK", "config": "OK", "quota, usage": "OK", "tenancy, refresh": "OK", "gateway, refresh": "OK",
		},
		// No other process may do anything with a context that it came by.
		"config": refusedAll, "quota": refusedAll, "tenancy": refusedAll,
	}
	for who, verdicts := range want {
		for where, call := range h.callers(t, who) {
			got := verdict(call(t.Context(), a))
			if want := verdicts[where]; got != want {
				t.Errorf("%s presents at %s: %s, want %s", who, where, got, want)
			}
		}
	}
	// What it may do, it does for the tenant that is named: the gateway's own call shows whose rows these are.
	list, err := notesv1.NewNotesServiceClient(h.as(t, "gateway", app)).ListNotes(presenting(t.Context(), a), &notesv1.ListNotesRequest{})
	if err != nil || len(list.GetNotes()) != 1 || list.GetNotes()[0].GetTitle() != "of a" {
		t.Errorf("a's context shows %v, %v", list, err)
	}
	// Who renewed it makes no difference, nor who renews it next.
	for turn, service := range []string{"gateway", "tenancy", "gateway", "gateway"} {
		a, err = h.refresh(t, app, service, a)
		if err != nil {
			t.Fatalf("renewal %d, by %s: %v", turn, service, err)
		}
		list, err = notesv1.NewNotesServiceClient(h.as(t, "gateway", app)).ListNotes(presenting(t.Context(), a), &notesv1.ListNotesRequest{})
		if err != nil || len(list.GetNotes()) != 1 || list.GetNotes()[0].GetTitle() != "of a" {
			t.Errorf("a's context, renewed by %s, shows %v, %v", service, list, err)
		}
	}
}

// refresh renews a context at a service as a process of the house.
func (h *house) refresh(t *testing.T, who, service, token string) (string, error) {
	t.Helper()
	res, err := tenancyv1.NewContextRenewalServiceClient(h.as(t, who, service)).
		RefreshContext(t.Context(), &tenancyv1.RefreshContextRequest{TenantContext: []byte(token)})
	return string(res.GetTenantContext()), err
}

var refusedAll = map[string]string{
	"notes, unary": "PermissionDenied PRESENTER_REFUSED", "notes, stream": "PermissionDenied PRESENTER_REFUSED",
	"config": "PermissionDenied PRESENTER_REFUSED", "quota, usage": "PermissionDenied PRESENTER_REFUSED",
	"tenancy, refresh": "PermissionDenied PERMISSION_MISSING", "gateway, refresh": "PermissionDenied PERMISSION_MISSING",
}

// A context ends 45 s after it was made, wherever it is presented.
func TestStolenContextExpires(t *testing.T) {
	t.Parallel()
	h := hijacked(t)
	host := h.tenantIn(t, "expiring", inDatabase)
	h.write(t, host, "a note")
	a := h.steal(t, host)
	began := time.Now()
	all := h.callers(t, "gateway")
	eventually(t, time.Minute, func() error {
		if got := verdict(all["config"](t.Context(), a)); got != "Unauthenticated CONTEXT_EXPIRED" {
			return fmt.Errorf("%s after %s", got, time.Since(began))
		}
		return nil
	})
	for where, call := range all {
		if got := verdict(call(t.Context(), a)); got != "Unauthenticated CONTEXT_EXPIRED" {
			t.Errorf("%s: %s", where, got)
		}
	}
}

// A context that was made for one app is no use at another, not even in the hands of a
// hijacked gateway.
func TestContextOfAnotherAppIsRefused(t *testing.T) {
	t.Parallel()
	h := hijacked(t)
	h.tenant(t, "two-apps")
	host := h.plant(t, "two-apps")
	client := h.browser()
	var a string
	eventually(t, settle, func() error {
		got, err := h.ask(t.Context(), client, visit{host: host, path: "/"})
		if err == nil && got.status != http.StatusOK {
			err = fmt.Errorf("%d %s", got.status, got.body)
		}
		b, derr := base64.StdEncoding.DecodeString(got.body)
		if err == nil {
			a, err = string(b), derr
		}
		return err
	})
	for who, want := range map[string]map[string]string{
		"gateway": {"notes, unary": "PermissionDenied PRESENTER_REFUSED", "notes, stream": "PermissionDenied PRESENTER_REFUSED"},
		app: {
			"notes, unary":     "PermissionDenied PRESENTER_REFUSED",
			"tenancy, refresh": "PermissionDenied PRESENTER_REFUSED", "gateway, refresh": "PermissionDenied PRESENTER_REFUSED",
		},
		// The thief is a stranger to our services: no operator gave it a right.
		thief: {
			"notes, unary": "PermissionDenied PRESENTER_REFUSED", "config": "PermissionDenied PRESENTER_REFUSED",
			"quota, usage":     "PermissionDenied PRESENTER_REFUSED",
			"tenancy, refresh": "PermissionDenied PERMISSION_MISSING", "gateway, refresh": "PermissionDenied PERMISSION_MISSING",
		},
	} {
		all := h.callers(t, who)
		for where, want := range want {
			if got := verdict(all[where](t.Context(), a)); got != want {
				t.Errorf("%s presents the thief's context at %s: %s, want %s", who, where, got, want)
			}
		}
	}
}

// plant makes the thief: an identity by the house's own authority, a server that tells
// the context of each request, and an app that the tenant's second domain leads to.
func (h *house) plant(t *testing.T, tenantID string) (host string) {
	t.Helper()
	id := identityOf(t, thief)
	authority, err := identity.OpenAuthority(h.path("ca"), identity.AuthorityConfig{TrustDomain: domain})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.Issue(identity.Leaf{ID: id})
	if err == nil {
		err = makeDir(h.path(thief))
	}
	if err == nil {
		err = pair.Write(h.path(thief))
	}
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		TLSConfig: h.source(t, thief).ServerTLS(identity.WithHTTP1()), ReadHeaderTimeout: settle,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header.Get("Rowhouse-Tenant-Bin")) }),
	}
	go func() { _ = server.ServeTLS(listener, "", "") }()
	t.Cleanup(func() { _ = server.Close() })
	conn := h.operator(t, "tenancy")
	address := listener.Addr().String()
	if _, err := tenancyv1.NewAppServiceClient(conn).CreateApp(t.Context(), &tenancyv1.CreateAppRequest{AppId: thief, App: &tenancyv1.App{
		DisplayName: "Thief", Upstreams: []*tenancyv1.AppUpstream{{Cell: "cells/" + cellID, HttpAddress: address, GrpcAddress: address, SpiffeId: id.String()}},
	}}); err != nil {
		t.Fatal(err)
	}
	host = thief + "." + tenantID + ".localhost"
	if _, err := tenancyv1.NewDomainServiceClient(conn).CreateDomain(t.Context(), &tenancyv1.CreateDomainRequest{
		Parent: "tenants/" + tenantID, DomainId: host, Domain: &tenancyv1.Domain{App: "apps/" + thief},
	}); err != nil {
		t.Fatal(err)
	}
	return host
}

// A client without a certificate, and one with an operator's token alone, act for no tenant.
func TestTenantContextNeedsAPresenter(t *testing.T) {
	t.Parallel()
	h := hijacked(t)
	host := h.tenant(t, "presented")
	h.write(t, host, "a note")
	a := h.steal(t, host)
	for name, conn := range map[string]*grpc.ClientConn{
		"nobody": h.operator(t, "config", ""), "an operator": h.operator(t, "config"),
	} {
		_, err := configv1.NewSettingsServiceClient(conn).
			GetSettings(presenting(t.Context(), a), &configv1.GetSettingsRequest{Namespace: "brand"})
		if got := verdict(err); got != "PermissionDenied PRESENTER_REFUSED" && got != "Unauthenticated CREDENTIAL_MISSING" {
			t.Errorf("%s presents a context: %s", name, got)
		}
	}
	conn := h.operator(t, app, "")
	if _, err := notesv1.NewNotesServiceClient(conn).ListNotes(presenting(t.Context(), a), &notesv1.ListNotesRequest{}); verdict(err) == "OK" {
		t.Error("notes answers a client without a certificate")
	}
}
