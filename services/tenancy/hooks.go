package tenancy

import (
	"context"
	"errors"
	"fmt"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/hook"
	"github.com/rowhouse-platform/rowhouse/internal/serve"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

// Hooks is how to reach config, which asks hooks.
type Hooks struct {
	// Address is a gRPC target, "127.0.0.1:7102".
	Address string `yaml:"address"`
	// Identity is the SPIFFE URI that it must show.
	Identity identity.ID `yaml:"identity"`
	// FeedKeys holds the public keys that sign its feeds.
	FeedKeys yamlfile.Path `yaml:"feed_keys"`
	// State is a folder that keeps which hooks there are. Without it a restart while config is away takes no step that hooks
	// may be asked about, since it does not know of which there are none.
	State yamlfile.Path `yaml:"state,omitempty"`
}

func (c *Hooks) validate(replica string) error {
	if c != nil && serve.Replica(replica) == "" {
		return errors.New("hooks: this host has no name: replica is required")
	}
	if c != nil && (c.Address == "" || c.Identity.IsZero() || c.FeedKeys == "") {
		return errors.New("hooks: address, identity and feed_keys are required")
	}
	return nil
}

func (c *Hooks) check() error {
	if c == nil {
		return nil
	}
	if _, err := keyfile.Public(string(c.FeedKeys)); err != nil {
		return fmt.Errorf("hooks: feed_keys: %w", err)
	}
	if c.State != "" {
		if err := c.State.CheckFolder(); err != nil {
			return fmt.Errorf("hooks: state: %w", err)
		}
	}
	return nil
}

// hooks makes what asks hooks, and follows which there are; nil without a configuration. Config follows tenancy, so it may
// well start later: nothing here waits for it.
func (h *house) hooks(ctx context.Context, s *serve.Service, p *serve.Process, kernel *change.Kernel) (*hook.Asker, error) {
	c := h.c.Hooks
	if c == nil {
		return nil, nil //nolint:nilnil // a nil Asker asks nobody
	}
	keys, err := keyfile.Public(string(c.FeedKeys))
	if err != nil {
		return nil, fmt.Errorf("hooks: feed keys: %w", err)
	}
	conn, err := p.Dial(c.Address, c.Identity)
	if err != nil {
		return nil, fmt.Errorf("hooks: %w", err)
	}
	s.Close = append(s.Close, func() { _ = conn.Close() })
	known := hook.NewStore()
	f, err := hook.Follow(context.WithoutCancel(ctx), hook.FollowConfig{
		Config: conn, FeedKeys: keys, Replica: serve.Replica(h.c.Replica), Store: known, Dir: string(c.State), Clock: p.Clock, Log: p.Log,
		Metrics: p.Telemetry.MeterProvider(),
	})
	if err != nil {
		return nil, err
	}
	s.Close = append(s.Close, f.Close)
	service := configv1.NewHookServiceClient(conn)
	return hook.New(hook.Config{
		Store: known, Answered: kernel.Answered, Log: p.Log,
		Decide: func(ctx context.Context, req *configv1.DecideHooksRequest) (*configv1.DecideHooksResponse, error) {
			resp, err := service.DecideHooks(ctx, req)
			return resp, tenantgrpc.FromStatus(err)
		},
	}), nil
}
