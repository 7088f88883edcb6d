package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/rowhouse-platform/rowhouse/cmd/rowhouse/internal/cli"
	"github.com/rowhouse-platform/rowhouse/cmd/rowhouse/internal/dev"
)

const (
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a mistake in the command line.
type usageError struct{ error }

func usage(err error) error { return usageError{err} }

// execute runs a command line and returns the exit status.
func execute(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	root := &cobra.Command{
		Use:           "rowhouse",
		Short:         "The tenant platform for SaaS on PostgreSQL",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	root.AddCommand(devCommand(), serveCommand(), migrateCommand()) //nolint:contextcheck // commands get theirs when they run
	cli.AddTo(root)                                                 //nolint:contextcheck // the same
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(errOut, "rowhouse:", cli.Line(err))
	if _, mistake := errors.AsType[usageError](err); mistake {
		return exitUsage
	}
	return cli.ExitCode(err, exitFailed)
}

// devCommand runs a whole house on one machine.
func devCommand() *cobra.Command {
	var o dev.Options
	var reset bool
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run everything on this machine, with sample tenants",
		Long: `Run a private PostgreSQL, the four services and the example app, each as a process
of its own, with three sample tenants. Ctrl-C stops all; the next start keeps the
data.`,
		Example: `  rowhouse dev
  rowhouse dev --reset
  rowhouse dev --state /tmp/house --base-port 0`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Out = cmd.OutOrStdout()
			if o.Dir == "" {
				o.Dir = dev.DefaultDir()
			}
			if reset {
				if err := dev.Reset(o.Dir); err != nil {
					return err
				}
			}
			return dev.Run(cmd.Context(), o)
		},
	}
	const usualHTTP, usualHTTPS, usualBase = 8080, 8443, 7100
	cmd.Flags().StringVar(&o.Dir, "state", "", "the folder of all state (default "+dev.DefaultDir()+")")
	cmd.Flags().BoolVar(&reset, "reset", false, "remove the state first")
	cmd.Flags().IntVar(&o.HTTPPort, "http-port", usualHTTP, "the front door's port for HTTP")
	cmd.Flags().IntVar(&o.HTTPSPort, "https-port", usualHTTPS, "the front door's port for HTTPS")
	cmd.Flags().IntVar(&o.BasePort, "base-port", usualBase, "the services' ports are above this one; 0 takes free ports for everything")
	cmd.Flags().StringVar(&o.OTLP, "otlp", "", "send traces, metrics and logs to this OTLP gRPC endpoint, http://127.0.0.1:4317")
	cmd.Flags().StringVar(&o.Users, "users", "", "a file with the issuers of users' tokens, as \"users\" in the gateway's configuration")
	return cmd
}
