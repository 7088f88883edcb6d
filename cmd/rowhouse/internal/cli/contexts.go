package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/rowhouse-platform/rowhouse/cmd/rowhouse/internal/client"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
)

// contextsCommand manages the file of installations.
func (a *app) contextsCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "contexts", Aliases: []string{"context"}, Short: "The installations that this command line knows",
		Long: "The installations that this command line knows: where their services are, whom they must be, and which file\n" +
			"holds your token. The token itself is never written here and never an argument.",
		Example: "  rowhouse contexts list\n  rowhouse contexts use production",
	}
	list := &cobra.Command{
		Use: "list", Short: "List the installations", Example: "  rowhouse contexts list", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return errors.Join(a.checkFormat(), a.listContexts(c)) },
	}
	current := &cobra.Command{
		Use: "current", Short: "Name the installation that is used when none is named",
		Example: "  rowhouse contexts current", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			chosen, err := client.Load(a.contextsFile, a.contextName)
			if err != nil {
				return err
			}
			return a.fact(c, map[string]string{"context": chosen.Name}, chosen.Name)
		},
	}
	use := &cobra.Command{
		Use: "use <context>", Short: "Choose the installation that is used when none is named", Example: "  rowhouse contexts use production",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error { return a.useContext(args[0]) },
	}
	c.AddCommand(list, current, use, a.addContextCommand())
	return c
}

func (a *app) listContexts(c *cobra.Command) error {
	f, err := client.Read(a.contextsFile)
	if err != nil {
		return err
	}
	p := a.printer(c, "CURRENT= CONTEXT= TENANCY= CONFIG= QUOTA= GATEWAY=")
	if p.format == formatJSON || p.format == formatYAML {
		return printContexts(c, f, p.format)
	}
	var rows [][]string
	for _, k := range f.Contexts {
		mark := ""
		if k.Name == f.Current {
			mark = "*"
		}
		row := []string{mark, printable(k.Name)}
		for _, service := range backends() {
			row = append(row, printable(k.Services[service].Address))
		}
		rows = append(rows, row)
		switch p.format {
		case formatName:
			p.tsv(row[1])
		case formatTSV:
			p.tsv(row...)
		}
	}
	p.table(rows)
	return p.close()
}

// printContexts prints the file's content, which holds no secret.
func printContexts(c *cobra.Command, f client.File, format string) error {
	b, err := yaml.Marshal(f)
	if err != nil {
		return err
	}
	if format == formatJSON {
		var v any
		if err := yaml.Unmarshal(b, &v); err != nil {
			return err
		}
		if b, err = json.MarshalIndent(v, "", "  "); err != nil {
			return err
		}
		b = append(b, '\n')
	}
	_, err = c.OutOrStdout().Write(b)
	return err
}

func (a *app) useContext(name string) error {
	f, err := client.Read(a.contextsFile)
	if err != nil {
		return err
	}
	if _, err := client.Load(a.contextsFile, name); err != nil {
		return err
	}
	f.Current = name
	return client.Write(a.contextsFile, f)
}

// addContextCommand adds or replaces an installation.
func (a *app) addContextCommand() *cobra.Command {
	var roots, token, from string
	var services []string
	c := &cobra.Command{
		Use: "add <context>", Short: "Add an installation, or replace it",
		Long: "Add an installation, or replace it. --from copies it from another contexts file, for example the one that\n" +
			"rowhouse dev writes. The first one becomes the current one.",
		Example: `  rowhouse contexts add dev --from /var/lib/rowhouse-dev/contexts.yaml
  rowhouse contexts add production --roots roots.pem --token-file ~/.rowhouse/token \
    --service tenancy=tenancy.example:7101,spiffe://rowhouse.example/cell/cell-1/service/tenancy`,
		Args: cobra.ExactArgs(1),
	}
	c.Flags().StringVar(&from, "from", "", "another contexts file with this installation")
	c.Flags().StringVar(&roots, "roots", "", "PEM file with the roots that vouch for the services")
	c.Flags().StringVar(&token, "token-file", "", "the file that holds your token")
	c.Flags().StringArrayVar(&services, "service", nil, "name=host:port,SPIFFE-URI; once for each service")
	c.RunE = func(_ *cobra.Command, args []string) error {
		k := client.Context{Name: args[0]}
		var err error
		if from != "" {
			k, err = client.Load(from, args[0])
		} else {
			k.Services, err = parseServices(services)
			err = errors.Join(err, absolute(&k.Roots, roots), absolute(&k.TokenFile, token))
		}
		if err != nil {
			return usageError(err)
		}
		return a.putContext(k)
	}
	return c
}

// absolute makes a path mean the same from every folder.
func absolute(into *yamlfile.Path, path string) error {
	if path == "" {
		return errors.New("pass --from, or --roots, --token-file and --service")
	}
	full, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	*into = yamlfile.Path(full)
	_, err = os.Stat(full)
	return err
}

func parseServices(texts []string) (map[string]client.Service, error) {
	if len(texts) == 0 {
		return nil, errors.New("pass --service at least once, or --from")
	}
	services := map[string]client.Service{}
	for _, text := range texts {
		name, rest, _ := strings.Cut(text, "=")
		address, uri, ok := strings.Cut(rest, ",")
		if !ok || !slices.Contains(backends(), name) {
			return nil, fmt.Errorf("--service %s is not {%s}=host:port,SPIFFE-URI", text, strings.Join(backends(), "|"))
		}
		id, err := identity.Parse(uri)
		if err != nil {
			return nil, fmt.Errorf("--service %s: %w", text, err)
		}
		services[name] = client.Service{Address: address, Identity: id}
	}
	return services, nil
}

// putContext writes an installation into the file, which may not exist yet.
func (a *app) putContext(k client.Context) error {
	f, err := client.Read(a.contextsFile)
	if _, missing := os.Stat(a.contextsFile); err != nil && !errors.Is(missing, fs.ErrNotExist) {
		return err
	}
	f.Contexts = append(slices.DeleteFunc(f.Contexts, func(old client.Context) bool { return old.Name == k.Name }), k)
	if f.Current == "" {
		f.Current = k.Name
	}
	return client.Write(a.contextsFile, f)
}
