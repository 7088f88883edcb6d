package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
)

// Every RPC that operators may call is reached by a verb or by `call`, at a service that could serve it.
func TestEveryAdminRPCIsReached(t *testing.T) {
	t.Parallel()
	verbs := map[string]bool{}
	for _, n := range nouns() {
		for _, v := range n.verbs {
			verbs[methodPath(method(n.serviceOf(v), v.rpc))] = true
		}
	}
	admin, byVerb := 0, 0
	for _, m := range methods() {
		if ruleOf(m).GetPlane() != apiv1.Plane_PLANE_ADMIN {
			continue
		}
		admin++
		if verbs[methodPath(m)] {
			byVerb++
		}
		t.Run(shortName(m), func(t *testing.T) {
			t.Parallel()
			h := &house{}
			args := []string{"call", methodPath(m)}
			if destructive(m) {
				args = append(args, "--data", `{"name": "things/x"}`, "--confirm", "x")
			}
			got := h.run(t, args...)
			calls := h.calls()
			if got.code != 0 || len(calls) != 1 || calls[0].method != shortName(m) {
				t.Fatalf("status %d, said %q, called %v", got.code, got.err, calls)
			}
			pkg := strings.Split(string(m.ParentFile().Package()), ".")[1]
			if pkg != "audit" && calls[0].service != pkg {
				t.Errorf("asked %s, want %s", calls[0].service, pkg)
			}
		})
	}
	if admin < 40 || admin-byVerb > 0 {
		t.Errorf("%d of %d RPCs have a verb; the rest is reached by call alone: say in the table why, and here", byVerb, admin)
	}
}

// walk visits every command of ours.
func walk(c *cobra.Command, visit func(*cobra.Command)) {
	for _, sub := range c.Commands() {
		if sub.Name() != "help" {
			visit(sub)
			walk(sub, visit)
		}
	}
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{Use: "rowhouse"}
	(&app{id: uuid.New, terminal: isTerminal, getenv: os.Getenv, now: time.Now}).addTo(root)
	return root
}

func TestEveryCommandIsExplained(t *testing.T) {
	t.Parallel()
	n := 0
	walk(rootCommand(), func(c *cobra.Command) {
		n++
		if c.Short == "" || c.Example == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s has the short help %q and the example %q", c.CommandPath(), c.Short, c.Example)
		}
		if !c.HasSubCommands() && c.Long == "" && c.Parent().Name() != "contexts" {
			t.Errorf("%s has no long help", c.CommandPath())
		}
	})
	if n < 80 {
		t.Errorf("looked at %d commands only", n)
	}
}

// Examples are typed as they stand: each must be a command line without a mistake.
func TestExamplesWork(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := errors.Join(os.Mkdir("migrations", 0o700), os.Mkdir("house", 0o700)); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"app.yaml": "display_name: x", "edge.yaml": "domain: edge", "schema.json": "{}", "portal.json": "{}", "change.yaml": "{reason: a good reason, edits: [{name: platform/config/portal, content: {a: 1}}]}", "cell.json": "{}", "flags.flagd.json": "{}", "free.json": "{}", "acme.png": "\x89PNG\r\n\x1a\n", "logo.svg": "<svg/>", "brand.json": "{}", "sheet.css": ".rh-a{}", "roots.pem": "x", "token": "x", "stripe.key": "x",
		"migrations/0001_notes.sql": "SELECT 1",
		"notes.dsn":                 "host=127.0.0.1 port=1", "managed.dsn": "host=127.0.0.1 port=1", "app.password": "x",
	} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	walk(rootCommand(), func(c *cobra.Command) {
		example := strings.ReplaceAll(c.Example, "\\\n", " ")
		for line := range strings.Lines(example) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " | ")
			line, _, _ = strings.Cut(line, " > ")
			args, ours := strings.CutPrefix(line, "rowhouse ")
			if !ours || strings.Contains(args, "--from") || args == "contexts use production" {
				continue
			}
			n++
			h := &house{contexts: filepath.Join(dir, "contexts.yaml"), stdin: "{}", answers: map[string]answer{
				"Operations/WaitOperation": always(&longrunningpb.Operation{Done: true}),
			}}
			args = strings.ReplaceAll(args, "~/.rowhouse/token", "token")
			if c.Name() == "prove" { // it takes minutes, and has tests of its own
				command, rest, err := rootCommand().Find(shell(args))
				if err = errors.Join(err, command.ParseFlags(rest)); err != nil {
					t.Errorf("%s\n%s", line, err)
				}
				continue
			}
			if got := h.run(t, shell(args)...); got.code == 2 && !strings.Contains(got.err, "could not audit: connect: ") {
				t.Errorf("%s\n%s", line, got.err)
			}
		}
	})
	if n < 80 {
		t.Errorf("tried %d examples only", n)
	}
}

