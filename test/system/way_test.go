package system

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	"google.golang.org/grpc"

	notesv1 "github.com/rowhouse-platform/rowhouse/gen/notes/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
)

// samples are the titles that rowhouse dev gave to its tenants.
var samples = map[string]string{
	"acme": "Order more dynamite", "globex": "World domination, step 1", "initech": "TPS reports need cover sheets",
}

// foreign returns the titles of other tenants that are in text.
func foreign(tenant, text string) (found []string) {
	for other, title := range samples {
		if other != tenant && strings.Contains(text, title) {
			found = append(found, title)
		}
	}
	return found
}

// ownOnly fails unless text holds the tenant's note and nobody else's.
func ownOnly(t *testing.T, tenant, text string) {
	t.Helper()
	if !strings.Contains(text, samples[tenant]) {
		t.Errorf("%s does not see its own note: %s", tenant, text)
	}
	if found := foreign(tenant, text); found != nil {
		t.Errorf("%s sees notes of others: %q", tenant, found)
	}
}

// By domain, by path and by token, in plain text and over TLS, each tenant sees its own rows.
func TestHTTPReachesOnlyOwnRows(t *testing.T) {
	t.Parallel()
	h := shared(t)
	for tenant := range samples {
		host := app + "." + tenant + ".localhost"
		token := map[string]string{"Authorization": "Bearer " + common.users.token(t, tenant)}
		for name, v := range map[string]visit{
			"domain":                 {host: host, path: "/notes"},
			"domain in capitals":     {host: strings.ToUpper(host), path: "/notes"},
			"domain and path":        {host: host, path: "/t/" + tenant + "/notes"},
			"path":                   {host: platform, path: "/t/" + tenant + "/notes"},
			"token":                  {host: platform, path: "/notes", header: token},
			"token, path and domain": {host: host, path: "/t/" + tenant + "/notes", header: token},
			"page":                   {host: host, path: "/", header: map[string]string{"Accept": "text/html"}},
		} {
			for _, v.tls = range []bool{false, true} {
				t.Run(tenant+" by "+name+map[bool]string{true: " over TLS"}[v.tls], func(t *testing.T) {
					t.Parallel()
					a := h.visit(t, v)
					if a.status != http.StatusOK {
						t.Fatalf("%d %s", a.status, a.body)
					}
					ownOnly(t, tenant, a.body)
				})
			}
		}
	}
}

// Names that disagree reach nobody.
func TestDisagreementIsRefused(t *testing.T) {
	t.Parallel()
	h := shared(t)
	bearer := func(raw string) map[string]string { return map[string]string{"Authorization": "Bearer " + raw} }
	globex := bearer(common.users.token(t, "globex"))
	expired := common.users.token(t, "acme", func(c *jwt.Claims) { c.Expiry = jwt.NewNumericDate(time.Now().Add(-time.Hour)) })
	strange, err := newIssuer(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const acme = "notes.acme.localhost"
	for name, c := range map[string]struct {
		visit
		status int
		reason string
	}{
		"host and path":           {visit{host: acme, path: "/t/globex/notes"}, http.StatusForbidden, "TENANT_MISMATCH"},
		"host and unknown path":   {visit{host: acme, path: "/t/nobody/notes"}, http.StatusForbidden, "TENANT_MISMATCH"},
		"host and token":          {visit{host: acme, path: "/notes", header: globex}, http.StatusForbidden, "TENANT_MISMATCH"},
		"path and token":          {visit{host: platform, path: "/t/acme/notes", header: globex}, http.StatusForbidden, "TENANT_MISMATCH"},
		"no name at all":          {visit{host: platform, path: "/notes"}, http.StatusNotFound, "RESOURCE_NOT_FOUND"},
		"unknown host":            {visit{host: "notes.nobody.localhost", path: "/notes"}, http.StatusNotFound, "RESOURCE_NOT_FOUND"},
		"unknown host with token": {visit{host: "notes.nobody.localhost", path: "/notes", header: globex}, http.StatusNotFound, "RESOURCE_NOT_FOUND"},
		"unknown path":            {visit{host: platform, path: "/t/nobody/notes"}, http.StatusNotFound, "RESOURCE_NOT_FOUND"},
		"expired token":           {visit{host: acme, path: "/notes", header: bearer(expired)}, http.StatusUnauthorized, "CREDENTIAL_INVALID"},
		"strange key":             {visit{host: acme, path: "/notes", header: bearer(strange.token(t, "acme"))}, http.StatusUnauthorized, "CREDENTIAL_INVALID"},
		"no token at all":         {visit{host: acme, path: "/notes", header: bearer("x")}, http.StatusUnauthorized, "CREDENTIAL_INVALID"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := h.visit(t, c.visit)
			if a.status != c.status || a.reason() != c.reason {
				t.Errorf("%d %s, want %d %s: %s", a.status, a.reason(), c.status, c.reason, a.body)
			}
			if found := foreign("", a.body); found != nil {
				t.Errorf("a refusal holds rows: %q", found)
			}
		})
	}
}

