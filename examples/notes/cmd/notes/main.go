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

const usage = "usage: notes {serve|migrate} --config FILE"

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
	path := flags.String("config", "", "the configuration file")
	if err := flags.Parse(args[1:]); err != nil {
		return fmt.Errorf("%w\n%s", err, usage)
	}
	c, err := notes.Load(*path)
	if err != nil {
		return err
	}
	switch args[0] {
	case "serve":
		return notes.Run(ctx, c)
	case "migrate":
		return notes.Migrate(ctx, c)
	default:
		return fmt.Errorf("there is no command %q\n%s", args[0], usage)
	}
}
