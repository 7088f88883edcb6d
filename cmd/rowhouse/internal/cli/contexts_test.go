package cli

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/rowhouse-platform/rowhouse/cmd/rowhouse/internal/client"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
)

func TestContexts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"roots", "token"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := &house{contexts: filepath.Join(dir, "new", "contexts.yaml")}
	add := []string{
		"--roots", filepath.Join(dir, "roots"), "--token-file", filepath.Join(dir, "token"),
		"--service", "tenancy=t.example:7101,spiffe://rowhouse.example/cell/cell-1/service/tenancy",
	}
	for _, tt := range []struct {
		args []string
		want result
	}{
		{[]string{"current"}, result{1, "", "rowhouse: no context: " + h.contexts + " does not exist; set ROWHOUSE_CONTEXTS or pass --contexts\n"}},
		{append([]string{"add", "one"}, add[:4]...), result{2, "", "rowhouse: pass --service at least once, or --from\n"}},
		{append([]string{"add", "one"}, add...), result{}},
		{append([]string{"add", "two"}, add...), result{}},
		{append([]string{"add", "two"}, add...), result{}},
		{[]string{"current"}, result{0, "one\n", ""}},
		{[]string{"current", "-o", "json"}, result{0, "{\n  \"context\": \"one\"\n}\n", ""}},
		{[]string{"current", "-o", "yaml"}, result{0, "context: one\n", ""}},
		{[]string{"use", "three"}, result{1, "", "rowhouse: no context: \"three\" is not in " + h.contexts + ", which has: one, two\n"}},
		{[]string{"use", "two"}, result{}},
		{[]string{"current"}, result{0, "two\n", ""}},
		{[]string{"current", "--context", "one"}, result{0, "one\n", ""}},
		{[]string{"list"}, result{0, "\tone\tt.example:7101\t\t\t\n*\ttwo\tt.example:7101\t\t\t\n", ""}},
		{[]string{"list", "-o", "name"}, result{0, "one\ntwo\n", ""}},
	} {
		if got := h.run(t, append([]string{"contexts"}, tt.args...)...); got != tt.want {
			t.Errorf("contexts %s:\ngot  %+v\nwant %+v", tt.args, got, tt.want)
		}
	}
	copied := &house{contexts: filepath.Join(dir, "copy.yaml")}
	if got := copied.run(t, "contexts", "add", "two", "--from", h.contexts); got != (result{}) {
		t.Errorf("add --from: %+v", got)
	}
	if got := copied.run(t, "contexts", "list", "-o", "json"); !strings.Contains(got.out, `"token_file": "`+filepath.Join(dir, "token")) || strings.Contains(got.out, "secret") {
		t.Errorf("list -o json: %+v", got)
	}
	if info, err := os.Stat(h.contexts); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v (%v), want 0600", info.Mode(), err)
	}
}

const (
	token       = "rh-op-4f1c-secret"
	trustDomain = "rowhouse.example"
)

// tokens is a tenancy that knows one token and counts tries.
type tokens struct {
	tenancyv1.UnimplementedTenantServiceServer
	tries int
}

func (s *tokens) GetTenant(ctx context.Context, r *tenancyv1.GetTenantRequest) (*tenancyv1.GetTenantResponse, error) {
	header, _ := metadata.FromIncomingContext(ctx)
	if got := header.Get("authorization"); len(got) != 1 || got[0] != "Bearer "+token {
		return nil, status.Error(codes.Unauthenticated, "not known")
	}
	if s.tries++; s.tries == 1 {
		return nil, status.Error(codes.Unavailable, "starting")
	}
	return &tenancyv1.GetTenantResponse{Tenant: &tenancyv1.Tenant{Name: r.GetName()}}, nil
}

// secured starts a tenancy behind real TLS and returns the contexts file that leads to it.
func secured(t *testing.T, given string) string {
	t.Helper()
	authority, err := identity.NewAuthority(identity.AuthorityConfig{TrustDomain: trustDomain})
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity.Service(trustDomain, "cell-1", "tenancy")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.Issue(identity.Leaf{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13})))
	tenancyv1.RegisterTenantServiceServer(server, &tokens{})
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() { server.Stop(); <-done })
	roots, secret := write(t, "roots.pem", string(authority.RootsPEM())), write(t, "token", given+"\n")
	path := filepath.Join(t.TempDir(), "contexts.yaml")
	err = client.Write(path, client.File{Current: "x", Contexts: []client.Context{{
		Name: "x", Roots: yamlfile.Path(roots), TokenFile: yamlfile.Path(secret),
		Services: map[string]client.Service{"tenancy": {Address: l.Addr().String(), Identity: id}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// The token goes to the service and nowhere else, over a connection to whom the context names; a service that is
// starting is tried again.
func TestTokenIsNeverShown(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		given, format string
		code          int
	}{
		"well": {token, "json", 0}, "table": {token, "table", 0}, "refused": {"other-secret", "json", 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out, errOut strings.Builder
			root := &cobra.Command{Use: "rowhouse", SilenceErrors: true, SilenceUsage: true}
			AddTo(root)
			root.SetArgs([]string{"--contexts", secured(t, tt.given), "-v", "tenants", "get", "acme", "-o", tt.format})
			root.SetOut(&out)
			root.SetErr(&errOut)
			err := root.ExecuteContext(t.Context())
			if err != nil {
				errOut.WriteString(Line(err) + err.Error())
			}
			if ExitCode(err, 1) != tt.code {
				t.Errorf("status %d, said %q; want %d", ExitCode(err, 1), errOut.String(), tt.code)
			}
			if all := out.String() + errOut.String(); strings.Contains(all, "secret") {
				t.Errorf("the token is in the output: %q", all)
			}
		})
	}
}

func TestBadContexts(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		spoil func(*client.Context)
		code  int
		want  string
	}{
		"no token file": {func(c *client.Context) { c.TokenFile = "/nonexistent/token" }, exitAccess, "/nonexistent/token"},
		"no roots":      {func(c *client.Context) { c.Roots = "/nonexistent/roots" }, 1, "/nonexistent/roots"},
		"no service":    {func(c *client.Context) { c.Services = nil }, 1, `the context "x" does not say where tenancy is`},
		"nobody there": {func(c *client.Context) {
			c.Services["tenancy"] = client.Service{Address: "127.0.0.1:1", Identity: c.Services["tenancy"].Identity}
		}, 1, "cannot reach tenancy: dial tcp 127.0.0.1:1: connect: connection refused (Unavailable); see that tenancy runs"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := secured(t, token)
			f, err := client.Read(path)
			if err != nil {
				t.Fatal(err)
			}
			tt.spoil(&f.Contexts[0])
			if err := client.Write(path, f); err != nil {
				t.Fatal(err)
			}
			root := &cobra.Command{Use: "rowhouse", SilenceErrors: true, SilenceUsage: true}
			AddTo(root)
			root.SetArgs([]string{"--contexts", path, "tenants", "get", "acme"})
			err = root.ExecuteContext(t.Context())
			if ExitCode(err, 1) != tt.code || !strings.Contains(Line(err), tt.want) || strings.HasPrefix(Line(err), "max retries") {
				t.Errorf("status %d, said %q; want %d and %q", ExitCode(err, 1), Line(err), tt.code, tt.want)
			}
		})
	}
}
