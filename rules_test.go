// Package rowhouse_test holds the rules of the repository that no compiler or linter knows: which way imports point,
// what a domain package may know, what is written down, and what must not be. A rule that finds nothing to look at
// fails, so none of them dies in silence when a folder is renamed. Start with TestRules.
package rowhouse_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/rowhouse-platform/rowhouse"

// repository is what the rules look at.
type repository struct {
	packages []pkg
	tracked  []string // files that git knows or would add, from the root
}

// A pkg is what go list says of a package.
type pkg struct {
	ImportPath, Name, Dir              string
	GoFiles, TestGoFiles, XTestGoFiles []string
	Imports, TestImports, XTestImports []string
	Deps                               []string
}

// path is the package's folder from the root of the module.
func (p pkg) path() string { return local(p.ImportPath) }

// local is an import path from the root of our module, or "" for one that is not ours.
func local(importPath string) string {
	rest, ours := strings.CutPrefix(importPath, module+"/")
	if !ours {
		return ""
	}
	return rest
}

// under reports whether a slash-separated path is the folder or is inside of it.
func under(p, folder string) bool { return p == folder || strings.HasPrefix(p, folder+"/") }

// A rule looks at the repository and returns how many things it looked at, and what is wrong with them.
type rule func(repository) (looked int, wrong []string)

func TestRules(t *testing.T) {
	t.Parallel()
	repo, err := load(t)
	if err != nil {
		t.Fatal(err)
	}
	rules := map[string]rule{
		"every package has a layer":               layersKnown,
		"imports point one way":                   importsPointOneWay,
		"services never import each other":        servicesApart,
		"hooks are asked by who owns a step":      hooksOffDataPaths,
		"examples import what a product could":    examplesLikeProducts,
		"production never imports testing":        noTestingInProduction,
		"binaries link no testing":                noTestingLinked,
		"exported sdk identifiers are documented": sdkDocumented,
		"packages are documented":                 packagesDocumented,
		"functions have at most 100 lines":        functionsShort,
		"no registry host or build path":          noMachineNames,
	}
	for _, layer := range layers {
		rules["layer "+layer.folder+" has packages"] = inhabited(layer.folder)
	}
	for _, folder := range domains {
		rules[folder+" knows neither wire nor database"] = domainPure(folder)
	}
	for name, check := range rules {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			looked, wrong := check(repo)
			if looked == 0 {
				t.Error("the rule matches nothing: it is out of date, or what it is about is missing")
			}
			slices.Sort(wrong)
			for _, w := range slices.Compact(wrong) {
				t.Error(w)
			}
		})
	}
}

// layers are the top folders, lowest first: a package imports from its own rank and below.
var layers = []struct {
	folder string
	rank   int
}{
	{"gen", 0},
	{"sdk", 1},
	{"internal", 2},
	{"services", 3},
	{"examples", 3}, // and by examplesLikeProducts much less
	{"cmd", 4},
	{"test", 5},
	{"bench", 5},
}

// domains are the packages that hold what a service knows.
var domains = []string{
	"services/tenancy/internal/registry",
	"services/config/internal/settings",
	"services/config/internal/governance",
	"services/quota/internal/meter",
	"services/quota/internal/allowance",
	"services/gateway/internal/edge",
}

// rank returns the layer of a package of ours; ok is false where it has none.
func rank(folder string) (n int, ok bool) {
	for _, layer := range layers {
		if under(folder, layer.folder) {
			return layer.rank, true
		}
	}
	return 0, false
}

func layersKnown(repo repository) (looked int, wrong []string) {
	for _, p := range repo.packages {
		if p.ImportPath == module {
			continue // this test
		}
		looked++
		if _, ok := rank(p.path()); !ok {
			wrong = append(wrong, p.path()+" is in no layer: move it, or name its folder in layers")
		}
	}
	return looked, wrong
}

func inhabited(folder string) rule {
	return func(repo repository) (looked int, wrong []string) {
		for _, p := range repo.packages {
			if under(p.path(), folder) {
				looked++
			}
		}
		return looked, nil
	}
}

func importsPointOneWay(repo repository) (looked int, wrong []string) {
	for _, p := range repo.packages {
		from, ok := rank(p.path())
		if !ok {
			continue
		}
		for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			to, ok := rank(local(imported))
			if !ok {
				continue
			}
			looked++
			if to > from {
				wrong = append(wrong, fmt.Sprintf("%s imports %s, which is above it", p.path(), local(imported)))
			}
		}
	}
	return looked, wrong
}

