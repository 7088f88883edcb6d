package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/catalog"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

// envDSN names the environment variable with the connection string of a cell's database.
const envDSN = "ROWHOUSE_CELL_DSN"

// auditError says that nothing is known about the database; its exit status is 2.
type auditError struct{ error }

func (e auditError) Error() string { return "could not audit: " + e.error.Error() }
func (e auditError) Unwrap() error { return e.error }

// cellDatabaseCommands work on a database of a cell itself, not on a service's API: they are
// what an operator runs before tenancy knows the cell, and in CI.
func (a *app) cellDatabaseCommands() []*cobra.Command {
	return []*cobra.Command{a.cellInitCommand(), a.cellAuditCommand()}
}

// dsnFlag defines the flag that [app.connect] reads.
func dsnFlag(c *cobra.Command, file *string) {
	c.Flags().StringVar(file, "dsn-file", "", "the file with the database's connection string; env "+envDSN+" holds one instead")
}

// connect connects to the database that a file or the environment names.
func (a *app) connect(ctx context.Context, file, as string) (*pgx.Conn, error) {
	config, err := a.login(file, as)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return conn, nil
}

// login reads the connection string that a file, or for "" the environment, holds. A
// connection string is a secret: it is no argument, and no error holds it.
func (a *app) login(file, as string) (*pgx.ConnConfig, error) {
	text, where := a.getenv(envDSN), envDSN
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read the connection string: %w", err)
		}
		text, where = string(b), file
	}
	if strings.TrimSpace(text) == "" {
		return nil, usagef("name the file with the connection string (--dsn-file), or set %s", envDSN)
	}
	config, err := pgx.ParseConfig(strings.TrimSpace(text))
	if err != nil {
		return nil, fmt.Errorf("the connection string in %s cannot be parsed", where) // its own error quotes it
	}
	config.RuntimeParams["application_name"] = as
	return config, nil
}

