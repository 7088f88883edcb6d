package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantotel"
)

const (
	defaultDrain   = 30 * time.Second
	telemetryFlush = 5 * time.Second
	healthEvery    = 250 * time.Millisecond
)

// Options say which process runs. Name and Config are required.
type Options struct {
	// Name is the service, "tenancy": the name in telemetry.
	Name string
	// Version is for telemetry. Default: the build's.
	Version string
	// Config is the process's part of the service's configuration.
	Config Config
	// Clock is the time. Default: time.Now.
	Clock func() time.Time
	// LogTo gets the log, a JSON object per line. Default: standard error.
	LogTo io.Writer
	// Listening hears the addresses once both ports are open, for configurations that leave the port to the system.
	Listening func(grpc, ops net.Addr)
}

// Process is what [Run] has made before the service builds itself. Its parts live until Run returns.
type Process struct {
	// Identity is the process's own certificate, for listening and for [Dial].
	Identity *identity.Source
	// Callers knows operators and workloads; its MayPresent fits tenant.VerifierConfig.
	Callers *operator.Authenticator
	// Log is the process's log.
	Log *slog.Logger
	// Tracer makes the process's spans; give it to pg.Open.
	Tracer trace.TracerProvider
	// Telemetry is all of the process's telemetry, Tracer and Log included.
	Telemetry *tenantotel.Telemetry
	// Clock is the time.
	Clock func() time.Time
}

// Service is what a service has built. Register is required.
type Service struct {
	// Register registers the gRPC services. Each of their methods needs a rule.
	Register func(*grpc.Server)
	// Table holds the rules of methods that declare none.
	Table rule.Table
	// Scopes gives the scopes that DATA methods declare their bits.
	Scopes map[string]tenant.Scopes
	// Verifier checks tenant contexts; required where there are DATA methods.
	Verifier *tenant.Verifier
	// Refresher renews the contexts of streams that outlive theirs. Optional.
	Refresher tenantgrpc.Refresher
	// MaxRequest is the most bytes that a method of the service declares for its request. Default 1 MiB.
	MaxRequest int
	// Denied hears of refused calls, see rule.Config. Optional.
	Denied func(ctx context.Context, call rule.Call, err error)
	// Ready says why the service cannot serve yet: caches that are not loaded, never a database that is away. It is
	// asked often and answers at once. Default: always ready.
	Ready func() error
	// Background is the work beside serving. Each function runs until its context ends, which is after the last call
	// has been served; one that returns an error before ends the process.
	Background []func(ctx context.Context) error
	// Close releases what the service holds (pools, connections), in reverse order, when nothing runs any more.
	Close []func()
}

// Run runs the process until ctx ends, then drains it: not ready, the configured delay, no new calls, calls in flight
// finish, background work ends, telemetry is flushed, Close. It returns nil after an orderly end. build makes the
// service; an error of it, of a background function or of a listener is returned. With an error build returns what it
// has made so far, or nil, and Run closes that.
func Run(ctx context.Context, opts Options, build func(ctx context.Context, p *Process) (*Service, error)) error {
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	if opts.LogTo == nil {
		opts.LogTo = os.Stderr
	}
	if err := opts.Config.Validate(); err != nil {
		return err
	}
	limitMemory()
	p, err := prepare(ctx, opts)
	if err != nil {
		return err
	}
	defer p.flush(ctx)
	s, err := build(ctx, p)
	if s != nil {
		defer s.close()
	}
	if err != nil {
		return err
	}
	return p.serve(ctx, opts, s)
}

func prepare(ctx context.Context, opts Options) (*Process, error) {
	source, err := opts.Config.identity(opts.Clock)
	if err != nil {
		return nil, err
	}
	t, err := startTelemetry(ctx, opts)
	if err != nil {
		return nil, err
	}
	p := &Process{Identity: source, Log: t.Logger(), Tracer: t.TracerProvider(), Telemetry: t, Clock: opts.Clock}
	p.Callers, err = opts.Config.callers(ctx, opts.Clock, p.reloaded)
	if err != nil {
		p.flush(ctx)
		return nil, err
	}
	return p, nil
}

func (p *Process) reloaded(err error) {
	if err != nil {
		p.Log.Error("a changed policy was not taken", "error", err)
		return
	}
	p.Log.Info("a changed policy was taken")
}

// flush ends telemetry; what cannot be exported in time is dropped.
func (p *Process) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), telemetryFlush)
	defer cancel()
	if err := p.Telemetry.Shutdown(ctx); err != nil {
		p.Log.WarnContext(ctx, "telemetry was not flushed", "error", err)
	}
}

func (s *Service) close() {
	for _, release := range slices.Backward(s.Close) {
		release()
	}
}

// serve owns everything that runs from here to the end.
func (p *Process) serve(ctx context.Context, opts Options, s *Service) (err error) {
	server, err := p.newServer(s)
	if err != nil {
		return err
	}
	l, err := listen(ctx, opts.Config)
	if err != nil {
		return err
	}
	defer l.close()
	if opts.Listening != nil {
		opts.Listening(l.grpc.Addr(), l.ops.Addr())
	}
	state := newReadiness(s.Ready)
	// Background work outlives ctx: calls that are still served may need it.
	working, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	failed := make(chan error, len(s.Background)+2)
	var running sync.WaitGroup
	run := func(what string, fn func() error) {
		running.Go(func() {
			if err := fn(); err != nil {
				failed <- fmt.Errorf("%s: %w", what, err)
			}
		})
	}
	ops := newOps(state, p.Telemetry.Metrics())
	run("ops port", func() error { return ops.serve(l.ops) })
	for i, work := range s.Background {
		run(fmt.Sprintf("background work %d", i), func() error { return p.background(working, work) })
	}
	running.Go(func() { state.mirror(working, server.health) })
	run("gRPC port", func() error {
		if err := server.grpc.Serve(l.grpc); !errors.Is(err, grpc.ErrServerStopped) { // the end came before this began
			return err
		}
		return nil
	})
	state.start()
	p.Log.InfoContext(ctx, "serving", "service", opts.Name, "grpc", l.grpc.Addr().String(), "ops", l.ops.Addr().String())
	select {
	case <-ctx.Done():
	case err = <-failed:
		p.Log.ErrorContext(ctx, "ending because something failed", "error", err)
	}
	server.drain(state, opts.Config.Drain)
	stopWork()
	ops.stop()
	running.Wait()
	close(failed)
	for late := range failed {
		err = errors.Join(err, late)
	}
	p.Log.InfoContext(ctx, "ended", "service", opts.Name)
	return err
}

// background runs one function. That its context ended is no failure, however it says so.
func (p *Process) background(ctx context.Context, work func(context.Context) error) error {
	err := work(ctx)
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// listeners are the two ports.
type listeners struct{ grpc, ops net.Listener }

func listen(ctx context.Context, c Config) (listeners, error) {
	var lc net.ListenConfig
	g, err := lc.Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return listeners{}, fmt.Errorf("listen for gRPC: %w", err)
	}
	o, err := lc.Listen(ctx, "tcp", c.Ops)
	if err != nil {
		return listeners{}, errors.Join(fmt.Errorf("listen for probes: %w", err), g.Close())
	}
	return listeners{g, o}, nil
}

// close closes what the servers did not.
func (l listeners) close() {
	_ = l.grpc.Close()
	_ = l.ops.Close()
}