// Headers that look like ours change nothing, whatever their spelling.
func TestHeadersFromOutsideChangeNothing(t *testing.T) {
	t.Parallel()
	h := shared(t)
	stolen := "AAAA"
	for _, name := range []string{
		"Rowhouse-Tenant-Bin", "rowhouse_tenant_bin", "Rowhouse.Tenant.Bin", "X-Tenant-Id", "X-Tenant", "X-Rowhouse-Tenant",
		"Rowhouse-Tenant", "X-Forwarded-Host", "X-Original-Url", "Forwarded", "Baggage",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, value := range []string{"globex", "notes.globex.localhost", stolen, "tenant.id=globex", "host=notes.globex.localhost"} {
				a := h.visit(t, visit{host: "notes.acme.localhost", path: "/notes", header: map[string]string{name: value}})
				if a.status != http.StatusOK {
					t.Errorf("%s: %d %s", value, a.status, a.body)
					continue
				}
				ownOnly(t, "acme", a.body)
			}
		})
	}
}

// gRPC, unary and streaming, in plain text and over TLS.
func TestGRPCReachesOnlyOwnRows(t *testing.T) {
	t.Parallel()
	h := shared(t)
	for tenant := range samples {
		host := app + "." + tenant + ".localhost"
		for name, c := range map[string]struct {
			host    string
			tls     bool
			options []grpc.DialOption
		}{
			"domain":          {host: host},
			"domain over TLS": {host: host, tls: true},
			"token":           {host: platform, options: []grpc.DialOption{grpc.WithPerRPCCredentials(token(common.users.token(t, tenant)))}},
			"token over TLS":  {host: platform, tls: true, options: []grpc.DialOption{grpc.WithPerRPCCredentials(token(common.users.token(t, tenant)))}},
		} {
			t.Run(tenant+" by "+name, func(t *testing.T) {
				t.Parallel()
				notes := notesv1.NewNotesServiceClient(h.front(t, c.host, c.tls, c.options...))
				list, err := notes.ListNotes(t.Context(), &notesv1.ListNotesRequest{})
				if err != nil {
					t.Fatal(err)
				}
				ownOnly(t, tenant, list.String())
				ownOnly(t, tenant, strings.Join(watch(t, notes, len(list.GetNotes())), "\n"))
			})
		}
	}
}

// watch opens a stream and returns the titles of the first n notes.
func watch(t *testing.T, notes notesv1.NotesServiceClient, n int) (all []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settle)
	defer cancel()
	stream, err := notes.WatchNotes(ctx, &notesv1.WatchNotesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		m, err := stream.Recv()
		if err != nil {
			t.Fatalf("after %d notes: %v", len(all), err)
		}
		all = append(all, m.GetNote().GetTitle())
	}
	return all
}

// A stream carries what its tenant writes and nothing that others write meanwhile.
func TestStreamCarriesOnlyOwnRows(t *testing.T) {
	t.Parallel()
	h := shared(t)
	eachModel(t, func(t *testing.T, model tenancyv1.IsolationModel, name string) {
		h.streamsOwn(t, h.tenantIn(t, "stream-mine-"+name, model), h.tenantIn(t, "stream-theirs-"+name, model))
	})
}

func (h *house) streamsOwn(t *testing.T, mine, theirs string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settle)
	defer cancel()
	stream, err := notesv1.NewNotesServiceClient(h.front(t, mine, false)).WatchNotes(ctx, &notesv1.WatchNotesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, theirs, "theirs before")
	h.write(t, mine, "one")
	h.write(t, theirs, "theirs between")
	h.write(t, mine, "two")
	var got []string
	for len(got) < 2 {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, m.GetNote().GetTitle())
	}
	if !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("the stream carried %q", got)
	}
	cancel()
	if _, err := stream.Recv(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("after its end the stream says %v", err)
	}
}

// gRPC gets codes and reasons of its own for names that lead nowhere.
func TestGRPCRefusals(t *testing.T) {
	t.Parallel()
	h := shared(t)
	globex := grpc.WithPerRPCCredentials(token(common.users.token(t, "globex")))
	list := func(conn *grpc.ClientConn) error {
		_, err := notesv1.NewNotesServiceClient(conn).ListNotes(t.Context(), &notesv1.ListNotesRequest{})
		return err
	}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"host against token": {list(h.front(t, "notes.acme.localhost", false, globex)), "PermissionDenied TENANT_MISMATCH"},
		"unknown host":       {list(h.front(t, "notes.nobody.localhost", false)), "NotFound RESOURCE_NOT_FOUND"},
		"no name":            {list(h.front(t, platform, false)), "NotFound RESOURCE_NOT_FOUND"},
		"a service that is no app's": {
			h.front(t, "notes.acme.localhost", false).Invoke(t.Context(), "/rowhouse.tenancy.v1.TenantService/ListTenants",
				&notesv1.ListNotesRequest{}, &notesv1.ListNotesResponse{}), "Unimplemented METHOD_UNKNOWN"},
		"reflection": {
			h.front(t, "notes.acme.localhost", false).Invoke(t.Context(), "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
				&notesv1.ListNotesRequest{}, &notesv1.ListNotesResponse{}), "Unimplemented METHOD_UNKNOWN"},
	} {
		if got := verdict(c.err); got != c.want {
			t.Errorf("%s: %s, want %s (%v)", name, got, c.want, c.err)
		}
	}
}
