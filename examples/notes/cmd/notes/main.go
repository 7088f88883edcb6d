// Command notes is the example app of Rowhouse.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/rowhouse-platform/rowhouse/examples/notes"
)

const usage = `usage: notes serve --config FILE
       notes migrate --dsn-file FILE
       notes migrate-jobs --dsn-file FILE
       notes migrations --dir FOLDER`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "notes:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("%s", usage)
	}
	flags := flag.NewFlagSet("notes "+args[0], flag.ContinueOnError)
	var path string
	switch args[0] {
	case "serve":
		flags.StringVar(&path, "config", "", "the configuration file")
	case "migrations":
		flags.StringVar(&path, "dir", "", "where to write the migrations for: rowhouse migrations register")
	case "migrate-jobs":
		flags.StringVar(&path, "dsn-file", "", "a file with the connection string of the owner of the queue's database")
	case "migrate":
		flags.StringVar(&path, "dsn-file", "", "a file with the connection string of the role that migrates")
	default:
		return fmt.Errorf("there is no command %q\n%s", args[0], usage)
	}
	if err := flags.Parse(args[1:]); err != nil {
		return fmt.Errorf("%w\n%s", err, usage)
	}
	switch args[0] {
	case "migrate":
		return notes.Migrate(ctx, path)
	case "migrate-jobs":
		return notes.MigrateJobs(ctx, path)
	case "migrations":
		return os.CopyFS(path, notes.Migrations())
	}
	c, err := notes.Load(path)
	if err != nil {
		return err
	}
	return notes.Run(ctx, c)
}
