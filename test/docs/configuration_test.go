package docs

import (
	"encoding"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/internal/serve"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/services/config"
	"github.com/rowhouse-platform/rowhouse/services/gateway"
	"github.com/rowhouse-platform/rowhouse/services/quota"
	"github.com/rowhouse-platform/rowhouse/services/tenancy"
)

// configurations are the structs that read files, in the page's order.
var configurations = []struct {
	title, about string
	of           reflect.Type
}{
	{"Every service", "The four services share these keys.", reflect.TypeFor[serve.Config]()},
	{"tenancy", "Beside those of every service.", reflect.TypeFor[tenancy.Config]()},
	{"config", "Beside those of every service.", reflect.TypeFor[config.Config]()},
	{"quota", "Beside those of every service.", reflect.TypeFor[quota.Config]()},
	{"gateway", "Beside those of every service. The part `users` alone is also the file of `rowhouse dev --users`.", reflect.TypeFor[gateway.Config]()},
	{"operators.yaml", "Read again when it changes; a file with an error is not taken.", reflect.TypeFor[operator.OperatorsFile]()},
	{"peers.yaml", "Read again when it changes; a file with an error is not taken.", reflect.TypeFor[operator.PeersFile]()},
}

// fieldsAbout are the comments of a struct's fields, by their Go names. A field without one shares that above it.
func fieldsAbout(t *testing.T, of reflect.Type) map[string]string {
	t.Helper()
	const module = "github.com/rowhouse-platform/rowhouse/"
	files, err := filepath.Glob(filepath.Join(root, strings.TrimPrefix(of.PkgPath(), module), "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	about := map[string]string{}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok || spec.Name.Name != of.Name() {
				return true
			}
			last := ""
			for _, f := range spec.Type.(*ast.StructType).Fields.List {
				if f.Doc != nil {
					last = strings.Join(strings.Fields(f.Doc.Text()), " ")
				}
				for _, name := range f.Names {
					about[name.Name] = last
				}
			}
			return false
		})
	}
	return about
}

// subject is what a comment begins with: the names of the fields that it is about.
var subject = regexp.MustCompile(`^(?:[A-Z]\w*(?:, | and )?)+`)

// keysOf writes a row for each key of a struct, and of those below it.
func keysOf(t *testing.T, b *strings.Builder, of reflect.Type, prefix string) {
	t.Helper()
	about, keys := fieldsAbout(t, of), map[string]string{}
	for f := range fields(of) {
		keys[f.Name], _, _ = strings.Cut(f.Tag.Get("yaml"), ",")
	}
	for f := range fields(of) {
		key, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if options == "inline" {
			continue // the section before
		}
		text := about[f.Name]
		if text == "" {
			t.Errorf("%s.%s has no comment", of, f.Name)
		}
		text = subject.ReplaceAllStringFunc(text, func(names string) string { // comments speak of Go's names, readers of keys
			return regexp.MustCompile(`[A-Z]\w*`).ReplaceAllStringFunc(names, func(name string) string {
				if keys[name] == "" {
					return name
				}
				return "`" + keys[name] + "`"
			})
		})
		need := "yes"
		if options == "omitempty" {
			need = ""
		}
		word, below := kind(f.Type)
		if below == nil {
			fmt.Fprintf(b, "| `%s%s` | %s | %s | %s |\n", prefix, key, word, need, strings.ReplaceAll(text, "|", `\|`))
			continue
		}
		if word != "" {
			key += "[]"
		}
		fmt.Fprintf(b, "| `%s%s` | | %s | %s |\n", prefix, key, need, text)
		keysOf(t, b, below, prefix+key+".")
	}
}

// fields are the exported fields that are read.
func fields(of reflect.Type) func(yield func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for f := range of.Fields() {
			if f.IsExported() && f.Tag.Get("yaml") != "-" && !yield(f) {
				return
			}
		}
	}
}

// kind says in a word what a value is; below is the struct that it holds, if any.
func kind(of reflect.Type) (word string, below reflect.Type) {
	switch of {
	case reflect.TypeFor[yamlfile.Path]():
		return "path", nil
	case reflect.TypeFor[time.Duration]():
		return "duration", nil
	case reflect.TypeFor[identity.ID]():
		return "SPIFFE URI", nil
	}
	if reflect.PointerTo(of).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return "text", nil
	}
	switch of.Kind() {
	case reflect.Struct:
		return "", of
	case reflect.Pointer:
		return kind(of.Elem())
	case reflect.Slice:
		word, below := kind(of.Elem())
		return strings.TrimSpace("list of " + word), below
	case reflect.Bool:
		return "true or false", nil
	case reflect.String:
		return "text", nil
	default:
		return "number", nil
	}
}

// configurationPage is what docs/configuration.md must be.
func configurationPage(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(`# Configuration files

<!-- Made of the structs that read them. Write it anew with: go test ./test/docs -run TestConfigurationPage -write -->

Each process reads one YAML file, named by ` + "`--config`" + `. A key that is not here is refused, with its line and the nearest key that
is. Secrets are never in these files: they name files that hold them. A relative path is meant from the folder of the file that names
it. A duration has a unit: ` + "`30s`, `5m`" + `. ` + "`a.b`" + ` is the key ` + "`b`" + ` below ` + "`a`" + `, and ` + "`a[]`" + ` a list. "Needed" are keys without a default.
` + "`rowhouse dev`" + ` writes a whole set of such files into its state folder, and ` + "`deploy/k8s/base`" + ` holds one for Kubernetes.
`)
	for _, c := range configurations {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| key | value | needed | what |\n|---|---|---|---|\n", c.title, c.about)
		keysOf(t, &b, c.of, "")
	}
	return b.String()
}

func TestConfigurationPage(t *testing.T) {
	t.Parallel()
	file, want := filepath.Join(root, "docs/configuration.md"), configurationPage(t)
	if *write {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != want {
		t.Errorf("docs/configuration.md is not what the structs say (%v); run go test ./test/docs -run TestConfigurationPage -write", err)
	}
	for _, key := range []string{"hooks.address", "hooks.egress.allow", "listen", "identity.cert", "drain.timeout", "users[].tenant_claim", "selector_header", "operators[].token_sha256"} {
		if !strings.Contains(want, "| `"+key+"` | ") {
			t.Errorf("the page has no key %s", key)
		}
	}
}
