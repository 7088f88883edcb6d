package cli

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	gatewayv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/gateway/v1"
)

// standards describe a noun whose RPCs have the standard shapes.
type standards struct {
	noun, one, form string // "Plan", "plan", "plans/{plan}"
	// known, id, create and change are of the examples: one that every house has, and one that they make, with what its
	// creation needs and a change of it.
	known, id, create, change string
	verbs                     string
	flags                     []flag
	more                      func(*cobra.Command)
	before                    func(*app, *cobra.Command, *call) error
}

// standard makes the standard verbs of a noun.
func standard(s standards) []verb {
	many, _, _ := strings.Cut(s.form, "/")
	field1 := func(path, form string) []field { return []field{{path, form}} }
	place := "{" + places(s.form)[0] + "}"
	ex := func(format string, args ...any) string {
		return "rowhouse " + many + " " + fmt.Sprintf(format, args...)
	}
	all := []verb{
		{name: "list", rpc: "List" + s.noun + "s", short: "List " + many, example: ex("list") + "\n" + ex("list -o json")},
		{
			name: "get", rpc: "Get" + s.noun, short: "Show one", fields: named(s.form), wide: true,
			example: ex("get %s", s.known) + "\n" + ex("get %s -o yaml", s.known),
		},
		{
			name: "create", rpc: "Create" + s.noun, short: "Create one", fields: field1(s.one+"_id", place), flags: s.flags,
			more: s.more, before: s.before, example: ex("create %s %s", s.id, s.create),
		},
		{
			name: "update", rpc: "Update" + s.noun, short: "Change one", fields: field1(s.one+".name", s.form), flags: s.flags,
			more: s.more, before: s.before, example: ex("update %s %s", s.id, s.change),
		},
		{
			name: "delete", rpc: "Delete" + s.noun, short: "Delete one that is not in use", fields: named(s.form),
			example: ex("delete %s --confirm %s", s.id, s.id),
		},
	}
	var chosen []verb
	for _, v := range all {
		if strings.Contains(s.verbs, v.name) {
			chosen = append(chosen, v)
		}
	}
	return chosen
}

// schemaFlag defines the flag that [readSchema] reads.
func schemaFlag(c *cobra.Command) {
	c.Flags().String("schema-file", "", "the file with the JSON Schema")
}

// readSchema reads a namespace's schema from a file.
func readSchema(_ *app, c *cobra.Command, r *call) error {
	path, _ := c.Flags().GetString("schema-file") // defined by schemaFlag
	if path == "" {
		return nil
	}
	schema, err := os.ReadFile(path)
	if err == nil {
		_, err = documentOf(path, schema)
	}
	if err != nil {
		return usagef("%s: %w", path, err)
	}
	switch r := r.request.(type) {
	case *configv1.CreateNamespaceRequest:
		if r.GetNamespace() == nil {
			r.Namespace = &configv1.Namespace{}
		}
		r.Namespace.Schema = string(schema)
	case *configv1.UpdateNamespaceRequest:
		r.Namespace.Schema = string(schema)
		if mask := r.GetUpdateMask(); mask != nil {
			mask.Paths = append(mask.GetPaths(), "schema")
		}
	}
	return nil
}

// splitURL lets a whole URL stand for host and path.
func splitURL(_ *app, _ *cobra.Command, r *call) error {
	request, ok := r.request.(*gatewayv1.ExplainRouteRequest)
	if !ok || !strings.Contains(request.GetHost(), "://") {
		return nil
	}
	u, err := url.Parse(request.GetHost())
	if err != nil || u.Host == "" {
		return usageError(errors.New("the URL has no host"))
	}
	request.Host = u.Host
	if request.GetPath() == "" {
		request.Path = u.EscapedPath()
	}
	return nil
}
