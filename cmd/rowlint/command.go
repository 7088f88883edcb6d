package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/rowhouse-platform/rowhouse/internal/lint"
	"github.com/rowhouse-platform/rowhouse/internal/lint/driver"
	"github.com/rowhouse-platform/rowhouse/internal/lint/sarif"
	"github.com/rowhouse-platform/rowhouse/internal/version"
)

const examples = `  rowlint ./...                            all packages of the module and their migrations
  rowlint --sql db/migrations              files of SQL alone
  rowlint -o sarif ./... > rowlint.sarif   for a code host
  rowlint plan ./...                       the plans of all statements, on a PostgreSQL of its own
  rowlint rules                            what is looked for, and why
  go vet -vettool=$(which rowlint) ./...   as a part of go vet

A finding that is meant is suppressed with a reason, on its line or above its declaration:

  //rowlint:ignore Q5 the table has ten rows a tenant        in Go
  -- rowlint:ignore Q5 the table has ten rows a tenant       in SQL

Folders whose database holds no tenants' rows, and migrations in unusual places, are named in
rowlint.yaml beside go.mod:

  control:
    - path: internal/billing
      reason: its database is the billing system's own
  apps:
    - path: services/orders
      migrations: [db/orders]`

// options are the flags that all commands have.
type options struct {
	driver.Options

	format string
}

// command returns the command; names of files are meant from the folder.
func command(dir string) *cobra.Command {
	o := &options{Options: driver.Options{Dir: dir}}
	c := &cobra.Command{
		Use:   "rowlint [packages]",
		Short: "find SQL and Go code that could let one tenant see another's rows",
		Long: "rowlint finds SQL and Go code that could let one tenant see another's rows.\n\n" +
			"It exits with 0 when there is nothing to say, 1 when there are findings, 2 when it could not look.",
		Example:       examples,
		Version:       version.String(), // prove reads it, behind "rowlint version"
		Args:          cobra.ArbitraryArgs,
		SilenceErrors: true, SilenceUsage: true,
		RunE: func(c *cobra.Command, args []string) error {
			o.Patterns = args
			if len(args) == 0 && len(o.SQL) == 0 {
				o.Patterns = []string{"."}
			}
			if err := o.check(); err != nil {
				return err
			}
			r, err := driver.Run(c.Context(), o.Options)
			if err != nil {
				return err
			}
			return o.write(c.OutOrStdout(), r.Findings)
		},
	}
	c.PersistentFlags().StringVarP(&o.format, "output", "o", "text", "text, json or sarif")
	c.PersistentFlags().StringVar(&o.Config, "config", "", "configuration instead of the module's "+lint.ConfigFile)
	c.PersistentFlags().StringArrayVar(&o.BuildFlags, "build-flag", nil, "a flag for go list, such as -tags=integration")
	c.Flags().StringArrayVar(&o.SQL, "sql", nil, "a folder of migrations to check as well")
	c.AddCommand(rulesCommand(), planCommand(o))
	return c
}

func (o *options) check() error {
	switch o.format {
	case "text", "json", "sarif":
		return nil
	}
	return fmt.Errorf("output %q: want text, json or sarif", o.format)
}

// write prints the findings; errFindings says that there are some.
func (o *options) write(w io.Writer, findings []lint.Finding) error {
	var err error
	switch o.format {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		if findings == nil {
			findings = []lint.Finding{}
		}
		err = e.Encode(findings)
	case "sarif":
		err = sarif.Write(w, findings)
	default:
		for _, f := range findings {
			fmt.Fprintf(w, "%s:%d:%d: %s: %s\n", f.File, f.Line, f.Column, f.Rule, f.Text())
		}
	}
	if err == nil && len(findings) > 0 {
		err = errFindings
	}
	return err
}

func rulesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rules",
		Short: "say what is looked for, and why",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, r := range lint.Rules() {
				fmt.Fprintf(w, "%s\t%s\t%s\n", r.ID, r.Title, r.Why)
			}
			return w.Flush()
		},
	}
}
