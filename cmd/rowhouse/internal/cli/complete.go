package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/rowhouse-platform/rowhouse/cmd/rowhouse/internal/client"
)

// completeWithin bounds what a person waits for at the tab key.
const completeWithin = 300 * time.Millisecond

const noFiles = cobra.ShellCompDirectiveNoFileComp

// listers are the RPCs that know the ids of a place.
func listers() map[string][2]string {
	return map[string][2]string{
		"tenant":    {"rowhouse.tenancy.v1.TenantService", "ListTenants"},
		"plan":      {"rowhouse.tenancy.v1.PlanService", "ListPlans"},
		"app":       {"rowhouse.tenancy.v1.AppService", "ListApps"},
		"cell":      {"rowhouse.tenancy.v1.CellService", "ListCells"},
		"namespace": {"rowhouse.config.v1.NamespaceService", "ListNamespaces"},
	}
}

// completeArgs completes a verb's arguments by asking the API.
func (a *app) completeArgs(v verb) cobra.CompletionFunc {
	var all []string
	for _, f := range v.fields {
		all = append(all, places(f.form)...)
	}
	return func(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= len(all) || strings.HasPrefix(v.rpc, "Create") && len(args) == len(all)-1 {
			return nil, noFiles // what is to be made is not there to be offered
		}
		place, _, _ := strings.Cut(all[len(args)], "=")
		switch place {
		case "layer":
			return append([]string{"platform"}, append(a.ids(c, "plan", "plans/"), a.ids(c, "tenant", "")...)...), noFiles
		case "chain":
			return append([]string{"platform"}, a.ids(c, "tenant", "")...), noFiles
		case "host":
			return a.hosts(c, args), noFiles
		default:
			return a.ids(c, place, ""), noFiles
		}
	}
}

// completeFlag completes a flag's value: an enum's names, or ids of what it refers to.
func (a *app) completeFlag(v *flagValue) cobra.CompletionFunc {
	return func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		switch {
		case v.form != "":
			return a.ids(c, places(v.form)[0], ""), noFiles
		case v.fd.Kind() == protoreflect.EnumKind:
			return enumNames(v.fd.Enum()), noFiles
		default:
			return nil, noFiles
		}
	}
}

// ids asks for the ids of a place; any failure is silence.
func (a *app) ids(c *cobra.Command, place, prefix string) []string {
	lister, ok := listers()[place]
	if !ok {
		return nil
	}
	return a.names(c, newCall(method(lister[0], lister[1])), prefix)
}

// hosts asks for the domains of the tenant that was typed.
func (a *app) hosts(c *cobra.Command, args []string) []string {
	if len(args) == 0 {
		return nil
	}
	r := newCall(method("rowhouse.tenancy.v1.DomainService", "ListDomains"))
	if setField(r.request.ProtoReflect(), "parent", "tenants/"+lastID(args[0])) != nil {
		return nil
	}
	return a.names(c, r, "")
}

func (a *app) names(c *cobra.Command, r call, prefix string) []string {
	ctx, cancel := context.WithTimeout(c.Context(), completeWithin)
	defer cancel()
	m := r.request.ProtoReflect()
	m.Set(fieldAt(m.Descriptor(), "page_size"), protoreflect.ValueOfInt32(pageSize))
	silent := *a
	silent.verbose = false
	response, err := silent.do(ctx, c, r)
	if err != nil {
		return nil
	}
	list := response.ProtoReflect().Get(resourceList(r.method.Output())).List()
	var ids []string
	for i := range list.Len() {
		ids = append(ids, prefix+lastID(nameOf(list.Get(i).Message())))
	}
	return ids
}

// completeContexts completes the names of installations.
func (a *app) completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	f, err := client.Read(a.contextsFile)
	if err != nil {
		return nil, noFiles
	}
	var names []string
	for _, c := range f.Contexts {
		names = append(names, c.Name)
	}
	return names, noFiles
}