func servicesApart(repo repository) (looked int, wrong []string) {
	for _, p := range repo.packages {
		own := service(p.path())
		if own == "" {
			continue
		}
		for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			looked++
			if other := service(local(imported)); other != "" && other != own {
				wrong = append(wrong, fmt.Sprintf("%s imports %s: services meet over gRPC", p.path(), local(imported)))
			}
			if under(local(imported), "examples") {
				wrong = append(wrong, fmt.Sprintf("%s imports %s: an example is nobody's part", p.path(), local(imported)))
			}
		}
	}
	return looked, wrong
}

// hooksOffDataPaths keeps what asks hooks out of all programs' parts that serve tenants' requests: it may be linked by the
// services whose admin calls are steps, and by the command line, which knows the name of a header.
func hooksOffDataPaths(repo repository) (looked int, wrong []string) {
	for _, p := range repo.packages {
		if !slices.Contains(p.Imports, module+"/internal/hook") {
			continue
		}
		looked++
		if !slices.ContainsFunc([]string{"services/tenancy", "services/config", "cmd"}, func(folder string) bool { return under(p.path(), folder) }) {
			wrong = append(wrong, p.path()+" imports internal/hook, and owns no step before which hooks are asked")
		}
	}
	return looked, wrong
}

// service is the name of the service that a package is part of.
func service(folder string) string {
	parts := strings.Split(folder, "/")
	if len(parts) < 2 || parts[0] != "services" {
		return ""
	}
	return parts[1]
}

func examplesLikeProducts(repo repository) (looked int, wrong []string) {
	for _, p := range repo.packages {
		if !under(p.path(), "examples") {
			continue
		}
		for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			looked++
			ours := local(imported)
			if ours != "" && !under(ours, "gen") && !under(ours, "sdk") && !under(ours, "examples") {
				wrong = append(wrong, fmt.Sprintf("%s imports %s, which a product cannot", p.path(), ours))
			}
		}
	}
	return looked, wrong
}

// domainPure forbids a service's domain package the wire and the database: what it knows can be read, and tested,
// without either.
func domainPure(folder string) rule {
	banned := []string{
		module + "/gen", "google.golang.org/grpc", "google.golang.org/protobuf", "google.golang.org/genproto",
		"net/http", "net/rpc", "golang.org/x/net/http2", "github.com/jackc/pgx", "database/sql", module + "/internal/pg",
	}
	return func(repo repository) (looked int, wrong []string) {
		for _, p := range repo.packages {
			if !under(p.path(), folder) {
				continue
			}
			looked++
			for _, imported := range p.Imports {
				if slices.ContainsFunc(banned, func(b string) bool { return under(imported, b) }) {
					wrong = append(wrong, fmt.Sprintf("%s imports %s", p.path(), imported))
				}
			}
		}
		return looked, wrong
	}
}

// testHelp reports whether a package exists to be imported by tests.
func testHelp(p pkg) bool {
	return under(p.path(), "sdk/pgtest") && p.Name != "main" || p.path() == "sdk/tenanttest" ||
		strings.HasSuffix(p.Name, "test") || strings.HasSuffix(path.Base(p.path()), "test")
}

func noTestingInProduction(repo repository) (looked int, wrong []string) {
	for _, p := range repo.packages {
		if len(p.GoFiles) == 0 || testHelp(p) {
			continue
		}
		looked++
		for _, imported := range p.Imports {
			if under(imported, "testing") {
				wrong = append(wrong, fmt.Sprintf("%s imports %s", p.path(), imported))
			}
		}
	}
	return looked, wrong
}

func noTestingLinked(repo repository) (looked int, wrong []string) {
	for _, p := range repo.packages {
		if p.Name != "main" || !under(p.path(), "cmd") {
			continue
		}
		looked++
		if slices.Contains(p.Deps, "testing") {
			wrong = append(wrong, p.path()+" links testing; go mod why -m or go list -deps says by whom")
		}
	}
	return looked, wrong
}

func packagesDocumented(repo repository) (looked int, wrong []string) {
	for _, p := range repo.packages {
		if len(p.GoFiles) == 0 || under(p.path(), "gen") {
			continue
		}
		looked++
		has := func(file string) bool {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil,
				parser.ParseComments|parser.PackageClauseOnly)
			return err == nil && f.Doc.Text() != ""
		}
		if !slices.ContainsFunc(p.GoFiles, has) {
			wrong = append(wrong, p.path()+" has no package comment")
		}
	}
	return looked, wrong
}

