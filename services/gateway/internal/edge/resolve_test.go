package edge_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/rowhouse-platform/rowhouse/sdk/authority"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/edge"
)

func id(t testing.TB, s string) tenant.ID {
	t.Helper()
	v, err := tenant.ParseID(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func host(t testing.TB, s string) authority.Host {
	t.Helper()
	v, err := authority.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func uid(n byte) tenant.UID {
	return tenant.UID{0: 1, 6: 0x70, 8: 0x80, 15: n}
}

// street is a table with two served tenants and one in each other state.
func street(t testing.TB) *edge.Table {
	t.Helper()
	table := edge.NewTable()
	table.SetCell(edge.Cell{ID: "cell-1", Number: 1, Region: "local"})
	table.SetApp(edge.App{
		ID: "notes", Audience: 1 << 16,
		GRPCServices: map[string]bool{"notes.v1.NotesService": true},
		SharedHosts:  []authority.Host{host(t, "rowhouse.test")},
		Upstreams:    map[string]edge.Upstream{"cell-1": {GRPCAddress: "g:1", HTTPAddress: "h:1", SPIFFEID: "spiffe://x/y"}},
	})
	states := map[string]edge.State{
		"acme": edge.Active, "globex": edge.Active, "hooli": edge.Suspended, "initech": edge.Deleted, "umbrella": edge.NotReady,
	}
	for i, name := range slices.Sorted(func(yield func(string) bool) {
		for n := range states {
			if !yield(n) {
				return
			}
		}
	}) {
		u := uid(byte(i + 1))
		table.SetTenant(edge.Tenant{UID: u, ID: id(t, name), State: states[name], Cell: "cell-1"})
		table.SetDomain(edge.Domain{Host: host(t, "notes."+name+".test"), Tenant: u, App: "notes"})
	}
	table.SetRevision(7)
	return table
}

func TestResolve(t *testing.T) {
	t.Parallel()
	table := street(t)
	acme, globex := id(t, "acme"), id(t, "globex")
	for _, tc := range []struct {
		name   string
		ask    edge.Ask
		tenant string
		path   string
		by     []string
		reason string
	}{
		{name: "host", ask: edge.Ask{Host: "notes.acme.test", Path: "/n"}, tenant: "acme", path: "/n", by: []string{"host"}},
		{name: "host in another spelling", ask: edge.Ask{Host: "NOTES.Acme.test.:8443", Path: "/"}, tenant: "acme", path: "/", by: []string{"host"}},
		{name: "host and path", ask: edge.Ask{Host: "notes.acme.test", Path: "/t/acme/n"}, tenant: "acme", path: "/n", by: []string{"host", "path"}},
		{name: "host against path", ask: edge.Ask{Host: "notes.acme.test", Path: "/t/globex/n"}, reason: fault.ReasonTenantMismatch},
		{name: "host against unknown path", ask: edge.Ask{Host: "notes.acme.test", Path: "/t/nobody/n"}, reason: fault.ReasonTenantMismatch},
		{name: "host against token", ask: edge.Ask{Host: "notes.acme.test", Path: "/", Token: globex}, reason: fault.ReasonTenantMismatch},
		{name: "host and token", ask: edge.Ask{Host: "notes.acme.test", Path: "/", Token: acme}, tenant: "acme", path: "/", by: []string{"host", "token"}},
		{name: "host against selector", ask: edge.Ask{Host: "notes.acme.test", Path: "/", Selector: "globex"}, reason: fault.ReasonTenantMismatch},
		{name: "host against a selector that is no id", ask: edge.Ask{Host: "notes.acme.test", Path: "/", Selector: "acme,globex"}, reason: fault.ReasonTenantMismatch},
		{name: "shared host by path", ask: edge.Ask{Host: "rowhouse.test", Path: "/t/acme"}, tenant: "acme", path: "/", by: []string{"path"}},
		{name: "shared host by token", ask: edge.Ask{Host: "rowhouse.test", Path: "/n", Token: acme}, tenant: "acme", path: "/n", by: []string{"token"}},
		{name: "shared host by selector", ask: edge.Ask{Host: "rowhouse.test", Path: "/n", Selector: "acme"}, tenant: "acme", path: "/n", by: []string{"selector"}},
		{name: "shared host, path against token", ask: edge.Ask{Host: "rowhouse.test", Path: "/t/acme/", Token: globex}, reason: fault.ReasonTenantMismatch},
		{name: "shared host names nobody", ask: edge.Ask{Host: "rowhouse.test", Path: "/n"}, reason: fault.ReasonResourceNotFound},
		{name: "shared host, unknown path", ask: edge.Ask{Host: "rowhouse.test", Path: "/t/nobody/"}, reason: fault.ReasonResourceNotFound},
		{name: "unknown host", ask: edge.Ask{Host: "notes.nobody.test", Path: "/"}, reason: fault.ReasonResourceNotFound},
		{name: "unknown host with a good token", ask: edge.Ask{Host: "notes.nobody.test", Path: "/", Token: acme}, reason: fault.ReasonResourceNotFound},
		{name: "suspended", ask: edge.Ask{Host: "notes.hooli.test", Path: "/"}, reason: fault.ReasonTenantSuspended},
		{name: "deleted", ask: edge.Ask{Host: "notes.initech.test", Path: "/"}, reason: fault.ReasonTenantDeleted},
		{name: "not ready", ask: edge.Ask{Host: "notes.umbrella.test", Path: "/"}, reason: fault.ReasonTenantNotReady},
		{name: "suspended and disagreeing", ask: edge.Ask{Host: "notes.hooli.test", Path: "/t/acme/"}, reason: fault.ReasonTenantMismatch},
		{name: "SNI of the same host", ask: edge.Ask{Host: "notes.acme.test", SNI: "Notes.acme.test", Path: "/"}, tenant: "acme", path: "/", by: []string{"host"}},
		{name: "SNI of another tenant", ask: edge.Ask{Host: "notes.acme.test", SNI: "notes.globex.test", Path: "/"}, reason: fault.ReasonMisdirected},
		{name: "SNI of nobody", ask: edge.Ask{Host: "notes.acme.test", SNI: "x.test", Path: "/"}, reason: fault.ReasonMisdirected},
		{name: "gRPC", ask: edge.Ask{Host: "notes.acme.test", Path: "/notes.v1.NotesService/List", GRPC: true}, tenant: "acme", path: "/notes.v1.NotesService/List", by: []string{"host"}},
		{name: "gRPC of another service", ask: edge.Ask{Host: "notes.acme.test", Path: "/grpc.reflection.v1.ServerReflection/X", GRPC: true}, reason: fault.ReasonMethodUnknown},
		{name: "gRPC path with three parts", ask: edge.Ask{Host: "notes.acme.test", Path: "/notes.v1.NotesService/List/x", GRPC: true}, reason: fault.ReasonMethodUnknown},
		{name: "no host", ask: edge.Ask{Path: "/"}, reason: fault.ReasonInvalidField},
		{name: "two hosts", ask: edge.Ask{Host: "notes.acme.test,notes.globex.test", Path: "/"}, reason: fault.ReasonInvalidField},
		{name: "path without slash", ask: edge.Ask{Host: "notes.acme.test", Path: "t/acme"}, reason: fault.ReasonInvalidField},
		{name: "dot segment", ask: edge.Ask{Host: "rowhouse.test", Path: "/t/acme/../globex/"}, reason: fault.ReasonInvalidField},
		{name: "escaped dot segment", ask: edge.Ask{Host: "rowhouse.test", Path: "/t/acme/.%2E/globex/"}, reason: fault.ReasonInvalidField},
		{name: "escaped slash", ask: edge.Ask{Host: "rowhouse.test", Path: "/t/acme%2fx/"}, reason: fault.ReasonInvalidField},
		{name: "double escape", ask: edge.Ask{Host: "rowhouse.test", Path: "/t/acme/%252e/"}, reason: fault.ReasonInvalidField},
		{name: "empty segment", ask: edge.Ask{Host: "rowhouse.test", Path: "//t/acme/"}, reason: fault.ReasonInvalidField},
		{name: "backslash", ask: edge.Ask{Host: "rowhouse.test", Path: `/t\acme/`}, reason: fault.ReasonInvalidField},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := table.Resolve(tc.ask)
			if reason := fault.ReasonOf(err); reason != tc.reason {
				t.Fatalf("reason = %q, want %q", reason, tc.reason)
			}
			if tc.reason != "" {
				return
			}
			if got.Tenant.ID.String() != tc.tenant || got.Path != tc.path || got.Upstream.HTTPAddress != "h:1" || got.Revision != 7 {
				t.Errorf("Resolve = %+v", got)
			}
			if diff := cmp.Diff(tc.by, got.NamedBy); diff != "" {
				t.Errorf("NamedBy (-want +got):\n%s", diff)
			}
		})
	}
}

// A tenant that gives up its id must not be found by it, also when another tenant
// takes it over before or after.
func TestTableFollowsIDs(t *testing.T) {
	t.Parallel()
	table := street(t)
	heir := edge.Tenant{UID: uid(99), ID: id(t, "acme"), State: edge.Active, Cell: "cell-1"}
	table.SetTenant(heir)
	table.RemoveTenant(uid(1))
	got, err := table.Resolve(edge.Ask{Host: "rowhouse.test", Path: "/t/acme/"})
	if err != nil || got.Tenant.UID != heir.UID {
		t.Fatalf("Resolve = %+v, %v; want the heir", got.Tenant, err)
	}
	if _, err := table.Resolve(edge.Ask{Host: "notes.acme.test", Path: "/"}); fault.ReasonOf(err) != fault.ReasonResourceNotFound {
		t.Fatalf("the old tenant's host gives %v, want not found", err)
	}
}

// Whatever a request names, it reaches a tenant only when all names agree.
func TestResolveNeverPicksAmongNames(t *testing.T) {
	t.Parallel()
	table := street(t)
	names := []string{"", "acme", "globex", "hooli", "nobody"}
	rapid.Check(t, func(t *rapid.T) {
		hostName := rapid.SampledFrom([]string{"rowhouse.test", "notes.acme.test", "notes.globex.test", "x.test"}).Draw(t, "host")
		path := rapid.SampledFrom(names).Draw(t, "path")
		token := rapid.SampledFrom(names).Draw(t, "token")
		selector := rapid.SampledFrom(names).Draw(t, "selector")
		ask := edge.Ask{Host: hostName, Path: "/", Selector: selector}
		want := map[string]bool{}
		for _, n := range []string{path, token, selector} {
			if n != "" {
				want[n] = true
			}
		}
		switch hostName {
		case "notes.acme.test":
			want["acme"] = true
		case "notes.globex.test":
			want["globex"] = true
		}
		if path != "" {
			ask.Path = "/t/" + path + "/"
		}
		if token != "" && token != "nobody" {
			ask.Token, _ = tenant.ParseID(token)
		} else if token == "nobody" {
			delete(want, "nobody")
			if path == "nobody" || selector == "nobody" {
				want["nobody"] = true
			}
		}
		got, err := table.Resolve(ask)
		if err == nil && (len(want) != 1 || !want[got.Tenant.ID.String()]) {
			t.Fatalf("%+v reached %s although it names %v", ask, got.Tenant.ID, want)
		}
		if err != nil && len(want) == 1 && hostName != "x.test" && (want["acme"] || want["globex"]) {
			t.Fatalf("%+v was refused: %v", ask, err)
		}
	})
}

func TestHygiene(t *testing.T) {
	t.Parallel()
	h := edge.NewHygiene("X-Account")
	for _, name := range []string{
		"rowhouse-tenant-bin", "Rowhouse-Tenant-Bin", "ROWHOUSE_TENANT_BIN", "rowhouse.tenant.bin", "rowhouse~tenant-bin",
		"X-Rowhouse-Tenant", "x_tenant_id", "X-Tenant", "X.Tenant.Id", "x-scope-orgid", "X-Forwarded-For", "x_forwarded_host",
		"Forwarded", "X-Real-IP", "X-Original-URL", "x-envoy-peer-metadata", "baggage", "traceparent", "tracestate",
		"Connection", "Transfer-Encoding", "Upgrade", "TE", "Trailer", "Proxy-Authorization", "x-account", "X_Account",
		"any_thing", "any.thing", "", "grpc-status", "Grpc_Message",
	} {
		if h.Passes(name) {
			t.Errorf("%q passes", name)
		}
	}
	for _, name := range []string{"Accept", "content-type", "Authorization", "Cookie", "grpc-timeout", "grpc-encoding", "X-Request-Id", "Rowhouses"} {
		if !h.Passes(name) {
			t.Errorf("%q does not pass", name)
		}
	}
	if _, ok := h.Nominated([]string{"close, Content-Length"}); ok {
		t.Error("a Connection field that names Content-Length is accepted")
	}
	if names, ok := h.Nominated([]string{"keep-alive, X_Hop", "Rowhouse-Tenant-Bin"}); !ok || !names["x-hop"] || !names["rowhouse-tenant-bin"] {
		t.Errorf("Nominated = %v, %v", names, ok)
	}
}

func BenchmarkResolve(b *testing.B) {
	table := street(b)
	ask := edge.Ask{Host: "notes.acme.test", SNI: "notes.acme.test", Path: "/notes/1"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := table.Resolve(ask); err != nil {
			b.Fatal(err)
		}
	}
}

func TestAudiences(t *testing.T) {
	t.Parallel()
	table := street(t)
	const both = "spiffe://x/both"
	table.SetApp(edge.App{ID: "tasks", Audience: 1 << 18, Upstreams: map[string]edge.Upstream{"cell-1": {SPIFFEID: both}, "cell-2": {SPIFFEID: both}}})
	table.SetApp(edge.App{ID: "files", Audience: 1 << 17, Upstreams: map[string]edge.Upstream{"cell-2": {SPIFFEID: both}}})
	for spiffe, want := range map[string][]tenant.Audience{
		"spiffe://x/y": {1 << 16}, both: {1 << 17, 1 << 18}, "spiffe://x/nobody": nil, "": nil,
	} {
		if got := table.Audiences(spiffe); !slices.Equal(got, want) {
			t.Errorf("%q is %v, want %v", spiffe, got, want)
		}
	}
	table.RemoveApp("files")
	if got := table.Audiences(both); !slices.Equal(got, []tenant.Audience{1 << 18}) {
		t.Errorf("after an app has gone: %v", got)
	}
}
