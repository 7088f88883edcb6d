package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/rowhouse-platform/rowhouse/internal/serve"
	"github.com/rowhouse-platform/rowhouse/services/config"
	"github.com/rowhouse-platform/rowhouse/services/gateway"
	"github.com/rowhouse-platform/rowhouse/services/quota"
	"github.com/rowhouse-platform/rowhouse/services/tenancy"
)

// runner loads a service's configuration and either checks it or runs the service.
type runner func(ctx context.Context, path string, check bool) error

// runners are the services by name.
func runners() map[string]runner {
	return map[string]runner{
		"tenancy": of(tenancy.Run), "config": of(config.Run), "quota": of(quota.Run), "gateway": of(gateway.Run),
	}
}

// checker is the configuration of a service; its Check does all that a start does short of connecting and listening.
type checker interface {
	Check(ctx context.Context) error
}

// of makes the runner of a service whose configuration is a C and whose options are Os.
func of[C checker, O any](run func(context.Context, C, ...O) error) runner {
	return func(ctx context.Context, path string, check bool) error {
		c, err := serve.Load[C](path)
		if err != nil {
			return err
		}
		if check {
			return c.Check(ctx)
		}
		return run(ctx, c)
	}
}

// serveCommand runs one service as a process of its own.
func serveCommand() *cobra.Command {
	var path string
	var check bool
	names := []string{"config", "gateway", "quota", "tenancy"}
	cmd := &cobra.Command{
		Use:   "serve {tenancy|config|quota|gateway}",
		Short: "Run one service",
		Long: `Run one service as a process of its own, with its own database role and mTLS
identity, until it gets an interrupt or TERM signal; then it drains and ends.`,
		Example: `  rowhouse serve tenancy --config /etc/rowhouse/tenancy.yaml
  rowhouse serve gateway --config /etc/rowhouse/gateway.yaml --check`,
		Args:      cobra.ExactArgs(1),
		ValidArgs: names,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(names, args[0]) {
				return usage(fmt.Errorf("there is no service %q; the services are tenancy, config, quota and gateway", args[0]))
			}
			if err := runners()[args[0]](cmd.Context(), path, check); err != nil {
				return err
			}
			if check {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "ok")
				return err
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "the service's configuration file")
	cmd.Flags().BoolVar(&check, "check", false, "check the configuration and what it names, without starting")
	_ = cmd.MarkFlagRequired("config") // the flag is defined above
	return cmd
}
