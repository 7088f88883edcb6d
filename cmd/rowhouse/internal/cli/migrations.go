package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
)

// migrationName is the form of a migration's id.
var migrationName = regexp.MustCompile(`^[0-9]{4}_[a-z0-9_]+$`)

func migrations() noun {
	return noun{
		name: "migrations", short: "What the tables of apps consist of", service: "rowhouse.tenancy.v1.MigrationService",
		long: "Migrations that apps registered. Tenancy runs them for tenants with a schema or a database of their own:\n" +
			"for new ones at once, for those that are there after each registration. In the database that all other\n" +
			"tenants share the app runs them itself.",
		columns: "MIGRATION=name@migrations APP=name@apps SHA256=sha256 REGISTERED=create_time",
		verbs: []verb{
			{
				name: "list", rpc: "ListMigrations", short: "List an app's migrations in their order", fields: []field{{"parent", appForm}},
				example: "rowhouse migrations list notes",
			},
			{
				name: "get", rpc: "GetMigration", short: "Print a migration's SQL",
				fields: named(appForm + "/migrations/{migration}"), show: showStatements,
				long:    "Print a migration's SQL. -o json and -o yaml print the whole migration.",
				example: "rowhouse migrations get notes 0001_notes",
			},
			{
				name: "register", rpc: "RegisterMigrations", short: "Add a folder's migrations to those of an app",
				fields: []field{{"parent", appForm}},
				long: "Add a folder's migrations to those of an app. The folder holds files such as 0001_notes.sql, which run in the\n" +
					"order of their names; a number may be missing, but what would fill the gap later is refused. Registered ones\n" +
					"are looked at and stay as they are; one that has another text now, or a new one before them, is refused.\n\n" +
					"All of them run in an empty schema first, in a cell of the app that takes the model schema, with --dry-run\n" +
					"too, and are undone: one that fails there is refused. Rows of tenants may stand against it all the same.\n\n" +
					"Homes of tenants follow within seconds; `rowhouse placements get` shows where one stands and what it waits for.",
				more: dirFlag, before: readMigrations,
				example: "rowhouse migrations register notes --dir migrations\nrowhouse migrations register notes --dir migrations --dry-run",
			},
			{
				name: "delete", rpc: "DeleteMigration", short: "Withdraw an app's newest migration, if it ran for no tenant",
				fields: named(appForm + "/migrations/{migration}"),
				long: "Withdraw an app's newest migration, if it ran for no tenant with a schema or a database of its own: one that\n" +
					"fails, and that new tenants wait for. They go on without it. Whether the app ran it itself, in the database that\n" +
					"all other tenants share, is yours to know.",
				example: "rowhouse migrations delete notes 0004_tags --allow-missing --confirm 0004_tags",
			},
		},
	}
}

// dirFlag defines the flags that [readMigrations] reads.
func dirFlag(c *cobra.Command) {
	c.Flags().String("dir", "", "the folder with the migrations")
	c.Flags().String("from", "", "leave out those before this one, which are registered")
	_ = errors.Join(c.MarkFlagRequired("dir"), c.MarkFlagDirname("dir")) // defined above
}

// readMigrations makes the request's migrations of a folder's files.
func readMigrations(_ *app, c *cobra.Command, r *call) error {
	request, ok := r.request.(*tenancyv1.RegisterMigrationsRequest)
	if !ok {
		return errors.New("migrations register sends another request")
	}
	dir, _ := c.Flags().GetString("dir") // these two are defined by dirFlag
	from, _ := c.Flags().GetString("from")
	if _, err := os.Stat(dir); err != nil {
		return usageError(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.sql")) // in the order of their names
	if err != nil {
		return usageError(err)
	}
	before := ""
	for _, path := range files {
		id := strings.TrimSuffix(filepath.Base(path), ".sql")
		if !migrationName.MatchString(id) {
			return usagef("%s is no migration: want four digits, an underscore and a name of a-z, 0-9 and _, such as 0001_notes.sql", path)
		}
		if missing := gap(before, id); missing != "" {
			said := fmt.Sprintf("there is no %s between %s and %s; it could not be added later", missing, before, id)
			_, _ = fmt.Fprintln(c.ErrOrStderr(), said) // nothing depends on it
		}
		before = id
		if id < from {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return usageError(err)
		}
		request.Migrations = append(request.Migrations, &tenancyv1.MigrationSource{MigrationId: id, Statements: string(text)})
	}
	if len(request.GetMigrations()) == 0 {
		return usagef("there are no migrations in %s: files such as 0001_notes.sql", dir)
	}
	return nil
}

// gap is the number that is missing between two migrations, or "".
func gap(before, id string) string {
	if before == "" {
		return ""
	}
	last, _ := strconv.Atoi(before[:4]) // they have the form of migrationName
	next, _ := strconv.Atoi(id[:4])
	if next <= last+1 {
		return ""
	}
	return fmt.Sprintf("%04d", last+1)
}

// showStatements prints a migration's SQL for people and pipes, and the migration for programs that ask for it.
func showStatements(a *app, c *cobra.Command, i *invocation) error {
	m := i.response.(*tenancyv1.GetMigrationResponse).GetMigration() //nolint:forcetypeassert // the verb's RPC
	if format := a.formatFor(c); format != formatTable && format != formatTSV {
		return i.write(a, c, m)
	}
	_, err := fmt.Fprint(c.OutOrStdout(), m.GetStatements())
	return err
}