func sdkDocumented(repo repository) (looked int, wrong []string) {
	for _, p := range repo.packages {
		if !under(p.path(), "sdk") || p.Name == "main" {
			continue
		}
		for _, file := range p.GoFiles {
			n, bare := undocumented(filepath.Join(p.Dir, file))
			looked += n
			for _, name := range bare {
				wrong = append(wrong, fmt.Sprintf("%s/%s: %s has no doc comment", p.path(), file, name))
			}
		}
	}
	return looked, wrong
}

// undocumented counts a file's exported identifiers and returns those without a comment.
func undocumented(file string) (exported int, bare []string) {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		return 1, []string{err.Error()}
	}
	note := func(name *ast.Ident, docs ...*ast.CommentGroup) {
		if !name.IsExported() {
			return
		}
		exported++
		if !slices.ContainsFunc(docs, func(d *ast.CommentGroup) bool { return d.Text() != "" }) {
			bare = append(bare, name.Name)
		}
	}
	for _, decl := range f.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if receiverExported(d) {
				note(d.Name, d.Doc)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				noteSpec(d, spec, note)
			}
		}
	}
	return exported, bare
}

// noteSpec passes on the names that one line of a declaration makes. A group's comment documents its constants and
// variables, not its types.
func noteSpec(d *ast.GenDecl, spec ast.Spec, note func(*ast.Ident, ...*ast.CommentGroup)) {
	switch s := spec.(type) {
	case *ast.ValueSpec:
		for _, name := range s.Names {
			note(name, d.Doc, s.Doc, s.Comment)
		}
	case *ast.TypeSpec:
		if d.Lparen.IsValid() {
			note(s.Name, s.Doc)
		} else {
			note(s.Name, d.Doc)
		}
		if i, ok := s.Type.(*ast.InterfaceType); ok && s.Name.IsExported() {
			for _, method := range i.Methods.List {
				for _, name := range method.Names {
					note(name, method.Doc, method.Comment)
				}
			}
		}
	}
}

// receiverExported reports whether users can reach a function: it is no method, or one of an exported type.
func receiverExported(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	exported := false
	ast.Inspect(d.Recv.List[0].Type, func(n ast.Node) bool {
		name, ok := n.(*ast.Ident)
		exported = exported || ok && name.IsExported()
		return !ok
	})
	return exported
}

func functionsShort(repo repository) (looked int, wrong []string) {
	const most = 100
	for _, file := range repo.tracked {
		if path.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go") || under(file, "gen") {
			continue
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
		if err != nil {
			wrong = append(wrong, err.Error())
			continue
		}
		for _, decl := range f.Decls {
			d, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			looked++
			if n := set.Position(d.End()).Line - set.Position(d.Pos()).Line + 1; n > most {
				wrong = append(wrong, fmt.Sprintf("%s: %s has %d lines", set.Position(d.Pos()), d.Name, n))
			}
		}
	}
	return looked, wrong
}

func noMachineNames(repo repository) (looked int, wrong []string) {
	names := machineNames()
	for _, file := range repo.tracked {
		text, err := os.ReadFile(file)
		if err != nil || bytes.IndexByte(text, 0) >= 0 {
			continue // deleted, a link to a folder, or not text
		}
		looked++
		for i, line := range strings.Split(string(text), "\n") {
			if name := names.FindString(line); name != "" {
				wrong = append(wrong, fmt.Sprintf("%s:%d: names %q", file, i+1, strings.TrimSpace(name)))
			}
		}
	}
	return looked, wrong
}

// machineNames finds names that mean something on one machine or in one network only: another user's clone, mirror and
// proxy must do. It is written in pieces, or this file would be the first find.
func machineNames() *regexp.Regexp {
	return regexp.MustCompile(`(^|[^\w.:/}-])/(home|root|Users|wor` + `k)/[\w.][^\s"']*` +
		`|\b(proxy|sum)\.go` + `lang\.org\b` +
		`|\bregistry\.npm` + `js\.org\b` +
		`|\b\w+\.deb` + `ian\.org\b`)
}