// shell splits a line at blanks outside of quotes; both kinds of quotes hold the other.
func shell(line string) []string {
	var words []string
	var word strings.Builder
	quote := rune(0)
	for _, r := range line + " " {
		switch {
		case r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote = r
		case quote == 0 && r == ' ':
			if word.Len() > 0 {
				words = append(words, word.String())
			}
			word.Reset()
		default:
			word.WriteRune(r)
		}
	}
	return words
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	tenants := always(&tenancyv1.ListTenantsResponse{Tenants: []*tenancyv1.Tenant{{Name: "tenants/acme"}, {Name: "tenants/globex"}}})
	plans := always(&tenancyv1.ListPlansResponse{Plans: []*tenancyv1.Plan{{Name: "plans/free"}}})
	answers := map[string]answer{
		"TenantService/ListTenants": tenants, "PlanService/ListPlans": plans,
		"DomainService/ListDomains": always(&tenancyv1.ListDomainsResponse{Domains: []*tenancyv1.Domain{{Name: "tenants/acme/domains/a.example"}}}),
	}
	for line, want := range map[string][]string{
		"tenants get ":                  {"acme", "globex"},
		"tenants get acme ":             nil,
		"tenants create ":               nil,
		"domains create ":               {"--app\tthe app that it leads to", "acme", "globex"},
		"domains create acme ":          {"--app\tthe app that it leads to"}, // no host that exists
		"tenants update acme --plan ":   {"free"},
		"tenants suspend acme --cause ": {"billing", "abuse", "security", "operator"},
		"domains get ":                  {"acme", "globex"},
		"domains get acme ":             {"a.example"},
		"limits set ":                   {"platform", "plans/free", "acme", "globex"},
		"audit list ":                   {"platform", "acme", "globex"},
		"tenants list -o ":              {"table", "tsv", "json", "yaml", "name"},
		"audit list --service ":         {"tenancy", "config", "quota", "gateway"},
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			h := &house{answers: answers}
			got := h.run(t, append([]string{"__complete"}, strings.Split(line, " ")...)...)
			lines := strings.Split(strings.TrimSpace(got.out), "\n")
			if diff := cmp.Diff(append(want, ":4"), lines); diff != "" { // 4: no files
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A service that does not answer costs the person at the tab key little, and says nothing.
func TestCompletionGivesUp(t *testing.T) {
	t.Parallel()
	h := &house{answers: map[string]answer{"TenantService/ListTenants": func(ctx context.Context, _ proto.Message) (proto.Message, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}}
	began := time.Now()
	got := h.run(t, "-v", "__complete", "tenants", "get", "")
	if took := time.Since(began); took > 10*completeWithin || strings.TrimSpace(got.out) != ":4" || strings.Contains(got.err, "request_id") {
		t.Errorf("took %v, wrote %q, said %q", took, got.out, got.err)
	}
}

func TestCompletionScripts(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if got := (&house{}).run(t, "completion", shell); got.code != 0 || !strings.Contains(got.out, "__complete") {
			t.Errorf("%s: status %d, %d bytes", shell, got.code, len(got.out))
		}
	}
}

// What surprises whoever types it is said where they look.
func TestHelpSaysWhatSurprises(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"completion --help":     "apt install bash-completion",
		"tenants update --help": "they replace all that were there",
		"flags kill --help":     "why, at least 10 characters",
		"tenants create --help": "why, at least 10 characters; it goes", // of --skip-hooks
	} {
		if got := (&house{}).run(t, strings.Fields(line)...); !strings.Contains(got.out, want) {
			t.Errorf("%s does not say %q:\n%s", line, want, got.out)
		}
	}
}

func TestCallListsMethods(t *testing.T) {
	t.Parallel()
	lines := strings.Split((&house{}).run(t, "call").out, "\n")
	for _, want := range []string{"TenantService/GetTenant", "Operations/GetOperation", "EdgeService/ExplainRoute"} {
		if !slices.Contains(lines, want) {
			t.Errorf("%s is missing", want)
		}
	}
}
