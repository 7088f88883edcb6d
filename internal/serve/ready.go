package serve

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

var (
	errStarting = errors.New("starting")
	errDraining = errors.New("draining")
)

// readiness is the process's state as the probes show it.
type readiness struct {
	ready   func() error
	started atomic.Bool
	stopped atomic.Bool
}

func newReadiness(ready func() error) *readiness {
	if ready == nil {
		ready = func() error { return nil }
	}
	return &readiness{ready: ready}
}

func (r *readiness) start() { r.started.Store(true) }
func (r *readiness) stop()  { r.stopped.Store(true) }

// why returns nil when the process wants calls.
func (r *readiness) why() error {
	switch {
	case r.stopped.Load():
		return errDraining
	case !r.started.Load():
		return errStarting
	default:
		return r.ready()
	}
}

// mirror shows the readiness in gRPC health, for balancers, until ctx ends.
func (r *readiness) mirror(ctx context.Context, h *health.Server) {
	ticker := time.NewTicker(healthEvery)
	defer ticker.Stop()
	for {
		status := grpc_health_v1.HealthCheckResponse_SERVING
		if r.why() != nil {
			status = grpc_health_v1.HealthCheckResponse_NOT_SERVING
		}
		h.SetServingStatus("", status) // without effect once h was shut down
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
