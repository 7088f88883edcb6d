package docs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// scopes is, by page, what its fragments of Go may use beside each other: the parameters of the function that they are put
// into, and its result where they return one. Fragments with a file's name are compiled with their guide.
func scopes() map[string]string {
	return map[string]string{
		"README.md": "ctx context.Context, db *tenantdb.DB",
		"docs/guides/jobs.md": "ctx context.Context, db *tenantdb.DB, dsn string, conn *grpc.ClientConn, kinds []jobs.Kind, queue *jobs.Queue, " +
			"verifier *tenant.Verifier, tenancyID identity.ID, nextRows, keepUpload tenantdb.Statement",
		"docs/guides/flags.md":    "ctx context.Context, store *settings.Store",
		"docs/guides/fairness.md": "ctx context.Context, queue *fair.Queue, tc tenant.Context, conn *grpc.ClientConn, replica string, cells map[string]tenantdb.Cell",
		"docs/guides/quotas.md":   "ctx context.Context, client *quotas.Client, makeIt func(context.Context) (int64, error)) (_ error",
		"docs/guides/secrets.md":  "ctx context.Context, store *settings.Store, conn *grpc.ClientConn",
		"docs/guides/rollouts.md": "store *settings.Store, options []grpc.ServerOption",
		"docs/guides/brands.md":   "ctx context.Context, store *settings.Store, brand settings.Brand, name, link string",
	}
}

// unscoped are pages whose fragments are held elsewhere.
func unscoped() map[string]string {
	return map[string]string{
		"docs/guides/attack.md":          "they leave out what each service has of its own; examples/notes/attack_test.go and the packages' examples have it",
		"docs/guides/rowlint.md":         "a comment, which the linter's own tests read",
		"docs/guides/flags-protocols.md": "providers that the product does not depend on; bench/peers/providers has them so",
	}
}

const imported = `"context"; "google.golang.org/grpc"; "github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/fair"; "github.com/rowhouse-platform/rowhouse/sdk/shares"; "github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/mail"; "github.com/rowhouse-platform/rowhouse/sdk/quotas"; "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"; "github.com/rowhouse-platform/rowhouse/sdk/jobs"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"`

// TestFragmentsOfGoCompile puts each fragment of a page into a function, and has the compiler's types checked.
func TestFragmentsOfGoCompile(t *testing.T) {
	t.Parallel()
	var source strings.Builder
	fmt.Fprintf(&source, "package fragments\n\nimport (\n%s\n)\n", imported)
	seen := map[string]bool{}
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if b.lang != "go" || b.file != "" {
				continue
			}
			seen[p.path] = true
			if _, elsewhere := unscoped()[p.path]; elsewhere {
				continue
			}
			scope, ok := scopes()[p.path]
			if !ok {
				t.Errorf("%s:%d: say in scopes what this fragment may use", p.path, b.line)
			}
			fmt.Fprintf(&source, "\nfunc _(%s) {\n//line %s:%d\n%s}\n", scope, p.path, b.line+1, strings.ReplaceAll(b.text, "…", ""))
		}
	}
	for _, table := range []map[string]string{scopes(), unscoped()} {
		for path := range table {
			if !seen[path] {
				t.Errorf("%s has no fragment of Go", path)
			}
		}
	}
	for _, e := range typeErrors(t, source.String()) {
		t.Error(e)
	}
}

// typeErrors are what the compiler says of a source as a package of this module, but of variables and imports that it does
// not use.
func typeErrors(t *testing.T, source string) (found []string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "fragments.go")
	at, err := filepath.Abs(filepath.Join(root, "test", "docs", "fragments", "fragments.go")) // where there is nothing
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{at: file}})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(filepath.Dir(file), "overlay.json")
	if err := errors.Join(os.WriteFile(file, []byte(source), 0o600), os.WriteFile(list, overlay, 0o600)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-overlay", list, "-gcflags=-e", "./test/docs/fragments")
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "#") && !strings.Contains(line, "declared and not used: ") && !strings.HasSuffix(line, "imported and not used") {
			found = append(found, line)
		}
	}
	if err != nil && len(out) == 0 {
		t.Fatal(err)
	}
	return found
}

// A fragment that is wrong is found.
func TestTypeErrors(t *testing.T) {
	t.Parallel()
	const wrong = "package fragments\nimport \"context\"\nfunc _(ctx context.Context) { x := 1; ctx.Gone() }\n"
	if found := typeErrors(t, wrong); len(found) != 1 || !strings.Contains(found[0], "Gone") {
		t.Errorf("found %v", found)
	}
}