func (a *app) cellAuditCommand() *cobra.Command {
	var file, format string
	var config catalog.Config
	c := &cobra.Command{
		Use: "audit", Short: "Look for what would let an app reach other tenants' rows",
		Long: `Read the catalogs of a cell's database and look for what would let an app reach
other tenants' rows: tables without row security, keys and views across tenants,
rights and roles, a server that lacks fixes. Any login will do; nothing is changed
and no tenant's row is read. docs/catalog-audit.md lists the rules, each finding
names the SQL that mends it.

A risk that somebody took is named with --accept: it is reported as accepted.

Exit status: 0 no error was found, 1 errors were found, 2 it could not be audited.`,
		Example: `  rowhouse cells audit --dsn-file notes.dsn
  rowhouse cells audit --dsn-file notes.dsn --accept R40 -o json
  rowhouse cells audit --dsn-file notes.dsn -o sarif > audit.sarif`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			write, known := map[string]func(catalog.Report) error{
				"text":  func(r catalog.Report) error { return r.WriteText(c.OutOrStdout()) },
				"json":  func(r catalog.Report) error { return r.WriteJSON(c.OutOrStdout()) },
				"sarif": func(r catalog.Report) error { return r.WriteSARIF(c.OutOrStdout()) },
			}[format]
			if !known {
				return usagef("there is no output %q; there are text, json and sarif", format)
			}
			report, err := a.audit(c.Context(), file, config)
			if err != nil {
				return err
			}
			if err := write(report); err != nil {
				return auditError{err}
			}
			if n := len(report.Errors()); n > 0 {
				return fmt.Errorf("%d errors in database %s", n, report.Database)
			}
			return nil
		},
	}
	dsnFlag(c, &file)
	c.Flags().StringVarP(&format, "output", "o", "text", "text, json or sarif")
	c.Flags().StringSliceVar(&config.Accept, "accept", nil, "rules whose findings are risks that somebody took, such as R20")
	c.Flags().StringSliceVar(&config.Rules, "rules", nil, "look for these rules only")
	c.Flags().StringVar(&config.Schemas, "schemas", "", "a regular expression for the schemas to judge (default: all but PostgreSQL's own)")
	c.Flags().StringArrayVar(&config.Definers, "definer", nil,
		"a function with its owner's rights that the app may call, as schema.name(types); may be repeated")
	_ = c.RegisterFlagCompletionFunc("output", // defined above
		cobra.FixedCompletions([]string{"text", "json", "sarif"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// audit connects and audits. A mistake in the command line stays one.
func (a *app) audit(ctx context.Context, file string, config catalog.Config) (catalog.Report, error) {
	conn, err := a.connect(ctx, file, "rowhouse cells audit")
	if _, slip := errors.AsType[mistake](err); slip {
		return catalog.Report{}, err
	} else if err != nil {
		return catalog.Report{}, auditError{err}
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	report, err := cell.Audit(ctx, conn, config)
	switch {
	case errors.Is(err, catalog.ErrConfig):
		return catalog.Report{}, usageError(err)
	case err != nil:
		return catalog.Report{}, auditError{err}
	}
	return report, nil
}

func (a *app) cellInitCommand() *cobra.Command {
	var file, rung, password, migratorPassword string
	var config cell.Config
	c := &cobra.Command{
		Use: "init", Short: "Make a database of a cell ready for an app's tenants",
		Long: `Make a database ready for the tenants of one app: roles, revokes, schema rowhouse
and the functions by which PostgreSQL verifies the tenant. Run it again at any time,
and always after a restore or a copy of the database: rights are no part of those.

A superuser stands the database on rung L2b. Where you are none, as on managed
PostgreSQL, a login that owns the database and may create roles stands it on L2a.
--rung asks for one rung and takes no weaker one. What was set up is attacked as the
app would, then audited; what the audit finds is printed.`,
		Example: `  rowhouse cells init --dsn-file notes.dsn --app notes --password-file app.password
  rowhouse cells init --dsn-file managed.dsn --app notes --rung L2a`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			config.Rung = cell.Rung(rung)
			for to, from := range map[*string]string{&config.Password: password, &config.MigratorPassword: migratorPassword} {
				if from == "" {
					continue
				}
				b, err := os.ReadFile(from)
				if err != nil {
					return fmt.Errorf("read the password: %w", err)
				}
				*to = strings.TrimRight(string(b), "\r\n")
			}
			conn, err := a.connect(c.Context(), file, "rowhouse cells init")
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close(context.WithoutCancel(c.Context())) }()
			return initCell(c, conn, config)
		},
	}
	dsnFlag(c, &file)
	c.Flags().StringVar(&config.App, "app", "", "the app whose tenants the database holds")
	c.Flags().StringVar(&rung, "rung", "", "the rung to stand on, L2a or L2b (default: the highest that the login can set up)")
	c.Flags().StringVar(&password, "password-file", "", "the file with the password of the app's role (default: leave it as it is)")
	c.Flags().StringVar(&migratorPassword, "migrator-password-file", "", "the file with the password of rowhouse_migrator_<app>")
	c.Flags().IntVar(&config.Connections, "connections", 0, "how many connections the app's role may have (default 100)")
	_ = c.MarkFlagRequired("app") // defined above
	return c
}

// initCell sets the database up and says on which rung it stands and what an audit finds.
func initCell(c *cobra.Command, conn *pgx.Conn, config cell.Config) error {
	ctx, out := c.Context(), c.OutOrStdout()
	rung, why, err := cell.ReachableRung(ctx, conn)
	if err != nil {
		return err
	}
	if config.Rung != "" {
		rung, why = config.Rung, "it was asked for"
	}
	fmt.Fprintf(out, "trying rung %s: %s\n", rung, why)
	failed := cell.Init(ctx, conn, config)
	if failed != nil && !errors.Is(failed, cell.ErrUnsafe) {
		return failed
	}
	if rung, err = cell.InstalledRung(ctx, conn); err != nil {
		return errors.Join(failed, err)
	}
	fmt.Fprintf(out, "stands on rung %s, for app %s, which logs in as %s\n", rung, config.App, cell.AppRole(config.App))
	report, err := cell.Audit(ctx, conn, catalog.Config{})
	if err != nil {
		return errors.Join(failed, err)
	}
	return errors.Join(failed, report.WriteText(out))
}
