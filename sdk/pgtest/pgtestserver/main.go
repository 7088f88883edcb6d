// Command pgtestserver runs a command beside one PostgreSQL for all tests:
//
//	go run ./sdk/pgtest/pgtestserver -- go test ./...
//
// It starts a throw-away server, hands it down in ROWHOUSE_TEST_PG, exits with the
// command's status and leaves nothing behind.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
)

const (
	exitUsage  = 2
	exitSignal = 128
)

func main() {
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "usage: pgtestserver -- command [argument ...]")
		os.Exit(exitUsage)
	}
	code, err := run(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "pgtestserver:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// run returns the command's exit status; an error is one of the server's.
func run(args []string) (code int, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	server, err := pgtest.Start(ctx)
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, server.Stop(context.WithoutCancel(ctx))) }()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), pgtest.EnvServer+"="+server.DSN(pgserver.Login{}))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return status(exit), nil
	}
	return 0, err
}

// status is what a shell would say of the command's end.
func status(exit *exec.ExitError) int {
	if how, ok := exit.Sys().(syscall.WaitStatus); ok && how.Signaled() {
		return exitSignal + int(how.Signal())
	}
	return exit.ExitCode()
}
