// Command rowhouse is the whole platform in one binary: `rowhouse dev` runs it on one
// machine, `rowhouse serve` runs one service, and everything else is the operator's
// command line over the services' APIs.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := execute(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
