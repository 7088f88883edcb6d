package operator_test

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
)

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustNew(t *testing.T, cfg operator.Config) *operator.Authenticator {
	t.Helper()
	a, err := operator.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func mustParse(t *testing.T, s string) identity.ID {
	t.Helper()
	id, err := identity.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestRoles(t *testing.T) {
	t.Parallel()
	roles := operator.AllRoles()
	for _, role := range roles.Names() {
		permissions := roles.Permissions(role)
		if len(permissions) == 0 {
			t.Errorf("role %s may do nothing", role)
		}
		for _, permission := range permissions {
			if strings.ContainsAny(permission, "*?") || strings.Count(permission, ".") != 2 {
				t.Errorf("role %s holds %q, which is no service.collection.verb", role, permission)
			}
			if !roles.Known(permission) {
				t.Errorf("%q of %s is not known", permission, role)
			}
		}
		if !slices.IsSorted(permissions) {
			t.Errorf("permissions of %s are not in order", role)
		}
	}
	people := []string{"viewer", "support", "operator", "placer", "security", "auditor"}
	for _, role := range people {
		for _, permission := range roles.Permissions(role) {
			if !slices.Contains(roles.Permissions("owner"), permission) {
				t.Errorf("owner lacks %s of %s", permission, role)
			}
		}
	}
	for _, forbidden := range []struct{ role, permission string }{
		{"viewer", "tenancy.tenants.update"}, {"support", "tenancy.tenants.suspend"},
		{"auditor", "tenancy.tenants.list"}, {"operator", "audit.events.list"}, {"operator", "tenancy.plans.update"},
		{"owner", "quota.leases.grant"}, {"owner", "tenancy.contextKeys.certify"},
		{"app", "tenancy.contextKeys.certify"}, {"app", "tenancy.routes.watch"}, {"gateway", "tenancy.tenants.get"},
	} {
		if slices.Contains(roles.Permissions(forbidden.role), forbidden.permission) {
			t.Errorf("%s must not hold %s", forbidden.role, forbidden.permission)
		}
	}
	if roles.Permissions("nobody") != nil || roles.Known("tenancy.tenants.*") {
		t.Error("unknown roles and wildcards must be unknown")
	}
}

func TestStaticToken(t *testing.T) {
	t.Parallel()
	token, sum, err := operator.NewToken(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := operator.NewToken(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	path := write(t, "operators.yaml", "operators:\n"+
		"- {name: dev, token_sha256: "+sum+", roles: [viewer]}\n"+
		"- {name: ci, token_sha256: "+other+", roles: [auditor]}\n")
	a := mustNew(t, operator.Config{OperatorsFile: path, Development: true})
	got, err := a.Bearer(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "operator:dev@static" || got.Kind != operator.KindOperator || !got.Has("tenancy.tenants.get") ||
		got.Has("audit.events.list") || got.Has("") {
		t.Errorf("principal = %+v", got)
	}
	for name, bad := range map[string]string{
		"empty": "", "prefix alone": operator.TokenPrefix, "cut": token[:len(token)-1], "longer": token + "A",
		"other case": operator.TokenPrefix + strings.ToUpper(token[len(operator.TokenPrefix):]), "the hash": sum,
		"prefixed hash": operator.TokenPrefix + sum, "space": " " + token, "huge": token + strings.Repeat("A", 9000),
	} {
		principal, err := a.Bearer(t.Context(), bad)
		if fault.ReasonOf(err) != fault.ReasonCredentialInvalid || !principal.IsZero() {
			t.Errorf("%s: %v, %v", name, principal, err)
		}
	}
	if _, err := mustNew(t, operator.Config{}).Bearer(t.Context(), token); fault.KindOf(err) != fault.Unauthenticated {
		t.Errorf("without a file: %v", err)
	}
}

// Outside of development a static token ends, and no two operators have one.
func TestStaticTokensEnd(t *testing.T) {
	t.Parallel()
	token, sum, err := operator.NewToken(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	entry := func(name, more string) string {
		return "- {name: " + name + ", token_sha256: " + sum + ", roles: [viewer]" + more + "}\n"
	}
	c := &clock{now: time.Date(2026, 3, 1, 11, 59, 59, 0, time.UTC)}
	end := ", expire_time: 2026-03-01T12:00:00Z"
	for name, bad := range map[string]string{
		"without an end":        entry("a", ""),
		"twice":                 entry("a", end) + entry("b", end),
		"an end that is none":   entry("a", ", expire_time: tomorrow"),
		"an end for a subject":  "- {name: a, issuer: 'https://x', subject: s, roles: [viewer]" + end + "}\n",
		"twice, in development": entry("a", "") + entry("b", ""),
	} {
		path := write(t, "operators.yaml", "operators:\n"+bad)
		_, err := operator.New(t.Context(), operator.Config{OperatorsFile: path, Development: strings.HasSuffix(name, "development")})
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	a := mustNew(t, operator.Config{OperatorsFile: write(t, "operators.yaml", "operators:\n"+entry("a", end)), Clock: c.Now})
	if _, err := a.Bearer(t.Context(), token); err != nil {
		t.Error(err)
	}
	c.Advance(time.Second)
	if _, err := a.Bearer(t.Context(), token); fault.ReasonOf(err) != fault.ReasonCredentialInvalid {
		t.Errorf("after its end: %v", err)
	}
}

// Somebody's rights can be looked up by name as long as they would have them with a credential.
func TestNamed(t *testing.T) {
	t.Parallel()
	_, sum, err := operator.NewToken(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	people := write(t, "operators.yaml", "operators:\n"+
		"- {name: ada, issuer: https://id.example, subject: '1', roles: [operator]}\n"+
		"- {name: ci, token_sha256: "+sum+", expire_time: 2026-03-01T12:00:00Z, roles: [viewer]}\n")
	peers := write(t, "peers.yaml", "peers:\n- {identity: spiffe://x.example/cell/c/app/notes, roles: [app]}\n")
	now := time.Date(2026, 3, 1, 11, 59, 0, 0, time.UTC)
	a := mustNew(t, operator.Config{OperatorsFile: people, PeersFile: peers, Clock: func() time.Time { return now }})
	for name, permission := range map[string]string{
		"operator:ada@https://id.example": "config.changes.publish", "operator:ci@static": "config.changes.get",
		"spiffe://x.example/cell/c/app/notes": "config.settings.watch",
	} {
		if got := a.Named(name); got.Name != name || !got.Has(permission) {
			t.Errorf("%s is %+v", name, got)
		}
	}
	for _, name := range []string{"", "ada", "operator:ada@static", "operator:eve@https://id.example", "unbound:2@https://id.example"} {
		if got := a.Named(name); !got.IsZero() || len(got.Permissions()) > 0 {
			t.Errorf("%q is %+v", name, got)
		}
	}
	now = now.Add(time.Minute)
	if got := a.Named("operator:ci@static"); !got.IsZero() {
		t.Errorf("whose token is over is %+v", got)
	}
	if got := mustNew(t, operator.Config{}).Named("operator:ci@static"); !got.IsZero() {
		t.Errorf("without files: %+v", got)
	}
}

func TestNewTokenIsRandomAndHashed(t *testing.T) {
	t.Parallel()
	token, sum, err := operator.NewToken(bytes.NewReader(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	if want := operator.TokenPrefix + strings.Repeat("A", 43); token != want {
		t.Errorf("token = %q, want %q", token, want)
	}
	if strings.Contains(sum, token) || len(sum) != 64 {
		t.Errorf("sum = %q", sum)
	}
	if _, _, err := operator.NewToken(bytes.NewReader(make([]byte, 31))); err == nil {
		t.Error("too little randomness must be an error")
	}
}

func TestPeers(t *testing.T) {
	t.Parallel()
	const gateway = "spiffe://rowhouse.localhost/cell/cell-1/service/gateway"
	path := write(t, "peers.yaml", `
peers:
- identity: `+gateway+`
  roles: [gateway]
  may_present: true
- identity: spiffe://rowhouse.localhost/cell/cell-1/app/notes
  permissions: [tenancy.tenants.watch]
- identity: spiffe://rowhouse.localhost/operator/ada
  roles: [viewer]
`)
	a := mustNew(t, operator.Config{PeersFile: path})
	got := a.Peer(mustParse(t, gateway))
	if diff := cmp.Diff(operator.AllRoles().Permissions("gateway"), got.Permissions()); diff != "" {
		t.Errorf("gateway's permissions (-want +got):\n%s", diff)
	}
	if got.Name != gateway || got.Kind != operator.KindWorkload || !a.MayPresent(mustParse(t, gateway)) {
		t.Errorf("gateway = %+v", got)
	}
	notes := mustParse(t, "spiffe://rowhouse.localhost/cell/cell-1/app/notes")
	if p := a.Peer(notes); !p.Has("tenancy.tenants.watch") || p.Has("tenancy.routes.watch") || a.MayPresent(notes) {
		t.Errorf("notes = %+v", p)
	}
	if p := a.Peer(mustParse(t, "spiffe://rowhouse.localhost/operator/ada")); p.Kind != operator.KindOperator {
		t.Errorf("ada = %+v", p)
	}
	for _, stranger := range []string{
		"spiffe://rowhouse.localhost/cell/cell-2/service/gateway", "spiffe://rowhouse.localhost/cell/cell-1/app/gateway",
		"spiffe://other.localhost/cell/cell-1/service/gateway",
	} {
		id := mustParse(t, stranger)
		if p := a.Peer(id); len(p.Permissions()) != 0 || a.MayPresent(id) || p.Name != stranger {
			t.Errorf("%s = %+v", stranger, p)
		}
	}
}

func TestFilesThatKeepFromStarting(t *testing.T) {
	t.Parallel()
	hash := strings.Repeat("ab", 32)
	tests := map[string]struct{ operators, peers, want string }{
		"unknown role":         {"operators: [{name: a, token_sha256: " + hash + ", roles: [root]}]", "", `unknown role "root"`},
		"no credential":        {"operators: [{name: a, roles: [viewer]}]", "", "needs either"},
		"two credentials":      {"operators: [{name: a, issuer: x, subject: y, token_sha256: " + hash + ", roles: [viewer]}]", "", "needs either"},
		"half a subject":       {"operators: [{name: a, subject: y, roles: [viewer]}]", "", "both issuer and subject"},
		"bad hash":             {"operators: [{name: a, token_sha256: abc, roles: [viewer]}]", "", "not a SHA-256"},
		"bad name":             {"operators: [{name: 'A b', token_sha256: " + hash + ", roles: [viewer]}]", "", "no name"},
		"same name":            {"operators: [{name: a, issuer: x, subject: y, roles: [viewer]}, {name: a, issuer: x, subject: z, roles: [viewer]}]", "", "two operators"},
		"same subject":         {"operators: [{name: a, issuer: x, subject: y, roles: [viewer]}, {name: b, issuer: x, subject: y, roles: [owner]}]", "", "bound twice"},
		"unknown key":          {"operators: [{name: a, rolls: [viewer]}]", "", `unknown key "rolls" in operators[0]; the nearest known key is "roles"`},
		"unknown permission":   {"", "peers: [{identity: 'spiffe://d/cell/c/app/a', permissions: [tenancy.tenants.fly]}]", `unknown permission "tenancy.tenants.fly"`},
		"wildcard":             {"", "peers: [{identity: 'spiffe://d/cell/c/app/a', permissions: ['tenancy.*']}]", "unknown permission"},
		"unparsable identity":  {"", "peers: [{identity: 'https://d/app/a', permissions: [tenancy.tenants.watch]}]", "does not start with spiffe://"},
		"no identity":          {"", "peers: [{permissions: [tenancy.tenants.watch]}]", "identity is missing"},
		"no namespace":         {"", "peers: [{identity: 'spiffe://d/cell/c/app/a', may_present: true, secrets: ['*']}]", "no name for a namespace"},
		"secrets of nobody":    {"", "peers: [{identity: 'spiffe://d/cell/c/app/a', roles: [app], secrets: [portal]}]", "needs may_present"},
		"same identity":        {"", "peers: [{identity: 'spiffe://d/cell/c/app/a', roles: [app]}, {identity: 'spiffe://d/cell/c/app/a', may_present: true}]", "named twice"},
		"identity without use": {"", "peers: [{identity: 'spiffe://d/cell/c/app/a'}]", "may do nothing"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var cfg operator.Config
			if test.operators != "" {
				cfg.OperatorsFile = write(t, "operators.yaml", test.operators)
			}
			if test.peers != "" {
				cfg.PeersFile = write(t, "peers.yaml", test.peers)
			}
			_, err := operator.New(t.Context(), cfg)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v, want one with %q", err, test.want)
			}
		})
	}
	if _, err := operator.New(t.Context(), operator.Config{PeersFile: "/does/not/exist"}); err == nil {
		t.Error("a missing file must be an error")
	}
}

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func TestRemovedPeerLosesItsRightsWithinASecond(t *testing.T) {
	t.Parallel()
	const app = "spiffe://d/cell/c/app/a"
	id := mustParse(t, app)
	path := write(t, "peers.yaml", "peers: [{identity: '"+app+"', roles: [app], may_present: true}]")
	c := &clock{now: time.Unix(1e9, 0)}
	var reports []error
	a := mustNew(t, operator.Config{
		PeersFile: path, Clock: c.Now, OnReload: func(err error) { reports = append(reports, err) },
	})
	replace := func(content string, modified time.Time) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, modified, modified); err != nil {
			t.Fatal(err)
		}
	}
	replace("peers: []", time.Unix(2e9, 0))
	c.Advance(time.Second - 1)
	if !a.MayPresent(id) {
		t.Error("the file was looked at too early")
	}
	c.Advance(1)
	if a.MayPresent(id) || len(a.Peer(id).Permissions()) != 0 {
		t.Error("the removed peer keeps its rights")
	}
	replace("peers: [{identity: '"+app+"', roles: [nonsense]}]", time.Unix(2e9+1, 0))
	c.Advance(time.Second)
	if len(a.Peer(id).Permissions()) != 0 {
		t.Error("a broken file gave rights")
	}
	if len(reports) != 2 || reports[0] != nil || reports[1] == nil {
		t.Errorf("reports = %v, want one success and one error", reports)
	}
}

// A workload reads the secrets of the namespaces that its line names, and of no others.
func TestReadsSecrets(t *testing.T) {
	t.Parallel()
	const app, other = "spiffe://d/cell/c/app/a", "spiffe://d/cell/c/app/b"
	a := mustNew(t, operator.Config{PeersFile: write(t, "peers.yaml",
		"peers: [{identity: '"+app+"', may_present: true, secrets: [portal, mailer]}, {identity: '"+other+"', may_present: true}]")})
	for _, test := range []struct {
		id, namespace string
		may           bool
	}{{app, "portal", true}, {app, "mailer", true}, {app, "brand", false}, {app, "", false}, {other, "portal", false}, {"spiffe://d/cell/c/app/x", "portal", false}} {
		if got := a.ReadsSecrets(mustParse(t, test.id), test.namespace); got != test.may {
			t.Errorf("ReadsSecrets(%s, %q) = %t", test.id, test.namespace, got)
		}
	}
	if mustNew(t, operator.Config{}).ReadsSecrets(mustParse(t, app), "portal") {
		t.Error("without a file somebody may")
	}
}