func TestMachineNames(t *testing.T) {
	t.Parallel()
	bad := []string{
		"see /ho" + "me/alice/rowhouse/go.mod", `dir: "/ro` + `ot/go/pkg"`, "GOPROXY=https://proxy.go" + "lang.org",
		"https://deb.deb" + "ian.org/x", `"resolved": "https://registry.npm` + `js.org/x"`, "/wor" + "k/x",
	}
	good := []string{
		"/var/lib/rowhouse", "GET /v1/wor" + "k/items", "$HOME/go", "a root/leaf", "https://example.com/ho" + "me/x",
		"the home folder", "https://pkg.go.dev/x",
	}
	names := machineNames()
	for _, line := range bad {
		if !names.MatchString(line) {
			t.Errorf("nothing is found in %q", line)
		}
	}
	for _, line := range good {
		if name := names.FindString(line); name != "" {
			t.Errorf("%q is found in %q", name, line)
		}
	}
}

// TestRulesFindOffenders shows each import rule a repository that breaks it.
func TestRulesFindOffenders(t *testing.T) {
	t.Parallel()
	imports := func(from string, to ...string) pkg {
		return pkg{ImportPath: module + "/" + from, Name: path.Base(from), GoFiles: []string{"x.go"}, Imports: to}
	}
	main := pkg{ImportPath: module + "/cmd/rowhouse", Name: "main", Deps: []string{"fmt", "testing"}}
	external := imports("sdk/tenant")
	external.XTestImports = []string{module + "/internal/pg"}
	edge := domains[slices.Index(domains, "services/gateway/internal/edge")]
	tests := map[string]struct {
		check rule
		with  pkg
		found bool
	}{
		"up":                       {importsPointOneWay, imports("sdk/tenant", module+"/internal/pg"), true},
		"up from an external test": {importsPointOneWay, external, true},
		"down":                     {importsPointOneWay, imports("internal/pg", module+"/sdk/tenant"), false},
		"no layer":                 {layersKnown, imports("util/strings"), true},
		"another service":          {servicesApart, imports("services/quota", module+"/services/tenancy"), true},
		"its own part":             {servicesApart, imports("services/quota", module+"/services/quota/internal/rpc"), false},
		"an example":               {servicesApart, imports("services/quota", module+"/examples/notes"), true},
		"example reaches inside":   {examplesLikeProducts, imports("examples/notes", module+"/internal/pg"), true},
		"example uses the sdk":     {examplesLikeProducts, imports("examples/notes", module+"/sdk/tenant", "fmt"), false},
		"domain and wire":          {domainPure(edge), imports(edge, "google.golang.org/grpc/codes"), true},
		"domain and generated":     {domainPure(edge), imports(edge, module+"/gen/rowhouse/tenancy/v1"), true},
		"domain and http":          {domainPure(edge), imports(edge, "net/http"), true},
		"domain and database":      {domainPure(edge), imports(edge+"/sub", "github.com/jackc/pgx/v5"), true},
		"domain alone":             {domainPure(edge), imports(edge, "net/netip"), false},
		"testing":                  {noTestingInProduction, imports("internal/pg", "testing/fstest"), true},
		"testing in test help":     {noTestingInProduction, imports("internal/pg/pgmocktest", "testing"), false},
		"testing linked":           {noTestingLinked, main, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, wrong := test.check(repository{packages: []pkg{test.with}})
			if (len(wrong) > 0) != test.found {
				t.Errorf("found %q, want an offence: %v", wrong, test.found)
			}
		})
	}
}

// load asks go and git what there is.
func load(t *testing.T) (repository, error) {
	t.Helper()
	files, err := exec.CommandContext(t.Context(), "git", "ls-files", "-z", "--cached", "--others",
		"--exclude-standard").Output()
	if err != nil {
		return repository{}, fmt.Errorf("the rules need a git checkout: %w", err)
	}
	list, err := exec.CommandContext(t.Context(), "go", "list", "-e", "-json", "./...").Output()
	if err != nil {
		return repository{}, fmt.Errorf("go list: %w", err)
	}
	repo := repository{tracked: existing(strings.Split(string(files), "\x00"))}
	for d := json.NewDecoder(bytes.NewReader(list)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return repository{}, err
		}
		repo.packages = append(repo.packages, p)
	}
	slices.SortFunc(repo.packages, func(a, b pkg) int { return cmp.Compare(a.ImportPath, b.ImportPath) })
	return repo, nil
}

// existing drops what is not a file any more.
func existing(files []string) []string {
	return slices.DeleteFunc(files, func(f string) bool {
		info, err := os.Stat(f)
		return f == "" || err != nil || info.IsDir()
	})
}
