package gitops

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// ScopeFile is the file at the root of a tree that says what the tree is about.
const ScopeFile = "rowhouse.yaml"

// Scope says what a tree is about. What is outside is no difference and is never touched, so that what tenants set
// themselves is theirs.
type Scope struct {
	// Layers are names of layers, or of collections, with * for any one part: "platform", "plans", "tenants/acme",
	// "tenants/*/environments/staging". One stands for what is below it too, and "*" for everything. The default is
	// platform, plans and regions.
	Layers []string `yaml:"layers"`
	// Namespaces are ids of namespaces, * for all, which is the default.
	Namespaces []string `yaml:"namespaces"`
	// Schemas says whether schemas of namespaces belong to the tree. The default is that they do.
	Schemas *bool `yaml:"schemas"`

	// and are scopes that narrow this one.
	and []Scope
}

// DefaultScope is that of a tree without a file of its own: what operators set for many, with the schemas.
func DefaultScope() Scope {
	return Scope{Layers: []string{settings.LayerPlatform, "plans", "regions"}, Namespaces: []string{"*"}}
}

// anyName is a name or *.
const anyName = `(\*|` + label + `)`

var (
	layerPattern = regexp.MustCompile(`^(\*|platform|(plans|regions)(/` + anyName + `)?|` +
		`tenants(/` + anyName + `(/environments(/` + anyName + `)?)?)?)$`)
	idPattern = regexp.MustCompile(`^` + anyName + `$`)
)

// Validate implements [yamlfile.Validator].
func (s *Scope) Validate() error {
	for _, l := range s.Layers {
		if !layerPattern.MatchString(l) {
			return fmt.Errorf("layers: %q is no layer; write platform, plans, plans/free, tenants/acme/environments/* or the like", l)
		}
	}
	for _, n := range s.Namespaces {
		if !idPattern.MatchString(n) {
			return fmt.Errorf("namespaces: %q is no id of a namespace", n)
		}
	}
	return nil
}

// readScope reads the scope's file.
func readScope(path string, text []byte) (Scope, error) {
	s := DefaultScope()
	err := yamlfile.Decode(path, text, &s)
	return s, err
}

// text is the scope as its file says it.
func (s Scope) text() []byte {
	o := settings.Object{"layers": list(s.Layers), "namespaces": list(s.Namespaces)}
	if !s.schemas() {
		o["schemas"] = false
	}
	return append([]byte("# What this tree is about; everything else is left alone. See docs/guides/gitops.md.\n"), Encode(o)...)
}

func list(texts []string) []any {
	out := make([]any, len(texts))
	for i, t := range texts {
		out[i] = t
	}
	return out
}

func (s Scope) schemas() bool { return s.Schemas == nil || *s.Schemas }

// And is what both scopes have.
func (s Scope) And(other Scope) Scope {
	both := s.schemas() && other.schemas()
	return Scope{Layers: s.Layers, Namespaces: s.Namespaces, Schemas: &both, and: append(slices.Clone(s.and), other)}
}

// ScopeOf is the scope of the tree in a folder, which may be missing, and whether it has a file that says so.
func ScopeOf(dir string) (Scope, bool, error) {
	root, err := os.OpenRoot(dir) // no link leads out of the tree
	if errors.Is(err, fs.ErrNotExist) {
		return DefaultScope(), false, nil
	}
	if err != nil {
		return Scope{}, false, err
	}
	defer root.Close()
	text, err := root.ReadFile(ScopeFile)
	if errors.Is(err, fs.ErrNotExist) {
		return DefaultScope(), false, nil
	}
	if err != nil {
		return Scope{}, false, err
	}
	s, err := readScope(filepath.Join(dir, ScopeFile), text)
	return s, true, err
}

// Owns says whether the scope has a document or a namespace.
func (s Scope) Owns(name string) bool {
	for _, other := range s.and {
		if !other.Owns(name) {
			return false
		}
	}
	layer, namespace := split(name)
	if !slices.Contains(s.Namespaces, "*") && !slices.Contains(s.Namespaces, namespace) {
		return false
	}
	if layer == "" {
		return s.schemas()
	}
	return slices.ContainsFunc(s.Layers, func(pattern string) bool { return covers(pattern, layer) })
}

// covers says whether a pattern stands for a layer, or for what it is below.
func covers(pattern, layer string) bool {
	parts := strings.Split(layer, "/")
	for i, want := range strings.Split(pattern, "/") {
		if i >= len(parts) || want != "*" && want != parts[i] {
			return false
		}
	}
	return true
}

// parents are what documents are listed by, so that all of the scope is read and little else.
func (s Scope) parents() []string {
	var out []string
	for _, l := range s.Layers {
		parts := strings.Split(l, "/")
		switch {
		case l == "*":
			return []string{"-"}
		case l == settings.LayerPlatform, len(parts) == 2 && parts[0] != "tenants" && parts[1] != "*":
			out = append(out, l)
		case parts[0] != "tenants":
			out = append(out, parts[0]+"/-")
		case len(parts) == 1 || parts[1] == "*":
			out = append(out, "tenants/-")
		case len(parts) == 2:
			out = append(out, l, l+"/environments/-")
		case len(parts) == 4 && parts[3] != "*":
			out = append(out, l)
		default:
			out = append(out, strings.Join(parts[:2], "/")+"/environments/-")
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Narrow returns a scope of what both have; a nil list is all.
func Narrow(layers, namespaces []string) (Scope, error) {
	s := Scope{Layers: []string{"*"}, Namespaces: []string{"*"}}
	if layers != nil {
		s.Layers = layers
	}
	if namespaces != nil {
		s.Namespaces = namespaces
	}
	return s, s.Validate()
}
