// Package gitops keeps settings as files: it reads and writes a tree of YAML, compares it with what a house has, and
// makes the one like the other, step by step.
//
// The tree has the names of the API: "plans/free/portal.yaml" is the document "plans/free/config/portal", and
// "namespaces/portal.yaml" the schema of that namespace. Its approval rule is part of no schema: it stands in
// "approvals/portal.yaml", and counts as something of its own. A file holds the content and nothing else, so that other tools can
// read it too. Two contents are equal when their canonical texts are. The package talks to a house through [House] alone.
// Start at [Load] and [Compare].
package gitops

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// Item is a document, a namespace with its schema, or the approval rule of a namespace.
type Item struct {
	// Name is its resource name: "namespaces/{namespace}" or "{layer}/config/{namespace}"; "approvals/{namespace}" of a rule,
	// which is a part of the namespace in the house.
	Name string
	// Content is its canonical JSON.
	Content string
	// Etag and Revision are those of the house, File is the path in the tree; each is empty for what does not come from there.
	Etag, File string
	Revision   int64
	// Ours says that the house has it without anybody having written it: it is exported and deleted by nobody.
	Ours bool
}

// House is where settings are in force.
type House interface {
	// Namespaces returns all namespaces, and the rules of those that have one.
	Namespaces(ctx context.Context) ([]Item, error)
	// Documents returns the documents of a layer, or of the layers that a parent with "-" stands for.
	Documents(ctx context.Context, parent string) ([]Item, error)
	// Check says whether the house would take a change, and changes nothing. It returns the etag of what the change is of,
	// also where there is no document yet; of a rule that is its namespace's. The error is a [RefusalError], or [ErrUnchecked].
	Check(ctx context.Context, c Change) (etag string, err error)
	// Do makes a change, if its etag is still current.
	Do(ctx context.Context, c Change) error
}

const (
	schemas = "namespaces"
	rules   = "approvals"
)

// isSchema says whether a name is that of a namespace.
func isSchema(name string) bool { return strings.HasPrefix(name, schemas+"/") }

// RuleOf is the name of a namespace's approval rule.
func RuleOf(namespace string) string { return rules + "/" + namespace }

// RuleName returns the id of the namespace whose approval rule a name stands for.
func RuleName(name string) (namespace string, ok bool) { return strings.CutPrefix(name, rules+"/") }

func isRule(name string) bool { return strings.HasPrefix(name, rules+"/") }

// split takes a name apart: the layer is "" for a namespace and for a rule.
func split(name string) (layer, namespace string) {
	if isSchema(name) || isRule(name) {
		_, namespace, _ = strings.Cut(name, "/")
		return "", namespace
	}
	layer, namespace, _ = strings.Cut(name, "/config/")
	return layer, namespace
}

const label = `[a-z](?:-?[a-z0-9])*`

var names = regexp.MustCompile(`^(?:(?:namespaces|approvals)/` + label + `|(?:platform|(?:plans|regions)/` + label + `|tenants/` + label +
	`(?:/environments/` + label + `)?)/config/` + label + `)$`)

// NameOf is the name that a path in the tree, without its extension, stands for.
func NameOf(path string) (string, bool) {
	name := path
	if !isSchema(path) && !isRule(path) {
		i := strings.LastIndexByte(path, '/')
		if i < 0 {
			return "", false
		}
		name = path[:i] + "/config" + path[i:]
	}
	return name, names.MatchString(name)
}

// PathOf is the place of a name in the tree, without an extension. It refuses what a house does not call anything.
func PathOf(name string) (string, error) {
	if !names.MatchString(name) {
		return "", fmt.Errorf("the house has %q, which is no name of a document", name)
	}
	if isSchema(name) || isRule(name) {
		return name, nil
	}
	layer, namespace := split(name)
	return layer + "/" + namespace, nil
}

// rank orders layers: namespaces come first, and then the widest. Rules come last, so that a tree with a new rule can be
// applied to a house without it.
func rank(name string) int {
	layer, _ := split(name)
	switch {
	case isRule(name):
		return 6
	case layer == "":
		return 0
	case layer == settings.LayerPlatform:
		return 1
	case strings.HasPrefix(layer, "plans/"):
		return 2
	case strings.HasPrefix(layer, "regions/"):
		return 3
	case !strings.Contains(layer, "/environments/"):
		return 4
	default:
		return 5
	}
}

// compareNames orders names from namespaces to the narrowest layer.
func compareNames(a, b string) int {
	return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
}

// holdsKills says whether a namespace is written by kills alone.
func holdsKills(namespace string) bool {
	return namespace == settings.FlagKillsNamespace || namespace == settings.KillsNamespace
}

// ours says whether something in a house is not for files: kills are made in an emergency and have commands of their own,
// and a schema that comes with the release is the release's as long as nobody changed it.
func ours(i Item) bool {
	_, namespace := split(i.Name)
	if isRule(i.Name) {
		return false
	}
	if !isSchema(i.Name) {
		return holdsKills(namespace)
	}
	given := map[string]func() string{
		settings.BrandNamespace: settings.BrandSchema, settings.FlagsNamespace: flags.Schema, settings.FlagKillsNamespace: flags.KillSchema,
		settings.KillsNamespace: settings.KillSchema,
	}[namespace]
	if given == nil {
		return false
	}
	o, err := settings.Parse([]byte(given()))
	return err == nil && string(settings.Canonical(o)) == i.Content
}

// Read returns what a house has in the scope, by name.
func Read(ctx context.Context, h House, s Scope) (map[string]Item, error) {
	var all []Item
	if s.schemas() {
		found, err := h.Namespaces(ctx)
		if err != nil {
			return nil, err
		}
		all = found
	}
	for _, parent := range s.parents() {
		found, err := h.Documents(ctx, parent)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	out := make(map[string]Item)
	for _, i := range all {
		if s.Owns(i.Name) {
			i.Ours = ours(i)
			out[i.Name] = i
		}
	}
	return out, nil
}

// sortedNames are the names of items in the order in which they are applied.
func sortedNames(items map[string]Item) []string {
	out := make([]string, 0, len(items))
	for name := range items {
		out = append(out, name)
	}
	slices.SortFunc(out, compareNames)
	return out
}
