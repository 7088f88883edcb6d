package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rowhouse-platform/rowhouse/internal/lint/driver"
	"github.com/rowhouse-platform/rowhouse/internal/lint/plan"
	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
)

func planCommand(o *options) *cobra.Command {
	dsnFile := ""
	c := &cobra.Command{
		Use:   "plan [packages]",
		Short: "let PostgreSQL plan every statement, and look whether the tenant bounds each scan",
		Long: "rowlint plan lets PostgreSQL plan every package-level tenantdb.Stmt as the app, in a tenant, on a database with the app's\n" +
			"migrations, one huge tenant and many small ones, generic and custom. Each scan of a tenant table must have the tenant in\n" +
			"its index condition.\n\n" +
			"It starts a PostgreSQL of its own, of the programs that are installed here. With --dsn-file it uses a server instead,\n" +
			"one of no other use: it makes databases there and drops them, and leaves the roles of a cell.",
		Example: "  rowlint plan ./...\n  rowlint plan --dsn-file scratch.dsn -o sarif ./... > plans.sarif",
		Args:    cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			o.Patterns = args
			if len(args) == 0 {
				o.Patterns = []string{"."}
			}
			if err := o.check(); err != nil {
				return err
			}
			return runPlan(c, o, dsnFile)
		},
	}
	c.Flags().StringVar(&dsnFile, "dsn-file", "", "file with the URL of a superuser of a scratch server")
	return c
}

func runPlan(c *cobra.Command, o *options, dsnFile string) (err error) {
	ctx := c.Context()
	r, err := driver.Run(ctx, o.Options)
	if err != nil {
		return err
	}
	if len(r.Statements) == 0 {
		return errors.New("the packages have no package-level tenantdb.Stmt")
	}
	dsn, stop, err := server(ctx, dsnFile)
	if err != nil {
		return err
	}
	findings, err := plan.Run(ctx, dsn, r.Statements)
	if err := errors.Join(err, stop()); err != nil {
		return err
	}
	fmt.Fprintf(c.ErrOrStderr(), "%d statements were planned.\n", len(r.Statements))
	return o.write(c.OutOrStdout(), findings)
}

// server returns the URL in the file, or that of a server of its own and how to stop it.
func server(ctx context.Context, dsnFile string) (dsn string, stop func() error, err error) {
	if dsnFile != "" {
		text, err := os.ReadFile(dsnFile)
		if err != nil {
			return "", nil, fmt.Errorf("read the DSN: %w", err)
		}
		return strings.TrimSpace(string(text)), func() error { return nil }, nil
	}
	s, err := pgserver.Start(ctx, pgserver.Options{})
	if err != nil {
		return "", nil, err
	}
	return s.DSN(pgserver.Login{}), func() error { return s.Stop(context.WithoutCancel(ctx)) }, nil
}
