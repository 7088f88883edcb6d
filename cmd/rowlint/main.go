// Command rowlint finds SQL and Go code that could let one tenant see another's rows.
//
// It runs over packages and their migrations by itself, or as go vet's tool:
//
//	rowlint ./...
//	go vet -vettool=$(which rowlint) ./...
//
// The exit status is 0 when there is nothing to say, 1 when there are findings, and 2 when
// it could not look. Start at [run].
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/tools/go/analysis/unitchecker"

	"github.com/rowhouse-platform/rowhouse/internal/lint"
	"github.com/rowhouse-platform/rowhouse/internal/lint/gorule"
)

// The exit statuses.
const (
	exitFindings = 1
	exitFailed   = 2
)

// errFindings says that there are findings; they are printed already.
var errFindings = errors.New("there are findings")

func main() {
	if asVetTool(os.Args[1:]) {
		unitchecker.Main(gorule.Analyzers(&lint.House{})...)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// asVetTool says whether go vet calls: it asks for version and flags, then hands over one
// package at a time in a file.
func asVetTool(args []string) bool {
	if len(args) == 0 {
		return false
	}
	last := args[len(args)-1]
	return strings.HasPrefix(args[0], "-V") || args[0] == "-flags" || strings.HasSuffix(last, ".cfg")
}

// run is the command without its process. It returns the exit status.
func run(ctx context.Context, args []string, out, errs io.Writer) int {
	return runIn(ctx, "", args, out, errs)
}

// runIn is run from another folder.
func runIn(ctx context.Context, dir string, args []string, out, errs io.Writer) int {
	c := command(dir) //nolint:contextcheck // cobra hands the context to the commands
	c.SetArgs(args)
	c.SetOut(out)
	c.SetErr(errs)
	switch err := c.ExecuteContext(ctx); {
	case err == nil:
		return 0
	case errors.Is(err, errFindings):
		return exitFindings
	default:
		fmt.Fprintln(errs, "rowlint:", err)
		return exitFailed
	}
}
