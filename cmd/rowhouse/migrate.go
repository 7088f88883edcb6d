package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/services/config"
	"github.com/rowhouse-platform/rowhouse/services/gateway"
	"github.com/rowhouse-platform/rowhouse/services/quota"
	"github.com/rowhouse-platform/rowhouse/services/tenancy"
)

// serviceDatabase returns a service's database with its migrations; ok is false where there is no such service.
func serviceDatabase(service string) (db pg.Database, ok bool) {
	switch service {
	case "tenancy":
		return tenancy.Database(tenancy.DatabaseName), true
	case "config":
		return pg.Database{Name: config.Database, Migrations: config.Migrations()}, true
	case "quota":
		return pg.Database{Name: quota.Database, Migrations: quota.Migrations()}, true
	case "gateway":
		return pg.Database{Name: gateway.Database, Migrations: gateway.Migrations()}, true
	default:
		return pg.Database{}, false
	}
}

// migrateCommand brings the database of one service up to date.
func migrateCommand() *cobra.Command {
	var dsnFile string
	cmd := &cobra.Command{
		Use:   "migrate {tenancy|config|quota|gateway}",
		Short: "Bring a service's database up to date",
		Long: `Apply the migrations that a service's database lacks, and end. Run it before a new
version of the service starts, as the role <database>_migrate, which the service
itself never has. Several may run at once: one works, the others wait. Migrations
only go forward, and the version before keeps working after them.`,
		Example:   `  rowhouse migrate tenancy --dsn-file /etc/rowhouse/database/dsn`,
		Args:      cobra.ExactArgs(1),
		ValidArgs: []string{"config", "gateway", "quota", "tenancy"},
		RunE: func(cmd *cobra.Command, args []string) error {
			db, ok := serviceDatabase(args[0])
			if !ok {
				return usage(fmt.Errorf("there is no service %q; the services are tenancy, config, quota and gateway", args[0]))
			}
			if err := migrate(cmd.Context(), dsnFile, db); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "the database of %s is up to date\n", args[0])
			return err
		},
	}
	cmd.Flags().StringVar(&dsnFile, "dsn-file", "", "a file with the connection string of the role that migrates")
	_ = cmd.MarkFlagRequired("dsn-file") // the flag is defined above
	return cmd
}

// migrate connects and migrates. No error of it holds the connection string.
func migrate(ctx context.Context, dsnFile string, db pg.Database) error {
	text, err := os.ReadFile(dsnFile)
	if err != nil {
		return fmt.Errorf("read the connection string: %w", err)
	}
	c, err := pgx.ParseConfig(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("the connection string in %s cannot be parsed", dsnFile) // its own error quotes it
	}
	c.RuntimeParams["application_name"] = "rowhouse migrate"
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return errors.Join(pg.Migrate(ctx, conn, db), conn.Close(context.WithoutCancel(ctx)))
}
