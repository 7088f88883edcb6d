package serve

import (
	"cmp"
	"context"
	"fmt"

	"github.com/rowhouse-platform/rowhouse/internal/version"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantotel"
)

// startTelemetry makes the process's exporters and its log.
func startTelemetry(ctx context.Context, opts Options) (*tenantotel.Telemetry, error) {
	level, err := opts.Config.Telemetry.level()
	if err != nil {
		return nil, err
	}
	t, err := tenantotel.Setup(ctx, tenantotel.Config{
		Service: opts.Name, Version: cmp.Or(opts.Version, version.String()), Endpoint: opts.Config.Telemetry.Endpoint,
		Log: opts.LogTo, Level: level,
	})
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	return t, nil
}
